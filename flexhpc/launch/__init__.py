"""Launch sweeps: profiles, local workers and SLURM array jobs. Does not import torch."""
