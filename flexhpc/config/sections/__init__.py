"""The sections of a sweep spec as frozen, typed classes. The field docs are the documentation.

A section has one class per variant (``data.source``, ``model.family``, ``training.optimizer``,
``search.policy``), so that a key which has no effect for the variant is an error, not a surprise.
:mod:`flexhpc.config.variants` finds them; docs/extending.md shows how to add one.

Rule for later versions: a new field whose default means "as before" is ``None`` or marked
``LATER``: both are left out of the canonical JSON, which keeps the ids of old points. One whose
default changes results is marked ``Since``, with a new ``HASH_VERSION`` and what points did before.
"""
