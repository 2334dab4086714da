"""Groups of characters that are confused among themselves, and figures of parts."""

from __future__ import annotations

import numpy as np
import pytest

from hcr.evaluation.groups import LARGEST, Row, confusion_groups, tabulate
from hcr.evaluation.metrics import Predictions, confusions, summarise, wilson
from tests.test_metrics import predictions


def groups_of(answers: list[tuple[int, int, int]], classes: int, each: int) -> list[tuple[tuple[int, ...], int]]:
    """Groups from `each` right answers a class and (target, predicted, count) wrong ones."""
    target = [label for label in range(classes) for _ in range(each)]
    first = list(target)
    for true, said, count in answers:
        target += [true] * count
        first += [said] * count
    found = predictions(target, first, classes)
    pairs = confusions(found, classes)
    return [(group.labels, group.inside) for group in confusion_groups(pairs, summarise(found, classes))]


def test_a_triple_and_a_pair() -> None:
    # 0, 1 and 2 among themselves; 4 read as 5; one stray error that means nothing.
    wrong = [(0, 1, 3), (1, 0, 2), (2, 1, 4), (4, 5, 3), (3, 0, 1)]
    assert groups_of(wrong, 6, 20) == [((0, 1, 2), 9), ((4, 5), 3)]


def test_weak_links_join_nothing() -> None:
    assert groups_of([(0, 1, 2)], 3, 20) == [((0, 1), 2)]
    assert groups_of([(0, 1, 2)], 3, 200) == []  # under 2 %
    assert groups_of([(0, 1, 1)], 3, 5) == []  # one error


def test_chains_do_not_grow_without_end() -> None:
    chain = [(label, label + 1, 4 + label % 3) for label in range(30)]
    found = groups_of(chain, 31, 20)
    assert max(len(labels) for labels, _ in found) <= LARGEST
    members = [label for labels, _ in found for label in labels]
    assert len(members) == len(set(members)) > 20


def test_groups_do_not_depend_on_the_order_of_samples() -> None:
    rng = np.random.default_rng(3)
    target = rng.integers(0, 12, 600)
    first = np.where(rng.random(600) < 0.7, target, (target + rng.integers(0, 3, 600)) % 12)
    results = []
    for order in (np.arange(600), rng.permutation(600)):
        found = predictions(target[order].tolist(), first[order].tolist(), 12)
        results.append(confusion_groups(confusions(found, 12), summarise(found, 12)))
    assert results[0] == results[1] and results[0]
    assert sum(group.n for group in results[0]) <= 600


def test_parts_by_hand() -> None:
    found = predictions([0, 0, 1, 2, 2, 2], [0, 1, 1, 0, 2, 2], 7)
    rows = tabulate(found, np.array([0, 0, 2, 0, 2, 2]), ["a", "nobody", "b"])
    assert rows == [
        Row("a", 2, 3, 1, 3, 1 / 3, *wilson(1, 3), 0.75),
        Row("b", 2, 3, 3, 3, 1.0, *wilson(3, 3), 0.75),
    ]


def test_a_part_without_scores_has_no_confidence() -> None:
    found = Predictions(np.arange(1), np.array([0]), np.array([[0]]), np.full((1, 1), np.nan, np.float32))
    (row,) = tabulate(found, np.array([0]), ["a"])
    assert row.recall == 1 and np.isnan(row.confidence)


@pytest.mark.parametrize("classes", [1, 40])
def test_no_error_no_group(classes: int) -> None:
    assert groups_of([], classes + 1, 3) == []
