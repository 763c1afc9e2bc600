"""Logging to MLflow, which is a view of the store.

Imports nothing, because importing mlflow takes seconds.
"""
