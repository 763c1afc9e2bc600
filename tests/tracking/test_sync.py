"""MLflow as a view of the store: real databases, a real server, the real UI."""

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

from flexhpc.store import read
from flexhpc.store.status import StatusReader, open_run
from flexhpc.tracking.quiet import existing_database_uri, mlflow_client
from flexhpc.tracking.state import local_uri, sync_state_path, up_to_date
from flexhpc.tracking.sync import Syncer
from flexhpc.tracking.ui import UI_ENVIRONMENT, page_of, ui_command
from tests.barrier import wait_for
from tests.conftest import FLEXHPC, Cli


@pytest.fixture
def run(measured: Path, tmp_path: Path) -> Path:
    """A copy of a measured run without its MLflow database."""
    copy = tmp_path / "small"
    ignored = shutil.ignore_patterns("mlflow.db", "mlartifacts", ".tracked.json")
    shutil.copytree(measured, copy, ignore=ignored)
    return copy


def logged(uri: str, name: str = "small") -> tuple[list[Any], list[Any]]:
    client = mlflow_client(uri)
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    kinds = {"point": [], "probe": []}
    for one in runs:
        kinds[one.data.tags["flexhpc.kind"]].append(one)
    return kinds["point"], kinds["probe"]


def test_the_tracking_process_has_a_lower_priority(run: Path) -> None:
    command = [sys.executable, "-m", "flexhpc.tracking.follow", str(run), str(run / "sweep.yaml")]
    lower = os.getpriority(os.PRIO_PROCESS, 0) + 10
    with subprocess.Popen(command, stdin=subprocess.PIPE) as follower:
        wait_for(lambda: os.getpriority(os.PRIO_PROCESS, follower.pid) == lower, "its priority")
        follower.kill()


def holds_all(uri: str, run: Path) -> None:
    """Assert that MLflow says what the store says, point by point and probe by probe."""
    folder, _, points = open_run(run)
    parents, children = logged(uri)
    assert {p.data.tags["flexhpc.point_id"] for p in parents} == {p.id for p in points}
    by_tag = {child.data.tags["flexhpc.probe"]: child for child in children}
    assert len(by_tag) == len(children)
    for parent in parents:
        point_id = parent.data.tags["flexhpc.point_id"]
        record = read(folder.point(point_id))
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


def test_a_sweep_leaves_mlflow_up_to_date(measured: Path) -> None:
    folder, _, points = open_run(measured)
    holds_all(local_uri(folder), measured)
    assert up_to_date(folder, None, StatusReader(folder, points).read())


def test_curves_brackets_artifacts_and_tags(measured: Path) -> None:
    folder, _, _ = open_run(measured)
    uri = local_uri(folder)
    client = mlflow_client(uri)
    parents, children = logged(uri)
    for parent in parents:
        point_id = parent.data.tags["flexhpc.point_id"]
        probes = read(folder.point(point_id)).probes
        steps = client.get_metric_history(parent.info.run_id, "n")
        assert [m.value for m in sorted(steps, key=lambda m: m.step)] == [p.n for p in probes]
        lows = client.get_metric_history(parent.info.run_id, "largest_fit")
        assert sorted(m.value for m in lows) == [
            m.value for m in sorted(lows, key=lambda m: m.step)
        ]
        highs = client.get_metric_history(parent.info.run_id, "emc_hi")
        assert max(highs, key=lambda m: m.step).value == parent.data.metrics["emc_hi"]
        tags = parent.data.tags
        assert tags["mlflow.source.name"] == "flexhpc sweep small"
        assert tags["mlflow.user"]
        assert re.fullmatch(r"[0-9a-f]{7,12}\+?|v.*", tags["mlflow.source.git.commit"])
        assert parent.data.metrics["lo"] <= parent.data.metrics["hi"]
        names = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
        first = point_id == open_run(measured)[2][0].id
        assert names == {"fit_curve.svg", f"{point_id}.h5", *(["report"] if first else [])}
        if first:
            (page,) = client.list_artifacts(parent.info.run_id, "report")
            stored = folder.artifacts / parent.info.run_id / "artifacts" / page.path
            assert stored.read_bytes() == (folder.report / "index.html").read_bytes()
            note = client.get_experiment(parent.info.experiment_id).tags["mlflow.note.content"]
            assert f"runs/{parent.info.run_id}/artifacts/{page.path})" in note
    child = max(children, key=lambda c: c.data.metrics["epochs"])
    curve = client.get_metric_history(child.info.run_id, "loss")
    assert len(curve) > 20
    assert max(m.step for m in curve) == child.data.metrics["epochs"]


