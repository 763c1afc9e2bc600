"""Measurement of a point: connects search, training and store."""
