"""Parts of a split with figures of their own, and characters that are confused among themselves (已己巳).

A group is found from the errors alone, without a list of look-alikes, so only where there were samples to err on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hcr.evaluation.metrics import Confusion, Predictions, Summary, share, wilson

# Two characters are alike if at least this many of their samples, and this share, were read as the other one.
LEAST_COUNT = 2
LEAST_SHARE = 0.02
# Links are followed from the strongest on, and a group that would grow larger is not joined: chains of weak links would
# otherwise make one group of all characters.
LARGEST = 8


@dataclass(frozen=True)
class Group:
    """Characters that are confused among themselves.

    labels: ascending. n, correct: their samples and those read correctly. inside: errors that stay within the group.
    """

    labels: tuple[int, ...]
    n: int
    correct: int
    inside: int


@dataclass(frozen=True)
class Row:
    """A part of a split.

    classes, n: its classes and samples. correct, top5: samples whose first answer, or one of the first five, is right.
    recall: the share with a right first answer; low, high: Wilson's 95 % interval of it. confidence: mean score of the
    first answer, nan without scores.
    """

    name: str
    classes: int
    n: int
    correct: int
    top5: int
    recall: float
    low: float
    high: float
    confidence: float


def confusion_groups(pairs: Sequence[Confusion], summary: Summary) -> list[Group]:
    """Group the characters that are confused among themselves, the group with most errors inside first.

    Characters a and b are linked with the strength (a read as b + b read as a) / (samples of a and b). Links of at
    least 2 errors and 2 % are followed from the strongest on, and join two groups wherever at most 8 characters come
    together.
    """
    links = []
    for pair in pairs:
        both = pair.count + pair.back
        if (pair.target < pair.predicted or not pair.back) and both >= LEAST_COUNT:
            low, high = sorted((pair.target, pair.predicted))
            strength = both / int(summary.count[low] + summary.count[high])
            if strength >= LEAST_SHARE:
                links.append((-strength, -both, low, high))
    members: dict[int, tuple[int, ...]] = {}
    for _, _, low, high in sorted(links):
        one, other = members.get(low, (low,)), members.get(high, (high,))
        if one is not other and len(one) + len(other) <= LARGEST:
            joined = one + other
            members.update(dict.fromkeys(joined, joined))
    inside: dict[tuple[int, ...], int] = dict.fromkeys(members.values(), 0)
    for pair in pairs:
        group = members.get(pair.target)
        if group is not None and group is members.get(pair.predicted):
            inside[group] += pair.count
    groups = []
    for labels, count in inside.items():
        n, correct = (int(figures[list(labels)].sum()) for figures in (summary.count, summary.correct))
        groups.append(Group(tuple(sorted(labels)), n, correct, count))
    return sorted(groups, key=lambda group: (-group.inside, group.labels))


def tabulate(predictions: Predictions, part: np.ndarray, names: Sequence[str]) -> list[Row]:
    """Return a row for each part that has samples, in the order of `names`; part int64[N] are positions in it."""
    n = np.bincount(part, minlength=len(names))
    correct = np.bincount(part[predictions.hit], minlength=len(names))
    top5 = np.bincount(part[predictions.within(5)], minlength=len(names))
    score = np.bincount(part, weights=predictions.score[:, 0].astype(np.float64), minlength=len(names))
    span = int(predictions.target.max(initial=0)) + 1
    classes = np.bincount(np.unique(part.astype(np.int64) * span + predictions.target) // span, minlength=len(names))
    confidence = share(score, n)
    rows = []
    for place in np.flatnonzero(n).tolist():
        samples, right = int(n[place]), int(correct[place])
        rows.append(
            Row(
                names[place],
                int(classes[place]),
                samples,
                right,
                int(top5[place]),
                right / samples,
                *wilson(right, samples),
                float(confidence[place]),
            )
        )
    return rows
