"""Training runs for the tests: settings of a small one, an observer that keeps what it hears, comparison to the bit."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from hcr.layout import checkpoints
from hcr.models import read_checkpoint
from hcr.training import Execution, StepReport, TrainConfig, train

GIVEN: dict[str, Any] = {"arch": "compact", "epochs": 3, "batch_size": 20, "lr": 2e-3, "seed": 5, "precision": "fp32"}


def load_script(path: str) -> ModuleType:
    """Return a script of the project, named from its root, as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, Path(__file__).parents[1] / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Watcher:
    """Keeps what a run tells, and can act at a step."""

    def __init__(self, at: int = 0, act: Any = None) -> None:
        self.notes: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self.timings: list[dict[str, Any]] = []
        self.steps: list[int] = []
        self.at, self.act = at, act

    def note(self, message: str) -> None:
        self.notes.append(message)

    def step(self, report: StepReport) -> None:
        self.steps.append(report.step)
        if report.step == self.at and self.act:
            self.act()

    def validating(self, advance: int, total: int) -> None:
        pass

    def epoch(self, row: dict[str, Any], timing: dict[str, Any]) -> None:
        self.rows.append(row)
        self.timings.append(timing)


def run_to_end(
    pack: Path, run: Path, *, resume: bool = False, workers: int = 0, cache: str = "none", **given: Any
) -> Watcher:
    watcher = Watcher()
    config, chosen = TrainConfig(**GIVEN | given), frozenset(GIVEN | given)
    execution = Execution("cpu", workers, cache, checkpoint_every=1)
    train(config, pack, run, execution, watcher, chosen=chosen, resume=resume)
    return watcher


def end_of(run: Path) -> tuple[dict[str, Any], bytes]:
    """The last checkpoint and the metrics of a run."""
    return read_checkpoint(checkpoints(run)[0]), (run / "metrics.jsonl").read_bytes()


def require_equal(a: Any, b: Any, where: str = "") -> None:
    """Compare to the bit, all the way down."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            require_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for place, (x, y) in enumerate(zip(a, b, strict=True)):
            require_equal(x, y, f"{where}/{place}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


class Tiny(torch.nn.Module):
    """A network without batch norm and dropout, whose gradients are the same however its batch is divided."""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 5, 4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(),
            torch.nn.Linear(64, classes),
        )  # fmt: skip

    def forward(self, ink: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(ink)
        return logits
