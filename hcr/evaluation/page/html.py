"""An evaluation as one page: every figure and picture in a single file that needs no network, font or plot library.

What must be seen stands in the HTML; the table of all classes and the card of one are made by a script from a JSON
block, because 3,755 of them as HTML would weigh as much as everything else together.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from math import isfinite
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

import hcr
from hcr.charset import Charset
from hcr.evaluation.analysis import Analysis, Evaluation
from hcr.evaluation.compare import Comparison
from hcr.evaluation.groups import Row
from hcr.evaluation.metrics import Confusion
from hcr.evaluation.page import figures
from hcr.evaluation.page.gallery import Gallery
from hcr.evaluation.page.lists import Lists
from hcr.evaluation.page.markup import Section, between, figure_list, percent, table
from hcr.files import atomic_write
from hcr.pack.store import open_reader
from hcr.records import MetricsRow
from hcr.text import counted

_MARKS = (*"一二三四五六七八九十", "十一", "十二")
# Pictures on top of the page; wrong answers, and pictures of errors, that are kept for a class.
_STRIP, _ANSWERS, _ERRORS = 40, 10, 6
_COLUMNS = {
    "point": "Character",
    "label": "Label",
    "n": "Samples",
    "correct": "Correct",
    "recall": "Recall",
    "precision": "Precision",
    "f1": "F1",
    "top5": "Within 5",
    "confidence": "Confidence",
    "wrong": "Commonest wrong answers",
}


def write_html(
    path: Path,
    evaluation: Evaluation,
    analysis: Analysis,
    curves: Sequence[MetricsRow],
    comparison: Comparison | None = None,
    conditions: Sequence[Row] = (),
) -> None:
    """Write report.html; `curves` are the rows of the run's metrics.jsonl, [] where there is none.

    conditions: the split as it is, then each condition.
    Raises: DataError where pictures or origins in the pack are damaged.
    """
    reader = open_reader(evaluation.pack / f"{evaluation.split}.lmdb")
    gallery = Gallery(reader)
    lists = Lists(evaluation, analysis, reader, gallery)
    strip = lists.sample_strip(_STRIP)
    candidates = [
        figures.learning(curves),
        figures.confidence(analysis),
        figures.distribution(evaluation.summary, analysis.strokes),
        figures.comparison(comparison, evaluation.charset),
        figures.robustness(conditions),
        lists.pairs(),
        lists.groups(),
        lists.worst_classes(),
        lists.writers(),
        lists.confident_errors(),
        _all_classes(evaluation.charset),
        _made_from(evaluation),
    ]
    sections = [section for section in candidates if section]
    data = _class_data(evaluation, analysis.confusions, lists, gallery)
    parts = {
        "title": escape(f"{_name(evaluation)} on {evaluation.pack.name}, {evaluation.split}"),
        "css": _asset("report.css"),
        "sheets": gallery.css(),
        "nav": "".join(f'<li><a href="#{section.name}">{section.short}</a></li>' for section in sections),
        "main": _cover(evaluation, analysis, strip) + "".join(map(_section, _MARKS, sections)),
        "footer": f"Written by hcr {escape(hcr.__version__)}. This page loads nothing from other places.",
        # "<" could end the script element; in JSON it may as well be written by its number.
        "data": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        "js": _asset("report.js"),
    }
    # Names of files need not be UTF-8; what is not becomes a question mark.
    with atomic_write(path) as file:
        file.write(Template(_asset("report.html")).substitute(parts).encode("utf-8", "replace"))


def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")


def _name(evaluation: Evaluation) -> str:
    """Return the run's name, or that of the file from which the model or the predictions came."""
    origin = evaluation.checkpoint or evaluation.external
    if origin is None:
        return "predictions"
    return origin.parent.parent.name if origin.parent.name == "checkpoints" else origin.name


