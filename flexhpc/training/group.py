"""Process group of one training run, and its collective operations.

Every process has a copy of the model. A batch is split into parts, each process computes the
gradients of its parts, and all processes make the same update with the sum of all gradients.
DistributedDataParallel is not used for two reasons. It averages gradients over processes instead of
samples. It also rebuilds its buckets after the first step, so a resumed training run would sum in
another order and not be bit-identical to an uninterrupted run.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import hmac
import io
import os
import socket
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # not in __all__

from flexhpc.errors import PeerLost, one_line_message

_COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=30)
_CONNECT_TIMEOUT = datetime.timedelta(minutes=3)
_LOOPBACK = "127.0.0.1"
_BACKLOG = 2048
_STOP_CHECK_EVERY = 8
_FIRST_PORT, _PORTS = 10_000, 20_000
"""First port and number of ports of the range from which the port of a TCPStore is chosen. The
range is below the ephemeral ports, because any program may be using an ephemeral port."""


class Group:
    """Processes that train together; by default only this process.

    Attributes:
        device: device of this process.
        rank: rank of this process.
        size: number of processes.
    """

    def __init__(self, device: torch.device, rank: int = 0, size: int = 1) -> None:
        self.device, self.rank, self.size = device, rank, size

    @classmethod
    def init_process_group(
        cls, device: torch.device, rank: int, size: int, *, host: str, token: str
    ) -> Group:
        """Connect the processes of a group through a TCPStore, which rank 0 runs.

        The port of the store is derived from the token. Another job can use the same port, and any
        user can read and write the store. The token is therefore never sent; after connecting, the
        processes prove to each other that they know the token. If a process fails to connect, start
        all processes again with another token.

        On a single node the store listens on loopback. On several nodes it listens on all
        addresses, because the name of a host may resolve to loopback on the host itself.

        Args:
            device: device of this process.
            rank: rank of this process.
            size: number of processes.
            host: host name of rank 0.
            token: shared secret of the group.

        Raises:
            PeerLost: a process did not connect, or does not know the token.
        """
        group = cls(device, rank, size)
        if size > 1:
            port = _FIRST_PORT + zlib.crc32(token.encode()) % _PORTS
            with _errors_as_peer_lost():
                listen_fd = None
                if host == _LOOPBACK:
                    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
                    listen_fd = _listen(host, port) if rank == 0 else None
                tcp_store = TCPStore(
                    host, port, is_master=rank == 0, wait_for_workers=False,
                    timeout=_CONNECT_TIMEOUT, master_listen_fd=listen_fd,
                )  # fmt: skip
                store = PrefixStore(hashlib.sha256(token.encode()).hexdigest(), tcp_store)
                store.set(str(rank), _device_name(device))
                ranks = [str(other) for other in range(size)]
                store.wait(ranks, _CONNECT_TIMEOUT)
                # NCCL does not support two processes on one GPU.
                distinct = len({store.get(other) for other in ranks}) == size
                backend = dist.get_default_backend_for_device(device) if distinct else "gloo"
                dist.init_process_group(
                    backend, store=store, rank=rank, world_size=size, timeout=_COLLECTIVE_TIMEOUT
                )
            group._verify_peers(token)
        return group

    def _verify_peers(self, token: str) -> None:
        """Verify that every process knows the token: compare HMACs of a common challenge.

        Raises:
            PeerLost: a process does not know the token.
        """
        challenge = b"".join(self._all_gather_bytes(os.urandom(32)))

        def proof(rank: int) -> bytes:
            return hmac.digest(token.encode(), challenge + str(rank).encode(), "sha256")

        for rank, answer in enumerate(self._all_gather_bytes(proof(self.rank))):
            if not hmac.compare_digest(answer, proof(rank)):
                raise PeerLost(f"process {rank} did not authenticate (wrong token)")

    def _all_gather_bytes(self, message: bytes) -> list[bytes]:
        """Return the messages of all processes, which must have the same length, in rank order."""
        tensor = torch.frombuffer(bytearray(message), dtype=torch.uint8).to(self.device)
        return [row.cpu().numpy().tobytes() for row in self.all_gather(tensor, _CONNECT_TIMEOUT)]

    def destroy(self) -> None:
        """Destroy the process group (collective call)."""
        if self.size > 1:
            with _errors_as_peer_lost():
                dist.barrier()
                dist.destroy_process_group()

    def agree_to_stop(self, stop: bool, step: int) -> bool:
        """Return whether any process requests a stop (collective call).

        On an accelerator, several processes communicate only at every eighth step, because reading
        the result waits for the device. At the other steps, the result is False.

        Args:
            stop: whether this process requests a stop.
            step: number of the update.
        """
        if self.size == 1:
            return stop
        if self.device.type != "cpu" and step % _STOP_CHECK_EVERY:
            return False
        votes = torch.tensor([float(stop)], device=self.device)
        return bool(self.all_reduce(votes) > 0)

    def all_reduce(self, vector: Tensor) -> Tensor:
        """Sum a vector over all processes, in place, and return it (collective call)."""
        if self.size > 1:
            with _errors_as_peer_lost():
                dist.all_reduce(vector)
        return vector

    def all_gather(
        self, tensor: Tensor, timeout: datetime.timedelta = _COLLECTIVE_TIMEOUT
    ) -> list[Tensor]:
        """Return ``tensor`` of each process in rank order; its shape must be the same everywhere.

        This is a collective call.
        """
        if self.size == 1:
            return [tensor]
        result = [torch.empty_like(tensor) for _ in range(self.size)]
        with _errors_as_peer_lost():
            if timeout < _COLLECTIVE_TIMEOUT and dist.get_backend() == "gloo":
                dist.all_gather(result, tensor, async_op=True).wait(timeout)
            else:
                dist.all_gather(result, tensor)
        return result

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite the tensors of every process with the tensors of rank 0 (collective call)."""
        if self.size > 1:
            with _errors_as_peer_lost():
                for tensor in tensors:
                    dist.broadcast(tensor.detach(), src=0)

    def broadcast_object(self, value: Any) -> Any:
        """Return the value of rank 0; the values of other ranks are ignored (collective call).

        Args:
            value: tensor, string, number or None, or a nested tuple, list or dict of these. Other
                objects are not supported, because ``torch.load`` is called with ``weights_only``.
        """
        if self.size == 1:
            return value
        buffer = io.BytesIO()
        if self.rank == 0:
            torch.save(value, buffer)
        length = torch.tensor([len(buffer.getvalue())], device=self.device)
        self.broadcast([length])
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == 0:
            content = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
        content = content.to(self.device)
        self.broadcast([content])
        if self.rank == 0:
            return value
        buffer = io.BytesIO(content.cpu().numpy().tobytes())
        return torch.load(buffer, map_location="cpu", weights_only=True)


