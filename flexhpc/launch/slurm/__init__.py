"""Sweeps as SLURM array jobs: layout, batch script, submission and queue status."""
