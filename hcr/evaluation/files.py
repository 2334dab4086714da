"""An evaluation as files: figures for programs, tables for spreadsheets, predictions for whoever wants to recompute.

CSV is UTF-8 with a byte order mark, without which spreadsheets show the characters as garbage. Where the data was not
new to the model every file says so.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from io import TextIOWrapper
from math import floor
from pathlib import Path
from typing import Any

import numpy as np

from hcr.charset import Charset
from hcr.evaluation.analysis import Analysis, Evaluation, analyse
from hcr.evaluation.compare import Comparison
from hcr.evaluation.groups import Row
from hcr.evaluation.metrics import Confusion, Summary
from hcr.evaluation.page.html import write_html
from hcr.evaluation.predictions import write_predictions
from hcr.files import atomic_write, write_json
from hcr.svg import dot, drawing, line, text

WRONG_ANSWERS = 3
_OVERALL = (
    "top1", "top5", "top10", "top1_interval", "top5_interval", "top10_interval",
    "macro_recall", "macro_precision", "macro_f1", "micro_recall", "micro_precision", "micro_f1",
)  # fmt: skip


def write_report(
    folder: Path,
    evaluation: Evaluation,
    *,
    wanted_error: float = 0.01,
    comparison: Comparison | None = None,
    conditions: Sequence[Row] = (),
    curves: Path | None = None,
) -> Analysis:
    """Write every file of an evaluation (docs/formats.md) into `folder`, and give what they were written from.

    wanted_error: what the rejection threshold is for. conditions: as `judge_conditions` gives them. curves: the run's
    metrics.jsonl. What an earlier evaluation left there besides, a comparison or conditions, is removed: it may have
    been of another model.
    """
    findings = analyse(evaluation, wanted_error)
    for name in ("comparison.csv", "robustness.csv", "robustness.svg"):
        (folder / name).unlink(missing_ok=True)
    summary, charset, seen = evaluation.summary, evaluation.charset, evaluation.seen
    write_per_class(folder / "per_class.csv", summary, findings.confusions, charset, seen)
    write_csv(
        folder / "confusions.csv",
        ("target", "predicted", "count", "count_back"),
        ((charset[pair.target], charset[pair.predicted], pair.count, pair.back) for pair in findings.confusions),
        seen,
    )
    inside = [group.inside for group in findings.groups] + [0]
    write_rows(folder / "writers.csv", "writer", findings.writers, seen)
    write_rows(folder / "strokes.csv", "strokes", findings.strokes, seen)
    write_rows(folder / "groups.csv", "characters", findings.by_group, seen, {"errors_inside": inside})
    if comparison:
        _write_comparison(folder / "comparison.csv", comparison, charset, seen)
    if conditions:
        _write_robustness(folder, conditions, seen)
    facts = {"characters": charset.characters, "pack_digest": evaluation.pack_digest, "seen": seen}
    write_predictions(folder / "predictions.npz", evaluation.predictions, facts)
    write_html(folder / "report.html", evaluation, findings, _lines(curves), comparison, conditions)
    # Last: a summary stands for all the files beside it.
    write_json(folder / "summary.json", _summary(evaluation, findings, comparison))
    return findings


def _write_robustness(folder: Path, rows: Sequence[Row], seen: str) -> None:
    """Write robustness.csv and robustness.svg: the split as it is, then each condition."""
    plain = rows[0]
    difference = [_cell(row.recall - plain.recall) for row in rows]
    write_rows(folder / "robustness.csv", "condition", rows, seen, {"difference": difference})
    with atomic_write(folder / "robustness.svg", "w") as file:
        file.write(robustness_svg(rows, seen))


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
    """Write a table of parts of a split; `more` are further columns."""
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


def _summary(evaluation: Evaluation, findings: Analysis, comparison: Comparison | None) -> dict[str, Any]:
    summary = evaluation.summary
    content = {
        "n": summary.n,
        **{name: getattr(summary, name) for name in _OVERALL},
        "classes": len(evaluation.charset),
        "classes_with_samples": int((summary.count > 0).sum()),
        "ece": findings.calibration.ece if findings.calibration else None,
        "risk_coverage_area": findings.coverage.area if findings.coverage else None,
        "rejection": vars(findings.rejection) if findings.rejection else None,
        "split": evaluation.split,
        "pack": {"path": str(evaluation.pack), "digest": evaluation.pack_digest},
        "charset_digest": evaluation.charset.digest,
        "checkpoint": str(evaluation.checkpoint) if evaluation.checkpoint else None,
        "checkpoint_digest": evaluation.checkpoint_digest,
        "arch": evaluation.arch,
        "elsewhere": str(evaluation.elsewhere) if evaluation.elsewhere else None,
        "seen": evaluation.seen,
        "only_shared": evaluation.only_shared,
        "left_out": evaluation.left_out,
        "seconds": round(evaluation.seconds, 3),
        "ms_per_picture": evaluation.ms_per_picture,
        "pictures_per_second": evaluation.pictures_per_second,
    }
    if comparison:
        overall = {name: value for name, value in vars(comparison).items() if not name.startswith("class_")}
        content["comparison"] = overall
    return _without_nan(content)


def _without_nan(value: Any) -> Any:
    """Turn nan, which JSON does not know, into null."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _lines(path: Path | None) -> list[dict[str, Any]]:
    if path is None or not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _cell(figure: float) -> str:
    return "" if math.isnan(figure) else f"{figure:.6f}"


def _wrong_answers(pairs: list[Confusion], charset: Charset) -> list[object]:
    """The commonest wrong answers and their counts; `pairs` come most frequent first."""
    cells: list[object] = []
    for pair in pairs[:WRONG_ANSWERS]:
        cells += [charset[pair.predicted], pair.count]
    return cells + [""] * (2 * WRONG_ANSWERS - len(cells))


# The robustness plot, beside the page for papers and slides: conditions as rows, each with its interval.
_LEFT, _WIDE, _RIGHT = 210, 430, 80
_TOP, _ROW, _BOTTOM = 56, 26, 30


def robustness_svg(rows: Sequence[Row], seen: str) -> str:
    """Draw each condition's share of right answers with its 95 % interval; the dashed line is the first row's."""
    low = floor(min(row.low for row in rows) * 10) / 10
    bottom = _TOP + _ROW * len(rows)
    parts = [
        text(16, 24, "Top-1 under changed conditions, with 95 % intervals"),
        text(16, 42, f"n = {rows[0].n:,} each{f'; {seen}: no test' if seen else ''}", "soft"),
    ]

    def place(share: float) -> float:
        return _LEFT + _WIDE * (share - low) / (1 - low)

    for tenth in range(round(low * 10), 11, 1 if low >= 0.5 else 2):
        x = place(tenth / 10)
        parts.append(line(x, _TOP, x, bottom, "grid"))
        parts.append(text(x, bottom + 20, f"{tenth * 10} %", "soft", "middle"))
    plain = place(rows[0].recall)
    parts.append(line(plain, _TOP, plain, bottom, "faint"))
    for number, row in enumerate(rows):
        y = _TOP + _ROW * number + _ROW / 2
        parts.append(text(_LEFT - 14, y + 5, row.name, "", "end"))
        parts.append(line(place(row.low), y, place(row.high), y, "one"))
        parts.append(dot(place(row.recall), y, "one"))
        parts.append(text(_LEFT + _WIDE + 14, y + 5, f"{row.recall:.2%}"))
    return drawing(_LEFT + _WIDE + _RIGHT, bottom + _BOTTOM, "Top-1 under changed conditions", parts)
