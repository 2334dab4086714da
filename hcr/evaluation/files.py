"""An evaluation as files: figures for programs, tables for spreadsheets, predictions for whoever wants to recompute.

`write_report` writes them all; docs/formats.md lists them. CSV is UTF-8 with a byte order mark, without which
spreadsheets show the characters as garbage. Where the data was not new to the model, every file says so.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np

from hcr.charset import Charset
from hcr.evaluation.analysis import Analysis, Evaluation, analyse
from hcr.evaluation.compare import Comparison
from hcr.evaluation.groups import Row
from hcr.evaluation.metrics import Confusion, Summary
from hcr.evaluation.page.html import write_html
from hcr.evaluation.predictions import write_predictions
from hcr.files import atomic_write, write_json
from hcr.records import read_metrics
from hcr.svg import Box, Chart, drawing, text

# per_class.csv lists this many of a class's wrong answers.
WRONG_ANSWERS = 3
# Pixels of robustness.svg: the chart, what is around it, and a row of it.
_LEFT, _WIDE, _RIGHT = 210, 430, 80
_TOP, _ROW, _BOTTOM = 56, 26, 30


class PackRecord(TypedDict):
    """The pack that was evaluated on."""

    path: str
    digest: str


class RejectionRecord(TypedDict):
    """The rejection threshold for an error of at most `wanted`; see `calibration.Rejection`."""

    wanted: float
    threshold: float | None
    coverage: float
    error: float | None
    n: int


class ComparisonRecord(TypedDict):
    """Another run on the same samples; see `compare.Comparison`."""

    n: int
    top1: float
    other_top1: float
    difference: float
    interval: list[float]
    gained: int
    lost: int
    p_value: float
    test: str
    other: str


class SummaryRecord(TypedDict):
    """summary.json, as docs/formats.md describes it; an undefined figure is None."""

    n: int
    top1: float | None
    top5: float | None
    top10: float | None
    top1_interval: list[float | None]
    top5_interval: list[float | None]
    top10_interval: list[float | None]
    macro_recall: float | None
    macro_precision: float | None
    macro_f1: float | None
    micro_recall: float | None
    micro_precision: float | None
    micro_f1: float | None
    classes: int
    classes_with_samples: int
    ece: float | None
    risk_coverage_area: float | None
    rejection: RejectionRecord | None
    split: str
    pack: PackRecord
    charset_digest: str
    checkpoint: str | None
    checkpoint_digest: str | None
    arch: str | None
    elsewhere: str | None
    seen: str
    only_shared: bool
    left_out: int
    seconds: float | None
    ms_per_picture: float | None
    pictures_per_second: float | None
    comparison: NotRequired[ComparisonRecord]


def write_report(
    folder: Path,
    evaluation: Evaluation,
    *,
    target_error: float = 0.01,
    comparison: Comparison | None = None,
    conditions: Sequence[Row] = (),
    curves: Path | None = None,
) -> Analysis:
    """Write every file of an evaluation into `folder`, and return the analysis that they were written from.

    target_error: the share of wrong answers, 0 to 1, that the rejection threshold is for. conditions: as
    `evaluate_conditions` returns them. curves: the run's metrics.jsonl. A comparison or conditions that an earlier
    evaluation left in the folder are removed: they may have been of another model.
    """
    analysis = analyse(evaluation, target_error)
    for name in ("comparison.csv", "robustness.csv", "robustness.svg"):
        (folder / name).unlink(missing_ok=True)
    summary, charset, seen = evaluation.summary, evaluation.charset, evaluation.seen
    write_per_class(folder / "per_class.csv", summary, analysis.confusions, charset, seen)
    write_csv(
        folder / "confusions.csv",
        ("target", "predicted", "count", "count_back"),
        ((charset[pair.target], charset[pair.predicted], pair.count, pair.back) for pair in analysis.confusions),
        seen,
    )
    inside = [group.inside for group in analysis.groups] + [0]
    write_rows(folder / "writers.csv", "writer", analysis.writers, seen)
    write_rows(folder / "strokes.csv", "strokes", analysis.strokes, seen)
    write_rows(folder / "groups.csv", "characters", analysis.by_group, seen, {"errors_inside": inside})
    if comparison:
        _write_comparison(folder / "comparison.csv", comparison, charset, seen)
    if conditions:
        _write_robustness(folder, conditions, seen)
    facts = {"characters": charset.characters, "pack_digest": evaluation.pack_digest, "seen": seen}
    write_predictions(folder / "predictions.npz", evaluation.predictions, facts)
    write_html(
        folder / "report.html", evaluation, analysis, read_metrics(curves) if curves else [], comparison, conditions
    )
    # Last: a summary stands for all the files beside it.
    write_json(folder / "summary.json", summary_record(evaluation, analysis, comparison))
    return analysis


def summary_record(evaluation: Evaluation, analysis: Analysis, comparison: Comparison | None = None) -> SummaryRecord:
    """Return the content of summary.json."""
    summary, rejection = evaluation.summary, analysis.rejection
    record: SummaryRecord = {
        "n": summary.n,
        "top1": _defined(summary.top1),
        "top5": _defined(summary.top5),
        "top10": _defined(summary.top10),
        "top1_interval": [_defined(end) for end in summary.top1_interval],
        "top5_interval": [_defined(end) for end in summary.top5_interval],
        "top10_interval": [_defined(end) for end in summary.top10_interval],
        "macro_recall": _defined(summary.macro_recall),
        "macro_precision": _defined(summary.macro_precision),
        "macro_f1": _defined(summary.macro_f1),
        "micro_recall": _defined(summary.micro_recall),
        "micro_precision": _defined(summary.micro_precision),
        "micro_f1": _defined(summary.micro_f1),
        "classes": len(evaluation.charset),
        "classes_with_samples": int((summary.count > 0).sum()),
        "ece": analysis.calibration.ece if analysis.calibration else None,
        "risk_coverage_area": analysis.coverage.area if analysis.coverage else None,
        "rejection": None,
        "split": evaluation.split,
        "pack": {"path": str(evaluation.pack), "digest": evaluation.pack_digest},
        "charset_digest": evaluation.charset.digest,
        "checkpoint": str(evaluation.checkpoint) if evaluation.checkpoint else None,
        "checkpoint_digest": evaluation.checkpoint_digest,
        "arch": evaluation.arch,
        "elsewhere": str(evaluation.external) if evaluation.external else None,
        "seen": evaluation.seen,
        "only_shared": evaluation.only_shared,
        "left_out": evaluation.left_out,
        "seconds": _defined(round(evaluation.seconds, 3)),
        "ms_per_picture": _defined(evaluation.ms_per_picture),
        "pictures_per_second": _defined(evaluation.pictures_per_second),
    }
    if rejection:
        record["rejection"] = {
            "wanted": rejection.target,
            "threshold": _defined(rejection.threshold),
            "coverage": rejection.coverage,
            "error": _defined(rejection.error),
            "n": rejection.n,
        }
    if comparison:
        record["comparison"] = {
            "n": comparison.n,
            "top1": comparison.top1,
            "other_top1": comparison.other_top1,
            "difference": comparison.difference,
            "interval": list(comparison.interval),
            "gained": comparison.gained,
            "lost": comparison.lost,
            "p_value": comparison.p_value,
            "test": comparison.test,
            "other": comparison.other,
        }
    return record


def _write_robustness(folder: Path, rows: Sequence[Row], seen: str) -> None:
    """Write robustness.csv and robustness.svg: the split as it is, then each condition."""
    plain = rows[0]
    difference = [_cell(row.recall - plain.recall) for row in rows]
    write_rows(folder / "robustness.csv", "condition", rows, seen, {"difference": difference})
    with atomic_write(folder / "robustness.svg", "w") as file:
        file.write(robustness_svg(rows, seen))


def robustness_svg(rows: Sequence[Row], seen: str) -> str:
    """Draw each condition's share of right answers with its 95 % interval; the dashed line is the first row's.

    It stands beside the page for papers and slides.
    """
    low = math.floor(min(row.low for row in rows) * 10) / 10
    box = Box(_LEFT, _TOP, _WIDE, _ROW * len(rows))
    tenths = range(round(low * 10), 11, 1 if low >= 0.5 else 2)
    chart = Chart((low, 1), (len(rows) - 0.5, -0.5), box)
    chart.x_axis({tenth / 10: f"{tenth * 10}%" for tenth in tenths}, lines=True)
    chart.y_axis({number: row.name for number, row in enumerate(rows)}, lines=False)
    chart.vertical(rows[0].recall, "faint")
    for number, row in enumerate(rows):
        chart.line([row.low, row.high], [number, number], "one")
        chart.dot(row.recall, number, radius=4)
    chart.end_labels([(number, f"{row.recall:.2%}", "") for number, row in enumerate(rows)])
    title = "Top-1 under changed conditions"
    parts = [
        text(16, 24, f"{title}, with 95 % intervals"),
        text(16, 42, f"n = {rows[0].n:,} each{f'; {seen}: no test' if seen else ''}", "soft"),
        *chart.parts,
    ]
    return drawing(_LEFT + _WIDE + _RIGHT, box.bottom + _BOTTOM, title, parts)


def write_per_class(path: Path, summary: Summary, pairs: Sequence[Confusion], charset: Charset, seen: str = "") -> None:
    """Write a row a class, in label order; a figure that is undefined is an empty cell, never 0."""
    answers: dict[int, list[Confusion]] = {}
    for pair in pairs:
        answers.setdefault(pair.target, []).append(pair)
    names = "recall", "precision", "f1", "top5_recall", "mean_confidence"
    wrong = [name for place in range(1, WRONG_ANSWERS + 1) for name in (f"wrong{place}", f"wrong{place}_count")]
    write_csv(
        path,
        ("index", "char", "code_point", "n", "correct", *names, *wrong),
        (
            (
                label,
                char,
                f"U+{ord(char):04X}",
                summary.count[label],
                summary.correct[label],
                *(_cell(getattr(summary, name)[label]) for name in names),
                *_wrong_answers(answers.get(label, []), charset),
            )
            for label, char in enumerate(charset.characters)
        ),
        seen,
    )


def write_rows(
    path: Path, name: str, rows: Sequence[Row], seen: str, more: dict[str, Sequence[object]] | None = None
) -> None:
    """Write a table of the parts of a split, the first column called `name`; `more` are further columns."""
    more = more or {}
    write_csv(
        path,
        (
            name,
            "classes",
            "n",
            "correct",
            "recall",
            "recall_low",
            "recall_high",
            "top5_recall",
            "mean_confidence",
            *more,
        ),
        (
            (
                row.name,
                row.classes,
                row.n,
                row.correct,
                *map(_cell, (row.recall, row.low, row.high, row.top5 / row.n, row.confidence)),
                *(column[place] for column in more.values()),
            )
            for place, row in enumerate(rows)
        ),
        seen,
    )


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]], seen: str) -> None:
    """Write a table, with a last column `seen` where the data was not new to the model."""
    mark = (seen,) if seen else ()
    with atomic_write(path) as file:
        text = TextIOWrapper(file, "utf-8-sig", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((*head, *(["seen"] if seen else [])))
        writer.writerows((*row, *mark) for row in rows)
        text.flush()
        text.detach()


def _write_comparison(path: Path, comparison: Comparison, charset: Charset, seen: str) -> None:
    """Write a row a class on which the models differ, the one that gained most first."""
    gained, lost = comparison.class_gained, comparison.class_lost
    differing = np.flatnonzero(gained + lost)
    order = differing[np.argsort(lost[differing] - gained[differing], kind="stable")]
    write_csv(
        path,
        ("char", "code_point", "n", "gained", "lost", "net"),
        (
            (charset[i], f"U+{ord(charset[i]):04X}", comparison.class_count[i], gained[i], lost[i], gained[i] - lost[i])
            for i in order.tolist()
        ),
        seen,
    )


def _defined(figure: float) -> float | None:
    """Turn nan, which JSON does not know, into None."""
    return None if math.isnan(figure) else figure


def _cell(figure: float) -> str:
    return "" if math.isnan(figure) else f"{figure:.6f}"


def _wrong_answers(pairs: list[Confusion], charset: Charset) -> list[object]:
    """Return the commonest wrong answers and their counts as cells; `pairs` come most frequent first."""
    cells: list[object] = []
    for pair in pairs[:WRONG_ANSWERS]:
        cells += [charset[pair.predicted], pair.count]
    return cells + [""] * (2 * WRONG_ANSWERS - len(cells))
