"""EMCs at other budgets, from training runs recorded with the update at which they fit."""
