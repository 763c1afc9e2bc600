"""Find, hash, import and run custom code, specified as ``module:name`` or as Python objects."""
