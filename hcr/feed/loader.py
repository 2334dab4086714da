"""Batches from a pack: streamed by worker processes, or from the whole split held in memory or on the device.

All ways give the same batches in the same order. Pictures stay uint8 until they are on the device, a quarter of what
float32 would move.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from hcr.errors import UsageError
from hcr.feed.batch import Batch
from hcr.feed.gather import pictures_of
from hcr.feed.order import SequentialBatches, TrainingBatches
from hcr.feed.prefetch import prefetch
from hcr.feed.resident import load_resident
from hcr.feed.stream import Stream
from hcr.pack.store import open_pack

Cache = Literal["none", "ram", "device"]


class Loader:
    """Batches in the order of `batches`, images and labels on `device`, index in memory.

    workers: processes that read; 0: this one. cache: "none", or hold the whole split as uint8, in memory ("ram") or on
    the device ("device"; nobody reads then, and `workers` count for nothing). The batches depend on none of these.
    labels: int[N], other ones than the pack's.

    A batch may be kept as long as one likes. Loaders share no state; of one, run one pass at a time.

    Raises: UsageError for an unknown cache; HcrError where memory is short; while iterating, DataError for a damaged
    block (no batch that holds it is given), and HcrError for a worker that died.
    """

    def __init__(
        self,
        path: Path,
        batches: TrainingBatches | SequentialBatches,
        *,
        workers: int = 0,
        cache: Cache = "none",
        device: str = "cpu",
        labels: np.ndarray | None = None,
    ) -> None:
        if cache not in get_args(Cache):
            raise UsageError(f"cache {cache!r}: expected one of {', '.join(get_args(Cache))}")
        self.path, self.batches, self.workers, self.device = path, batches, workers, device
        self._cuda = device != "cpu"
        self._stream = Stream(path, batches, workers, pin_memory=self._cuda)
        self._resident = None if cache == "none" else load_resident(path, device if cache == "device" else "cpu")
        self._labels = open_pack(path).labels if labels is None else labels

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        if self._resident is not None:
            batches = self._select(self._resident)
        elif self.workers:
            batches = self._streamed()
        else:
            batches = self._read()
        return prefetch(batches, self.device) if self._cuda else batches

    def _streamed(self) -> Iterator[Batch]:
        for index, images in self._stream:
            yield _batch(index, images, self._labels, pin_memory=self._cuda)

    def _read(self) -> Iterator[Batch]:
        pictures = pictures_of(self.path)
        shape = (1, pictures.reader.size, pictures.reader.size)
        for index in self.batches:
            images = torch.empty((len(index), *shape), dtype=torch.uint8, pin_memory=self._cuda)
            pictures.read(index, images)
            yield _batch(index, images, self._labels, pin_memory=self._cuda)

    def _select(self, resident: Tensor) -> Iterator[Batch]:
        shape = resident.shape[1:]
        for index in self.batches:
            if resident.is_cpu:
                images = torch.empty((len(index), *shape), dtype=torch.uint8, pin_memory=self._cuda)
                torch.index_select(resident, 0, torch.from_numpy(index), out=images)
            else:
                rows = torch.from_numpy(index).pin_memory().to(resident.device, non_blocking=True)
                images = torch.index_select(resident, 0, rows)
            yield _batch(index, images, self._labels, pin_memory=self._cuda)


def _batch(index: np.ndarray, images: Tensor, labels: np.ndarray, *, pin_memory: bool) -> Batch:
    named = torch.from_numpy(labels[index].astype(np.int64))
    return Batch(images, named.pin_memory() if pin_memory else named, torch.from_numpy(index))
