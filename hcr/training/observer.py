"""Who watches a run, and what a run tells: the library prints nothing, a command shows what it hears."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hcr.records import MetricsRow, TimingsRow


@dataclass(frozen=True)
class StepReport:
    """Where a run stands after a step.

    step, total: steps taken, and those of the whole run. pictures: of a step, over all processes. epoch: the present
    one, from 1. loss, top1: means over this process's training pictures of the epoch so far. data_wait: share of the
    epoch's time so far in which the device waited for batches.

    Example:
        def show(report: hcr.StepReport) -> None:
            print(f"step {report.step} of {report.total}, loss {report.loss:.3f}, top-1 {report.top1:.1%}")
    """

    step: int
    total: int
    pictures: int
    epoch: int
    loss: float
    top1: float
    data_wait: float


class Observer(Protocol):
    """Hears what a run has to tell; any object with these four methods does.

    `note` gets messages, `step` a StepReport, `validating` how many more of how many validation pictures were
    predicted, `epoch` the epoch's lines of metrics.jsonl and timings.jsonl.

    Example:
        class Printer:
            def note(self, message):
                print(message)

            def step(self, report):
                print(f"step {report.step} of {report.total}, loss {report.loss:.3f}")

            def validating(self, advance, total):
                pass

            def epoch(self, row, timing):
                print(f"epoch {row['epoch']}, val top-1 {row.get('val_top1')}, {timing['seconds']:.0f} s")


        config = hcr.TrainConfig(arch="compact", epochs=1)
        hcr.train(config, data="data/packed/hwdb1.1-64", run="watched", observer=Printer())
    """

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
