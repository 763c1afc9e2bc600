"""The container of tasks: which image it is, what can be seen there, how a task gets in.

A script in the folder of each array does it (container.sh), once per process and on its node, so
that what it hands on (SLURM's variables, the folders and GPUs that are there) is the process's own.
Only what is named gets in: not the home, no other variable, none of the host's Python.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flexhpc.config import Point
from flexhpc.config.sections.custom import CustomCode
from flexhpc.errors import InputError
from flexhpc.launch.profile import Container, SlurmProfile
from flexhpc.launch.slurm.commands import Slurm
from flexhpc.versions import source

_SCRIPT = "container.sh"
_BODY = Path(__file__).with_suffix(".sh")


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image, so exactly that a task can tell whether it has the same.

    Attributes:
        name: as a runtime takes it; a file has its whole path.
        digest: ``sha256:...`` of the SIF file, or the image's id.
        mark: size and time of the file, by which a change is seen without reading it all.
    """

    name: str
    digest: str
    mark: str = ""

    @property
    def identity(self) -> str:
        """How records name it."""
        return f"{Path(self.name).name if self.mark else self.name}@{self.digest}"


@dataclass(frozen=True, kw_only=True)
class TaskContainer:
    """A container that tasks can enter.

    Attributes:
        container: what the profile says; python: command that starts Python inside.
        image: what it is made from.
        work: the folder to stand in, as outside: relative paths of a spec begin here.
        binds: ``HOST:INSIDE[:ro]``, of which those are made that exist on the node.
    """

    container: Container
    python: str
    image: Image
    work: Path
    binds: Sequence[str]

    def write(self, folder: Path) -> None:
        """Write the script that enters it, for the tasks of an array."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _SCRIPT).write_text(self.script())

    def command(self, folder: Path) -> str:
        """Return what starts Python inside, as shell."""
        return f"bash {shlex.quote(str(folder / _SCRIPT))} {self.python}"

    def check(self, slurm: Slurm) -> None:
        """Check that it can be entered, and has our versions; if this machine can do that.

        Raises:
            InputError: it cannot, or has others.
        """
        if shutil.which(self.container.runtime) is None:
            return
        with tempfile.TemporaryDirectory() as folder:
            self.write(Path(folder))
            slurm.check_python(
                self.command(Path(folder)),
                f"container: {self.image.name}",
                "build the image again (docs/containers.md)",
                starts_here=True,
            )

    def script(self) -> str:
        """Return the text of the script."""
        values = {
            "image": self.image.name,
            "digest": self.image.digest,
            "identity": self.image.identity,
            "mark": self.image.mark,
            "source": source(),
            "work": str(self.work),
            "runtime": self.container.runtime,
        }
        flags = [word for line in self.container.flags for word in shlex.split(line)]
        return "\n".join(
            [
                "#!/usr/bin/env bash",
                "set -euo pipefail",
                *(f"{name}={shlex.quote(value)}" for name, value in values.items()),
                f"binds=({shlex.join(self.binds)})",
                f"flags=({shlex.join(flags)})",
                "",
                _BODY.read_text(),
            ]
        )


def container_of(profile: SlurmProfile, points: Iterable[Point], run: Path) -> TaskContainer | None:
    """Return the container of a profile's tasks, None if they run in none.

    Bound are the run folder, where everything is written, and for reading the folders and files in
    which the data of these points and code of the user's may lie; then what the profile binds.

    Raises:
        InputError: there is no such image, or a path cannot be bound.
    """
    container = profile.container
    if container is None:
        return None
    work = Path.cwd()
    points = list(points)
    places = {point.data.location for point in points}
    for point in points:
        for section in (point.data, point.model, point.training):
            if isinstance(section, CustomCode):
                places.add(section.folder)
    data = sorted({work / Path(place).expanduser() for place in places if place} | {work / "data"})
    for path in (run, work, *data):
        if any(sign in str(path) for sign in ":,"):
            raise InputError(
                f"{path}: cannot be bound into a container; use a path without : and ,"
            )
    given = [bind if ":" in bind else f"{bind}:{bind}" for bind in container.binds]
    binds = [f"{run}:{run}", *given, *(f"{path}:{path}:ro" for path in data)]
    binds.sort(key=lambda bind: bind.split(":")[1].count("/"))  # a folder before what lies in it
    return TaskContainer(
        container=container,
        python=profile.python or "python",
        image=_image(container),
        work=work,
        binds=binds,
    )


def _image(container: Container) -> Image:
    if container.runtime != "apptainer":
        return Image(name=container.image, digest=_image_id(container.runtime, container.image))
    path = Path(container.image).expanduser().absolute()
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(
            f"profile: container.image: {path}: {error.strerror}; give a SIF file, which "
            "docs/containers.md shows how to build"
        ) from None
    if not path.is_file():
        raise InputError(
            f"profile: container.image: {path}: must be a SIF file (docs/containers.md)"
        )
    mark = f"{stat.st_size} {int(stat.st_mtime)}"
    return Image(name=str(path), digest=_hash(path, mark), mark=mark)


@lru_cache
def _hash(path: Path, mark: str) -> str:
    """Return the hash of a file; ``mark`` makes a changed one another one to the cache."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _image_id(runtime: str, name: str) -> str:
    command = [runtime, "image", "inspect", "--format", "{{.Id}}", name]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(
            f"profile: container.runtime: {runtime} does not work here: {error}"
        ) from None
    if done.returncode:
        message = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise InputError(
            f"profile: container.image: {runtime} has no {name} here ({message}); build it "
            f"(docs/containers.md) or get it (`{runtime} pull`)"
        )
    return f"sha256:{done.stdout.strip().removeprefix('sha256:')}"
