"""The ``data`` section: the samples and their labels."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from flexhpc.config.sections.base import (
    DATA_SET_NAME,
    LIMIT,
    LOCATION,
    Count,
    Fraction,
    Problems,
    Section,
)

Classes = Annotated[int, Field(ge=2, le=10**6)]
IGNORED = -100
"""Label of a token that need not be predicted, as in torch and transformers."""
PADDING = -1
"""Id of the tokens that fill up shorter sequences."""


@dataclass(frozen=True, kw_only=True)
class DataSetInfo:
    """Properties of a data set that are known without reading its files.

    Attributes:
        shape: shape of a sample, (channels, height, width) or (features,).
        classes: number of classes.
        size: number of samples in the training set.
        coarse: number of super-classes, 0 if there are none.
    """

    shape: tuple[int, ...]
    classes: int
    size: int
    coarse: int = 0


class Data(Section):
    """The samples and their labels.

    ``import_path`` names a function that takes the section and returns a
    flexhpc.data.dataset.Source. A variant adds the keys that are needed to read its samples. The
    key with the location of the samples, such as ``path``, is marked ``LOCATION``.
    """

    has_vectors: ClassVar[bool] = False
    """Whether samples are feature vectors instead of images."""
    seeded: ClassVar[bool] = False
    """Whether samples are generated from the seed of the point instead of read from files. If so,
    the implementation receives the seed as a second argument."""

    source: str
    """Source of the samples."""
    labels: Literal["original", "random", "corrupted"] = "original"
    """`original`: the labels of the data set. `random`: uniformly random labels, drawn once per
    seed and sample. `corrupted`: exactly the fraction `corruption` of the labels is wrong."""
    corruption: Annotated[float, Field(gt=0, le=1)] | None = None
    """Fraction of the training samples whose label is replaced by a wrong label, drawn uniformly
    from the other classes."""
    classes: Classes | None = None
    """With `labels: random`, the number of classes of the random labels. With `merge: random`, the
    number of classes into which the original classes are merged."""
    merge: Literal["random", "coarse"] | None = None
    """Merges classes. `random`: once per seed, the original classes are divided at random into
    `classes` groups with nearly equal numbers of classes. `coarse`: each class is replaced by its
    super-class."""
    class_map: list[Annotated[int, Field(ge=0, lt=10**6)]] | None = None
    """List with the new class of each original class, to merge classes in a way that `merge` does
    not support. The new classes are 0, 1, 2, ... without gaps."""
    inputs: Literal["original", "gaussian", "permuted", "permuted_each"] = "original"
    """`gaussian`: each sample is replaced by normal noise with the mean and standard deviation of
    the training set. `permuted`: one permutation of the pixels (or features) for all samples.
    `permuted_each`: a different permutation for each sample. Noise and permutations are drawn once
    per seed."""
    standardise: Literal["channel", "pixel", "set", "none"] = "channel"
    """Standardisation of the inputs by the mean and standard deviation over the training set: per
    `channel` (per feature for vectors), per `pixel`, or over the whole `set`. `none`: no
    standardisation; images are scaled to the range 0 to 1."""
    n_max: Count | None = None
    """Largest number n of samples that the search tries; by default the size of the training
    set."""
    subset: Literal["fresh", "nested"] = "fresh"
    """`fresh`: every probe has an independent random subset. `nested`: for each seed, all subsets
    are prefixes of one permutation of the samples."""
    conflicts: Literal["report", "drop"] = "report"
    """Handling of groups of identical inputs with different labels. `report`: the number of groups
    is reported. `drop`: in each group, only the samples with the majority label are kept."""
    test_fraction: Fraction = 0.0
    """Fraction of the samples held out as a test set, for data sets without a test set. The
    held-out samples are the same for every seed and are never used for training."""

    @property
    def static_info(self) -> DataSetInfo | None:
        """Properties that are known without reading files, such as shape and classes; None if files
        must be read."""
        return None

    @property
    def has_test_set(self) -> bool:
        """Whether the source has, or may have, a test set."""
        return False

    @property
    def has_tokens(self) -> bool | None:
        """Whether samples are sequences with one label per token, which is predicted from the
        previous tokens; None if this is not known before the samples are read."""
        return False

    @property
    def location(self) -> str | None:
        """Location of the samples; None if it is not set."""
        key = self.location_key()
        return None if key is None else getattr(self, key)

    @classmethod
    def location_key(cls) -> str | None:
        """Return the name of the key with the location of the samples; None if there is none."""
        return next(iter(cls.fields_with_mark(LOCATION)), None)

    @classmethod
    def reading_keys(cls) -> list[str]:
        """Return the keys that determine the samples before preprocessing.

        These are ``source``, the keys that the variant adds and, if ``seeded`` is True,
        ``classes``. Keys marked ``LOCATION``, ``LIMIT`` or ``DATA_SET_NAME`` are excluded.
        """
        excluded = set(Data.model_fields) - {"source"}
        for mark in (LOCATION, LIMIT, DATA_SET_NAME):
            excluded |= set(cls.fields_with_mark(mark))
        if cls.seeded:
            excluded -= {"classes"}
        return [name for name in cls.model_fields if name not in excluded]

    def keys_of_labelled_samples(self) -> list[str]:
        """Return the keys that are set, but have no effect on samples with one label per token."""
        keys = ("labels", "classes", "merge", "class_map", "inputs", "test_fraction", "conflicts")
        fields = type(self).model_fields
        return [key for key in keys if getattr(self, key) != fields[key].default]

    def combination_problems(self) -> Problems:
        classes = "classes" in self.model_fields_set
        if self.labels == "corrupted" and self.corruption is None:
            yield "corruption", "is required with labels: corrupted; give a fraction, such as 0.2"
        if self.labels != "corrupted" and self.corruption is not None:
            yield "corruption", f"has no effect with labels: {self.labels}; remove it"
        if self.merge == "random" and not classes:
            yield "classes", "is required with merge: random; give the number of groups"
        if self.merge == "coarse" and classes:
            yield "classes", "has no effect with merge: coarse; remove it"
        for key in ("merge", "class_map"):
            if self.labels == "random" and getattr(self, key) is not None:
                yield key, "has no effect with labels: random; remove it"
        if self.class_map is not None:
            if self.merge is not None or classes:
                yield "class_map", "cannot be combined with merge or classes; remove them"
            targets = sorted(set(self.class_map))
            if len(targets) < 2 or targets != list(range(len(targets))):
                yield "class_map", f"must contain the classes 0, 1, ... without gaps, not {targets}"
        fixed = type(self).model_fields["classes"].default is None  # the data set fixes it
        if fixed and classes and self.labels != "random" and self.merge is None:
            yield "classes", "has no effect without merge: random or labels: random; remove it"
        if not isinstance(self, Images) and self.standardise == "pixel":
            problem = "pixel is for images only; use channel, which standardises per feature"
            yield "standardise", problem


class Images(Data):
    """Keys that all image data sets share."""

    side: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Side length in pixels to which images are resized: the shorter side is resized, then the
    centre is cropped. By default images keep their size."""
    colour: Literal["grey", "rgb"] | None = None
    """`grey`: convert images to one channel, the luma of a colour image (ITU-R 601). `rgb`: convert
    images to three channels, which are equal for grey images."""


