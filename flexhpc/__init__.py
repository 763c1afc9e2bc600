"""flexhpc measures how much data a neural network can fit in practice."""

__version__ = "0.1.0"
