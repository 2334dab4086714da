"""An evaluation as files: figures for programs, tables for spreadsheets, predictions for whoever wants to recompute.

CSV is UTF-8 with a byte order mark, without which spreadsheets show the characters as garbage.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from io import TextIOWrapper
from pathlib import Path

import numpy as np

from hcr.charset import Charset
from hcr.evaluation.evaluate import Evaluation
from hcr.evaluation.metrics import Confusion, Summary, confusions
from hcr.files import atomic_write, write_json

WRONG_ANSWERS = 3


def write_report(folder: Path, evaluation: Evaluation) -> None:
    """Write summary.json, per_class.csv, confusions.csv and predictions.npz (docs/formats.md) into `folder`."""
    summary, predictions, charset = evaluation.summary, evaluation.predictions, evaluation.charset
    pairs = confusions(predictions, len(charset))
    write_per_class(folder / "per_class.csv", summary, pairs, charset)
    _write_csv(
        folder / "confusions.csv",
        ("target", "predicted", "count", "count_back"),
        ((charset[pair.target], charset[pair.predicted], pair.count, pair.back) for pair in pairs),
    )
    with atomic_write(folder / "predictions.npz") as file:
        np.savez_compressed(file, **vars(predictions))
    # Last: a summary stands for all the files beside it.
    write_json(
        folder / "summary.json",
        {
            "n": summary.n,
            "top1": summary.top1,
            "top5": summary.top5,
            "macro_recall": summary.macro_recall,
            "classes": len(charset),
            "classes_with_samples": int((summary.count > 0).sum()),
            "split": evaluation.split,
            "pack": {"path": str(evaluation.pack), "digest": evaluation.pack_digest},
            "charset_digest": charset.digest,
            "checkpoint": str(evaluation.checkpoint),
            "arch": evaluation.arch,
            "seconds": round(evaluation.seconds, 3),
        },
    )


def write_per_class(path: Path, summary: Summary, pairs: Sequence[Confusion], charset: Charset) -> None:
    """Write a row a class, in label order; a figure that is undefined is an empty cell, never 0."""
    answers: dict[int, list[Confusion]] = {}
    for pair in pairs:
        answers.setdefault(pair.target, []).append(pair)
    names = "recall", "precision", "f1", "top5_recall", "mean_confidence"
    wrong = [name for place in range(1, WRONG_ANSWERS + 1) for name in (f"wrong{place}", f"wrong{place}_count")]
    _write_csv(
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
    )


def _cell(figure: float) -> str:
    return "" if np.isnan(figure) else f"{figure:.6f}"


def _wrong_answers(pairs: list[Confusion], charset: Charset) -> list[object]:
    """The commonest wrong answers and their counts; `pairs` come most frequent first."""
    cells: list[object] = []
    for pair in pairs[:WRONG_ANSWERS]:
        cells += [charset[pair.predicted], pair.count]
    return cells + [""] * (2 * WRONG_ANSWERS - len(cells))


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with atomic_write(path) as file:
        text = TextIOWrapper(file, "utf-8-sig", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)
        text.detach()
