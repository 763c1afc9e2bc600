"""Faults of files: a bit flipped, cut off, numbers that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from tests.faults.site import SPEC, Outcome, Site
from tests.sweeps import end


def damaged_point_file(site: Site, times: int) -> Outcome:
    """Flip a bit of a point's file, or cut it: its point fails in a line until it is moved away."""
    for _ in range(times):
        site.finish(site.start())
        site.note_probes()
        files = sorted(site.run.glob("points/*/*.h5"))
        path = files[int(site.rng.integers(len(files)))]
        harm(path, site)
        site.outcome.tried += 1
        sweep = site.start()
        output = site.finish(sweep)
        site.must_say(sweep.returncode == 1 and "is corrupt" in output, output)
        path.unlink()
        site.forget(path.stem)
    return site.conclude()


def damaged_checkpoint(site: Site, times: int) -> Outcome:
    """Flip a bit of a checkpoint, or cut it, while no process runs: it is never trained on."""
    for _ in range(times):
        sweep = site.start()
        site.hold(sweep)
        site.barrier.creep()
        site.wait(sweep, lambda: list(site.run.glob("points/*/*.ckpt")))
        end(sweep)
        site.note_probes()
        for path in site.run.glob("points/*/*.ckpt"):
            harm(path, site)
            site.outcome.tried += 1
    return site.conclude()


def nan_in_data(site: Site, times: int) -> Outcome:
    """A pixel of the data becomes NaN: a line per point, until the file is as it was."""
    digits = load_digits()
    good = digits.images.astype(np.float32)
    path = site.folder / "digits.npz"

    def write(images: np.ndarray) -> None:
        np.savez(path, images=images, labels=digits.target)

    write(good)
    site.measures(SPEC.replace("source: digits", f"source: arrays, path: {path}"))
    for _ in range(times):
        site.begin_anew()
        sweep = site.start()
        site.hold(sweep)
        end(sweep)
        site.note_probes()
        bad = good.copy()
        bad.flat[int(site.rng.integers(bad.size))] = np.nan
        write(bad)
        sweep = site.start()
        output = site.finish(sweep)
        site.outcome.tried += sweep.returncode != 0  # it may have been done already
        site.must_say("images hold nan" in output or not sweep.returncode, output)
        site.note_probes()
        write(good)
    return site.conclude()


def harm(path: Path, site: Site) -> None:
    """Flip bits at some places of a file, or cut it off at one."""
    content = bytearray(path.read_bytes())
    if site.rng.random() < 0.7:
        count = int(site.rng.integers(1, 9))
        for at in site.rng.choice(len(content), size=count, replace=False):
            content[at] ^= 1 << int(site.rng.integers(8))
    else:
        del content[int(site.rng.integers(len(content))) :]
    path.write_bytes(content)
