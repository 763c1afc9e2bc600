"""Read and validate a profile, reporting all errors at once with their line numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from flexhpc.config.resolve import Report, closest, explain, show
from flexhpc.config.yaml_reader import Document, Problem, raise_problems, read
from flexhpc.launch.profile import LocalProfile, Profile, SlurmProfile

_PROFILES: dict[str, type[Profile]] = {"local": LocalProfile, "slurm": SlurmProfile}


def load_profile(path: Path | None) -> LocalProfile | SlurmProfile:
    """Read a profile; without a path, return the default profile for this machine.

    Raises:
        InputError: the profile is invalid; contains every error of the file.
    """
    if path is None:
        return LocalProfile()
    document = read(path)
    values = document.value if isinstance(document.value, dict) else {}
    cluster = values.get("cluster", "local")
    problems = list(document.problems)

    def report(keys: tuple[str, ...], what: str) -> None:
        line = document.line(keys)
        problems.append(Problem(file=str(path), line=line, key=".".join(keys), what=what))

    cls = _PROFILES.get(cluster) if isinstance(cluster, str) else None
    if cls is None:
        names = list(_PROFILES)
        what = f"{show(cluster)} is not one of {', '.join(names)}{closest(cluster, names)}"
        report(("cluster",), what)
        only_slurm = set(SlurmProfile.model_fields) - set(LocalProfile.model_fields)
        cluster = "slurm" if only_slurm & set(values) else "local"
        cls = _PROFILES[cluster]
        document = replace(document, value={**values, "cluster": cluster})
    for dotted, what in cls.clashes(values):
        report(tuple(dotted.split(".")), what)
    profile = _validated(cls, str(cluster), document, report)
    raise_problems(problems)
    assert isinstance(profile, LocalProfile | SlurmProfile)
    return profile


def _validated(
    cls: type[Profile], cluster: str, document: Document, report: Report
) -> Profile | None:
    try:
        return cls.model_validate(document.value)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            keys, what = explain("", cls, "", detail)
            clusters = [n for n, c in _PROFILES.items() if keys and keys[0] in c.model_fields]
            if detail["type"] == "extra_forbidden" and len(keys) == 1 and clusters:
                what = f"has no effect with cluster: {cluster} (only with {', '.join(clusters)})"
            if detail["type"] == "missing":
                what = "is required"
            if detail["type"] == "value_error":
                what = f"{show(detail['input'])} {detail['ctx']['error']}"
            report(tuple(k for k in keys if not k.startswith(("function-", "constrained-"))), what)
    return None
