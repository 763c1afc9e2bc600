"""Read and validate a profile, reporting all errors at once with their line numbers."""

from __future__ import annotations

from pathlib import Path

from flexhpc.config.validation import validate
from flexhpc.config.variants import VariantUnion
from flexhpc.config.yaml_reader import raise_if_problems, read_yaml
from flexhpc.launch.profile import LocalProfile, Profile, SlurmProfile

_PROFILES: VariantUnion[Profile] = VariantUnion(
    "cluster", {"local": LocalProfile, "slurm": SlurmProfile}
)


def load_profile(path: Path | None) -> LocalProfile | SlurmProfile:
    """Read a profile; without a path, return the default profile, which uses this machine.

    Raises:
        InputError: the profile is invalid; the message lists all errors.
    """
    if path is None:
        return LocalProfile()
    document = read_yaml(path)
    profile, problems = validate(_PROFILES, {"cluster": "local", **document.value})
    for path_in_file, problem in problems:
        document.add_problem_at(path_in_file, problem)
    raise_if_problems(document.problems)
    assert isinstance(profile, LocalProfile | SlurmProfile)
    return profile
