"""Every data source whose samples are drawn from the seed of a point."""

from __future__ import annotations

import numpy as np
import pytest

from flexhpc.config.variants import variants
from flexhpc.data.dataset import Source
from flexhpc.data.sources import open_source

SEEDED = [name for name, cls in variants("data").items() if getattr(cls, "seeded", False)]


def arrays_of(source: Source) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate(list(source.train.blocks())), source.train.labels


@pytest.mark.parametrize("name", SEEDED)
def test_samples_depend_on_the_seed_and_agree_with_the_section(name: str) -> None:
    section = variants("data")[name].model_validate({"source": name})
    (inputs, labels), (same, same_labels), (other, _) = (
        arrays_of(open_source(section, seed)) for seed in (0, 0, 1)
    )
    assert np.array_equal(inputs, same)
    assert np.array_equal(labels, same_labels)
    assert not np.array_equal(inputs, other)
    info = section.static_info
    assert inputs.shape == (info.size, *info.shape)
    assert section.has_vectors == (len(info.shape) == 1)
    assert 0 <= labels.min() <= labels.max() < info.classes
