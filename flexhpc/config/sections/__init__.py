"""The sections of a sweep spec as frozen, typed classes. Their field docstrings document the keys.

The sections ``data``, ``model``, ``training`` and ``search`` have one class per variant. The keys
``data.source``, ``model.family``, ``training.optimizer`` (or ``training.trainer``) and
``search.policy`` select the variant. A class defines only the keys of its variant, so that a key
that has no effect is an error. :mod:`flexhpc.config.variants` collects the classes;
docs/extending.md shows how to add a class.
"""
