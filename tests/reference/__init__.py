"""EMCs of plain training loops that are independent of flexhpc."""
