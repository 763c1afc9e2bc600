"""Variants that name code of the user's own, as ``module:name``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from flexhpc.config.sections.base import FILLED, LIMIT, LOCATION, Count, Section
from flexhpc.config.sections.data import Data
from flexhpc.config.sections.model import Network, unfit_for_json
from flexhpc.config.sections.training import Procedure
from flexhpc.custom.code import NAME, Code
from flexhpc.custom.trainer import Trainer

OWN = "MODULE:NAME"
"""What such a variant is called in lists."""


class CustomCode(Section):
    """What all of them share."""

    called: ClassVar[tuple[str, ...]] = (OWN,)

    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to it."""
    version: Annotated[int, Field(ge=0)] | str | None = None
    """Stands for the source: it is not hashed, and an edit of it measures nothing anew."""
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False), LIMIT] = 3600.0
    """Longest that a call of it may take; a longer one fails the point."""
    code: Annotated[str | None, FILLED] = None
    """Hash of the source."""
    folder: Annotated[str | None, FILLED, LOCATION] = None
    """Where the source lies."""

    @property
    def place(self) -> Code:
        """Where it was found, and in which version."""
        return Code(folder=self.folder or "", hash=self.code or "")

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`."""
        yield from super().clashes(values)
        yield from unfit_for_json("kwargs", values.get("kwargs"), depth=0)
        for key in cls.marked(FILLED):
            if values.get(key) is not None:
                yield key, "is filled in by flexhpc; leave it out"


class CustomModel(CustomCode, Network):
    """A network of your own: a torch.nn.Module, or a function that returns one."""

    does: ClassVar[str] = "flexhpc.models.custom:network"
    images_only: ClassVar[bool] = False

    family: Annotated[str, Field(pattern=NAME)]
    """Its name, as `my_nets:Net`, in a module beside the spec or on Python's path. It is called
    with `kwargs`, and with `shape` (of a sample) and `classes` if it has parameters of these
    names."""


class CustomData(CustomCode, Data):
    """Samples of your own: a function that returns (inputs, labels), or (inputs, labels, test
    inputs, test labels)."""

    does: ClassVar[str] = "flexhpc.data.custom:open_own"

    source: Annotated[str, Field(pattern=NAME)]
    """Its name, as `my_data:load`, in a module beside the spec or on Python's path. It is called
    with `kwargs`. Inputs are images (uint8, (n, channels, height, width) or (n, height, width)) or
    vectors (float32, (n, features)); labels are whole numbers from 0, or whatever has an order."""

    @property
    def own_test(self) -> bool:
        """It may have one."""
        return True

    @classmethod
    def location_key(cls) -> None:
        """None: the folder of the code is not where samples lie."""


class CustomTrainer(CustomCode, Procedure):
    """A procedure of your own: a function that learns inputs and labels, and returns which of them
    it got right."""

    decided_by: ClassVar[str] = "trainer"

    trainer: Annotated[str, Field(pattern=NAME)]
    """Its name, as `my_train:fit`, in a module beside the spec or on Python's path."""
    epochs: Count | None = None
    """Budget in passes over the subset; the trainer is told the budget, and keeps it or not."""

    @property
    def to_call(self) -> Trainer:
        """What is called."""
        return Trainer(
            name=self.trainer,
            code=self.place,
            pinned=self.version is not None,
            kwargs=self.kwargs,
        )
