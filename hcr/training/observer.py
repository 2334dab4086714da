"""Who watches a run: the library prints nothing, a command shows what it hears, a test keeps it."""

from __future__ import annotations

from typing import Any, Protocol


class Observer(Protocol):
    """Hears what a run has to tell."""

    def note(self, message: str) -> None:
        """Hear something worth knowing: a resume, a skipped checkpoint, an estimate."""

    def step(self, done: int, total: int, epoch: int, loss: float) -> None:
        """Hear that `done` of `total` steps are taken; `loss` is the mean of epoch `epoch` (from 1) so far."""

    def validating(self, advance: int, total: int) -> None:
        """Hear that `advance` more of `total` validation samples are judged."""

    def epoch(self, row: dict[str, Any], timing: dict[str, Any]) -> None:
        """Hear that an epoch ended; `row` is its line of metrics.jsonl, `timing` its line of timings.jsonl."""
