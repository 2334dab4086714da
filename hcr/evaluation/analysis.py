"""What was predicted on a split, which of its samples count, and what that shows.

`Evaluation` is what an evaluator makes; `analyse` computes from it everything that tables and report are written from,
once for all files. It needs numpy arrays and the pack's own lists; no picture is read. Nothing is narrowed silently:
figures over fewer characters look better than they are, so other characters are an error unless they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hcr.charset import Charset
from hcr.errors import DataError, UsageError
from hcr.evaluation.calibration import (
    Calibration,
    Coverage,
    Rejection,
    calibrate,
    coverage_risk,
    has_scores,
    reject,
)
from hcr.evaluation.compare import Comparison, compare
from hcr.evaluation.groups import Group, Row, confusion_groups, tabulate
from hcr.evaluation.metrics import Confusion, Predictions, Summary, confusions
from hcr.evaluation.predictions import read_predictions
from hcr.layout import splits_of
from hcr.pack.store import PackReader, open_reader
from hcr.synth import StrokeTable

CONFIDENT_ERRORS = 100


@dataclass(frozen=True)
class Evaluation:
    """Predictions on a split, their summary, and what they were made from.

    charset: what the labels stand for. checkpoint, its digest (first 16 hex digits of its SHA-256) and arch are None
    for predictions of another system, which were read from the file `external`. seconds: time spent on predicting,
    reading included; nan where nobody knows. seen: why the figures are no test, as "validated on this split"; "" where
    they are one. only_shared: model and pack have other characters, and only those that both have are counted.
    left_out: samples of the split that are not counted, because the model does not know their characters.

    `top1` and `top5` are shares from 0 to 1; `summary` has intervals and the figures of each class.

    Example:
        evaluation = hcr.evaluate(hcr.load(), hcr.open_pack("data/packed/hwdb1.1-64"))
        low, high = evaluation.summary.top1_interval
        print(f"{evaluation.top1:.2%} ({low:.2%} to {high:.2%}), {evaluation.ms_per_picture:.1f} ms a picture")
    """

    predictions: Predictions
    summary: Summary
    charset: Charset
    pack: Path
    split: str
    pack_digest: str
    checkpoint: Path | None
    checkpoint_digest: str | None
    arch: str | None
    external: Path | None = None
    seconds: float = float("nan")
    seen: str = ""
    only_shared: bool = False
    left_out: int = 0

    @property
    def top1(self) -> float:
        """Share of the pictures whose first answer is right, 0 to 1."""
        return self.summary.top1

    @property
    def top5(self) -> float:
        """Share of the pictures whose character is among the first five answers, 0 to 1."""
        return self.summary.top5

    @property
    def ms_per_picture(self) -> float:
        """Milliseconds a picture, reading included."""
        return 1000 * self.seconds / self.summary.n

    @property
    def pictures_per_second(self) -> float:
        """Pictures a second, reading included."""
        return self.summary.n / self.seconds


def open_split(pack: Path, split: str) -> PackReader:
    """Open a split of a pack. Raises: UsageError where the pack lacks it; DataError where it is damaged."""
    available = splits_of(pack)
    if split not in available:
        raise UsageError(f"{pack}: no split {split!r}; it has {', '.join(available)}: choose one with --split")
    return open_reader(pack / f"{split}.lmdb")


def shared_charset(reader: PackReader, known: Charset, name: str, *, only_shared: bool) -> Charset:
    """Return the characters that count: those `known` to what is called `name`, which must be the pack's.

    only_shared: return those that both have instead. Raises: DataError where they differ, or share none.
    """
    if not only_shared:
        try:
            reader.charset.require_same(known, str(reader.path), name)
        except DataError as error:
            raise DataError(f"{error}; --only-shared scores the characters that both have") from None
        return known
    shared = set(known.characters) & set(reader.charset.characters)
    if not shared or not len(samples_of(reader, Charset(shared))):
        raise DataError(f"{reader.path}: no sample of a character that {name} knows; score another pack")
    return Charset(shared)


def samples_of(reader: PackReader, charset: Charset) -> np.ndarray:
    """Return the positions int64[N] of the samples whose character is in `charset`, ascending."""
    return np.flatnonzero(reader.charset.labels_in(charset)[reader.labels] >= 0)


@dataclass(frozen=True)
class Analysis:
    """What predictions show beyond their summary.

    confusions: as `metrics.confusions` lists them. groups: those with most errors inside first. writers: worst recall
    first, "" for samples without a writer. strokes: by number of strokes, "unknown" last. by_group: a row for each
    group, named by its characters, then "" for all other characters. calibration, coverage and rejection are None
    where there are no scores. confident_errors: int64[<= 100], places in the predictions' arrays, highest score first.
    """

    confusions: list[Confusion]
    groups: list[Group]
    writers: list[Row]
    strokes: list[Row]
    by_group: list[Row]
    calibration: Calibration | None
    coverage: Coverage | None
    rejection: Rejection | None
    confident_errors: np.ndarray


def analyse(evaluation: Evaluation, target_error: float = 0.01) -> Analysis:
    """Compute what the report shows.

    target_error: the share of wrong answers, 0 to 1, that the rejection threshold has to reach.
    """
    predictions, charset = evaluation.predictions, evaluation.charset
    pairs = confusions(predictions, len(charset))
    groups = confusion_groups(pairs, evaluation.summary)
    scored = has_scores(predictions)
    wrong = np.flatnonzero(~predictions.hit)
    order = np.argsort(-predictions.score[wrong, 0], kind="stable")
    return Analysis(
        confusions=pairs,
        groups=groups,
        writers=_by_writer(evaluation),
        strokes=_by_strokes(predictions, charset),
        by_group=_by_group(predictions, groups, charset),
        calibration=calibrate(predictions) if scored else None,
        coverage=coverage_risk(predictions) if scored else None,
        rejection=reject(predictions, target_error) if scored else None,
        confident_errors=wrong[order[:CONFIDENT_ERRORS]],
    )


def compare_with(evaluation: Evaluation, other: Path) -> Comparison:
    """Compare with the file predictions.npz of another run.

    Raises: DataError where it is missing, or of another split, pack or set of characters.
    """
    predictions, facts = read_predictions(other)
    digest = facts.get("pack_digest", "unknown")
    if digest != evaluation.pack_digest:
        raise DataError(
            f"{other}: predictions on pack {digest}, expected {evaluation.pack_digest}; score both runs on one split"
        )
    if facts.get("characters") != evaluation.charset.characters:
        raise DataError(f"{other}: predictions over other characters; score both runs with, or without, --only-shared")
    return replace(compare(evaluation.predictions, predictions, len(evaluation.charset)), other=str(other))


def _by_writer(evaluation: Evaluation) -> list[Row]:
    reader = open_reader(evaluation.pack / f"{evaluation.split}.lmdb")
    part = reader.writers[evaluation.predictions.index].astype(np.int64)
    rows = tabulate(evaluation.predictions, part, reader.meta["writers"])
    return sorted(rows, key=lambda row: (row.recall, row.name))


def _by_strokes(predictions: Predictions, charset: Charset) -> list[Row]:
    table = StrokeTable.load()
    strokes = np.array([len(table.medians(char)) if char in table else 0 for char in charset.characters])
    unknown = int(strokes.max()) + 1
    strokes[strokes == 0] = unknown
    names = [*map(str, range(unknown)), "unknown"]
    return tabulate(predictions, strokes[predictions.target], names)


def _by_group(predictions: Predictions, groups: list[Group], charset: Charset) -> list[Row]:
    part = np.full(len(charset), len(groups))
    for place, group in enumerate(groups):
        part[list(group.labels)] = place
    names = ["".join(charset[label] for label in group.labels) for group in groups]
    return tabulate(predictions, part[predictions.target], [*names, ""])
