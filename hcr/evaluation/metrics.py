"""Figures from predictions: numpy alone, so that anybody's predictions can be judged the same way.

Confusions are kept as pairs that occur; the dense matrix of 3,755 classes would be 113 MB of zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Predictions:
    """What a model said of N samples, each once.

    index: int64[N], positions in the pack. target: int64[N], true labels. top: int64[N, K], the K best labels, best
    first. score: float32[N, K], their probabilities.
    """

    index: np.ndarray
    target: np.ndarray
    top: np.ndarray
    score: np.ndarray


@dataclass(frozen=True)
class Summary:
    """Overall and per-class figures.

    n, top1, top5, macro_recall: overall; macro_recall is the mean over classes that have samples. Per class, arrays [C]
    with nan where a figure is undefined: count and correct int64; recall, precision, f1, top5_recall and
    mean_confidence (of the first answer) float64.
    """

    n: int
    top1: float
    top5: float
    macro_recall: float
    count: np.ndarray
    correct: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    f1: np.ndarray
    top5_recall: np.ndarray
    mean_confidence: np.ndarray


@dataclass(frozen=True)
class Confusion:
    """`target` was read as `predicted` `count` times; `back` times it was the other way round."""

    target: int
    predicted: int
    count: int
    back: int


def summarise(predictions: Predictions, classes: int) -> Summary:
    """Count predictions over labels 0..classes-1.

    precision is undefined (nan) for a class never predicted, recall for one without samples, f1 for one with neither.
    """
    target, first = predictions.target, predictions.top[:, 0]
    hit = first == target
    within = (predictions.top[:, :5] == target[:, None]).any(1)
    count = np.bincount(target, minlength=classes)
    predicted = np.bincount(first, minlength=classes)
    correct = np.bincount(target[hit], minlength=classes)
    recall = _share(correct, count)
    confidence = np.bincount(target, weights=predictions.score[:, 0].astype(np.float64), minlength=classes)
    return Summary(
        n=len(target),
        top1=float(hit.mean()),
        top5=float(within.mean()),
        macro_recall=float(np.nanmean(recall)),
        count=count,
        correct=correct,
        recall=recall,
        precision=_share(correct, predicted),
        f1=_share(2 * correct, count + predicted),
        top5_recall=_share(np.bincount(target[within], minlength=classes), count),
        mean_confidence=_share(confidence, count),
    )


def confusions(predictions: Predictions, classes: int) -> list[Confusion]:
    """List every pair of labels that was confused, the most frequent first, then in label order."""
    target, first = predictions.target, predictions.top[:, 0]
    wrong = first != target
    pairs, counts = np.unique(target[wrong].astype(np.int64) * classes + first[wrong], return_counts=True)
    found = {divmod(int(pair), classes): int(count) for pair, count in zip(pairs, counts, strict=True)}
    listed = [Confusion(a, b, count, found.get((b, a), 0)) for (a, b), count in found.items()]
    return sorted(listed, key=lambda pair: (-pair.count, pair.target, pair.predicted))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
