"""Measure a point: search for its EMC, train the probes and store the results."""
