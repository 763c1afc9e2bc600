"""Code that users bring, as ``module:name`` or as objects: find, hash, import and run it."""
