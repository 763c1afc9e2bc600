"""EMCs of plain training loops, independent of flexhpc, to compare with."""
