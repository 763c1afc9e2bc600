"""Worker processes: claim points, measure them, and stop on signals or before the time limit.

Does not import MLflow.
"""
