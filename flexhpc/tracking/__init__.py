"""MLflow, a view of the store. Nothing is imported here: mlflow takes seconds to load."""