class Digits(Images):
    """The 1,797 images of digits (8x8 pixels) that are included in scikit-learn."""

    import_path: ClassVar[str] = "flexhpc.data.synthetic:open_digits"

    source: Literal["digits"]

    @property
    def static_info(self) -> DataSetInfo:
        return DataSetInfo(shape=(1, 8, 8), classes=10, size=1_797)


class ImageSet(Images):
    """A standard image data set, read from its usual file formats."""

    import_path: ClassVar[str] = "flexhpc.data.image_sets:open_image_set"

    source: Literal["mnist", "fashion_mnist", "cifar10", "cifar100", "cifar5m"]
    root: Annotated[str | None, LOCATION] = None
    """Folder of the data set, or a file written by `flexhpc data prepare`. By default
    $FLEXHPC_DATA, ./data and the system's data folders are searched."""

    @property
    def static_info(self) -> DataSetInfo | None:
        return {
            "mnist": DataSetInfo(shape=(1, 28, 28), classes=10, size=60_000),
            "fashion_mnist": DataSetInfo(shape=(1, 28, 28), classes=10, size=60_000),
            "cifar10": DataSetInfo(shape=(3, 32, 32), classes=10, size=50_000),
            "cifar100": DataSetInfo(shape=(3, 32, 32), classes=100, size=50_000, coarse=20),
        }.get(self.source)

    @property
    def has_test_set(self) -> bool:
        """Whether the source has a test set. Only CIFAR-5m has none."""
        return self.source != "cifar5m"


