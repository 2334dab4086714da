"""Batches from a pack: streamed by worker processes, or from the whole split held in memory or on the device.

All ways give the same batches in the same order. Pictures stay uint8 until they are on the device: a quarter of the
bytes of float32. A held split is fastest and takes most memory, N · S · S bytes: 3.7 GB for 900,000 pictures of 64 px.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hcr.errors import HcrError, UsageError
from hcr.feed import CACHES
from hcr.feed.mmap import pictures_of
from hcr.feed.sampler import Batch, SequentialBatches, TrainingBatches
from hcr.feed.stream import Stream
from hcr.pack.store import PackReader, open_reader

# Pictures that are read at once into a cache.
_ROWS = 4096


class Loader:
    """Batches in the order of `batches`, images and labels on `device`, index in memory.

    workers: processes that read; 0: this one.
    cache: "none", or hold the whole split as uint8, in memory ("ram") or on the device ("device", without workers).
    labels: int[N], in the place of the pack's.

    The batches depend on neither workers nor cache. A batch may be kept as long as needed. Loaders share no state; run
    one pass of a loader at a time.
    Raises: UsageError for an unknown cache; HcrError where memory is short; while iterating, DataError for a damaged
    block (in the place of its batch), and HcrError for a worker that died.
    """

    def __init__(
        self,
        path: Path,
        batches: TrainingBatches | SequentialBatches,
        *,
        workers: int = 0,
        cache: str = "none",
        device: str = "cpu",
        labels: np.ndarray | None = None,
    ) -> None:
        if cache not in CACHES:
            raise UsageError(f"cache {cache!r}: expected one of {', '.join(CACHES)}")
        self.path, self.batches, self.workers, self.device = path, batches, workers, device
        self._cuda = device != "cpu"
        self._stream = Stream(path, batches, workers, pin_memory=self._cuda)
        self._resident = None if cache == "none" else load_resident(path, device if cache == "device" else "cpu")
        self._labels = open_reader(path).labels if labels is None else labels

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


def prefetch(batches: Iterable[Batch], device: str) -> Iterator[Batch]:
    """Return `batches`, in pinned memory, with images and labels on the CUDA `device`; index stays where it is.

    The next batch is copied while the GPU works on this one, on a stream of its own, since copies and kernels of one
    stream wait for each other. It costs two batches of device memory.
    """
    stream = torch.cuda.Stream(device)
    # Host batches are held until they are copied: a slot's memory is written again as soon as its batch is dropped.
    copying: deque[tuple[Batch, torch.cuda.Event]] = deque()
    ready: deque[tuple[Batch, torch.cuda.Event]] = deque()
    try:
        for batch in batches:
            with torch.cuda.stream(stream):
                images = batch.images.to(device, non_blocking=True)
                labels = batch.labels.to(device, non_blocking=True)
                done = stream.record_event()
            copying.append((batch, done))
            while copying[0][1].query() and len(copying) > 1:
                copying.popleft()
            ready.append((batch._replace(images=images, labels=labels), done))
            if len(ready) > 1:
                yield _handed_over(*ready.popleft())
        while ready:
            yield _handed_over(*ready.popleft())
    finally:
        stream.synchronize()


def _handed_over(batch: Batch, done: torch.cuda.Event) -> Batch:
    """Let the consumer's stream wait for the copy, and the allocator know that this stream uses it."""
    current = torch.cuda.current_stream(batch.images.device)
    current.wait_event(done)
    batch.images.record_stream(current)
    batch.labels.record_stream(current)
    return batch


def resident_bytes(reader: PackReader) -> int:
    """Return the bytes that a split's pictures take."""
    return len(reader) * reader.size * reader.size


def load_resident(path: Path, device: str) -> Tensor:
    """Return every picture of a split: uint8[N, 1, S, S] on `device`.

    Raises: HcrError, before memory is allocated, where it is clearly short; DataError for a damaged block.
    """
    reader = open_reader(path)
    needed, free = resident_bytes(reader), _free_bytes(device)
    if free is not None and needed > free:
        where = "in memory" if device == "cpu" else f"on {device}"
        raise HcrError(f"{path}: {needed:,} bytes of pictures, found {free:,} free {where}: use --cache none")
    pictures, shape = pictures_of(path), (1, reader.size, reader.size)
    whole = torch.empty((len(reader), *shape), dtype=torch.uint8, device=device)
    for start in range(0, len(reader), _ROWS):
        index = np.arange(start, min(start + _ROWS, len(reader)))
        rows = whole[start : start + len(index)]
        if whole.is_cpu:
            # Straight into its place: memory of a copy in between would not go back to the system.
            pictures.read(index, rows)
        else:
            part = torch.empty((len(index), *shape), dtype=torch.uint8)
            pictures.read(index, part)
            rows.copy_(part)
    return whole


def _free_bytes(device: str) -> int | None:
    """Return how many bytes are free; None where the system does not say."""
    if device != "cpu":
        return torch.cuda.mem_get_info()[0]
    found = []
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text("utf-8").splitlines())
        found.append(int(fields["MemAvailable"].split()[0]) * 1024)
        # A container's limit; its files in the page cache do not count, since they give way.
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text("utf-8"))
        cached = dict(line.split() for line in (group / "memory.stat").read_text("utf-8").splitlines())["file"]
        found.append(int((group / "memory.max").read_text("utf-8")) - used + int(cached))
    except (OSError, KeyError, ValueError):
        pass  # not Linux, no container, or no limit ("max")
    return min(found, default=None)
