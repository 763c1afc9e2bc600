"""Container in which tasks run: its image, its bind mounts and the script that starts it.

The script (container.sh in the folder of each array) runs once per process of a task, on the node
of the process. It gives the container access to the GPUs of the process, passes selected
environment variables (such as SLURM*, FLEXHPC_* and CUDA_*), and binds the folders that exist on
the node. The home folder, other environment variables and Python packages of the host are not
available in the container.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flexhpc.config.pretrained import configuration_folder
from flexhpc.config.sections.base import LOCATION
from flexhpc.errors import InputError
from flexhpc.launch.prepare import PreparedRun
from flexhpc.launch.profile import Container, SlurmProfile
from flexhpc.launch.slurm.commands import Slurm
from flexhpc.versions import source_hash

_SCRIPT = "container.sh"
_BODY = Path(__file__).with_suffix(".sh")


@dataclass(frozen=True, kw_only=True)
class ContainerImage:
    """A container image. Each task checks that the image has not changed since the submission.

    Attributes:
        name: name that is passed to the runtime: the absolute path of a SIF file, or the name of an
            image of podman or docker.
        digest: hash of the SIF file, or image id of podman or docker, as ``sha256:...``.
        file_stamp: size and modification time of the SIF file, by which tasks detect changes of the
            file; empty for images of podman and docker.
    """

    name: str
    digest: str
    file_stamp: str = ""

    @property
    def identity(self) -> str:
        """Text that identifies the image in run.json and probes: ``NAME@DIGEST``.

        For a SIF file, NAME is the file name without its folder.
        """
        return f"{Path(self.name).name if self.file_stamp else self.name}@{self.digest}"


@dataclass(frozen=True, kw_only=True)
class TaskContainer:
    """A container in which tasks run.

    Attributes:
        container: section ``container`` of the profile.
        python: command that starts Python inside the container.
        image: image from which the container is started.
        workdir: working directory of this process and of the container; relative paths in a spec
            are relative to it.
        binds: bind mounts ``HOST:INSIDE[:ro]``; a mount is skipped on nodes on which the path HOST
            does not exist.
    """

    container: Container
    python: str
    image: ContainerImage
    workdir: Path
    binds: Sequence[str]

    def write_script(self, folder: Path) -> None:
        """Write the script that starts the container; ``folder`` is the folder of an array."""
        (folder / _SCRIPT).write_text(self.script_text())

    def python_command(self, folder: Path) -> str:
        """Return the shell command that starts Python inside the container.

        Args:
            folder: folder to which :meth:`write_script` has written the script.
        """
        return f"bash {shlex.quote(str(folder / _SCRIPT))} {self.python}"

    def check_versions(self, slurm: Slurm) -> None:
        """Check that the container starts and has the Python and flexhpc versions of this process.

        The check is skipped if the container runtime is not installed on this machine.

        Raises:
            InputError: the container does not start, or has another version of Python or flexhpc.
        """
        if shutil.which(self.container.runtime) is None:
            return
        with tempfile.TemporaryDirectory() as folder:
            self.write_script(Path(folder))
            slurm.check_python(
                self.python_command(Path(folder)),
                f"container: {self.image.name}",
                "build the image again (docs/containers.md)",
                must_start=True,
            )

    def script_text(self) -> str:
        """Return the text of the script that starts the container."""
        values = {
            "image": self.image.name,
            "digest": self.image.digest,
            "identity": self.image.identity,
            "file_stamp": self.image.file_stamp,
            "source": source_hash(),
            "workdir": str(self.workdir),
            "runtime": self.container.runtime,
        }
        flags = [word for line in self.container.flags for word in shlex.split(line)]
        lines = ["#!/usr/bin/env bash", "set -euo pipefail"]
        lines += [f"{name}={shlex.quote(value)}" for name, value in values.items()]
        lines += [f"binds=({shlex.join(self.binds)})", f"flags=({shlex.join(flags)})", ""]
        return "\n".join([*lines, _BODY.read_text()])


def task_container(profile: SlurmProfile, prepared: PreparedRun) -> TaskContainer | None:
    """Return the container in which a profile's tasks run; None without a ``container`` section.

    The run folder is mounted read-write. The data and custom code of the points are mounted
    read-only. The bind mounts of the profile are added.

    Raises:
        InputError: the image is not found, the runtime cannot be used, or a path cannot be mounted.
    """
    container = profile.container
    if container is None:
        return None
    run, workdir = prepared.run.path, Path.cwd()
    locations: set[str | None] = {"data"}
    for point in prepared.points:
        if (folder := configuration_folder(point.model.family)) is not None:
            locations.add(str(folder))
        for section in (point.data, point.model, point.training):
            locations |= {getattr(section, key) for key in section.fields_with_mark(LOCATION)}
    data = sorted({workdir / Path(location).expanduser() for location in locations if location})
    for path in (run, workdir, *data):
        if any(character in str(path) for character in ":,"):
            raise InputError(
                f"{path}: contains a colon or comma, so it cannot be bound into a container; "
                "use another path"
            )
    profile_binds = [bind if ":" in bind else f"{bind}:{bind}" for bind in container.binds]
    binds = [f"{run}:{run}", *profile_binds, *(f"{path}:{path}:ro" for path in data)]
    binds.sort(key=lambda bind: bind.split(":")[1].count("/"))  # parents before children
    if container.runtime == "apptainer":
        image = _find_sif_file(container.image)
    else:
        image = _find_image(container.runtime, container.image)
    return TaskContainer(
        container=container,
        python=profile.python or "python",
        image=image,
        workdir=workdir,
        binds=binds,
    )


def _find_sif_file(name: str) -> ContainerImage:
    path = Path(name).expanduser().absolute()
    prefix = f"profile: container.image: {path}"
    try:
        stat = path.stat()
    except OSError as error:
        message = f"{prefix}: {error.strerror}; build a SIF file (docs/containers.md)"
        raise InputError(message) from None
    if not path.is_file():
        raise InputError(f"{prefix}: must be a SIF file (docs/containers.md)")
    file_stamp = f"{stat.st_size} {int(stat.st_mtime)}"
    return ContainerImage(
        name=str(path), digest=_file_hash(path, file_stamp), file_stamp=file_stamp
    )


@lru_cache
def _file_hash(path: Path, file_stamp: str) -> str:
    """Return the SHA-256 hash of a file; it is cached until ``file_stamp`` changes."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _find_image(runtime: str, name: str) -> ContainerImage:
    """Return an image of podman or docker."""
    command = [runtime, "image", "inspect", "--format", "{{.Id}}", name]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(
            f"profile: container.runtime: {runtime} cannot be used ({error}); install it or choose "
            "another runtime"
        ) from None
    if result.returncode:
        message = " ".join(result.stderr.split()) or f"exit status {result.returncode}"
        raise InputError(
            f"profile: container.image: {runtime} has no image {name} ({message}); build it "
            f"(docs/containers.md) or pull it with `{runtime} pull`"
        )
    digest = f"sha256:{result.stdout.strip().removeprefix('sha256:')}"
    return ContainerImage(name=name, digest=digest)
