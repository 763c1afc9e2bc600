"""Run the notebooks of the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "docs" / "notebooks").glob("*.ipynb"))


class Client(NotebookClient):
    """Records what `display` handles were updated with."""

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] == "update_display_data":
            self.updates.append(msg["content"]["data"])
        return super().process_message(msg, cell, cell_index)


@pytest.mark.sweeps
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit without outputs"
    client = Client(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.updates = []
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(str(output.get("text", output.get("data", ""))) for output in outputs)
    assert text.count("EMC") >= 2
    assert "image/png" in text
    assert text.count("<table>") == 3
    assert "(tolerance 40 %)" in client.updates[-2]["text/plain"]
    assert client.updates[-1] == {"text/plain": ""}, "the progress is removed at the end"
    assert "samples were drawn more than twice" in text
    assert not any(output.get("name") == "stderr" for output in outputs), outputs
