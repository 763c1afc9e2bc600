"""Run sweeps as SLURM array jobs: division, batch script, submission and queue status."""
