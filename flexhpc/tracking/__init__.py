"""Logging of results to MLflow; everything logged can be recreated from the point files.

Imports nothing, because importing mlflow takes seconds.
"""
