"""The report's charts, and the parts that are there when asked for: another run beside this one, changed conditions.

Charts: how the run learned, how far its confidence can be trusted, how recall is spread. Every chart has its numbers
beside it as a table, for whoever cannot see it or wants to copy them. What a condition costs is a bar in its row of the
table instead: names that long leave a chart no room on a phone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise
from math import isfinite, nan
from typing import Any

import numpy as np

from hcr.charset import Charset
from hcr.evaluation.analysis import Analysis
from hcr.evaluation.calibration import Calibration, Coverage, Rejection
from hcr.evaluation.compare import Comparison
from hcr.evaluation.groups import Row
from hcr.evaluation.metrics import Summary
from hcr.evaluation.page.markup import Section, as_table, between, character, chart_figure, figure_list, percent, points
from hcr.records import MetricsRow
from hcr.svg import Box, Chart, best_epoch, inline, learning_chart, ticks
from hcr.text import counted

# So many characters that gained, and that lost, stand in a comparison.
_CLASSES = 12
_TENTHS = [tenth / 10 for tenth in range(0, 11, 2)]
# Pixels of a chart, the text's height in it (report.css), and where its data lies; curves are named on their right.
_WIDTH, _HEIGHT, _FONT = 380, 250, 11
_BOX, _CURVES = Box(44, 26, 318, 190), Box(44, 26, 248, 190)


def learning(curves: Sequence[MetricsRow]) -> Section | None:
    """Draw loss and top-1 by epoch from the rows of metrics.jsonl; None where there are none."""
    if not curves:
        return None
    head = ("epoch", "training", "validation")
    charts = [
        chart_figure(
            "Top-1 by epoch",
            "On augmented pictures while learning, and on the validation split with the averaged weights. Dashed: the "
            "best epoch.",
            _inline(learning_chart(curves, "top1", _CURVES, _FONT), "Top-1 by epoch, training and validation"),
            as_table(head, _rows(curves, "top1", percent)),
        ),
        chart_figure(
            "Loss by epoch",
            "Cross-entropy; label smoothing and augmentation keep the training loss above the validation loss. "
            "Dashed: the learning rate, and the best epoch.",
            _inline(learning_chart(curves, "loss", _CURVES, _FONT), "Loss by epoch, training and validation"),
            as_table(head, _rows(curves, "loss", lambda value: f"{value:.4f}" if isfinite(value) else "")),
        ),
    ]
    intro = f"{counted(len(curves), 'epoch')}, {counted(curves[-1]['step'], 'step')}."
    if best := best_epoch(curves):
        intro += f" Validation was best after epoch {best['epoch']}: {percent(best['val_top1'])} top-1."
    return Section("learning", "Learning", "How it learned", intro, _charts(charts))


def confidence(analysis: Analysis) -> Section | None:
    """Draw reliability and risk against coverage; None where the predictions have no scores."""
    if not (analysis.calibration and analysis.coverage and analysis.rejection):
        return None
    charts = [_reliability(analysis.calibration), _risk(analysis.coverage, analysis.rejection)]
    intro = (
        "The score of the first answer is its confidence. Is it deserved, and what is gained by asking a person where "
        "it is low?"
    )
    return Section("confidence", "Confidence", "How far to trust it", intro, _charts(charts))


def distribution(summary: Summary, strokes: Sequence[Row]) -> Section:
    """Draw how many classes have which recall, and recall by the number of strokes."""
    recall = np.sort(summary.recall[summary.count > 0])
    median, tenth = np.quantile(recall, [0.5, 0.1])
    perfect = int((recall == 1).sum())
    intro = (
        f"Half of the {counted(len(recall), 'character')} with samples reach {percent(median)} recall, nine in ten "
        f"{percent(tenth)}; {perfect:,} were never misread, and the worst stands at {percent(recall[0])}."
    )
    charts = [_histogram(recall)]
    numbered = [row for row in strokes if row.name.isdigit()]
    if len(numbered) > 1:
        charts.append(_strokes(numbered, strokes))
    return Section("characters", "Characters", "How recall is spread", intro, _charts(charts))


def _charts(charts: Sequence[str]) -> str:
    return f'<div class="charts">{"".join(charts)}</div>'


def _inline(chart: Chart, label: str) -> str:
    return inline(_WIDTH, _HEIGHT, label, chart.parts)


def _rows(curves: Sequence[Mapping[str, Any]], figure: str, form: Callable[[float], str]) -> list[list[str]]:
    parts = (f"train_{figure}", f"val_{figure}")
    return [[str(row["epoch"]), *(form(float(row.get(part, nan))) for part in parts)] for row in curves]


def _percents(values: Iterable[float], digits: int = 0) -> dict[float, str]:
    """Return labels of an axis of shares."""
    return {value: percent(value, digits) for value in values}


def _reliability(found: Calibration) -> str:
    chart = Chart((0, 1), (0, 1), _BOX, font=_FONT)
    chart.x_axis(_percents(_TENTHS), "confidence")
    chart.y_axis(_percents(_TENTHS), "accuracy")
    largest = found.n.max()
    for (left, right), n in zip(pairwise(found.edges), found.n, strict=True):
        chart.bar(left, right, 0.18 * n / largest, "bar pale", f"{counted(n, 'picture')}")
    chart.line([0, 1], [0, 1], "faint")
    filled = found.n > 0
    chart.line(found.confidence[filled].tolist(), found.accuracy[filled].tolist(), "one")
    for sure, right, n in zip(found.confidence, found.accuracy, found.n, strict=True):
        chart.dot(sure, right, says=f"said {percent(sure, 1)}, right {percent(right, 1)}, {counted(n, 'picture')}")
    rows = [
        [f"{left:.2f}–{right:.2f}", f"{n:,}", percent(sure), percent(hit)]
        for (left, right), n, sure, hit in zip(
            pairwise(found.edges), found.n, found.confidence, found.accuracy, strict=True
        )
    ]
    return chart_figure(
        "Reliability",
        "On the dashed line it is right as often as it says; above it is too modest, below too sure. Expected "
        f"calibration error {percent(found.ece)}. The bars show how many pictures there are.",
        _inline(chart, "Reliability diagram: accuracy by confidence"),
        as_table(("confidence", "pictures", "mean", "right"), rows),
    )


def _risk(found: Coverage, rejection: Rejection) -> str:
    top = max(float(np.nanmax(found.risk)), rejection.target, 1e-3) * 1.05
    chart = Chart((0, 1), (0, top), _BOX, font=_FONT)
    chart.x_axis(_percents(_TENTHS), "share of pictures answered")
    chart.y_axis(_percents(ticks(0, top), 0 if top > 0.05 else 1 if top > 0.005 else 2), "error among those")
    chart.line(found.coverage.tolist(), found.risk.tolist(), "one")
    whole = percent(float(found.risk[-1]))
    if rejection.coverage == 1:
        said = f"Over all pictures the error is {whole}, no more than the target of {percent(rejection.target)}."
    elif rejection.n:
        chart.dot(rejection.coverage, rejection.error, says=f"threshold {rejection.threshold:.4f}", radius=4.5)
        said = (
            f"Answering only at a confidence of {rejection.threshold:.4f} or more leaves "
            f"{percent(1 - rejection.coverage)} of the pictures to a person, and of the rest "
            f"{percent(rejection.error)} are wrong instead of {whole}. Chosen on these very "
            "pictures: on others expect slightly more errors."
        )
    else:
        said = f"No threshold brings the error down to {percent(rejection.target)}; it is {whole} over all."
    step = max(1, len(found.coverage) // 20)
    picked = sorted({*range(0, len(found.coverage), step), len(found.coverage) - 1})
    rows = [[percent(found.coverage[i]), f"{found.threshold[i]:.4f}", percent(found.risk[i])] for i in picked]
    return chart_figure(
        "Coverage and risk",
        said,
        _inline(chart, "Error against the share of pictures answered"),
        as_table(("answered", "threshold", "error"), rows),
    )


def _histogram(recall: np.ndarray) -> str:
    counts, edges = np.histogram(recall, bins=20, range=(0, 1))
    chart = Chart((0, 1), (0, float(counts.max()) * 1.05), _BOX, font=_FONT)
    chart.x_axis(_percents(_TENTHS), "recall")
    chart.y_axis({value: f"{value:,.0f}" for value in ticks(0, counts.max(), whole=True)}, "characters")
    rows = []
    for (left, right), n in zip(pairwise(edges), counts, strict=True):
        said = f"{percent(left, 0)} to {percent(right, 0)}"
        chart.bar(left, right, n, "bar bad" if right <= 0.5 else "bar", f"recall {said}: {counted(n, 'character')}")
        rows.append([said, f"{n:,}"])
    return chart_figure(
        "Characters by recall",
        "How many characters are read how well; red: more than half is misread.",
        _inline(chart, "Number of characters by recall"),
        as_table(("recall", "characters"), rows),
    )


def _strokes(numbered: Sequence[Row], rows: Sequence[Row]) -> str:
    low = min((row.low for row in numbered if row.n), default=0.0)
    bounds = (max(0.0, low - 0.02), 1.0)
    last = max(int(row.name) for row in numbered)
    chart = Chart((0.5, last + 0.5), bounds, _BOX, font=_FONT)
    chart.x_axis({value: f"{value:.0f}" for value in ticks(1, last, 8, whole=True)}, "strokes")
    chart.y_axis(_percents(ticks(*bounds), 0 if bounds[0] < 0.95 else 1), "recall")
    for row in numbered:
        at = float(row.name)
        chart.line([at, at], [row.low, row.high], "whisker")
        chart.dot(at, row.recall, says=f"{counted(int(row.name), 'stroke')}: {percent(row.recall)} of {row.n:,}")
    return chart_figure(
        "Recall by strokes",
        "Few strokes leave little to tell characters apart, many run together. The lines are 95% intervals.",
        _inline(chart, "Recall by number of strokes"),
        as_table(
            ("strokes", "characters", "pictures", "recall"),
            [[row.name, f"{row.classes:,}", f"{row.n:,}", percent(row.recall)] for row in rows],
        ),
    )


def comparison(found: Comparison | None, charset: Charset) -> Section | None:
    """Set the run beside the other one; None where there is none."""
    if found is None:
        return None
    low, high = found.interval
    body = figure_list(
        [
            ("This one, top-1", percent(found.top1), ""),
            ("The other, top-1", percent(found.other_top1), ""),
            ("Difference", points(found.difference), f"95% interval {100 * low:+.2f} to {100 * high:+.2f}"),
            ("Only this one is right", f"{found.gained:,}", f"of {counted(found.n, 'picture')}"),
            ("Only the other is right", f"{found.lost:,}", f"of {counted(found.n, 'picture')}"),
            ("McNemar's test", found.significance, found.test),
        ]
    )
    net = found.class_gained - found.class_lost
    body += _changed("Characters that gained most", net, charset, -1)
    body += _changed("Characters that lost most", net, charset, 1)
    intro = (
        f"The same pictures as in <code>{escape(found.other)}</code>. If neither were better, a difference of this "
        "size or more would come about by chance with the probability p."
    )
    return Section("comparison", "Comparison", "Compared with another run", intro, body)


def _changed(title: str, net: np.ndarray, charset: Charset, sign: int) -> str:
    """List the characters whose net gain is furthest below (sign 1) or above (-1) zero."""
    order = [label for label in np.argsort(sign * net, kind="stable")[:_CLASSES].tolist() if sign * net[label] < 0]
    items = "".join(f"<li>{character(charset[label])}{net[label]:+d}</li>" for label in order)
    return f'<h3 class="part">{title}</h3><ul class="tally">{items}</ul>' if order else ""


def robustness(rows: Sequence[Row]) -> Section | None:
    """List what each condition costs; the first row is the split as it is. None without rows."""
    if not rows:
        return None
    plain, worst = rows[0], min(rows[1:], key=lambda row: row.recall)
    lines = "".join(
        f"<tr><td>{escape(row.name)}</td><td>{percent(row.recall)}</td><td>{_change(row, plain, worst)}</td>"
        f"<td>{between((row.low, row.high))}</td><td>{percent(row.confidence)}</td></tr>"
        for row in rows
    )
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("condition", "top-1", "change", "95% interval", "mean confidence")
    )
    body = (
        '<div class="scroll" tabindex="0" role="region" aria-label="Conditions">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )
    intro = (
        f"The same {counted(plain.n, 'picture')}, changed before the network sees them. Worst: {escape(worst.name)}, "
        f"{percent(worst.recall)}. “Uncleaned” noise reaches the network as it is; hcr-predict would remove most of it "
        "first."
    )
    return Section("robustness", "Robustness", "Under other conditions", intro, body)


def _change(row: Row, plain: Row, worst: Row) -> str:
    """Write what a condition costs, with a bar that is full for the worst one."""
    if row is plain:
        return ""
    lost = max(0.0, plain.recall - row.recall) / max(plain.recall - worst.recall, 1e-9)
    return f'<span class="meter lost"><i style="width:{lost:.1%}"></i></span>{points(row.recall - plain.recall)}'
