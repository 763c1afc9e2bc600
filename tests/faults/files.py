"""Faults of files: a bit flipped, cut off."""

from __future__ import annotations

from pathlib import Path

from tests.faults.site import Outcome, Site, end


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
        said = site.finish(sweep)
        if sweep.returncode not in (0, 1) or (sweep.returncode and "not a readable" not in said):
            site.outcome.wrong += 1
        if sweep.returncode:
            path.unlink()
            site.forget(path.stem)
    return site.conclude()


def damaged_checkpoint(site: Site, times: int) -> Outcome:
    """Flip a bit of a checkpoint, or cut it, while nobody is at work: never trained on."""
    for _ in range(times):
        sweep = site.start()
        site.wait(sweep, lambda: list(site.run.glob("points/*/*.ckpt")))
        site.somewhere(0.5)
        end(sweep)
        site.note_probes()
        for path in site.run.glob("points/*/*.ckpt"):
            harm(path, site)
            site.outcome.tried += 1
    return site.conclude()


def harm(path: Path, site: Site) -> None:
    """Flip some bits of a file at random places, or cut it off at one."""
    content = bytearray(path.read_bytes())
    if site.rng.random() < 0.7:
        for at in site.rng.integers(len(content), size=int(site.rng.integers(1, 9))):
            content[at] ^= 1 << int(site.rng.integers(8))
    else:
        del content[int(site.rng.integers(len(content))) :]
    path.write_bytes(content)
