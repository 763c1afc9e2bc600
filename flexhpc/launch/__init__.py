"""Where and how points run: profiles, workers of this machine, arrays of a cluster. No torch."""
