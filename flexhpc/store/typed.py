"""Validation of the values of a point file: types, ranges and consistency."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from typing import Annotated, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, create_model

from flexhpc.search import Estimate
from flexhpc.search.history import EpsEstimate
from flexhpc.store.record import Header, ProbeSummary
from flexhpc.store.seal import CorruptFile

_STRICT = ConfigDict(strict=True, extra="ignore")
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Time = Annotated[FiniteFloat, Field(ge=0, le=1e11)]
_Word = Annotated[str, Field(pattern="^[a-z_]{1,40}$")]
_COUNTS = {"cost": _Count, "seconds": _Time, "epochs": _Count, "verdict": _Word}


def _model(kind: type, without: Collection[str] = (), **narrower: Any) -> type[BaseModel]:
    """Create a pydantic model that validates plain values for a dataclass.

    Fields without a default are required.

    Args:
        kind: dataclass.
        without: names of fields that are not validated.
        narrower: stricter types of fields, by name.
    """
    hints = {**get_type_hints(kind), **narrower}
    wanted: dict[str, Any] = {
        field.name: (
            hints[field.name],
            ... if field.default is MISSING and field.default_factory is MISSING else None,
        )
        for field in fields(kind)
        if field.name not in without
    }
    made: type[BaseModel] = create_model(kind.__name__, __config__=_STRICT, **wanted)
    return made


class _Evaluation(BaseModel):
    """Result of :func:`flexhpc.measuring.evaluate.evaluate`."""

    model_config = _STRICT

    asked: dict[str, int]
    interpolated: bool
    n: _Count
    n_test: _Count
    verdict: _Word
    train_accuracy: float
    test_accuracy: float
    gap: float
    test_loss: float
    calibration_error: float
    epochs: _Count
    cost: _Count
    seconds: _Time


_HEADER = _model(
    Header, n_total=Annotated[int, Field(ge=1, le=2**27)], n_limit=_Count, params=_Count,
    classes=_Count, bits=_Count,
)  # fmt: skip
_PROBE = _model(
    ProbeSummary, without=["loss_curve"], **_COUNTS, n=Annotated[int, Field(ge=1)], repeat=_Count,
    n_errors=_Count, steps=_Count, arm=_Count, finished=_Time,
)  # fmt: skip
_EPS: Any = _model(EpsEstimate)
_ESTIMATE = _model(
    Estimate, emc=_Count, emc_lo=_Count, probes=_Count, cost=_Count, arm=_Count,
    by_eps=dict[str, _EPS],
)  # fmt: skip


def header(values: Mapping[str, Any]) -> dict[str, Any]:
    """Validate the values of a header.

    Raises:
        ValueError: a value is missing or invalid.
    """
    return _checked(_HEADER, values, "the header")


def probe(values: Mapping[str, Any], name: str, n_total: int) -> dict[str, Any]:
    """Validate the values of a probe, without its arrays.

    Args:
        values: values by name.
        name: name of the probe in error messages.
        n_total: number of samples in the training set, an upper bound on ``n``.

    Raises:
        ValueError: a value is missing or invalid.
    """
    found = _checked(_PROBE, values, f"probe {name}")
    if not found["n_errors"] <= found["n"] <= n_total:
        raise CorruptFile(f"probe {name}: n or n_errors is too large")
    return found


def estimate(values: Mapping[str, Any]) -> dict[str, Any]:
    """Validate the values of an estimate; see :func:`header`."""
    return _checked(_ESTIMATE, values, "the estimate")


def evaluation(values: Mapping[str, Any]) -> dict[str, Any]:
    """Validate the values of an evaluation; see :func:`header`."""
    return _checked(_Evaluation, values, "the evaluation")


def _checked(model: type[BaseModel], values: Mapping[str, Any], what: str) -> dict[str, Any]:
    try:
        return model.model_validate(values).model_dump(exclude_unset=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise CorruptFile(f"{what}: {key}: {first['msg'].lower()}") from None
