"""Worker processes that read a pack, over torch's DataLoader.

Labels and index never travel, since the process that asks for the samples knows them. A worker gets (slot, samples) and
answers with the slot's number. Where a consumer keeps so many batches that no slot is free, the worker sends the
pictures themselves through the pipe, which is slower and takes no shared memory.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from hcr.errors import DataError, HcrError
from hcr.feed.mmap import Pictures, pictures_of
from hcr.feed.ring import Ring, free_shared_memory
from hcr.feed.sampler import SequentialBatches, TrainingBatches
from hcr.pack.store import open_reader
from hcr.workers import how_it_ended

# Batches that each worker reads ahead.
AHEAD = 2
# Batches that a consumer may hold at full speed: a copy to a device keeps some until it is done.
HELD = 6

Task = tuple[int | None, np.ndarray]
Answer = int | np.ndarray | DataError


class WorkerError(HcrError):
    """A process that read batches has ended; another pass, from the next step on, starts new ones."""


class Stream:
    """The batches of one split in the order of `batches`, read by `workers` processes that live as long as it does."""

    def __init__(
        self, path: Path, batches: TrainingBatches | SequentialBatches, workers: int, *, pin_memory: bool
    ) -> None:
        self.path, self.batches, self.workers, self.pin_memory = path, batches, workers, pin_memory
        self._running: tuple[Ring, _Tasks, DataLoader[Answer]] | None = None

    def __iter__(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Return (index int64[B], images uint8[B, 1, S, S]), one pass. Raises: DataError, WorkerError."""
        try:
            yield from self._pass()
        except Exception:
            # Some workers may have ended while others still write: the next pass starts new ones.
            if self._running:
                self._running[0].close()
            self._running = None
            raise

    def _pass(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        ring, tasks, loader = self._running = self._running or self._start()
        try:
            answers = _without_alarm(loader)
            if self.pin_memory:
                ring.pin()
            for answer in answers:
                slot, index = tasks.sent.popleft()
                if isinstance(answer, DataError):
                    raise answer
                if slot is None:
                    images = torch.from_numpy(answer)
                    yield index, images.pin_memory() if self.pin_memory else images
                else:
                    yield index, ring.lend(slot, len(index))
        except (RuntimeError, ConnectionError, EOFError):
            # The error is the workers' only if some have ended.
            fate = _fate(loader)
            if fate is None:
                raise
            free = ", ".join(f"{room:,} bytes free in {folder}" for folder, room in free_shared_memory().items())
            message = f"reading batches: {fate} ({free}); if memory ran out, use fewer --workers"
        else:
            return
        # Raised outside the handler: the frames of torch's error would keep the workers alive with it.
        raise WorkerError(message)

    def _start(self) -> tuple[Ring, _Tasks, DataLoader[Answer]]:
        ring = Ring(self.workers * AHEAD + HELD, self.batches.share, open_reader(self.path).size)
        tasks = _Tasks(self.batches, ring)
        loader = DataLoader(
            _Reader(self.path, ring),
            batch_sampler=tasks,  # type: ignore[arg-type]  # a task serves as a list of indices
            collate_fn=_as_it_is,
            num_workers=self.workers,
            prefetch_factor=AHEAD,
            persistent_workers=True,
            worker_init_fn=_leave_signals_to_the_parent,
            # A generator of its own: the default one would draw from the random state that a checkpoint holds.
            generator=torch.Generator(),
        )
        return ring, tasks, loader


class _Tasks:
    """The batch sampler: the tasks for the workers; `sent` are those whose answers have not been read yet."""

    def __init__(self, batches: TrainingBatches | SequentialBatches, ring: Ring) -> None:
        self.batches, self.ring = batches, ring
        self.sent: deque[Task] = deque()

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Task]:
        # The last pass was left in its middle. Before it asks for more, the DataLoader waits for the answers under way.
        while self.sent:
            slot, _ = self.sent.popleft()
            if slot is not None:
                self.ring.put_back(slot)
        for index in self.batches:
            task = self.ring.take(), index
            self.sent.append(task)
            yield task


class _Reader(Dataset[Answer]):
    """What runs in a worker. It returns errors: torch would wrap them in a page of the worker's traceback."""

    def __init__(self, path: Path, ring: Ring) -> None:
        self.path, self.ring = path, ring
        self.pictures: Pictures | None = None  # opened by the worker: no LMDB environment may cross a fork

    def __getitems__(self, task: Task) -> Answer:
        slot, index = task
        try:
            pictures = self.pictures = self.pictures or pictures_of(self.path)
            if slot is not None:
                pictures.read(index, self.ring.slot(slot, len(index)))
                return slot
            side = pictures.reader.size
            images = torch.empty((len(index), 1, side, side), dtype=torch.uint8)
            pictures.read(index, images)
            return images.numpy()
        except DataError as error:
            return error


def _as_it_is(answer: Any) -> Any:
    return answer


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ignore signals that ask a run to stop: they may reach all processes, and the parent needs batches to stop."""
    info: Any = get_worker_info()
    ring: Ring = info.dataset.ring

    def end(*_: object) -> None:
        if ring.closed:
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)


def _without_alarm(loader: DataLoader[Answer]) -> Iterator[Answer]:
    """Start a pass, but leave SIGCHLD as it is.

    When a worker dies, torch's handler raises in the main thread wherever that is, even in the middle of a step.
    Without it the death is found where a batch is waited for, five seconds later at most.
    """
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    answers = iter(loader)
    signal.signal(signal.SIGCHLD, before)
    return answers


def _fate(loader: Any) -> str | None:
    """Return which of a loader's workers have ended, and how; None where all live."""
    fates = []
    for worker in loader._iterator._workers:
        if not worker.is_alive():
            fates.append(f"worker process {worker.pid} {how_it_ended(worker.exitcode)}")
    return ", ".join(fates) or None
