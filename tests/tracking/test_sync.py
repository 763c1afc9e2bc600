"""MLflow as a view of the store, with real databases, a real server and the real UI."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy

from flexhpc.store import read_point_file
from flexhpc.store.status import StatusReader, open_run
from flexhpc.tracking.client import existing_database_uri, mlflow_client
from flexhpc.tracking.state import is_synced, local_uri, sync_state_path
from flexhpc.tracking.sync import Syncer
from flexhpc.tracking.ui import UI_ENVIRONMENT, ui_page
from tests.barrier import TIMEOUT, wait_for
from tests.conftest import FLEXHPC, Cli


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    """A copy of a measured run without its MLflow database."""
    copy = tmp_path / "small"
    ignored = shutil.ignore_patterns("mlflow.db", "mlartifacts", ".tracked.json")
    shutil.copytree(small_run, copy, ignore=ignored)
    return copy


def logged(uri: str, name: str = "small") -> tuple[list[Any], list[Any]]:
    """Return the MLflow runs of the points and those of the probes of an experiment."""
    client = mlflow_client(uri)
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    kinds = {"point": [], "probe": []}
    for run in runs:
        kinds[run.data.tags["flexhpc.kind"]].append(run)
    return kinds["point"], kinds["probe"]


def test_the_tracking_process_has_a_lower_priority(run: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "flexhpc.tracking.periodic_sync",
        str(run),
        str(run / "sweep.yaml"),
    ]
    lower = min(os.getpriority(os.PRIO_PROCESS, 0) + 10, 19)  # the lowest priority is 19
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        wait_for(lambda: os.getpriority(os.PRIO_PROCESS, process.pid) == lower, "its priority")
        process.kill()


def check_logged(uri: str, run: Path) -> None:
    """Assert that MLflow contains every point and every probe of a finished run exactly once."""
    folder, _, points = open_run(run)
    parents, children = logged(uri)
    assert {p.data.tags["flexhpc.point_id"] for p in parents} == {p.id for p in points}
    by_tag = {child.data.tags["flexhpc.probe"]: child for child in children}
    assert len(by_tag) == len(children)
    for parent in parents:
        point_id = parent.data.tags["flexhpc.point_id"]
        record = read_point_file(folder.point_file(point_id))
        assert parent.info.status == "FINISHED"
        assert parent.data.metrics["emc"] == record.estimate.emc
        assert parent.data.metrics["emc_lo"] == record.estimate.emc_lo
        assert parent.data.params["params"] == str(record.header.params)
        assert "**EMC" in parent.data.tags["mlflow.note.content"]
        for number, probe in enumerate(record.probes):
            child = by_tag.pop(f"{point_id}/{number:04d}")
            assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
            assert child.info.run_name == f"{number:02d} n={probe.n} {probe.verdict}"
            assert child.info.status == ("FINISHED" if probe.verdict == "fit" else "FAILED")
            assert child.data.metrics["errors"] == probe.n_errors
            assert child.data.metrics["accuracy"] == probe.train_accuracy
            assert child.data.metrics["cost"] == probe.cost
            assert child.data.metrics["epochs"] == probe.epochs
            assert child.data.params["verdict"] == probe.verdict
    assert by_tag == {}


def test_mlflow_is_up_to_date_at_the_end_of_a_sweep(small_run: Path) -> None:
    folder, _, points = open_run(small_run)
    check_logged(local_uri(folder), small_run)
    assert is_synced(folder, None, StatusReader(folder, points).read())


@pytest.mark.full_budget
def test_curves_brackets_artifacts_and_tags_are_logged(small_run: Path) -> None:
    folder, _, points = open_run(small_run)
    uri = local_uri(folder)
    client = mlflow_client(uri)
    parents, children = logged(uri)
    for parent in parents:
        run_id, tags = parent.info.run_id, parent.data.tags
        point_id = tags["flexhpc.point_id"]

        def history(metric: str, run_id: str = run_id) -> list[float]:
            values = client.get_metric_history(run_id, metric)
            return [value.value for value in sorted(values, key=lambda value: value.step)]

        assert history("n") == [
            probe.n for probe in read_point_file(folder.point_file(point_id)).probes
        ]
        assert history("largest_fit") == sorted(history("largest_fit"))
        assert history("emc_hi")[-1] == parent.data.metrics["emc_hi"]
        assert tags["mlflow.source.name"] == "flexhpc sweep small"
        assert tags["mlflow.user"]
        assert re.fullmatch(r"[0-9a-f]{7,12}\+?|v.*", tags["mlflow.source.git.commit"])
        assert parent.data.metrics["lo"] <= parent.data.metrics["hi"]
        artifacts = {artifact.path for artifact in client.list_artifacts(run_id)}
        assert artifacts - {"report"} == {"fit_curve.svg", f"{point_id}.h5"}
        assert ("report" in artifacts) == (point_id == points[0].id)
        if "report" in artifacts:
            (page,) = client.list_artifacts(run_id, "report")
            stored = folder.artifacts / run_id / "artifacts" / page.path
            assert stored.read_bytes() == (folder.report / "index.html").read_bytes()
            note = client.get_experiment(parent.info.experiment_id).tags["mlflow.note.content"]
            link = f"runs/{run_id}/artifacts/{page.path}?workflowType=machine_learning)"
            assert link in note, "without workflowType, MLflow shows its GenAI layout"
    child = max(children, key=lambda c: c.data.metrics["epochs"])
    curve = client.get_metric_history(child.info.run_id, "loss")
    assert len(curve) > 20
    assert max(m.step for m in curve) == child.data.metrics["epochs"]


def test_sync_recreates_the_database_and_logs_nothing_twice(run: Path, cli: Cli) -> None:
    uri = local_uri(open_run(run)[0])
    assert "probes logged" in cli("sync", run).stdout
    check_logged(uri, run)
    assert cli("sync", run).stdout.startswith("0 probes logged")
    check_logged(uri, run)


def test_sync_completes_the_log_of_a_killed_process(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is killed twice after it created a child run and before it logged metrics."""
    folder, _, _ = open_run(run)
    uri = local_uri(folder)

    class Killed(Exception):
        pass

    for completed in (2, 1):
        syncer = Syncer(folder, uri)
        syncer.connect()
        log_batch, calls = syncer.client.log_batch, []

        def killed(run_id, *, calls=calls, log_batch=log_batch, completed=completed, **kwargs):
            calls.append(run_id)
            if "params" in kwargs and "metrics" in kwargs and len(calls) > completed * 2:
                raise Killed
            return log_batch(run_id, **kwargs)

        monkeypatch.setattr(syncer.client, "log_batch", killed)
        with pytest.raises(Killed):
            syncer.sync()
    Syncer(folder, uri).sync()
    check_logged(uri, run)


