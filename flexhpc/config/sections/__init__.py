"""The sections of a sweep spec as frozen, typed classes. Their field docstrings document the keys.

A section has one class per variant (``data.source``, ``model.family``, ``training.optimizer``,
``search.policy``), so that a key that has no effect for the chosen variant is an error.
:mod:`flexhpc.config.variants` collects the classes; docs/extending.md shows how to add one.

Rule for later versions: if the default of a new field reproduces the previous behaviour, the
default is ``None`` or the field is marked ``LATER``. Such a field is omitted from the canonical
JSON at its default, which keeps the ids of existing points. A field whose default changes results
is marked ``Since``, with a new ``HASH_VERSION`` and the value that reproduces the previous
behaviour.
"""
