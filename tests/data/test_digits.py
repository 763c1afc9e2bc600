"""The digits, which are read without importing scikit-learn."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from sklearn.datasets import load_digits

from flexhpc.config.sections.data import Digits
from flexhpc.data.synthetic import open_digits


def test_they_are_those_of_scikit_learn() -> None:
    there, train = load_digits(), open_digits(Digits(source="digits")).train
    images = train.gather()
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[:, 0], there.images)
    np.testing.assert_array_equal(train.labels, there.target)


def test_reading_them_imports_no_scikit_learn() -> None:
    code = (
        "import sys; from flexhpc.config.sections.data import Digits; from flexhpc.data import "
        "load_samples; load_samples(Digits(source='digits'), 0); "
        "assert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
