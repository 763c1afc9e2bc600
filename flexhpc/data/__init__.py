"""Load data sets, assign labels and draw subsets.

This package imports torch only to download data sets.
"""

from flexhpc.data.labelling import draw_subset
from flexhpc.data.load import Samples, TestSet, load_samples, load_test_set

__all__ = ["Samples", "TestSet", "draw_subset", "load_samples", "load_test_set"]
