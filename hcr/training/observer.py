"""Who watches a run, and what a run tells: the library prints nothing, a command shows what it hears."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NotRequired, Protocol, TypedDict


class MetricsRow(TypedDict):
    """A line of metrics.jsonl, an epoch's figures (docs/formats.md says what each key holds)."""

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_top1: float
    skipped_steps: int
    val_loss: NotRequired[float]
    val_top1: NotRequired[float]
    val_top5: NotRequired[float]
    val_n: NotRequired[int]


class TimingsRow(TypedDict):
    """A line of timings.jsonl, how long an epoch took (docs/formats.md says what each key holds)."""

    epoch: int
    steps: int
    seconds: float
    pictures_per_second: float
    data_wait: float


@dataclass(frozen=True)
class StepReport:
    """Where a run stands after a step.

    step, total: steps taken, and those of the whole run. pictures: of a step, over all processes. epoch: the present
    one, from 1. loss, top1: means over this process's training pictures of the epoch so far. data_wait: share of the
    epoch's time so far in which the device waited for batches.
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
        """Hear that a step was taken."""

    def validating(self, advance: int, total: int) -> None:
        """Hear that `advance` more of `total` validation samples were predicted."""

    def epoch(self, row: MetricsRow, timing: TimingsRow) -> None:
        """Hear that an epoch ended."""


class NullObserver:
    """An observer that hears nothing, as every process but the first has."""

    def note(self, message: str) -> None:
        pass

    def step(self, report: StepReport) -> None:
        pass

    def validating(self, advance: int, total: int) -> None:
        pass

    def epoch(self, row: MetricsRow, timing: TimingsRow) -> None:
        pass