class Partition:
    """Division of samples into parts, and of the parts among the processes of a group.

    The parts of a process are consecutive. The numbers of parts of any two processes differ by at
    most one.

    Args:
        group: processes that train together.
        shards: number of parts. The results of the parts are summed in order, so that sums are
            bit-identical for any number of processes. If ``shards`` is None, each process has one
            part, and the order of summation is not fixed.

    Attributes:
        n_parts: number of parts.
        is_divided: whether the samples are divided, because ``shards`` is set or the group consists
            of several processes.
        owners: for each part, the rank of the process that computes it.
        local_parts: indices of the parts that this process computes.
        ordered: whether the results of the parts are summed in order.
    """

    def __init__(self, group: Group, shards: int | None = None) -> None:
        self.group, self.ordered, self.n_parts = group, shards is not None, shards or group.size
        self.is_divided = self.ordered or group.size > 1
        self.owners = [part * group.size // self.n_parts for part in range(self.n_parts)]
        self.local_parts = [part for part, rank in enumerate(self.owners) if rank == group.rank]

    def sum_parts(self, vectors: Sequence[Tensor], zero: Tensor) -> Tensor:
        """Return the sum of the vectors of all parts (collective call).

        Args:
            vectors: one vector for each part of this process, in the order of the parts. This call
                may overwrite them.
            zero: vector of zeros of the same length. Processes that have fewer parts than others
                use it as padding.
        """
        if not self.ordered:
            return self.group.all_reduce(vectors[0])
        max_local = max(map(self.owners.count, range(self.group.size)))
        padded = torch.stack([*vectors, *[zero] * (max_local - len(vectors))])
        total = torch.zeros_like(zero)
        for rows in self.group.all_gather(padded):
            for row in rows:
                total += row
        return total


def _listen(host: str, port: int) -> int:
    """Open a listening socket for a TCPStore and return its file descriptor.

    Raises:
        RuntimeError: the port is in use.
    """
    try:
        return socket.create_server((host, port), backlog=_BACKLOG).detach()
    except OSError as error:
        raise RuntimeError(f"{host}:{port}: {error.strerror}") from None


def _device_name(device: torch.device) -> str:
    """Return a name that is unique to each accelerator of a job; ``cpu`` for every CPU."""
    if device.type == "cpu":
        return "cpu"
    properties = torch.get_device_module(device).get_device_properties(device)
    return str(getattr(properties, "uuid", f"{socket.gethostname()} {device.index}"))


@contextlib.contextmanager
def _errors_as_peer_lost() -> Iterator[None]:
    """Context manager that raises PeerLost instead of any RuntimeError.

    A collective operation raises RuntimeError if another process is lost.
    """
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(one_line_message(error)) from None