def test_sync_rebuilds_everything_and_repeats_nothing(run: Path, cli: Cli) -> None:
    assert "probes logged" in cli("sync", run).stdout
    folder, _, _ = open_run(run)
    holds_all(local_uri(folder), run)
    assert cli("sync", run).stdout.startswith("0 probes logged")
    holds_all(local_uri(folder), run)


def test_a_killed_writer_is_completed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die after a child was created but before its metrics were, twice; then sync again."""
    folder, _, _ = open_run(run)
    uri = local_uri(folder)

    class Killed(Exception):
        pass

    for survive in (2, 1):
        syncer = Syncer(folder, uri)
        syncer.connect()
        batch, calls = syncer.client.log_batch, []

        def dying(run_id, *, calls=calls, batch=batch, survive=survive, **kwargs):
            calls.append(run_id)
            if "params" in kwargs and "metrics" in kwargs and len(calls) > survive * 2:
                raise Killed
            return batch(run_id, **kwargs)

        monkeypatch.setattr(syncer.client, "log_batch", dying)
        with pytest.raises(Killed):
            syncer.sync()
    Syncer(folder, uri).sync()
    holds_all(uri, run)


def test_killed_while_creating_the_database(run: Path, cli: Cli, tmp_path: Path) -> None:
    """MLflow makes its tables one after the other, and cannot go on with some of them."""
    attempts = (killed_with_half_a_database(run, tmp_path / f"temporary {i}") for i in range(50))
    assert any(attempts), "its database was complete too often"
    cli("sync", run)
    holds_all(local_uri(open_run(run)[0]), run)
    assert not list(run.glob("*.part")) + list(run.glob(".*.part"))


def killed_with_half_a_database(run: Path, temporary: Path) -> bool:
    """Kill `flexhpc sync` after it started its database; return False if that was complete."""
    (run / "mlflow.db").unlink(missing_ok=True)
    temporary.mkdir()
    syncing = subprocess.Popen(
        [str(FLEXHPC), "sync", str(run)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip

    def started() -> bool:
        databases = temporary.glob("*/mlflow.db")
        return syncing.poll() is not None or any(path.stat().st_size for path in databases)

    wait_for(started, "a database")
    syncing.send_signal(signal.SIGSTOP)
    half = syncing.poll() is None and not (run / "mlflow.db").exists()
    syncing.kill()
    syncing.wait()
    return half


def test_a_run_can_be_copied_and_renamed(measured: Path, tmp_path: Path, cli: Cli) -> None:
    copy = tmp_path / "another name"
    shutil.copytree(measured, copy)
    folder, _, _ = open_run(copy)
    page = page_of(folder, "small")
    assert cli("sync", copy).stdout.startswith("0 probes logged")
    assert page_of(folder, "small") == page
    holds_all(local_uri(folder), copy)
    parents, children = logged(local_uri(folder))
    client = mlflow_client(local_uri(folder))
    for run in (*parents, *children):
        assert run.info.artifact_uri.startswith(folder.artifacts.as_uri())
    got = client.download_artifacts(parents[0].info.run_id, "fit_curve.svg", tmp_path)
    assert Path(got).stat().st_size > 1000
    original = local_uri(open_run(measured)[0])
    run_id = logged(original)[0][0].info.run_id
    assert mlflow_client(original).list_artifacts(run_id), "the original is unchanged"


def test_mlflow_recreates_no_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow creates folder and database for a URI of the usual form."""
    gone = tmp_path / "gone" / "mlflow.db"
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)
    with pytest.raises(sqlalchemy.exc.OperationalError, match="unable to open"):
        mlflow_client(existing_database_uri(gone)).get_experiment_by_name("small")
    assert not gone.parent.exists()


