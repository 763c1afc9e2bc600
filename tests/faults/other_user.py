"""A process of another user that tries to join two processes that train together.

Usage: python -m tests.faults.other_user PORT FOLDER

Connects to their store at PORT, writes everything that it can read there to the file ``read`` in
FOLDER, and registers as rank 1 before the real process does.
"""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # not in __all__

from flexhpc.training import Group

if __name__ == "__main__":
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    timeout = datetime.timedelta(minutes=1)
    store = TCPStore("127.0.0.1", port, is_master=False, wait_for_workers=False, timeout=timeout)
    while not store.num_keys():
        time.sleep(0.01)
    keys = store.list_keys()
    (folder / "read").write_text("\n".join(f"{key} {store.get(key)!r}" for key in keys))
    rendezvous = PrefixStore(keys[0].rpartition("/")[0], store)
    rendezvous.set("1", "cpu")
    dist.init_process_group("gloo", store=rendezvous, rank=1, world_size=2, timeout=timeout)
    Group(torch.device("cpu"), 1, 2)._verify_peers("a guess")
