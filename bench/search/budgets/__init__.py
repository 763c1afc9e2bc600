"""Evaluation of EMCs that are computed for other budgets, on recorded training runs."""
