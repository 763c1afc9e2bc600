"""The Python interface: measure a point, run a sweep, load a run."""
