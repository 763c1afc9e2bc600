"""EMCs of plain training loops that share no line with flexhpc, to hold its own against."""
