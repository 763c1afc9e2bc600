"""What runs inside a task: claims points, watches clock and signals, measures. No MLflow."""
