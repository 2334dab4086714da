"""Another system's predictions: evaluated as ours are, and refused where they do not fit."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hcr.charset import Charset
from hcr.errors import DataError
from hcr.evaluation import compare_with, evaluate_checkpoint, evaluate_external, write_report
from hcr.pack.store import open_reader
from tests.test_evaluation import checkpoint, pack_charset


@pytest.fixture
def truth(small_pack: Path) -> str:
    """The character of each of the 24 test samples."""
    reader = open_reader(small_pack / "test.lmdb")
    return "".join(reader.charset[label] for label in reader.labels)


def write(path: Path, head: str, rows: list[list[Any]]) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([head.split(), *rows])
    return path


def test_our_own_predictions_give_the_same_report(small_pack: Path, tmp_path: Path) -> None:
    ours = evaluate_checkpoint(checkpoint(tmp_path, pack_charset(small_pack)), small_pack, "test")
    write_report(tmp_path / "ours", ours)
    found = evaluate_external(tmp_path / "ours/predictions.npz", small_pack, "test")
    write_report(tmp_path / "theirs", found)
    for name in ("per_class.csv", "confusions.csv", "writers.csv", "strokes.csv", "groups.csv"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
    mine, theirs = (json.loads((tmp_path / name / "summary.json").read_text("utf-8")) for name in ("ours", "theirs"))
    assert theirs["elsewhere"] == str(tmp_path / "ours/predictions.npz")
    assert theirs["checkpoint"] is theirs["seconds"] is theirs["ms_per_picture"] is None
    same = mine.keys() - {"elsewhere", "checkpoint", "checkpoint_digest", "arch"}
    assert all(mine[key] == theirs[key] for key in same if "second" not in key and "ms_" not in key)
    compared = compare_with(found, tmp_path / "ours/predictions.npz")
    assert (compared.difference, compared.gained, compared.lost) == (0, 0, 0)


def test_a_table_of_characters_in_any_order(small_pack: Path, tmp_path: Path, truth: str) -> None:
    other = {char: truth[(truth.index(char) + 1) % 12] for char in truth}
    rows = [[place, char, char if place % 3 else other[char], other[char], 0.5] for place, char in enumerate(truth)]
    file = write(tmp_path / "a.csv", "index target top1 top2 score", rows[::-1])
    found = evaluate_external(file, small_pack, "test")
    assert found.predictions.index.tolist() == list(range(24)) and found.summary.top1 == 16 / 24
    assert found.predictions.score[:, 0].tolist() == [0.5] * 24 and np.isnan(found.predictions.score[:, 1]).all()
    analysis = write_report(tmp_path / "eval", found)
    assert analysis.calibration is not None and analysis.calibration.ece == pytest.approx(16 / 24 - 0.5)


def test_without_scores_there_is_no_calibration(small_pack: Path, tmp_path: Path, truth: str) -> None:
    file = write(tmp_path / "a.csv", "index top1 top2", [[place, "", ""] if place == 5 else [place, char, ""]
                                                         for place, char in enumerate(truth)])  # fmt: skip
    found = evaluate_external(file, small_pack, "test")
    assert found.summary.top1 == 23 / 24 and found.summary.micro_precision == 1
    analysis = write_report(tmp_path / "eval", found)
    assert analysis.calibration is analysis.coverage is analysis.rejection is None
    assert analysis.confident_errors.tolist() == [5] and analysis.confusions == []
    summary = json.loads((tmp_path / "eval/summary.json").read_text("utf-8"))
    assert summary["ece"] is None and summary["rejection"] is None
    rows = list(csv.DictReader((tmp_path / "eval/per_class.csv").read_text("utf-8-sig").splitlines()))
    assert {row["mean_confidence"] for row in rows} == {""}


def broken(truth: str, change: str) -> tuple[str, list[list[Any]]]:
    """A good table with one thing changed."""
    head, rows = "index target top1 score1", [[place, char, char, 0.5] for place, char in enumerate(truth)]
    match change:
        case "double":
            rows[7][0] = 6
        case "missing":
            del rows[3], rows[9]
        case "outside":
            rows[7][0] = 24
        case "target":
            rows[2][1] = truth[3]
        case "unknown":
            rows[4][2] = "龟"
        case "score":
            rows[1][3] = 17.5
        case "short":
            rows[1].pop()
        case "number":
            rows[1][0] = "one"
        case "columns":
            head = "index label top1 score1"
        case "gap":
            head = "index target top2 score1"
    return head, rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("double", "index 6 occurs 2 times; name each sample once"),
        ("missing", "lacks index 3 and 1 more; name each of the 24 samples once"),
        ("outside", "index 24: expected 0 to 23"),
        ("target", r"target of index 2 is \S, but .*test.lmdb has \S there \(1 differ\)"),
        ("unknown", "line 6: top1 '龟' is not one of the pack's 12 characters"),
        ("score", "a score of 17.5; expected probabilities from 0 to 1"),
        ("short", "line 3: .*expected 4 cells"),
        ("number", "line 3: 'one,.*index and scores numbers"),
        ("columns", "columns index, label, top1, score1; expected index, target"),
        ("gap", "columns index, target, top2, score1; expected"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    small_pack: Path, tmp_path: Path, truth: str, change: str, message: str
) -> None:
    with pytest.raises(DataError, match=f"a.csv: {message}"):
        evaluate_external(write(tmp_path / "a.csv", *broken(truth, change)), small_pack, "test")


def arrays(small_pack: Path) -> dict[str, Any]:
    labels = open_reader(small_pack / "test.lmdb").labels.astype(np.int64)
    return {"index": np.arange(24), "top": np.stack([labels, (labels + 1) % 12], 1)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": None}, "lacks the array index"),
        ({"top": np.zeros((23, 2), int)}, r"array top is int64\[23, 2\]; expected integers \[24, 2\]"),
        ({"top": np.zeros((24, 2))}, "array top is float64"),
        ({"top": np.full((24, 2), 12)}, "array top has labels 12 to 12, expected -1 to 11"),
        ({"score": np.zeros((24, 3))}, r"array score is .* expected numbers \[24, 2\]"),
        ({"score": np.full((24, 2), 2.0)}, "a score of 2; expected probabilities"),
        ({"target": np.zeros(24, int)}, r"target of index \d+ is"),
        ({"characters": np.array("甲乙")}, "array characters is not in code-point order"),
        ({"top": np.array([None] * 24)}, "not readable as an .npz file .*allow_pickle"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    small_pack: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    content = {name: array for name, array in (arrays(small_pack) | change).items() if array is not None}
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(DataError, match=f"a.npz: {message}"):
        evaluate_external(tmp_path / "a.npz", small_pack, "test")


@pytest.mark.parametrize("name", ["a.npz", "a.csv"])
def test_what_is_no_such_file_is_said_in_one_line(small_pack: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name}: no such file"):
        evaluate_external(tmp_path / name, small_pack, "test")
    (tmp_path / name).write_bytes(b"PK\x03\x04\xff\xfe" * 50)
    with pytest.raises(DataError, match=f"{name}: not readable as") as why:
        evaluate_external(tmp_path / name, small_pack, "test")
    assert "\n" not in str(why.value)


def test_other_labels_are_translated_and_other_characters_left_out(small_pack: Path, tmp_path: Path) -> None:
    mine = pack_charset(small_pack)
    # A system that knows 9 of the pack's characters and one more, 一 being label 0 for both.
    theirs = Charset(mine.characters[:9] + "龟")
    labels = open_reader(small_pack / "test.lmdb").labels.astype(np.int64)
    known = labels < 9
    stranger = np.full(known.sum(), theirs.label("龟"))
    right = np.array([theirs.label(mine[label]) for label in labels[known]])
    np.savez(tmp_path / "a.npz", index=np.flatnonzero(known), top=np.stack([stranger, right], 1),
             characters=np.array(theirs.characters))  # fmt: skip
    with pytest.raises(DataError, match=r"another charset .*--only-shared scores"):
        evaluate_external(tmp_path / "a.npz", small_pack, "test")
    found = evaluate_external(tmp_path / "a.npz", small_pack, "test", only_shared=True)
    assert found.charset.characters == mine.characters[:9] and found.left_out == 24 - known.sum()
    # The stranger is no answer to a question about shared characters: the next best one moves up.
    assert found.summary.top1 == 1 and (found.predictions.top[:, 1] == -1).all()


def test_runs_on_other_packs_or_characters_are_not_compared(small_pack: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays(small_pack))
    found = evaluate_external(tmp_path / "a.npz", small_pack, "test")
    content = arrays(small_pack) | {"target": np.zeros(24, int), "score": np.zeros((24, 2))}
    for facts, message in (
        ({"pack_digest": "0123", "characters": "甲"}, f"on pack 0123, expected {found.pack_digest}"),
        ({"pack_digest": found.pack_digest, "characters": "甲"}, "over other characters"),
    ):
        np.savez(tmp_path / "b.npz", **content, **{name: np.array(text) for name, text in facts.items()})
        with pytest.raises(DataError, match=message):
            compare_with(found, tmp_path / "b.npz")
    with pytest.raises(DataError, match="lacks target, score"):
        compare_with(found, tmp_path / "a.npz")
