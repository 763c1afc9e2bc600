"""Faults of files: flipped bits, truncation, NaN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from tests.faults.site import SPEC, Outcome, Site


def damaged_point_file(site: Site, faults: int) -> Outcome:
    """Damage a point file: the point fails with one error until the file is removed."""
    for _ in range(faults):
        site.finish(site.start())
        files = sorted(site.run.glob("points/*/*.h5"))
        path = files[int(site.rng.integers(len(files)))]
        damage(path, site)
        site.outcome.faults += 1
        sweep = site.start()
        output = site.finish(sweep, check=False)  # HDF5 must not parse the damaged file here
        site.expect(sweep.returncode == 1 and "is corrupt" in output, output)
        path.unlink()
        site.forget_point(path.stem)
    return site.resume_and_compare()


def damaged_checkpoint(site: Site, faults: int) -> Outcome:
    """Damage the checkpoints while no process runs: they are ignored."""
    for _ in range(faults):
        sweep = site.start()
        site.hold(sweep)
        site.barrier.continue_slowly()
        site.wait(sweep, lambda: list(site.run.glob("points/*/*.ckpt")))
        site.kill(sweep)
        for path in site.run.glob("points/*/*.ckpt"):
            damage(path, site)
            site.outcome.faults += 1
    return site.resume_and_compare()


def nan_in_data(site: Site, faults: int) -> Outcome:
    """Set a pixel of the data to NaN: points fail with one error until the file is restored."""
    digits = load_digits()
    images = digits.images.astype(np.float32)
    path = site.folder / "digits.npz"

    def write(images: np.ndarray) -> None:
        np.savez(path, images=images, labels=digits.target)

    write(images)
    site.use_spec(SPEC.replace("source: digits", f"source: arrays, path: {path}"))
    for _ in range(faults):
        site.remove_run()
        sweep = site.start()
        site.hold(sweep)
        site.kill(sweep)
        with_nan = images.copy()
        with_nan.flat[int(site.rng.integers(images.size))] = np.nan
        write(with_nan)
        sweep = site.start()
        output = site.finish(sweep)
        site.outcome.faults += sweep.returncode != 0  # 0 if the sweep was already complete
        site.expect("images hold nan" in output or not sweep.returncode, output)
        write(images)
    return site.resume_and_compare()


def damage(path: Path, site: Site) -> None:
    """Flip one to eight bits of a file, or truncate the file."""
    content = bytearray(path.read_bytes())
    if site.rng.random() < 0.7:
        count = int(site.rng.integers(1, 9))
        for index in site.rng.choice(len(content), size=count, replace=False):
            content[index] ^= 1 << int(site.rng.integers(8))
    else:
        del content[int(site.rng.integers(len(content))) :]
    path.write_bytes(content)
