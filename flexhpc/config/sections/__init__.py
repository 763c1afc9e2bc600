"""The sections of a sweep spec as frozen, typed classes. Their field docstrings document the keys.

A section has one class per variant, which ``data.source``, ``model.family``, ``training.optimizer``
or ``search.policy`` selects. A class defines only the keys of its variant, so that a key that has
no effect is an error. :mod:`flexhpc.config.variants` collects the classes; docs/extending.md shows
how to add one.
"""
