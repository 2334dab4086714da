"""timings.jsonl: how fast an epoch was, and how long the device waited for batches; and the estimate of a run's time.

On a CPU the wait is the time until a batch is there. A GPU works on while Python fetches the next batch, so there the
wait is measured on the GPU itself, by events between the end of one step and the start of the next. Events are read
when they have long happened, so that the GPU is never made to wait; the price is two events a step.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from hcr.feed.sampler import Batch
from hcr.records import TimingsRow
from hcr.text import counted
from hcr.training.setup import RunSetup


class EpochClock:
    """Times an epoch's steps on `device`, from the moment it is made."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._start = time.perf_counter()
        self._marks: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self._waited = 0.0

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Return `batches`, timing the wait for each."""
        source = iter(batches)
        while True:
            before = self._mark()
            batch = next(source, None)
            if batch is None:
                return
            self._add(before, self._mark())
            yield batch

    @property
    def seconds(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self._start

    @property
    def data_wait(self) -> float:
        """Share of that time in which the device waited for batches, as far as the events have happened."""
        return self._waited / self.seconds

    def row(self, epoch: int, steps: int, pictures: int) -> TimingsRow:
        """Return the row of timings.jsonl for that many steps and pictures; on CUDA this waits for the last step."""
        if self._cuda:
            torch.cuda.synchronize()
        self._read()
        seconds = self.seconds
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


def estimate(setup: RunSetup, step: int, epochs: int, batches: int, seconds: float) -> str:
    """Say how long a run that has taken `step` steps and `epochs` epochs still takes, at `seconds` a step.

    batches: of a validation.
    """
    config, device = setup.config, setup.execution.device
    left, epochs = setup.total - step, config.epochs - epochs
    # A validation batch costs a forward pass, about a third of a training step.
    whole = _duration((left + epochs * batches / 3) * seconds)
    advice = ""
    if device == "cpu":
        small = "" if config.arch in ("compact", "compact_small") else "; --arch compact is the network for a CPU"
        advice = f". Ctrl-C saves and stops, --resume continues{small}"
    return (
        f"about {whole} for the {counted(left, 'step')} left of {counted(epochs, 'epoch')}, at "
        f"{config.batch_size / seconds:,.0f} pictures "
        f"a second on this {device.upper()}{advice}"
    )


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