def free_port() -> int:
    """A port that no other process is given by chance before ours has it."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--workers", "1",
        "--artifacts-destination", str(tmp_path / "artifacts"),
    ]  # fmt: skip
    with served(command, port) as address:
        yield address


def answers(process: subprocess.Popen[bytes], address: str) -> bool:
    assert process.poll() is None, "the server ended"
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=2):
        return True
    return False


@contextlib.contextmanager
def served(command: list[str], port: int) -> Iterator[str]:
    """Run a web server; end it and all that it started."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, **UI_ENVIRONMENT},
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(process, address), "the server's answer")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def test_a_tracking_server(run: Path, cli: Cli, server: str) -> None:
    cli("sync", run, "--uri", server)
    holds_all(server, run)


def test_a_dead_server_costs_a_warning(tmp_path: Path, small_spec: Path, cli: Cli) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text(f"tracking_uri: http://127.0.0.1:{free_port()}\n")
    done = cli("sweep", small_spec, "--profile", profile, "--set", "model.width=[4]")
    assert "warning: MLflow at http://127.0.0.1" in done.stderr
    assert done.stderr.count("warning: ") <= 2
    run = tmp_path / "runs" / "small"
    folder, _, points = open_run(run)
    assert all(status.state == "done" for status in StatusReader(folder, points).read())
    assert not sync_state_path(folder).exists()
    failed = cli("sync", run, "--uri", f"http://127.0.0.1:{free_port()}", check=1)
    assert "cannot be written" in failed.stderr
    cli("sync", run)
    holds_all(local_uri(folder), run)


def test_a_server_that_never_answers_does_not_hold_up_a_sweep(
    tmp_path: Path, small_spec: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        profile = tmp_path / "profile.yaml"
        profile.write_text(f"tracking_uri: http://127.0.0.1:{silent.getsockname()[1]}\n")
        done = cli("sweep", small_spec, "--profile", profile, "--set", "model.width=[4]")
    assert done.stderr.count("warning: MLflow") == 1
    assert (tmp_path / "runs" / "small" / "report" / "index.html").is_file()


@pytest.mark.browser
def test_the_ui_shows_points_and_probes(measured: Path, tmp_path: Path, chromium: Any) -> None:
    from playwright.sync_api import expect

    shutil.copytree(measured, tmp_path / "run")
    folder, _, points = open_run(tmp_path / "run")
    port = free_port()
    path = page_of(folder, "small")
    parents, _ = logged(local_uri(folder))
    with served(ui_command(folder, port), port) as address:
        doors = [one for one in psutil.net_connections("inet") if one.laddr.port == port]
        listening = {one.laddr.ip for one in doors if one.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}
        page = chromium.new_page(viewport={"width": 1600, "height": 1000})
        experiment = parents[0].info.experiment_id
        page.goto(address + path)  # as it is printed: all points, with EMC
        for point in points:
            expect(page.get_by_text(point.label, exact=True).first).to_be_visible(timeout=60_000)
        expect(page.get_by_text("3 matching runs")).to_be_visible()
        for column in ("emc", "emc_lo", "emc_hi"):
            expect(page.locator(f"[role=columnheader][col-id*='`{column}`']")).to_be_visible()
        page.get_by_role("link", name=points[0].label).click()  # and two clicks to each probe
        page.get_by_role("link", name="00 n=16 fit").first.click()
        expect(page.get_by_text("final_loss").first).to_be_visible(timeout=60_000)
        page.goto(f"{address}/#/experiments/{experiment}/runs?workflowType=machine_learning")
        expect(page.get_by_text(points[0].label, exact=True).first).to_be_visible(timeout=60_000)
        children = page.get_by_text("00 n=16 fit")
        assert children.count() == 0
        page.locator("[role=gridcell][col-id*='Run Name'] button").first.click()
        expect(children.first).to_be_visible(timeout=30_000)
        run_id = parents[0].info.run_id
        page.goto(f"{address}/#/experiments/{experiment}/runs/{run_id}/model-metrics")
        expect(page.locator("svg.main-svg").first).to_be_visible(timeout=60_000)
        page.goto(f"{address}/#/experiments/{experiment}/runs/{run_id}/artifacts/fit_curve.svg")
        expect(page.locator("img").first).to_be_visible(timeout=60_000)


def test_ui_with_a_damaged_database_says_what_to_do(run: Path, cli: Cli) -> None:
    (run / "mlflow.db").write_text("not a database")
    assert "flexhpc sync" in cli("ui", run, check=2).stderr
