"""Measure a point by connecting search, training and store."""
