"""Process group of one training, and its collective operations.

Every process holds the whole model. A batch is split into parts, each process computes the
gradients of its parts, and all make the same update with the sum. DistributedDataParallel is not
used: it rebuilds its buckets after the first step, so a resumed training would sum in another
order and end with other bits, and it averages over processes instead of samples.
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

from flexhpc.errors import PeerLost, one_line

_SILENCE = datetime.timedelta(minutes=30)
_MEETING = datetime.timedelta(minutes=3)
_ALONE = "127.0.0.1"
_QUEUE = 2048
_VOTES_EVERY = 8
_FIRST_PORT, _PORTS = 10_000, 20_000
"""Below the range of ephemeral ports."""


class Group:
    """Processes that train together; by default this one alone.

    Attributes:
        rank: of this process; size: number of processes; device: of this process.
    """

    def __init__(self, device: torch.device, rank: int = 0, size: int = 1) -> None:
        self.device, self.rank, self.size = device, rank, size

    @classmethod
    def join(cls, device: torch.device, rank: int, size: int, *, host: str, token: str) -> Group:
        """Initialize the process group at a port of rank 0's host that follows from the token.

        Another job may use that port, and any user may read and write the store there. So the
        token is never sent; the processes prove to each other that they know it once they are
        connected. A process that does not find its peers fails, and should be started again with
        another token. On a single node the store listens on loopback. On several nodes rank 0
        listens on all its addresses, since its name may resolve to loopback on its own host.

        Args:
            device: of this process.
            rank: from 0; size: number of processes.
            host: of rank 0.
            token: secret of this group.

        Raises:
            PeerLost: a process did not connect, or does not know the token.
        """
        group = cls(device, rank, size)
        if size > 1:
            port = _FIRST_PORT + zlib.crc32(token.encode()) % _PORTS
            with _peers():
                listening = None
                if host == _ALONE:
                    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
                    listening = _listen(host, port) if rank == 0 else None
                met = TCPStore(
                    host, port, is_master=rank == 0, wait_for_workers=False, timeout=_MEETING,
                    master_listen_fd=listening,
                )  # fmt: skip
                store = PrefixStore(hashlib.sha256(token.encode()).hexdigest(), met)
                store.set(str(rank), _name(device))
                everybody = [str(other) for other in range(size)]
                store.wait(everybody, _MEETING)
                # NCCL refuses two processes on one GPU.
                apart = len({store.get(other) for other in everybody}) == size
                backend = dist.get_default_backend_for_device(device) if apart else "gloo"
                dist.init_process_group(
                    backend, store=store, rank=rank, world_size=size, timeout=_SILENCE
                )
            group._know_each_other(token)
        return group

    def _know_each_other(self, token: str) -> None:
        """Verify that every process knows the token, by HMAC of a common challenge.

        Raises:
            PeerLost: a process does not know it.
        """
        challenge = b"".join(self._told_by_all(os.urandom(32)))

        def proof(rank: int) -> bytes:
            return hmac.digest(token.encode(), challenge + str(rank).encode(), "sha256")

        for rank, told in enumerate(self._told_by_all(proof(self.rank))):
            if not hmac.compare_digest(told, proof(rank)):
                raise PeerLost(f"process {rank} does not know the secret of this job")

    def _told_by_all(self, own: bytes) -> list[bytes]:
        """Gather a message of the same length from every process."""
        said = torch.frombuffer(bytearray(own), dtype=torch.uint8).to(self.device)
        return [row.cpu().numpy().tobytes() for row in self._gathered(said, _MEETING)]

    def leave(self) -> None:
        """Destroy the process group (collective call)."""
        if self.size > 1:
            with _peers():
                dist.barrier()
                dist.destroy_process_group()

    def agree_to_stop(self, wants_to: bool, step: int) -> bool:
        """Return whether any process wants to stop (collective call).

        On an accelerator, where reading the answer waits for the device, only at every eighth step.
        """
        if self.size == 1:
            return wants_to
        if self.device.type != "cpu" and step % _VOTES_EVERY:
            return False
        votes = torch.tensor([float(wants_to)], device=self.device)
        return bool(self.all_reduce(votes) > 0)

    def owner(self, part: int, parts: int) -> int:
        """Return the rank that owns a part; ranks own contiguous parts, as evenly as possible."""
        return part * self.size // parts

    def mine(self, parts: int) -> list[int]:
        """Return the parts of this process."""
        return [part for part in range(parts) if self.owner(part, parts) == self.rank]

    def all_reduce(self, vector: Tensor) -> Tensor:
        """Return the sum of every process's vector."""
        if self.size > 1:
            with _peers():
                dist.all_reduce(vector)
        return vector

    def ordered_sum(self, vectors: Sequence[Tensor], parts: int, nothing: Tensor) -> Tensor:
        """Return the sum over parts, added in the order of the parts.

        Args:
            vectors: of this process's parts, in order.
            parts: number of all parts.
            nothing: added in place of a part that a process does not have.
        """
        most = max(sum(self.owner(p, parts) == r for p in range(parts)) for r in range(self.size))
        own = torch.stack([*vectors, *[nothing] * (most - len(vectors))])
        total = torch.zeros_like(nothing)
        for rows in self._gathered(own):
            for row in rows:
                total += row
        return total

    def concatenated(self, own: Tensor, sizes: Sequence[int]) -> Tensor:
        """Concatenate the tensors of all processes along the first axis, in the order of ranks.

        Args:
            own: tensor of this process.
            sizes: length of the tensor of each process.
        """
        if self.size == 1:
            return own
        padded = own.new_zeros((max(sizes), *own.shape[1:]))
        padded[: len(own)] = own
        rows = [x[:n] for x, n in zip(self._gathered(padded), sizes, strict=True)]
        joined: Tensor = torch.cat(rows)
        return joined

    def _gathered(self, own: Tensor, patience: datetime.timedelta = _SILENCE) -> list[Tensor]:
        if self.size == 1:
            return [own]
        into = [torch.empty_like(own) for _ in range(self.size)]
        with _peers():
            if patience < _SILENCE and dist.get_backend() == "gloo":
                dist.all_gather(into, own, async_op=True).wait(patience)
            else:
                dist.all_gather(into, own)
        return into

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors with those of rank 0."""
        if self.size > 1:
            with _peers():
                for tensor in tensors:
                    dist.broadcast(tensor.detach(), src=0)

    def broadcast_object(self, value: Any) -> Any:
        """Return the value of rank 0; that of other ranks is ignored.

        Args:
            value: plain values and tensors in tuples, lists and dicts; no other objects, since it
                is loaded with ``weights_only``.
        """
        if self.size == 1:
            return value
        written = io.BytesIO()
        if self.rank == 0:
            torch.save(value, written)
        length = torch.tensor([len(written.getvalue())], device=self.device)
        self.broadcast([length])
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == 0:
            content = torch.frombuffer(bytearray(written.getvalue()), dtype=torch.uint8)
        content = content.to(self.device)
        self.broadcast([content])
        if self.rank == 0:
            return value
        read = io.BytesIO(content.cpu().numpy().tobytes())
        return torch.load(read, map_location="cpu", weights_only=True)


def _listen(host: str, port: int) -> int:
    """Return a listening socket for a TCPStore.

    Raises:
        RuntimeError: the port is taken.
    """
    try:
        return socket.create_server((host, port), backlog=_QUEUE).detach()
    except OSError as error:
        raise RuntimeError(f"{host}:{port}: {error.strerror}") from None


def _name(device: torch.device) -> str:
    """Return a name that differs between the accelerators of a job; "cpu" for every CPU."""
    if device.type == "cpu":
        return "cpu"
    properties = torch.get_device_module(device).get_device_properties(device)
    return str(getattr(properties, "uuid", f"{socket.gethostname()} {device.index}"))


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    """Raise PeerLost for the errors that a lost peer causes."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(one_line(error)) from None
