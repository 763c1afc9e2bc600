"""Logging of results to MLflow; everything logged can be recreated from the point files.

This file imports nothing, because importing mlflow takes seconds.
"""
