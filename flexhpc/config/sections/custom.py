"""Section variants implemented by user code, which the spec names as ``module:name``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from flexhpc.config.sections.base import INTERNAL, LIMIT, LOCATION, Count, Problems, Section
from flexhpc.config.sections.data import Data
from flexhpc.config.sections.model import Network, json_problems
from flexhpc.config.sections.training import Procedure
from flexhpc.custom.code import IMPORT_PATH_PATTERN, Code
from flexhpc.custom.trainer import Trainer

CUSTOM = "MODULE:NAME"
"""Placeholder for the import path of user code in lists of variants."""


class CustomCode(Section):
    """Keys that all variants with user code share."""

    aliases: ClassVar[tuple[str, ...]] = (CUSTOM,)

    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments with which the user's class or function is called."""
    version: Annotated[int, Field(ge=0)] | str | None = None
    """Version of the code. If it is set, it replaces the hash of the source in a point's id, so
    that an edit of the code does not cause new measurements."""
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False), LIMIT] = 3600.0
    """Time limit of one call of the code, in seconds. If a call takes longer, the point fails."""
    code: Annotated[str | None, INTERNAL] = None
    """Hash of the source code."""
    folder: Annotated[str | None, INTERNAL, LOCATION] = None
    """Folder that contains the source code."""

    @property
    def user_code(self) -> Code:
        """Folder and hash of the code."""
        return Code(folder=self.folder or "", hash=self.code or "")

    def combination_problems(self) -> Problems:
        yield from super().combination_problems()
        yield from json_problems("kwargs", self.kwargs)


class CustomModel(CustomCode, Network):
    """A custom network: a torch.nn.Module, or a function that returns one."""

    import_path: ClassVar[str] = "flexhpc.models.custom:build_custom"
    images_only: ClassVar[bool] = False

    family: Annotated[str, Field(pattern=IMPORT_PATH_PATTERN)]
    """Import path of the network, such as `my_nets:Net`. The module must be in the folder of the
    spec or on Python's path. The class or function is called with `kwargs`. If it has parameters
    named `shape` and `classes`, it also receives the shape of a sample and the number of
    classes."""


class CustomData(CustomCode, Data):
    """Custom samples: a function that returns (inputs, labels), or (inputs, labels, test inputs,
    test labels)."""

    import_path: ClassVar[str] = "flexhpc.data.custom:open_custom"
    has_test_set: ClassVar[bool] = True

    source: Annotated[str, Field(pattern=IMPORT_PATH_PATTERN)]
    """Import path of the function, such as `my_data:load`. The module must be in the folder of the
    spec or on Python's path. The function is called with `kwargs`. Inputs are images (uint8, shape
    (n, channels, height, width) or (n, height, width)) or vectors (float32, shape (n, features)).
    Labels are integers from 0, or any values that can be sorted."""

    @property
    def has_tokens(self) -> None:
        return None

    @classmethod
    def location_key(cls) -> None:
        """Return None, because the folder of the code is not the location of samples."""


class CustomTrainer(CustomCode, Procedure):
    """A custom trainer: a function that trains a model on inputs and labels, and returns which
    samples the model classifies correctly."""

    discriminator: ClassVar[str] = "trainer"

    trainer: Annotated[str, Field(pattern=IMPORT_PATH_PATTERN)]
    """Import path of the trainer, such as `my_train:fit`. The module must be in the folder of the
    spec or on Python's path."""
    epochs: Count | None = None
    """Budget in passes over the subset of a probe. It is passed to the trainer, which must enforce
    it."""

    @property
    def custom_trainer(self) -> Trainer:
        """The trainer, with its code and keyword arguments."""
        return Trainer(name=self.trainer, code=self.user_code, kwargs=self.kwargs)
