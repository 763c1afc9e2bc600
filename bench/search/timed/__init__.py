"""Training runs that are recorded with the update at which they fit."""
