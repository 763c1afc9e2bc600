"""The sections of a sweep spec as frozen, typed classes. Their field docstrings document the keys.

A section has one class per variant (``data.source``, ``model.family``, ``training.optimizer``,
``search.policy``), so that a key that has no effect for the chosen variant is an error.
:mod:`flexhpc.config.variants` collects the classes; docs/extending.md shows how to add one.
"""
