"""Worker processes: claim points, measure them, and stop on signals or before the time limit.

This package does not import MLflow.
"""
