"""Run sweeps as SLURM array jobs: division into arrays, batch scripts, submission, queue status."""
