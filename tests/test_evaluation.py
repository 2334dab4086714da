"""Figures against a case worked by hand and against scikit-learn; files that can be recomputed."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support

from hcr.charset import Charset
from hcr.errors import DataError, UsageError
from hcr.evaluation import Confusion, Predictions, confusions, evaluate_checkpoint, summarise, write_report
from hcr.glyph import PREPROCESSING
from hcr.models import Recognizer


def predictions(target: list[int], first: list[int], classes: int) -> Predictions:
    """Predictions whose further answers are the other labels in order."""
    top = np.array([[answer, *(label for label in range(classes) if label != answer)] for answer in first])
    score = np.tile(np.float32([0.75, *[0.25 / (classes - 1)] * (classes - 1)]), (len(target), 1))
    return Predictions(np.arange(len(target)), np.array(target), top, score)


def test_three_classes_by_hand() -> None:
    # Class 0: two of three right, one read as 1. Class 1: one right, one read as 0. Class 2: never seen, never said.
    found = predictions([0, 0, 0, 1, 1], [0, 0, 1, 1, 0], 3)
    summary = summarise(found, 3)
    assert (summary.n, summary.top1, summary.top5) == (5, 3 / 5, 1.0)
    assert summary.macro_recall == pytest.approx((2 / 3 + 1 / 2) / 2, abs=1e-15)
    assert summary.count.tolist() == [3, 2, 0] and summary.correct.tolist() == [2, 1, 0]
    np.testing.assert_allclose(summary.recall, [2 / 3, 1 / 2, math.nan])
    np.testing.assert_allclose(summary.precision, [2 / 3, 1 / 2, math.nan])
    np.testing.assert_allclose(summary.f1, [2 / 3, 1 / 2, math.nan])
    np.testing.assert_allclose(summary.mean_confidence, [0.75, 0.75, math.nan])
    assert confusions(found, 3) == [Confusion(0, 1, 1, 1), Confusion(1, 0, 1, 1)]


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 40))
    target = rng.integers(0, classes, 300)
    first = np.where(rng.random(300) < 0.6, target, rng.integers(0, classes, 300))
    summary = summarise(predictions(target.tolist(), first.tolist(), classes), classes)
    precision, recall, f1, count = precision_recall_fscore_support(
        target, first, labels=np.arange(classes), zero_division=np.nan
    )
    assert np.array_equal(summary.count, count)
    np.testing.assert_allclose(summary.precision, precision, atol=1e-12)
    np.testing.assert_allclose(summary.recall, recall, atol=1e-12)
    np.testing.assert_allclose(np.nan_to_num(summary.f1), np.nan_to_num(f1), atol=1e-12)
    assert summary.macro_recall == pytest.approx(np.nanmean(recall), abs=1e-12)
    pairs = confusions(predictions(target.tolist(), first.tolist(), classes), classes)
    assert sum(pair.count for pair in pairs) == (target != first).sum()
    counts = {(pair.target, pair.predicted): pair for pair in pairs}
    for (a, b), pair in counts.items():
        assert pair.count == ((target == a) & (first == b)).sum() and pair.back == ((target == b) & (first == a)).sum()


def test_top5_counts_the_first_five_only() -> None:
    found = predictions([6, 4], [0, 0], 8)
    summary = summarise(found, 8)
    assert summary.top1 == 0 and summary.top5 == 0.5
    assert summary.top5_recall[4] == 1 and summary.top5_recall[6] == 0


def checkpoint(folder: Path, charset: Charset, size: int = 32) -> Path:
    torch.manual_seed(0)
    model = Recognizer("compact", charset, size)
    path = folder / f"{charset.digest}-{size}.pt"
    content = {"format": "hcr-checkpoint", "version": 1, "arch": "compact", "size": size, "ema": model.state_dict()}
    torch.save(content | {"characters": charset.characters, "preprocessing": PREPROCESSING}, path)
    return path


def pack_charset(pack: Path) -> Charset:
    from hcr.pack.inspect import info

    return Charset(info(pack)["test"]["meta"]["characters"])


def test_each_sample_once_whatever_the_batches_and_workers(small_pack: Path, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, pack_charset(small_pack))
    whole = evaluate_checkpoint(path, small_pack, "test", batch_size=24)
    assert whole.predictions.index.tolist() == list(range(24)) and whole.summary.n == 24
    for batch_size, workers in ((7, 0), (5, 2)):
        other = evaluate_checkpoint(path, small_pack, "test", batch_size=batch_size, workers=workers).predictions
        assert np.array_equal(other.index, whole.predictions.index)
        assert np.array_equal(other.target, whole.predictions.target)
        np.testing.assert_allclose(other.score, whole.predictions.score, rtol=1e-4)


def test_the_files_can_be_recomputed(small_pack: Path, tmp_path: Path) -> None:
    charset = pack_charset(small_pack)
    evaluation = evaluate_checkpoint(checkpoint(tmp_path, charset), small_pack, "test")
    write_report(tmp_path / "eval", evaluation)
    summary = json.loads((tmp_path / "eval/summary.json").read_text("utf-8"))
    saved = np.load(tmp_path / "eval/predictions.npz")
    assert set(saved.files) == {"index", "target", "top", "score"} and saved["top"].shape == (24, 10)
    hit = saved["top"][:, 0] == saved["target"]
    assert summary["n"] == 24 and summary["top1"] == hit.mean()
    assert summary["top5"] == (saved["top"][:, :5] == saved["target"][:, None]).any(1).mean()
    raw = (tmp_path / "eval/per_class.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(raw.decode("utf-8-sig").splitlines()))
    assert [row["char"] for row in rows] == list(charset.characters)
    assert [int(row["n"]) for row in rows] == np.bincount(saved["target"], minlength=12).tolist()
    for row in rows:
        label = int(row["index"])
        assert int(row["correct"]) == (hit & (saved["target"] == label)).sum()
        assert row["code_point"] == f"U+{ord(row['char']):04X}"
        never = not (saved["top"][:, 0] == label).any()
        assert (row["precision"] == "") == never
    listed = list(csv.DictReader((tmp_path / "eval/confusions.csv").read_text("utf-8-sig").splitlines()))
    assert sum(int(row["count"]) for row in listed) == (~hit).sum()
    assert [int(row["count"]) for row in listed] == sorted((int(row["count"]) for row in listed), reverse=True)


def test_what_does_not_fit_is_refused(small_pack: Path, tmp_path: Path) -> None:
    charset = pack_charset(small_pack)
    with pytest.raises(UsageError, match="no split 'dev'; it has train, val, test"):
        evaluate_checkpoint(checkpoint(tmp_path, charset), small_pack, "dev")
    other = Charset(charset.characters[:-1] + "龟鼠")
    with pytest.raises(DataError, match=rf"another charset \(12 characters, {charset.digest}\) than .*{other.digest}"):
        evaluate_checkpoint(checkpoint(tmp_path, other), small_pack, "test")
    with pytest.raises(DataError, match="pictures of 32 px, expected 64"):
        evaluate_checkpoint(checkpoint(tmp_path, charset, size=64), small_pack, "test")
