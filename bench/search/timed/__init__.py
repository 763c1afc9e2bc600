"""Training runs recorded with the update at which they fit."""
