from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
from jsonschema.protocols import Validator

from flexhpc.config.json_schema import sweep_schema
from flexhpc.config.reference import render_reference
from flexhpc.config.yaml_reader import parse_yaml, read_yaml
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def validator() -> Validator:
    """A validator of specs; the schema is validated once, because that takes a second."""
    schema = sweep_schema()
    cls = jsonschema.validators.validator_for(schema)
    cls.check_schema(schema)
    return cls(schema)


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "sweeps").glob("*.yaml")), ids=lambda p: p.stem
)
def test_included_specs_follow_the_schema(path: Path, validator: Validator) -> None:
    validator.validate(read_yaml(path).value)


@pytest.mark.parametrize(
    "text",
    [
        "name: x\nfixed: {model: {widht: 3}}\n",
        "name: x\nfixed: {data: {source: nowhere}}\n",
        "name: x\ngrid: {model.width: 3}\n",
        "name: x\ngrid: {foo.bar: [3]}\n",
        "fixed: {}\n",
    ],
)
def test_schema_rejects_invalid_specs(text: str, validator: Validator) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(parse_yaml(text, "f").value)


def test_reference_of_keys_is_up_to_date() -> None:
    stored = (REPOSITORY / "docs" / "spec_keys.md").read_text()
    assert stored == render_reference(), (
        "run: python -m flexhpc.config.reference > docs/spec_keys.md"
    )
