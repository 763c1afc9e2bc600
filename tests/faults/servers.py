"""Faults of the tracking server."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.faults.site import Outcome, Site


class _Unwilling(BaseHTTPRequestHandler):
    """A tracking server that says it is broken, after a while."""

    slow = 0.0

    def _answer(self) -> None:
        time.sleep(self.slow)
        self.send_response(500)
        self.end_headers()

    do_GET = do_POST = _answer  # names of http.server

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def bad_server(site: Site, times: int) -> Outcome:
    """The tracking server is down, broken, or slow: a warning; `flexhpc sync` has it all later."""
    first = int(site.rng.integers(3))
    for number in range(first, first + times):
        with contextlib.ExitStack() as stack:
            if number % 3:
                handler = type("Handler", (_Unwilling,), {"slow": 3.0 if number % 3 == 2 else 0.0})
                server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
                threading.Thread(target=server.serve_forever, daemon=True).start()
                stack.callback(server.shutdown)
                port = server.server_port
            else:
                with socket.socket() as unused:
                    unused.bind(("127.0.0.1", 0))
                    port = unused.getsockname()[1]
            site.profile(f"tracking_uri: http://127.0.0.1:{port}")
            site.begin_anew()
            sweep = site.start(MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", MLFLOW_HTTP_REQUEST_TIMEOUT="5")
            output = site.finish(sweep)
            site.outcome.tried += 1
            site.must_say(not sweep.returncode and "warning: MLflow" in output, output)
            site.note_probes()
    site.profile()
    site.conclude()
    site.tracked_once()
    return site.outcome
