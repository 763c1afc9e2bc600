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

NETWORKS = "MLP 8,MLP 512,CNN 32,ResNet 4,ViT 48"
TESTS = ("-m", "pytest", "-q", "-n", "0", "-m", "gpu", "tests/training/test_gpu.py")


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
    passed = subprocess.run([sys.executable, *TESTS], check=False).returncode == 0
    with tempfile.TemporaryDirectory() as folder:
        rates = Path(folder) / "rates.json"
        bench = ["-m", "bench.speed", "--device", "cuda", "--rounds", "3", "--seconds", "1"]
        more = ["--networks", NETWORKS, "--json", str(rates)]
        timed = subprocess.run([sys.executable, *bench, *more], check=False).returncode == 0
        speed = json.loads(rates.read_text()) if timed else None
    results = {"card": card, "tests_passed": passed, "samples_per_second": speed}
    arguments.json.write_text(json.dumps(results, indent=1))
    verdict = "passed" if passed else "failed"
    print(f"{card}: tests {verdict}; {arguments.json}")
    return 0 if passed and timed else 1


if __name__ == "__main__":
    sys.exit(main())
