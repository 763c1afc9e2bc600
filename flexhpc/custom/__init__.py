"""Custom code of users, given as ``module:name`` or as objects: find, hash, import and run it."""
