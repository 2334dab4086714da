"""Figures from predictions: numpy alone, so that anybody's predictions can be evaluated the same way.

Confusions are kept as pairs that occur; the dense matrix of 3,755 classes would be 113 MB of zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# The normal distribution's quantile for intervals of 95 %.
Z = 1.959963984540054
# So many answers are kept for each sample.
TOP = 10


@dataclass(frozen=True)
class Predictions:
    """What a model said of N samples, each once.

    index: int64[N], positions in the pack. target: int64[N], true labels. top: int64[N, K], the K best labels, best
    first; -1 where another system gave fewer answers. score: float32[N, K], their probabilities; nan where it gave
    none.
    """

    index: np.ndarray
    target: np.ndarray
    top: np.ndarray
    score: np.ndarray

    @property
    def first(self) -> np.ndarray:
        """First answers, int64[N]."""
        answers: np.ndarray = self.top[:, 0]
        return answers

    @property
    def hit(self) -> np.ndarray:
        """Where the first answer is right, bool[N]."""
        hit: np.ndarray = self.first == self.target
        return hit

    def within(self, k: int) -> np.ndarray:
        """Tell whether the true label is among the first `k` answers, bool[N]."""
        found: np.ndarray = (self.top[:, :k] == self.target[:, None]).any(1)
        return found


Interval = tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """Overall and per-class figures; nan where one is undefined.

    Intervals are Wilson's, 95 %. top10 counts within the answers there are, where they are fewer than 10. Macro figures
    are means over the classes for which the figure is defined: recall for those with samples, precision for those that
    were ever answered, F1 for those with either. Micro figures count all samples alike; they differ from top1 only
    where some samples have no answer.

    Per class, arrays [C]: count (samples), predicted (times answered) and correct int64; recall, precision, f1,
    top5_recall and mean_confidence (of the first answer) float64.
    """

    n: int
    top1: float
    top5: float
    top10: float
    top1_interval: Interval
    top5_interval: Interval
    top10_interval: Interval
    macro_recall: float
    macro_precision: float
    macro_f1: float
    micro_recall: float
    micro_precision: float
    micro_f1: float
    count: np.ndarray
    predicted: np.ndarray
    correct: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    f1: np.ndarray
    top5_recall: np.ndarray
    mean_confidence: np.ndarray


@dataclass(frozen=True, slots=True)
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
    target, first, hit = predictions.target, predictions.first, predictions.hit
    n, answered = len(target), first[first >= 0]
    within5 = predictions.within(5)
    hits = [int(right.sum()) for right in (hit, within5, predictions.within(10))]
    count = np.bincount(target, minlength=classes)
    predicted = np.bincount(answered, minlength=classes)
    correct = np.bincount(target[hit], minlength=classes)
    recall, precision = share(correct, count), share(correct, predicted)
    f1 = share(2 * correct, count + predicted)
    confidence = np.bincount(target, weights=predictions.score[:, 0].astype(np.float64), minlength=classes)
    top1, top5, top10 = (_ratio(right, n) for right in hits)
    intervals = [wilson(right, n) for right in hits]
    return Summary(
        n=n,
        top1=top1,
        top5=top5,
        top10=top10,
        top1_interval=intervals[0],
        top5_interval=intervals[1],
        top10_interval=intervals[2],
        macro_recall=_mean(recall),
        macro_precision=_mean(precision),
        macro_f1=_mean(f1),
        micro_recall=top1,
        micro_precision=_ratio(hits[0], len(answered)),
        micro_f1=_ratio(2 * hits[0], n + len(answered)),
        count=count,
        predicted=predicted,
        correct=correct,
        recall=recall,
        precision=precision,
        f1=f1,
        top5_recall=share(np.bincount(target[within5], minlength=classes), count),
        mean_confidence=share(confidence, count),
    )


def confusions(predictions: Predictions, classes: int) -> list[Confusion]:
    """List every pair of labels that was confused, the most frequent first, then in label order."""
    target, first = predictions.target, predictions.first
    wrong = (first != target) & (first >= 0)
    pairs, counts = np.unique(target[wrong].astype(np.int64) * classes + first[wrong], return_counts=True)
    if not len(pairs):
        return []
    targets, answers = np.divmod(pairs, classes)
    reverse = answers * classes + targets
    place = np.searchsorted(pairs, reverse).clip(max=len(pairs) - 1)
    back = np.where(pairs[place] == reverse, counts[place], 0)
    order = np.argsort(-counts, kind="stable")
    columns = (column[order].tolist() for column in (targets, answers, counts, back))
    return [Confusion(*row) for row in zip(*columns, strict=True)]


def wilson(correct: int, n: int) -> Interval:
    """Return the 95 % interval of a share of `correct` in `n`; nan for n = 0.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not n:
        return float("nan"), float("nan")
    middle = (correct + Z * Z / 2) / (n + Z * Z)
    half = Z / (n + Z * Z) * (correct * (n - correct) / n + Z * Z / 4) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide elementwise, float64[C]; nan where `whole` is 0."""
    shares: np.ndarray = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return shares


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _mean(figures: np.ndarray) -> float:
    defined = figures[~np.isnan(figures)]
    return float(defined.mean()) if len(defined) else float("nan")
