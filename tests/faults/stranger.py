"""Somebody else on the node of two processes that train together.

Usage: python -m tests.faults.stranger PORT FOLDER

Arguments: the port at which they meet, a folder. Reads what they left there, and takes the place of
the second before it comes. What it read goes into the file ``read`` of the folder.
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
    patience = datetime.timedelta(minutes=1)
    store = TCPStore("127.0.0.1", port, is_master=False, wait_for_workers=False, timeout=patience)
    while not store.num_keys():
        time.sleep(0.01)
    keys = store.list_keys()
    (folder / "read").write_text("\n".join(f"{key} {store.get(key)!r}" for key in keys))
    place = PrefixStore(keys[0].rpartition("/")[0], store)
    place.set("1", "cpu")
    dist.init_process_group("gloo", store=place, rank=1, world_size=2, timeout=patience)
    Group(torch.device("cpu"), 1, 2)._verify_peers("a guess")
