"""The records that a run leaves for other programs, run.json, metrics.jsonl and timings.jsonl, and how they are read.

Training writes them. Evaluation, release and layout read them. docs/formats.md says what each key holds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from hcr.files import read_json


class MetricsRow(TypedDict):
    """A line of metrics.jsonl: an epoch's figures. Those of validation are there where a split validates."""

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
    """A line of timings.jsonl: how long an epoch took."""

    epoch: int
    steps: int
    seconds: float
    pictures_per_second: float
    data_wait: float


class TrainingPackRecord(TypedDict):
    """What a run learns from and is validated on: the pack's path (None: all drawn), and digests by split."""

    path: str | None
    digests: dict[str, str]
    sources: NotRequired[dict[str, list[str]]]  # older files lack it


class CharsetRecord(TypedDict):
    """The characters of a run, which its checkpoints hold."""

    count: int
    digest: str


class StartRecord(TypedDict):
    """One start of a run: at which step, by how many processes, with which weights, how, when and where."""

    step: int
    processes: int
    init: str | None
    device: str
    workers: int
    cache: str
    when: str
    machine: str


class RunRecord(TypedDict):
    """run.json: what a run was made from, so that its figures can be repeated and its pack found again."""

    config: dict[str, Any]
    pack: TrainingPackRecord
    charset: CharsetRecord
    versions: dict[str, str]
    git: str | None
    starts: list[StartRecord]


def read_run_record(run: Path) -> RunRecord | None:
    """Return the content of run.json in the folder `run`, None where there is none.

    Raises: DataError for a file that is not JSON.
    """
    path = run / "run.json"
    return cast(RunRecord, read_json(path)) if path.is_file() else None


def read_metrics(path: Path) -> list[MetricsRow]:
    """Return the rows of a metrics.jsonl, the first epoch first; [] where there is no such file."""
    return cast("list[MetricsRow]", _read_lines(path))


def read_timings(path: Path) -> list[TimingsRow]:
    """Return the rows of a timings.jsonl, in the order in which they were written; [] where there is no such file."""
    return cast("list[TimingsRow]", _read_lines(path))


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