def _section(mark: str, section: Section) -> str:
    return (
        f'<section id="{section.name}" aria-labelledby="{section.name}-title"><div class="head">'
        f'<span class="mark" lang="zh" aria-hidden="true">{mark}</span>'
        f'<h2 id="{section.name}-title">{section.title}</h2>'
        f"<p>{section.intro}</p></div>{section.body}</section>"
    )


def _cover(evaluation: Evaluation, analysis: Analysis, strip: str) -> str:
    summary = evaluation.summary
    right = int(summary.correct.sum())
    figure, sign = f"{100 * summary.top1:.2f}", "<small> %</small>"
    return (
        '<header class="cover"><p class="kicker">Handwritten character recognition, evaluated</p>'
        f'<h1>{escape(_name(evaluation))} <span class="soft">on</span> {escape(evaluation.pack.name)}, '
        f"{escape(evaluation.split)}</h1>{''.join(_banners(evaluation))}"
        f'<div class="lead"><div><p class="figure">{figure}{sign}</p>'
        f'<p class="what">top-1 accuracy: {right:,} of {counted(summary.n, "picture")} read correctly.<br>'
        f'<span class="soft">95% interval {between(summary.top1_interval)}</span></p></div>'
        f'<div class="strip">{strip}<p class="soft small">Pictures chosen at random; the underlined ones were misread.'
        "</p></div></div>"
        f"{figure_list(_headline(evaluation, analysis))}</header>"
    )


def _banners(evaluation: Evaluation) -> Iterable[str]:
    if evaluation.seen:
        yield _banner("Not a test.", f"These figures are on data that the model has seen: {evaluation.seen}.")
    if evaluation.only_shared:
        left = f"{counted(evaluation.left_out, 'picture')} of characters that the model does not know were left out"
        shared = f"the {len(evaluation.charset):,} that model and pack both have count, and could be answered"
        yield _banner("Shared characters only.", f"{left}; {shared}.")
    if evaluation.external:
        yield _banner("Another system's predictions.", f"They were read from {evaluation.external}.")


def _banner(what: str, why: str) -> str:
    return f'<p class="banner" role="note"><strong>{what}</strong> {escape(why)}</p>'


def _headline(evaluation: Evaluation, analysis: Analysis) -> list[tuple[str, str, str]]:
    summary = evaluation.summary
    present = int((summary.count > 0).sum())
    perfect = int(((summary.correct == summary.count) & (summary.count > 0)).sum())
    listed = [
        ("Top-5", percent(summary.top5), between(summary.top5_interval)),
        ("Top-10", percent(summary.top10), between(summary.top10_interval)),
        ("Macro recall", percent(summary.macro_recall), f"mean over {counted(present, 'character')}"),
        ("Macro F1", percent(summary.macro_f1), f"precision {percent(summary.macro_precision)}"),
        ("Never misread", f"{perfect:,}", f"of {counted(present, 'character')}"),
    ]
    if analysis.calibration:
        listed.append(("Calibration error", percent(analysis.calibration.ece), "expected, 15 bins"))
    if isfinite(evaluation.seconds):
        speed = f"{evaluation.pictures_per_second:,.0f} per second"
        listed.append(("Time per picture", f"{evaluation.ms_per_picture:.2f} ms", speed))
    return listed


def _all_classes(charset: Charset) -> Section:
    heads = "".join(
        f'<th scope="col" data-key="{key}"{" class=text" * (key == "wrong")}><button type="button">{name}</button></th>'
        for key, name in _COLUMNS.items()
    )
    body = f"""<p class="no-js">The table needs JavaScript; per_class.csv beside this page holds the same figures.</p>
<div class="js-only"><form class="tools" role="search">
<label>Character or code point<input id="search" type="search" placeholder="已己 or U+5DF2" autocomplete="off"
 autocapitalize="off" spellcheck="false"></label>
<label>Show<select id="only"><option value="">all characters</option><option value="errors">with errors</option>
<option value="perfect">without an error</option><option value="empty">without samples</option></select></label>
<output id="found" for="search only" aria-live="polite"></output></form>
<div class="scroll" tabindex="0" role="region" aria-label="All characters"><table id="classes-table">
<thead><tr>{heads}</tr></thead><tbody></tbody></table></div>
<button class="plain" id="show-more" type="button"></button></div>"""
    keys = "Click a heading to sort, a row to open; the arrow keys go from row to row."
    intro = f"{counted(len(charset), 'character')}. {keys}"
    return Section("classes", "All characters", "All characters", intro, body)


