"""Figures against a case worked by hand and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import classification_report, confusion_matrix

from hcr.evaluation.metrics import Confusion, Predictions, confusions, summarise, wilson


def predictions(target: list[int], first: list[int], classes: int) -> Predictions:
    """Predictions whose further answers are the other labels in order."""
    top = np.array([[answer, *(label for label in range(classes) if label != answer)] for answer in first])
    score = np.tile(np.float32([0.75, *[0.25 / (classes - 1)] * (classes - 1)]), (len(target), 1))
    return Predictions(np.arange(len(target)), np.array(target), top, score)


def test_three_classes_by_hand() -> None:
    # Class 0: two of three right, one read as 1. Class 1: one right, one read as 0. Class 2: never seen, never said.
    found = predictions([0, 0, 0, 1, 1], [0, 0, 1, 1, 0], 3)
    summary = summarise(found, 3)
    assert (summary.n, summary.top1, summary.top5, summary.top10) == (5, 3 / 5, 1.0, 1.0)
    assert summary.macro_recall == pytest.approx((2 / 3 + 1 / 2) / 2, abs=1e-15)
    assert summary.macro_precision == summary.macro_f1 == summary.macro_recall
    assert summary.micro_recall == summary.micro_precision == summary.micro_f1 == 3 / 5
    assert summary.count.tolist() == [3, 2, 0] and summary.correct.tolist() == [2, 1, 0]
    assert summary.predicted.tolist() == [3, 2, 0]
    np.testing.assert_allclose(summary.recall, [2 / 3, 1 / 2, math.nan])
    np.testing.assert_allclose(summary.precision, [2 / 3, 1 / 2, math.nan])
    np.testing.assert_allclose(summary.f1, [2 / 3, 1 / 2, math.nan])
    np.testing.assert_allclose(summary.mean_confidence, [0.75, 0.75, math.nan])
    # Wilson's interval of 3 in 5, worked with z = 1.96: (0.6 + 0.38416 ± 1.96 · sqrt(0.048 + 0.038416)) / 1.76832.
    np.testing.assert_allclose(summary.top1_interval, (0.23072, 0.88238), atol=5e-5)
    assert confusions(found, 3) == [Confusion(0, 1, 1, 1), Confusion(1, 0, 1, 1)]


def test_equal_to_scikit_learn_on_random_confusions() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        classes = int(rng.integers(2, 30))
        n = int(rng.integers(1, 300))
        target = rng.integers(0, classes, n)
        first = np.where(rng.random(n) < rng.random(), target, rng.integers(0, classes, n))
        found = predictions(target.tolist(), first.tolist(), classes)
        summary = summarise(found, classes)
        expected = classification_report(
            target, first, labels=np.arange(classes), output_dict=True, zero_division=np.nan
        )
        for label in range(classes):
            line = expected[str(label)]
            assert summary.count[label] == line["support"]
            for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
                np.testing.assert_allclose(getattr(summary, ours)[label], line[theirs], rtol=0, atol=1e-12)
        macro = expected["macro avg"]
        assert summary.macro_recall == pytest.approx(macro["recall"], abs=1e-12)
        assert summary.macro_precision == pytest.approx(macro["precision"], abs=1e-12)
        assert summary.macro_f1 == pytest.approx(macro["f1-score"], abs=1e-12)
        assert summary.top1 == pytest.approx(expected["accuracy"], abs=1e-12)
        matrix = confusion_matrix(target, first, labels=np.arange(classes))
        assert summary.correct.tolist() == matrix.diagonal().tolist()
        pairs = confusions(found, classes)
        assert {(p.target, p.predicted): p.count for p in pairs} == {
            (a, b): matrix[a, b] for a, b in np.argwhere(matrix).tolist() if a != b
        }
        assert all(p.back == matrix[p.predicted, p.target] for p in pairs)
        assert pairs == sorted(pairs, key=lambda p: (-p.count, p.target, p.predicted))


def test_top5_and_top10_count_those_answers_only() -> None:
    summary = summarise(predictions([6, 4, 11], [0, 0, 0], 13), 13)
    assert (summary.top1, summary.top5, summary.top10) == (0, 1 / 3, 2 / 3)
    assert summary.top5_recall[4] == 1 and summary.top5_recall[6] == 0


def test_an_answer_that_is_missing_is_wrong_but_no_confusion() -> None:
    top = np.array([[0, 1], [-1, -1], [1, -1]])
    found = Predictions(np.arange(3), np.array([0, 0, 0]), top, np.full((3, 2), np.nan, np.float32))
    summary = summarise(found, 2)
    assert summary.top1 == summary.top5 == summary.micro_recall == 1 / 3
    assert summary.micro_precision == 1 / 2 and summary.micro_f1 == 2 / 5
    assert summary.predicted.tolist() == [1, 1] and math.isnan(summary.mean_confidence[0])
    assert confusions(found, 2) == [Confusion(0, 1, 1, 0)]


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(correct: int, n: int, low: float, high: float) -> None:
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(n - correct, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_nothing_gives_no_figure() -> None:
    assert all(math.isnan(bound) for bound in wilson(0, 0))
    empty = Predictions(*(np.zeros(shape, np.int64) for shape in (0, 0, (0, 3))), np.zeros((0, 3), np.float32))
    summary = summarise(empty, 3)
    assert summary.n == 0 and math.isnan(summary.top1) and math.isnan(summary.macro_recall)
    assert confusions(empty, 3) == []
