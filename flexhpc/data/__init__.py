"""Sources, labels, conflicts and subsets. Pure numpy: no torch but for torchvision's download."""

from flexhpc.data.labelling import draw_subset
from flexhpc.data.load import Samples, load_samples

__all__ = ["Samples", "draw_subset", "load_samples"]
