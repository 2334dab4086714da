"""Who watches a run: the library prints nothing, a command shows what it hears, a test keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class StepReport:
    """Where a run stands after a step.

    step, total: steps taken, and those of the whole run. pictures: of a step, in all processes together.
    epoch: the present one, from 1.
    loss, top1: means of the epoch's training pictures so far (of this process). data_wait: share of the time since the
    epoch began in which the device waited for batches.
    """

    step: int
    total: int
    pictures: int
    epoch: int
    loss: float
    top1: float
    data_wait: float


class Observer(Protocol):
    """Hears what a run has to tell."""

    def note(self, message: str) -> None:
        """Hear something worth knowing: a resume, a skipped checkpoint, an estimate."""

    def step(self, report: StepReport) -> None:
        """Hear that a step is taken."""

    def validating(self, advance: int, total: int) -> None:
        """Hear that `advance` more of `total` validation samples are judged."""

    def epoch(self, row: dict[str, Any], timing: dict[str, Any]) -> None:
        """Hear that an epoch ended; `row` is its line of metrics.jsonl, `timing` its line of timings.jsonl."""


class NullObserver:
    """An observer that hears nothing: that of every process but the first."""

    def note(self, message: str) -> None:
        pass

    def step(self, report: StepReport) -> None:
        pass

    def validating(self, advance: int, total: int) -> None:
        pass

    def epoch(self, row: dict[str, Any], timing: dict[str, Any]) -> None:
        pass