class ImageFolder(Images):
    """Images in `ROOT/[train/]CLASS/*`, all of one size or resized to `side`."""

    import_path: ClassVar[str] = "flexhpc.data.image_folder:open_image_folder"
    has_test_set: ClassVar[bool] = True

    source: Literal["image_folder"]
    root: Annotated[str, LOCATION]
    """Folder that contains train/CLASS/ or CLASS/ folders, or a file written by `flexhpc data
    prepare`."""
    name: Annotated[str | None, DATA_SET_NAME] = None
    """Name that distinguishes two image folders in one sweep, because `root` is not part of a
    point's id."""


class KnownTable(Data):
    """A standard UCI table: Covertype, Adult, or Default of Credit Card Clients (Taiwan)."""

    import_path: ClassVar[str] = "flexhpc.data.uci:open_known_table"
    has_vectors: ClassVar[bool] = True

    source: Literal["covtype", "adult", "credit"]
    root: Annotated[str | None, LOCATION] = None
    """Folder or file of the data set, or a file written by `flexhpc data prepare`. By default
    $FLEXHPC_DATA and ./data are searched."""

    @property
    def has_test_set(self) -> bool:
        """Whether the source has a test set. Only Adult has one."""
        return self.source == "adult"


class Table(Data):
    """Any table with a header: CSV (also compressed with gzip, bzip2, xz, zip or tar) or Parquet.
    Numeric columns are standardised; all other columns are one-hot encoded. A missing number is
    replaced by the mean of its column, and a missing category is encoded as all zeros. Each column
    with missing values has an additional feature, which is 1 in the rows where the value is
    missing."""

    import_path: ClassVar[str] = "flexhpc.data.table:open_table"
    has_vectors: ClassVar[bool] = True

    source: Literal["table"]
    path: Annotated[str, LOCATION]
    """The file of the table, or a file written by `flexhpc data prepare`."""
    target: str
    """Column that contains the classes."""
    categorical: list[str] | None = None
    """Numeric columns that are treated as categorical. Text columns are always categorical."""
    drop: list[str] | None = None
    """Columns to remove, such as an index."""
    name: Annotated[str | None, DATA_SET_NAME] = None
    """Name that distinguishes two tables in one sweep, because `path` is not part of a point's
    id."""

    def combination_problems(self) -> Problems:
        yield from super().combination_problems()
        categorical, drop = self.categorical or [], self.drop or []
        for key, columns in (("categorical", categorical), ("drop", drop)):
            if self.target in columns:
                yield key, f"contains the target {self.target}, which is not an input; remove it"
        for column in sorted({*categorical} & {*drop}):
            problem = f"contains {column}, which is also in categorical"
            yield "drop", f"{problem}; remove it from one list"


