"""Run the GPU tests and bench.speed on a GPU, in a few minutes.

Usage: python -m bench.gpu_check [--json gpu_check.json]
Changes no settings of the machine or the GPU. Prints the name of the GPU with the results. Exits
with status 1 without a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch

TESTS = ("-m", "pytest", "-q", "-n", "0", "-m", "gpu", "tests/training/test_gpu.py")
SPEED = (
    "-m", "bench.speed", "--device", "cuda", "--rounds", "3", "--seconds", "1",
    "--networks", "MLP 8,MLP 512,CNN 32,ResNet 4,ViT 48",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("gpu_check.json"))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print(f"no GPU is visible to torch {torch.__version__}; nothing was checked")
        return 1
    properties = torch.cuda.get_device_properties(0)
    card = f"{properties.name}, {properties.total_memory >> 30} GiB, torch {torch.__version__}"
    print(card, flush=True)
    tests_passed = subprocess.run([sys.executable, *TESTS], check=False).returncode == 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rates.json"
        command = [sys.executable, *SPEED, "--json", str(path)]
        measured = subprocess.run(command, check=False).returncode == 0
        rates = json.loads(path.read_text()) if measured else None
    results = {"card": card, "tests_passed": tests_passed, "samples_per_second": rates}
    arguments.json.write_text(json.dumps(results, indent=1))
    print(f"{card}: tests {'passed' if tests_passed else 'failed'}; {arguments.json}")
    return 0 if tests_passed and measured else 1


if __name__ == "__main__":
    sys.exit(main())
