"""The ``evaluate`` section: what is measured of a point beside its EMC."""

from __future__ import annotations

from flexhpc.spec.sections.base import Section


class Evaluate(Section):
    """What is measured of a point beside its EMC. It changes no EMC, and so no point's id."""

    full: bool = False
    """Trains each point's model on the full training set as well, and records accuracy and
    calibration on the test set. Points whose labels are random or whose inputs are noise, which
    nothing generalizes from, are left out."""
