"""Faults of the tracking server."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.faults.site import Outcome, Site


class _Broken(BaseHTTPRequestHandler):
    """A tracking server that responds with status 500 after ``delay`` seconds."""

    delay = 0.0

    def _respond(self) -> None:
        time.sleep(self.delay)
        self.send_response(500)
        self.end_headers()

    do_GET = do_POST = _respond  # names of http.server

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def bad_server(site: Site, faults: int) -> Outcome:
    """The tracking server is down, broken or slow: a warning; `flexhpc sync` uploads the rest."""
    first = int(site.rng.integers(3))
    for number in range(first, first + faults):
        with contextlib.ExitStack() as stack:
            if number % 3:
                handler = type("Handler", (_Broken,), {"delay": 3.0 if number % 3 == 2 else 0.0})
                server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
                threading.Thread(target=server.serve_forever, daemon=True).start()
                stack.callback(server.shutdown)
                port = server.server_port
            else:
                with socket.socket() as unused:
                    unused.bind(("127.0.0.1", 0))
                    port = unused.getsockname()[1]
            site.write_profile(f"tracking_uri: http://127.0.0.1:{port}")
            site.remove_run()
            sweep = site.start(MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", MLFLOW_HTTP_REQUEST_TIMEOUT="5")
            output = site.finish(sweep)
            site.outcome.faults += 1
            site.expect(not sweep.returncode and "warning: MLflow" in output, output)
    site.write_profile()
    site.resume_and_compare()
    site.check_tracking()
    return site.outcome
