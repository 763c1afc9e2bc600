"""Create the pictures of the docs: the live table, the report and MLflow's table.

Usage: python -m bench.pictures docs/pictures
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from rich.console import Console

from bench.common import FLEXHPC
from flexhpc.launch.progress_view import ProgressView
from flexhpc.store.status import StatusReader, open_run

_SPEC = "quickstart"
_LIVE_TABLE_DELAY = 14.0
"""Seconds from the first training run to the picture of the live table."""
_WIDTH, _MLFLOW_WIDTH, _HEIGHT = 1200, 1700, 860
_COLUMNS = 110


def live_table(run: Path) -> str:
    """Return the live table as SVG, ``_LIVE_TABLE_DELAY`` seconds after the first probe."""
    while not (run / "sweep.yaml").is_file():
        time.sleep(0.2)
    folder, _, points = open_run(run)
    reader = StatusReader(folder, points)
    console = Console(
        record=True, width=_COLUMNS, height=20, force_terminal=True, file=io.StringIO()
    )
    view = ProgressView(console, folder.name)
    first_training = None
    statuses = reader.read()
    while first_training is None or time.monotonic() < first_training + _LIVE_TABLE_DELAY:
        statuses = reader.read()
        view.update(statuses)
        if first_training is None and any(status.probes for status in statuses):
            first_training = time.monotonic()
            view.started = first_training
        time.sleep(0.2)
    console.clear()
    console.print(view.render(statuses, ""))
    return console.export_svg(title=f"flexhpc sweep {folder.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
        sweep = subprocess.Popen([FLEXHPC, "sweep", _SPEC], cwd=work, stdout=subprocess.DEVNULL)
        run = Path(work) / "runs" / _SPEC
        page.set_content(live_table(run))
        page.locator("svg").screenshot(path=folder / "live.png")
        if sweep.wait():
            raise SystemExit(f"{_SPEC} failed")
        page.goto((run / "report" / "index.html").as_uri())
        page.wait_for_selector("canvas, svg.marks")
        page.screenshot(path=folder / "report.png")
        _save_mlflow_table(page, work, folder / "mlflow.png")
        browser.close()


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _accepts_connections(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _save_mlflow_table(page: Any, work: str, path: Path) -> None:
    """Run `flexhpc ui` in the folder ``work``; save a screenshot of its page as ``path``."""
    port = _free_port()
    command = [FLEXHPC, "ui", _SPEC, "--port", str(port)]
    ui = subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, text=True)
    assert ui.stdout is not None
    try:
        address = next(url[0] for line in ui.stdout if (url := re.search(r"http://\S+", line)))
        while not _accepts_connections(port):
            time.sleep(0.3)
        page.set_viewport_size({"width": _MLFLOW_WIDTH, "height": _HEIGHT})
        page.goto(address)
        page.get_by_text("original width=6").first.wait_for(timeout=60_000)
        if (assistant := page.get_by_role("button", name="Close")).count():
            assistant.last.click()
        page.wait_for_timeout(3000)
        page.screenshot(path=path)
    finally:
        ui.terminate()
        ui.wait()


if __name__ == "__main__":
    main()
