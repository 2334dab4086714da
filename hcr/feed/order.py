"""Which samples come when: a pure function of (n, seed, epoch), so that resuming needs no sampler state.

A run that stops and goes on with other worker counts or ranks sees the same samples in the same steps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Give the permutation int64[n] in which epoch `epoch` visits the samples."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Count the full batches of an epoch; the samples that do not fill one are left to the next epoch's order."""
    return n // batch_size


class TrainingBatches:
    """A batch sampler: the index batches int64[batch_size] of one epoch, from `start` (a step within it) on.

    Set `epoch` and `start` before each pass.
    """

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return steps_per_epoch(self.n, self.batch_size) - self.start

    def __iter__(self) -> Iterator[np.ndarray]:
        order = epoch_order(self.n, self.seed, self.epoch)
        for step in range(self.start, steps_per_epoch(self.n, self.batch_size)):
            yield order[step * self.batch_size : (step + 1) * self.batch_size]


class SequentialBatches:
    """A batch sampler for evaluation: every sample once, in the pack's order, the last batch short."""

    def __init__(self, n: int, batch_size: int) -> None:
        self.n, self.batch_size = n, batch_size

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, self.n, self.batch_size):
            yield np.arange(start, min(start + self.batch_size, self.n))