def _made_from(evaluation: Evaluation) -> Section:
    summary = evaluation.summary
    averages = [
        ["macro", percent(summary.macro_recall), percent(summary.macro_precision), percent(summary.macro_f1)],
        ["micro", percent(summary.micro_recall), percent(summary.micro_precision), percent(summary.micro_f1)],
    ]
    facts = {
        "Checkpoint": evaluation.checkpoint,
        "Checkpoint digest": evaluation.checkpoint_digest,
        "Predictions from": evaluation.external,
        "Network": evaluation.arch,
        "Pack": evaluation.pack,
        "Pack digest": evaluation.pack_digest,
        "Split": evaluation.split,
        "Pictures": f"{summary.n:,}",
        "Characters": f"{len(evaluation.charset):,}, of which {int((summary.count > 0).sum()):,} have samples",
        "Charset digest": evaluation.charset.digest,
    }
    listed = "".join(
        f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items() if value is not None
    )
    body = f'<dl class="facts">{listed}</dl>{table(("average", "recall", "precision", "F1"), averages)}'
    intro = "Intervals are Wilson's 95% intervals; a figure that is undefined is left out, never 0."
    return Section("about", "Made from", "What this was made from", intro, body)


def _class_data(evaluation: Evaluation, confusions: list[Confusion], lists: Lists, gallery: Gallery) -> dict[str, Any]:
    """Return what report.js needs, lists over the classes in label order.

    answers and mistaken: [label, count], most frequent first. errors: [place on the sheets, answer, score or null].
    right: the place of a picture that was read correctly, or null.
    """
    summary, predictions = evaluation.summary, evaluation.predictions
    classes = range(len(evaluation.charset))
    answers: dict[int, list[list[int]]] = defaultdict(list)
    mistaken: dict[int, list[list[int]]] = defaultdict(list)
    for pair in confusions:
        for label, other, listed in ((pair.target, pair.predicted, answers), (pair.predicted, pair.target, mistaken)):
            if len(listed[label]) < _ANSWERS:
                listed[label].append([other, pair.count])
    hits = np.flatnonzero(predictions.hit)
    labels, firsts = np.unique(predictions.target[hits], return_index=True)
    first_right = dict(zip(labels.tolist(), hits[firsts].tolist(), strict=True))
    errors: dict[int, list[list[Any]]] = defaultdict(list)
    right: dict[int, int | None] = {}
    # By turns, so that where pictures are short every class has one before any has two.
    for turn in range(_ERRORS):
        for label in classes:
            for place in lists.errors[label][turn : turn + 1]:
                on_sheet = gallery.place(int(predictions.index[place]))
                if on_sheet is not None:
                    score = float(predictions.score[place, 0])
                    errors[label].append([on_sheet, int(predictions.first[place]), _number(score)])
        if turn == 0:
            right = {label: gallery.place(int(predictions.index[place])) for label, place in first_right.items()}
    return {
        "characters": evaluation.charset.characters,
        "n": summary.count.tolist(),
        "correct": summary.correct.tolist(),
        "predicted": summary.predicted.tolist(),
        "top5": np.round(np.nan_to_num(summary.top5_recall) * summary.count).astype(int).tolist(),
        "confidence": [_number(value) for value in summary.mean_confidence.tolist()],
        "answers": [answers[label] for label in classes],
        "mistaken": [mistaken[label] for label in classes],
        "errors": [errors[label] for label in classes],
        "right": [right.get(label) for label in classes],
    }


def _number(value: float) -> float | None:
    """Return a figure for JSON, which has no nan."""
    return round(value, 4) if isfinite(value) else None