def test_sync_recovers_from_sigkill_during_creation_of_the_database(
    run: Path, cli: Cli, tmp_path: Path
) -> None:
    """MLflow creates one table after the other, and cannot use a database without some of them."""
    attempts = (killed_with_incomplete_database(run, tmp_path / f"{i}") for i in range(50))
    assert any(attempts), "no attempt left an incomplete database"
    cli("sync", run)
    check_logged(local_uri(open_run(run)[0]), run)
    assert not list(run.glob("*.part")) + list(run.glob(".*.part"))


def killed_with_incomplete_database(run: Path, temporary: Path) -> bool:
    """Kill `flexhpc sync` while it creates its database; return False if it was complete."""
    (run / "mlflow.db").unlink(missing_ok=True)
    temporary.mkdir()
    sync = subprocess.Popen(
        [str(FLEXHPC), "sync", str(run)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip

    def started() -> bool:
        databases = temporary.glob("*/mlflow.db")
        return sync.poll() is not None or any(path.stat().st_size for path in databases)

    wait_for(started, "a database")
    sync.send_signal(signal.SIGSTOP)
    incomplete = sync.poll() is None and not (run / "mlflow.db").exists()
    sync.kill()
    sync.wait()
    return incomplete


def test_a_run_can_be_copied_and_renamed(small_run: Path, tmp_path: Path, cli: Cli) -> None:
    copy = tmp_path / "different name"
    shutil.copytree(small_run, copy)
    folder, _, _ = open_run(copy)
    page = ui_page(folder, "small")
    assert cli("sync", copy).stdout.startswith("0 probes logged")
    assert ui_page(folder, "small") == page
    check_logged(local_uri(folder), copy)
    parents, children = logged(local_uri(folder))
    client = mlflow_client(local_uri(folder))
    for run in (*parents, *children):
        assert run.info.artifact_uri.startswith(folder.artifacts.as_uri())
    downloaded = client.download_artifacts(parents[0].info.run_id, "fit_curve.svg", tmp_path)
    assert Path(downloaded).stat().st_size > 1000
    original = local_uri(open_run(small_run)[0])
    run_id = logged(original)[0][0].info.run_id
    assert mlflow_client(original).list_artifacts(run_id), "the original is unchanged"


def test_mlflow_does_not_recreate_a_removed_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an ordinary SQLite URI, MLflow creates the folder and the database."""
    database = tmp_path / "removed" / "mlflow.db"
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)
    with pytest.raises(sqlalchemy.exc.OperationalError, match="unable to open"):
        mlflow_client(existing_database_uri(database)).get_experiment_by_name("small")
    assert not database.parent.exists()


def free_port() -> int:
    """Return a free port outside of the range from which the system assigns ports."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as client, contextlib.suppress(OSError):
            client.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@contextlib.contextmanager
def served(command: list[str], port: int, cwd: Path | None = None) -> Iterator[str]:
    """Run a web server; yield its address once it responds, and end all of its processes."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, **UI_ENVIRONMENT}, cwd=cwd,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"

    def responds() -> bool:
        assert process.poll() is None, "the server ended"
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=30):
            return True
        return False

    try:
        wait_for(responds, "a response of the server")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def test_sync_to_a_tracking_server(run: Path, cli: Cli, tmp_path: Path) -> None:
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--workers", "1",
        "--artifacts-destination", str(tmp_path / "artifacts"),
    ]  # fmt: skip
    with served(command, port) as address:
        cli("sync", run, "--uri", address)
        check_logged(address, run)


def test_an_unreachable_server_gives_a_warning(tmp_path: Path, small_spec: Path, cli: Cli) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text(f"tracking_uri: http://127.0.0.1:{free_port()}\n")
    result = cli("sweep", small_spec, "--profile", profile, "--set", "model.width=[4]")
    assert "warning: MLflow at http://127.0.0.1" in result.stderr
    assert result.stderr.count("warning: ") <= 2
    run = tmp_path / "runs" / "small"
    folder, _, points = open_run(run)
    assert all(status.state == "done" for status in StatusReader(folder, points).read())
    assert not sync_state_path(folder).exists()
    failed = cli("sync", run, "--uri", f"http://127.0.0.1:{free_port()}", check=1)
    assert "cannot log to MLflow at" in failed.stderr
    cli("sync", run)
    check_logged(local_uri(folder), run)


def test_a_server_that_never_responds_does_not_block_a_sweep(
    tmp_path: Path, small_spec: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        profile = tmp_path / "profile.yaml"
        profile.write_text(f"tracking_uri: http://127.0.0.1:{silent.getsockname()[1]}\n")
        result = cli("sweep", small_spec, "--profile", profile, "--set", "model.width=[4]")
    assert result.stderr.count("warning: MLflow") == 1
    assert (tmp_path / "runs" / "small" / "report" / "index.html").is_file()


@pytest.mark.full_budget
@pytest.mark.browser
def test_ui_shows_points_and_probes(small_run: Path, tmp_path: Path, chromium: Any) -> None:
    from playwright.sync_api import expect

    shutil.copytree(small_run, tmp_path / "run")
    folder, _, points = open_run(tmp_path / "run")
    port = free_port()
    path = ui_page(folder, "small")
    parents, _ = logged(local_uri(folder))
    (tmp_path / "yaml.py").write_text("raise ImportError('the working directory is imported')")
    command = [str(FLEXHPC), "ui", str(folder.path), "--port", str(port)]
    with served(command, port, tmp_path) as address:
        connections = [c for c in psutil.net_connections("inet") if c.laddr.port == port]
        listening = {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}
        page = chromium.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(TIMEOUT * 1000)
        experiment = parents[0].info.experiment_id
        page.goto(address + path)  # the printed address shows all points with their EMC
        for point in points:
            expect(page.get_by_text(point.label, exact=True).first).to_be_visible()
        expect(page.get_by_text("3 matching runs")).to_be_visible()
        for column in ("emc", "emc_lo", "emc_hi"):
            expect(page.locator(f"[role=columnheader][col-id*='`{column}`']")).to_be_visible()
        page.get_by_role("link", name=points[0].label).click()
        page.get_by_role("link", name="00 n=16 fit").first.click()
        expect(page.get_by_text("final_loss").first).to_be_visible()
        page.goto(f"{address}/#/experiments/{experiment}/runs?workflowType=machine_learning")
        expect(page.get_by_text(points[0].label, exact=True).first).to_be_visible()
        children = page.get_by_text("00 n=16 fit")
        assert children.count() == 0
        page.locator("[role=gridcell][col-id*='Run Name'] button").first.click()
        expect(children.first).to_be_visible()
        run_id = parents[0].info.run_id
        page.goto(f"{address}/#/experiments/{experiment}/runs/{run_id}/model-metrics")
        expect(page.locator("svg.main-svg").first).to_be_visible()
        page.goto(f"{address}/#/experiments/{experiment}/runs/{run_id}/artifacts/fit_curve.svg")
        expect(page.locator("img").first).to_be_visible()


def test_ui_reports_a_damaged_database(run: Path, cli: Cli) -> None:
    (run / "mlflow.db").write_text("not a database")
    assert "flexhpc sync" in cli("ui", run, check=2).stderr
