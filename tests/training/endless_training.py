"""A process of a group that trains endlessly; it exits with status 17 when a peer is lost."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flexhpc.config.sections.training import Sgd
from flexhpc.errors import PeerLost
from flexhpc.training import Callbacks, Group
from tests.training.helpers import CPU
from tests.training.ranks import Case, train_case

if __name__ == "__main__":
    rank, size, token, folder = sys.argv[1:5]
    endless = Case(
        Sgd(optimizer="sgd", lr=1e-9, epochs=10**6, gates={"plateau": {"mode": "off"}}), 900
    )
    callbacks = Callbacks(on_progress=lambda _: Path(folder, "training").touch())
    try:
        group = Group.init_process_group(CPU, int(rank), int(size), host="127.0.0.1", token=token)
        train_case(endless, group, callbacks)
    except PeerLost as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(17)  # as a worker does: torch's threads would block a normal exit
