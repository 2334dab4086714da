"""Real handwriting for the benchmarks that compare models or pens by it: the samples of GNT files, fitted pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import gnt_files

from hcr.corpus.gnt import read_gnt
from hcr.corpus.sample import Sample
from hcr.preprocess.fit import fit_squares

SEED = 0


def read_samples(folder: Path) -> list[Sample]:
    """Read the whole records of all GNT files below a folder, in order."""
    samples: list[Sample] = []
    for path in gnt_files(folder):
        found = read_gnt(path.read_bytes(), writer=path.stem, name=path.name)
        samples += [sample for sample in found if isinstance(sample, Sample)]
    return samples


def some(samples: Sequence[Sample], count: int | None) -> list[Sample]:
    """Choose `count` samples with a fixed seed, in order; all of them where there are no more."""
    if count is None or count >= len(samples):
        return list(samples)
    chosen = np.random.default_rng(SEED).choice(len(samples), count, replace=False)
    return [samples[place] for place in sorted(chosen)]


def fitted(samples: Sequence[Sample], size: int) -> np.ndarray:
    """Fit samples as a pack would have them: uint8[N, size, size]."""
    squares = np.empty((len(samples), size, size), np.uint8)
    fit_squares([sample.picture for sample in samples], [squares])
    return squares
