"""The records of a run: both sides read what training writes, and what is not there is no error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hcr.errors import DataError
from hcr.layout import is_drawn, pack_of
from hcr.records import MetricsRow, RunRecord, TimingsRow, read_metrics, read_run_record, read_timings


def test_what_training_writes_has_the_keys_of_its_record(whole: Path, small_pack: Path) -> None:
    record = read_run_record(whole)
    assert record is not None and set(record) == set(RunRecord.__annotations__)
    assert record["pack"]["path"] == str(small_pack) and pack_of(whole) == small_pack and not is_drawn(whole)
    rows, timings = read_metrics(whole / "metrics.jsonl"), read_timings(whole / "timings.jsonl")
    assert [row["epoch"] for row in rows] == [1, 2, 3] and [row["steps"] for row in timings] == [4, 4, 4]
    assert set(rows[0]) == set(MetricsRow.__annotations__) and set(timings[0]) == set(TimingsRow.__annotations__)


def test_a_run_without_records_has_none(tmp_path: Path) -> None:
    assert read_run_record(tmp_path) is None and pack_of(tmp_path) is None and not is_drawn(tmp_path)
    assert read_metrics(tmp_path / "metrics.jsonl") == [] == read_timings(tmp_path / "timings.jsonl")


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"config": {}})[:-1])
    with pytest.raises(DataError, match=r"run\.json: not readable as JSON"):
        read_run_record(tmp_path)
