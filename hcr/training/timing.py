"""timings.jsonl: how fast an epoch was, and how long the device waited for batches, which it is never made to say.

On a CPU that is the time until a batch is there. A GPU works on what it was told while Python fetches the next batch,
so there the time counts between the end of one step and the start of the next on the GPU itself, by events. Events are
read when they have long happened; the price is two of them a step.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from hcr.feed.batch import Batch


class EpochClock:
    """Times an epoch's steps on `device`, from when it is made."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._began = time.perf_counter()
        self._marks: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self._waited = 0.0

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Give `batches`, timing how long each was waited for."""
        source = iter(batches)
        while True:
            before = self._mark()
            batch = next(source, None)
            if batch is None:
                return
            self._add(before, self._mark())
            yield batch

    def line(self, epoch: int, steps: int, pictures: int) -> dict[str, Any]:
        """Give the line of timings.jsonl for that many steps and pictures; on CUDA this waits for the last step."""
        if self._cuda:
            torch.cuda.synchronize()
        self._read()
        seconds = time.perf_counter() - self._began
        return {
            "epoch": epoch,
            "steps": steps,
            "seconds": round(seconds, 3),
            "pictures_per_second": round(pictures / seconds, 1),
            "data_wait": round(self._waited / seconds, 4),
        }

    def _mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _add(self, before: Any, after: Any) -> None:
        if self._cuda:
            self._marks.append((before, after))
            self._read()
        else:
            self._waited += after - before

    def _read(self) -> None:
        while self._marks and self._marks[0][1].query():
            before, after = self._marks.popleft()
            self._waited += before.elapsed_time(after) / 1000
