"""Where and how points run: profiles, workers, the live table, status."""
