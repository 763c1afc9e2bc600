from __future__ import annotations

import jsonschema
import pytest
from jsonschema.protocols import Validator

from flexhpc.config.json_schema import sweep_schema
from flexhpc.config.reference import reference
from flexhpc.config.yaml_reader import parse, read
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def schema() -> Validator:
    """What checks a document; the schema itself is checked, too."""
    found = sweep_schema()
    kind = jsonschema.validators.validator_for(found)
    kind.check_schema(found)
    return kind(found)


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "sweeps").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_spec_of_the_project_follows_the_schema(path, schema: Validator) -> None:
    schema.validate(read(path).value)


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
def test_the_schema_refuses(text: str, schema: Validator) -> None:
    with pytest.raises(jsonschema.ValidationError):
        schema.validate(parse(text, "f").value)


def test_the_reference_of_keys_is_up_to_date() -> None:
    stored = (REPOSITORY / "docs" / "spec_keys.md").read_text()
    assert stored == reference(), "run: python -m flexhpc.config.reference > docs/spec_keys.md"
