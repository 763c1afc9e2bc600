from __future__ import annotations

import jsonschema
import pytest

from flexhpc.spec.json_schema import sweep_schema
from flexhpc.spec.reference import reference
from flexhpc.spec.yaml_reader import parse, read
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "sweeps").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_spec_of_the_project_follows_the_schema(path) -> None:
    jsonschema.validate(read(path).value, sweep_schema())


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
def test_the_schema_refuses(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(parse(text, "f").value, sweep_schema())


def test_the_reference_of_keys_is_up_to_date() -> None:
    stored = (REPOSITORY / "docs" / "spec_keys.md").read_text()
    assert stored == reference(), "run: python -m flexhpc.spec.reference > docs/spec_keys.md"
