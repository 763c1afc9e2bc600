"""Find, hash, import and run custom code, given as ``module:name`` or as Python objects."""