class Gaussian(Data):
    """Standard-normal inputs. The `original` labels come from a random linear teacher."""

    import_path: ClassVar[str] = "flexhpc.data.synthetic:draw_gaussian"
    has_vectors: ClassVar[bool] = True
    seeded: ClassVar[bool] = True

    source: Literal["gaussian"]
    dims: Count = 100
    """Number of features."""
    classes: Classes = 2
    """Number of classes."""
    size: Count = 10_000
    """Number of samples in the training set."""

    @property
    def static_info(self) -> DataSetInfo:
        return DataSetInfo(shape=(self.dims,), classes=self.classes, size=self.size)

    def combination_problems(self) -> Problems:
        yield from super().combination_problems()
        if self.inputs != "original":
            yield "inputs", "has no effect on Gaussian inputs; remove it"
        if self.standardise in ("set", "none"):
            yield "standardise", "has no effect on Gaussian inputs; remove it"
        if self.merge is not None:
            yield "merge", "has no effect with source: gaussian; give classes instead"


class Tokens(Data):
    """Keys that all sources of random tokens share."""

    has_vectors: ClassVar[bool] = True
    seeded: ClassVar[bool] = True
    has_tokens: ClassVar[bool] = True

    vocabulary: Annotated[int, Field(ge=2, le=2**20)] = 64
    """Number of different tokens."""
    size: Count = 10_000
    """Number of sequences in the training set."""

    @property
    @abstractmethod
    def sequence_length(self) -> int:
        """Number of tokens per sequence."""

    @property
    @abstractmethod
    def prompt_length(self) -> int:
        """Number of initial tokens that need not be predicted correctly."""

    @property
    def first_in_loss(self) -> int:
        """Index of the first token of a sequence that contributes to the loss."""
        return 0

    @property
    def static_info(self) -> DataSetInfo:
        return DataSetInfo(shape=(self.sequence_length,), classes=self.vocabulary, size=self.size)

    def combination_problems(self) -> Problems:
        keys = self.keys_of_labelled_samples()
        for key in (*keys, *(["standardise"] if self.standardise != "channel" else [])):
            yield key, f"has no effect with source: {self.source}; remove it"


class RandomTokens(Tokens):
    """Sequences of uniformly random tokens. Each token is predicted from the previous tokens. A
    sequence is fitted if every token after its prompt has the highest predicted probability."""

    import_path: ClassVar[str] = "flexhpc.data.synthetic:draw_random_tokens"

    source: Literal["random_tokens"]
    length: Annotated[int, Field(ge=1, le=2**16)] = 16
    """Number of tokens per sequence."""
    prompt: Annotated[int, Field(ge=0, lt=2**16)] = 4
    """Number of initial tokens that need not be predicted correctly, because too few tokens precede
    them to identify the sequence. The loss includes all tokens."""

    @property
    def sequence_length(self) -> int:
        return self.length

    @property
    def prompt_length(self) -> int:
        return self.prompt

    def combination_problems(self) -> Problems:
        yield from super().combination_problems()
        if self.prompt >= self.length:
            yield "prompt", f"must be below length ({self.length}), not {self.prompt}"


class KeyValue(Tokens):
    """Random facts: each sequence is a random key, which no other sequence has, followed by a
    random value. The tokens of the value are predicted from the key and the previous tokens of the
    value; only they contribute to the loss. A fact is fitted if every token of its value has the
    highest predicted probability."""

    import_path: ClassVar[str] = "flexhpc.data.synthetic:draw_key_value"

    source: Literal["key_value"]
    key_length: Annotated[int, Field(ge=1, le=2**10)] = 4
    """Number of tokens per key."""
    value_length: Annotated[int, Field(ge=1, le=2**10)] = 4
    """Number of tokens per value."""

    @property
    def sequence_length(self) -> int:
        return self.key_length + self.value_length

    @property
    def prompt_length(self) -> int:
        return self.key_length

    @property
    def first_in_loss(self) -> int:
        return self.key_length

    def combination_problems(self) -> Problems:
        yield from super().combination_problems()
        if 2 * self.size > self.vocabulary**self.key_length:
            problem = f"{self.size} distinct keys need more tokens"
            yield "size", f"{problem}; use a larger vocabulary or key_length"
