"""Sweeps as SLURM array jobs: layout, script, submission, queue."""
