from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexhpc.config.yaml_reader import parse_scalar, parse_yaml
from flexhpc.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("-2", -2), ("+64", 64),
        ("010", 10), ("1_000", 1000), ("1_", "1_"), ("1__0", "1__0"), ("1_.5", "1_.5"),
        ("0x1f", 31), ("no", "no"), ("on", "on"), ("off", "off"),
        ("yes", "yes"), ("y", "y"), ("true", True), ("False", False), ("null", None), ("~", None),
        ("", None), ("12:30", "12:30"), ("2024-01-01", "2024-01-01"), ("1e", "1e"), (".", "."),
        ("1.2.3", "1.2.3"), (".inf", float("inf")), ("-.inf", float("-inf")),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    result = parse_scalar(text)
    assert result == value
    assert type(result) is type(value)


@given(st.integers() | st.floats(allow_nan=False))
def test_numbers_are_read_as_written(number: float) -> None:
    assert parse_scalar(repr(number).replace("inf", ".inf")) == number


@pytest.mark.parametrize("text", ["", "- 1\n", "a: [1\n", "a: b: c\n", "\t- x", "a: *x\n", "'"])
def test_text_that_is_not_a_mapping_gives_a_one_line_error(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_yaml(text, "f.yaml")
    assert len(caught.value.lines) == 1
    assert caught.value.lines[0].startswith("f.yaml:")


def test_recursive_aliases_and_merge_keys_are_reported() -> None:
    document = parse_yaml("a: &x\n  b: *x\nc: !!python/name:os.system x\n<<: {d: 1}\n", "f")
    problems = " ".join(str(p) for p in document.problems)
    assert "contains itself" in problems
    assert "f:4: (top): merge keys" in problems


def test_alias_bombs_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexhpc.config.yaml_reader._MAX_VALUES", 1_000)
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(InputError, match="contains more than 1000 values"):
        parse_yaml("\n".join(lines), "f")
