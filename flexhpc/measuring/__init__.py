"""One point from start to finish: where search, training and store meet."""
