"""Python API: measure a point, run a sweep, load a run."""
