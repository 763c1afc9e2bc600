"""Backend that runs workers on this machine, forked by a fork server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from flexhpc.launch.backend import Backend
from flexhpc.launch.fork_server import ForkedWorker, ForkServer
from flexhpc.launch.machine import visible_gpus
from flexhpc.launch.profile import LocalProfile
from flexhpc.versions import image_name
from flexhpc.worker.fork_server import StartRequest
from flexhpc.worker.task import PROBES_AT_ONCE, TASK_FILE, WORKER_GPU


class LocalBackend(Backend):
    """Local workers of one launch; each worker can claim any free point of the run.

    Args:
        folder: launch folder, which contains the logs and the task file.
        profile: determines the number of workers and the number of processes per worker.
    """

    is_local = True
    max_assignments = 5
    """Several assignments are allowed, because workers exit without progress if another sweep has
    claimed all points."""

    def __init__(self, folder: Path, profile: LocalProfile) -> None:
        self.folder, self.profile = folder, profile
        self.image = image_name()
        self._workers: list[ForkedWorker] = []
        self._running: set[ForkedWorker] = set()
        self._started = 0

    def poll(self) -> None:
        """Update the state of the workers.

        Only this method and :meth:`start_workers` change the state. Otherwise, if a worker finished
        its point after the points' status was read, the worker would count as ended, but the point
        as unfinished.
        """
        for server in {worker.server for worker in self._workers}:
            server.poll()
        self._running = {worker for worker in self._workers if worker.is_running()}

    def has_worker_for(self, point_id: str) -> bool:
        """Return whether any worker is running, because every worker can claim any free point."""
        return self.has_workers()

    def has_workers(self) -> bool:
        """Return whether any worker is running."""
        return bool(self._running)

    def has_crashed_worker(self) -> bool:
        """Return whether any worker from the last call of :meth:`start_workers` has failed."""
        return any(not worker.succeeded() for worker in set(self._workers) - self._running)

    def start_workers(self, points: Sequence[str]) -> bool:
        """Start workers for these points; return True, because local workers start immediately."""
        count, at_once = self.profile.workers_and_probes(len(points))
        processes = self.profile.processes_per_node
        per_worker = processes * at_once
        gpus = visible_gpus()
        server = ForkServer.of_this_process(self.folder / "fork_server_log.err")
        self._workers = []
        for number in range(count):
            variables = {PROBES_AT_ONCE: str(at_once)}
            if gpus:  # an empty CUDA_VISIBLE_DEVICES would also hide AMD GPUs and GPUs in WSL
                ids = [gpus[(number * per_worker + i) % len(gpus)] for i in range(per_worker)]
                variables[WORKER_GPU] = ",".join(dict.fromkeys(ids))
            self._started += 1
            request = StartRequest(
                worker=str(self.folder / f"worker-{self._started}"),
                task=str(self.folder / TASK_FILE),
                processes=processes,
                environment={**os.environ, **variables},
                cwd=str(Path.cwd()),
            )
            self._workers.append(server.start_worker(request))
        self._running = set(self._workers)
        return True

    def log_path(self, point_id: str) -> str:
        """Return the path of the folder of all logs.

        The log of a single point is not known in advance, because any worker can measure the point.
        """
        return str(self.folder)

    def summary(self) -> str:
        """Return the number of workers that the last call of :meth:`start_workers` started, as
        text."""
        return f"{len(self._workers)} workers started"
