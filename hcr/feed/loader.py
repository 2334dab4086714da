"""Batches from a pack, by torch's multi-worker DataLoader.

A worker copies pictures once, from LMDB's memory map into the batch, and the collate function has nothing left to do;
pictures stay uint8 until they are on the device, a quarter of what float32 would move.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hcr.errors import DataError
from hcr.feed.order import SequentialBatches, TrainingBatches
from hcr.pack.store import open_pack


class Batch(NamedTuple):
    """images uint8[B, 1, S, S] (255 = paper), labels int64[B], index int64[B] (positions in the pack)."""

    images: Tensor
    labels: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index; torch pins named tuples, but no dataclass


class PackDataset(Dataset[Batch]):
    """The samples of one split. Holds only its path: each process opens the pack for itself."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return len(open_pack(self.path))

    def __getitem__(self, index: int) -> Batch:
        """Give the batch of one sample."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Give the samples at `indices`, in their order. Raises: DataError for a damaged block."""
        pack = open_pack(self.path)
        index = np.asarray(indices, np.int64)
        images = np.empty((len(index), 1, pack.size, pack.size), np.uint8)
        pack.pictures(index, images[:, 0])
        labels = pack.labels[index].astype(np.int64)
        return Batch(torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(index))


class _Careful(Dataset[Batch | DataError]):
    """Hands an error over instead of raising it: torch would wrap it in a page of the worker's traceback."""

    def __init__(self, path: Path) -> None:
        self.dataset = PackDataset(path)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Batch | DataError:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> Batch | DataError:
        try:
            return self.dataset.__getitems__(indices)
        except DataError as error:
            return error


def _as_it_is(batch: Any) -> Any:
    return batch


class Loader:
    """Batches in the order of `batches`, read by `workers` processes (0: in this one).

    The order never depends on the number of workers. `pin_memory` is for copying to a CUDA device.
    Raises, while iterating: DataError for a damaged block; no batch that holds it is given.
    """

    def __init__(
        self, path: Path, batches: TrainingBatches | SequentialBatches, *, workers: int = 0, pin_memory: bool = False
    ) -> None:
        self.batches = batches
        self._loader = DataLoader(
            _Careful(path),
            batch_sampler=batches,  # type: ignore[arg-type]  # arrays of indices serve as lists of them
            collate_fn=_as_it_is,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            # A generator of its own: the default one would draw from the random state that a checkpoint holds.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            if isinstance(batch, DataError):
                raise batch
            yield batch
