"""Batches from a pack: streamed by worker processes, or from the whole split held in memory or on the device.

All ways give the same batches in the same order. Pictures stay uint8 until they are on the device, a quarter of what
float32 would move.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from hcr.errors import HcrError, UsageError
from hcr.feed.mmap import pictures_of
from hcr.feed.sampler import Batch, SequentialBatches, TrainingBatches
from hcr.feed.stream import Stream
from hcr.pack.store import PackReader, open_pack


# Copy the next batch to the GPU while it works on this one.
#
# On a stream of its own, because copies and kernels of one stream wait for each other. It costs two batches of device
# memory.
#
def prefetch(batches: Iterable[Batch], device: str) -> Iterator[Batch]:
    """Return `batches`, in pinned memory, with images and labels on the CUDA `device`; index stays where it is."""
    stream = torch.cuda.Stream(device)
    # Host batches are held until they are copied: their memory may be a slot that is written again when let go.
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


# A whole split as one uint8 tensor, in memory or on the device.
#
# Nothing is faster, and nothing costs more memory: N · S · S bytes, which for 900,000 pictures of 64 px is 3.7 GB.
#
_ROWS = 4096


def resident_bytes(reader: PackReader) -> int:
    """Count the bytes that a split's pictures take."""
    return len(reader) * reader.size * reader.size


def load_resident(path: Path, device: str) -> Tensor:
    """Read every picture of a split: uint8[N, 1, S, S] on `device`.

    Raises: HcrError, before anything is taken, where memory is clearly short; DataError for a damaged block.
    """
    reader = open_pack(path)
    wanted, free = resident_bytes(reader), _free_bytes(device)
    if free is not None and wanted > free:
        where = "in memory" if device == "cpu" else f"on {device}"
        raise HcrError(f"{path}: {wanted:,} bytes of pictures, found {free:,} free {where}: use --cache none")
    pictures, shape = pictures_of(path), (1, reader.size, reader.size)
    whole = torch.empty((len(reader), *shape), dtype=torch.uint8, device=device)
    for start in range(0, len(reader), _ROWS):
        index = np.arange(start, min(start + _ROWS, len(reader)))
        rows = whole[start : start + len(index)]
        if whole.is_cpu:
            # Straight into its place: memory that a copy went through would not go back to the system.
            pictures.read(index, rows)
        else:
            part = torch.empty((len(index), *shape), dtype=torch.uint8)
            pictures.read(index, part)
            rows.copy_(part)
    return whole


def _free_bytes(device: str) -> int | None:
    """How many bytes can be had; None where the system does not say."""
    if device != "cpu":
        return torch.cuda.mem_get_info()[0]
    found = []
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text("utf-8").splitlines())
        found.append(int(fields["MemAvailable"].split()[0]) * 1024)
        # A container's limit; files that it holds in the page cache give way.
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text("utf-8"))
        cached = dict(line.split() for line in (group / "memory.stat").read_text("utf-8").splitlines())["file"]
        found.append(int((group / "memory.max").read_text("utf-8")) - used + int(cached))
    except (OSError, KeyError, ValueError):
        pass  # not Linux, no container, or no limit ("max")
    return min(found, default=None)


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
