"""The ``data`` section: which samples there are, and how they are labelled."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from flexhpc.spec.sections.base import Count, Section


class Data(Section):
    """Which samples there are, and how they are labelled."""

    where_only: ClassVar[frozenset[str]] = frozenset({"root"})
    source: str
    """Where the samples come from."""
    labels: Literal["original", "random"] = "original"
    """`original`: the data set's own labels. `random`: uniform, drawn once per seed and sample."""
    n_max: Count | None = None
    """Largest n that is tried (samples); by default the whole training set."""
    subset: Literal["fresh", "nested"] = "fresh"
    """`fresh`: an independent subset per probe. `nested`: prefixes of one permutation per seed."""
    conflicts: Literal["report", "drop"] = "report"
    """Identical inputs with different labels: `report` them, or `drop` all but the majority."""


class Digits(Data):
    """The 1,797 8x8 digits that ship with scikit-learn."""

    source: Literal["digits"]


class ImageSet(Data):
    """A well-known image set, read from the layouts that users already have."""

    source: Literal["mnist", "fashion_mnist", "cifar10", "cifar100"]
    root: str | None = None
    """Folder of your copy; by default $FLEXHPC_DATA, ./data and the system's are searched."""


class ImageFolder(Data):
    """Images in ROOT/[train/]CLASS/*, all of one size."""

    source: Literal["image_folder"]
    root: str
    """Folder that holds train/CLASS/ or CLASS/ folders."""
    name: str | None = None
    """Tells two image folders of one sweep apart, as `root` is no part of a point's identity."""


class Gaussian(Data):
    """Standard-normal inputs. Original labels come from a random linear teacher."""

    source: Literal["gaussian"]
    dims: Count = 100
    """Number of features."""
    classes: Annotated[int, Field(ge=2, le=10**6)] = 2
    """Number of classes."""
    size: Count = 10_000
    """Number of samples in the training set."""
