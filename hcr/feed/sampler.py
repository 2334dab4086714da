"""Which samples come when: a pure function of (n, seed, epoch), so that resuming needs no sampler state.

A run that is resumed with another number of workers or processes sees the same samples in the same steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch import Tensor


class Batch(NamedTuple):
    """What every loader gives: images uint8[B, 1, S, S] (255 = paper), labels int64[B], index int64[B].

    index: positions in the pack, or the numbers of drawn samples. clean: what a teacher is shown instead of the images,
    uint8[B, 1, S, S]; None where that is the images themselves.
    """

    images: Tensor
    labels: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index; torch pins named tuples, but no dataclass
    clean: Tensor | None = None


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Return the permutation int64[n] in which epoch `epoch` visits the samples."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Return the number of full batches in an epoch; samples that fill none are left out of that epoch."""
    return n // batch_size


class TrainingBatches:
    """A batch sampler: the index batches of one epoch, from `start` (a step within it) on.

    Of `world` processes, number `rank` gets every world-th sample of each batch of `batch_size`: int64[share]. So any
    number of processes sees the same samples in the same steps. Set `epoch` and `start` before each pass.
    """

    def __init__(self, n: int, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.n, self.batch_size, self.seed, self.rank, self.world = n, batch_size, seed, rank, world
        self.share = _share(batch_size, rank, world)
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return steps_per_epoch(self.n, self.batch_size) - self.start

    def __iter__(self) -> Iterator[np.ndarray]:
        order = epoch_order(self.n, self.seed, self.epoch)
        for step in range(self.start, steps_per_epoch(self.n, self.batch_size)):
            yield order[step * self.batch_size : (step + 1) * self.batch_size][self.rank :: self.world]


class EndlessBatches(TrainingBatches):
    """The same for samples without end, n an epoch: each epoch continues counting where the last one ended.

    Step k of a run has the samples from k · batch_size on, whatever the epoch, so that no sample comes twice.
    """

    def __iter__(self) -> Iterator[np.ndarray]:
        steps = steps_per_epoch(self.n, self.batch_size)
        for step in range(self.epoch * steps + self.start, (self.epoch + 1) * steps):
            yield np.arange(step * self.batch_size, (step + 1) * self.batch_size)[self.rank :: self.world]


class SequentialBatches:
    """A batch sampler for evaluation: every sample once, in the pack's order, the last batch short.

    Of `world` processes, number `rank` gets every world-th sample; the last batch may have none for some.
    """

    def __init__(self, n: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.n, self.batch_size, self.rank, self.world = n, batch_size, rank, world
        self.share = _share(batch_size, rank, world)

    def __len__(self) -> int:
        whole, rest = divmod(self.n, self.batch_size)
        return whole + (rest > self.rank)

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, self.n, self.batch_size):
            index = np.arange(start, min(start + self.batch_size, self.n))[self.rank :: self.world]
            if len(index):
                yield index


def _share(batch_size: int, rank: int, world: int) -> int:
    """Return how many samples of a full batch a process gets."""
    return len(range(rank, batch_size, world))
