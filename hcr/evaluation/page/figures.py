"""The report's charts: how the run learned, how far its confidence can be trusted, and how recall is spread.

Every chart has its numbers beside it as a table, for whoever cannot see it or wants to copy them.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from math import nan
from typing import Any

import numpy as np

from hcr.charset import Charset
from hcr.evaluation.analysis import Analysis
from hcr.evaluation.calibration import Calibration, Coverage, Rejection
from hcr.evaluation.compare import Comparison
from hcr.evaluation.groups import Row
from hcr.evaluation.metrics import Summary
from hcr.evaluation.page.markup import Section, as_table, between, character, chart_figure, figure_list, percent, points
from hcr.svg import Chart, ticks

_TENTHS = [tenth / 10 for tenth in range(0, 11, 2)]


def learning(curves: Sequence[dict[str, Any]]) -> Section | None:
    """Draw loss and top-1 by epoch from the rows of metrics.jsonl; None where there are none."""
    if not curves:
        return None
    epochs = [float(row["epoch"]) for row in curves]
    loss = {kind: [float(row.get(f"{kind}_loss", nan)) for row in curves] for kind in ("train", "val")}
    top1 = {kind: [float(row.get(f"{kind}_top1", nan)) for row in curves] for kind in ("train", "val")}
    head = ("epoch", "training", "validation")
    charts = [
        chart_figure(
            "Top-1 by epoch",
            "On augmented pictures while learning, and on the validation split with the averaged weights.",
            _curves(epochs, top1, (min(0.9, _extreme(top1, min)), 1.0), lambda value: percent(value, 0), "top-1"),
            as_table(head, _rows(epochs, top1, percent)),
        ),
        chart_figure(
            "Loss by epoch",
            "Cross-entropy; label smoothing and augmentation keep the training loss above the validation loss.",
            _curves(epochs, loss, (0.0, _extreme(loss, max)), lambda value: f"{value:g}", "loss"),
            as_table(head, _rows(epochs, loss, lambda value: f"{value:.4f}" if value == value else "")),
        ),
    ]
    intro = f"{len(curves)} epochs, {curves[-1]['step']:,} steps."
    if np.isfinite(top1["val"]).any():
        best = int(np.nanargmax(top1["val"]))
        intro += f" Validation was best after epoch {epochs[best]:.0f}: {percent(top1['val'][best])} top-1."
    return Section("learning", "Learning", "How it learned", intro, _charts(charts))


def confidence(findings: Analysis) -> Section | None:
    """Draw reliability and risk against coverage; None where the predictions have no scores."""
    if not (findings.calibration and findings.coverage and findings.rejection):
        return None
    charts = [_reliability(findings.calibration), _risk(findings.coverage, findings.rejection)]
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
        f"Half of the {len(recall):,} characters with samples reach {percent(median)} recall, nine in ten "
        f"{percent(tenth)}; {perfect:,} were never misread, and the worst stands at {percent(recall[0])}."
    )
    charts = [_histogram(recall)]
    numbered = [row for row in strokes if row.name.isdigit()]
    if len(numbered) > 1:
        charts.append(_strokes(numbered, strokes))
    return Section("characters", "Characters", "How recall is spread", intro, _charts(charts))


def _charts(charts: Sequence[str]) -> str:
    return f'<div class="charts">{"".join(charts)}</div>'


def _extreme(series: dict[str, list[float]], which: Any) -> float:
    return which(value for values in series.values() for value in values if np.isfinite(value))


def _rows(epochs: Sequence[float], series: dict[str, list[float]], form: Any) -> list[list[str]]:
    return [[f"{epoch:.0f}", form(a), form(b)] for epoch, a, b in zip(epochs, *series.values(), strict=True)]


def _curves(
    epochs: list[float], series: dict[str, list[float]], bounds: tuple[float, float], form: Any, name: str
) -> str:
    chart = Chart((epochs[0], epochs[-1]), bounds, "epoch", name)
    whole = [tick for tick in ticks(epochs[0], epochs[-1]) if tick == int(tick)]
    chart.axes(whole, ticks(*bounds), lambda value: f"{value:.0f}", form)
    for kind, style, said in (("train", "two", "training"), ("val", "one", "validation")):
        values = series[kind]
        chart.line(epochs, values, style)
        if np.isfinite(values[-1]):
            # The two names part where the lines end close together; the foot of the chart has its own labels.
            other = series["val" if kind == "train" else "train"][-1]
            low = values[-1] - bounds[0] < (bounds[1] - bounds[0]) / 8
            above = not np.isfinite(other) or values[-1] >= other or low
            chart.note(epochs[-1], values[-1], said, style, "end", -7 if above else 16)
    return chart.svg(f"{name} by epoch, training and validation")


def _reliability(found: Calibration) -> str:
    chart = Chart((0, 1), (0, 1), "confidence", "accuracy")
    chart.axes(_TENTHS, _TENTHS, lambda value: percent(value, 0), lambda value: percent(value, 0))
    largest = found.n.max()
    for (left, right), n in zip(pairwise(found.edges), found.n, strict=True):
        chart.bar(left, right, 0.18 * n / largest, f"{n:,} pictures", "bar faint")
    chart.line([0, 1], [0, 1], "ideal")
    chart.line(found.confidence.tolist(), found.accuracy.tolist(), "one")
    for sure, right, n in zip(found.confidence, found.accuracy, found.n, strict=True):
        chart.dot(sure, right, f"said {percent(sure, 1)}, right {percent(right, 1)}, {n:,} pictures")
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
        chart.svg("Reliability diagram: accuracy by confidence"),
        as_table(("confidence", "pictures", "mean", "right"), rows),
    )


def _risk(found: Coverage, rejection: Rejection) -> str:
    top = max(float(np.nanmax(found.risk)), rejection.wanted, 1e-3) * 1.05
    chart = Chart((0, 1), (0, top), "share of pictures answered", "error among those")
    digits = 0 if top > 0.05 else 1 if top > 0.005 else 2
    chart.axes(_TENTHS, ticks(0, top), lambda value: percent(value, 0), lambda value: percent(value, digits))
    chart.line(found.coverage.tolist(), found.risk.tolist(), "one")
    whole = percent(float(found.risk[-1]))
    if rejection.coverage == 1:
        said = f"Over all pictures the error is {whole}, no more than the {percent(rejection.wanted)} that is wanted."
    elif rejection.n:
        chart.dot(rejection.coverage, rejection.error, f"threshold {rejection.threshold:.4f}", 4.5)
        said = (
            f"Answering only at a confidence of {rejection.threshold:.4f} or more leaves "
            f"{percent(1 - rejection.coverage)} of the pictures to a person, and of the rest "
            f"{percent(rejection.error)} are wrong instead of {whole}. Chosen on these very "
            "pictures: on others expect slightly more errors."
        )
    else:
        said = f"No threshold brings the error down to {percent(rejection.wanted)}; it is {whole} over all."
    step = max(1, len(found.coverage) // 20)
    picked = sorted({*range(0, len(found.coverage), step), len(found.coverage) - 1})
    rows = [[percent(found.coverage[i]), f"{found.threshold[i]:.4f}", percent(found.risk[i])] for i in picked]
    return chart_figure(
        "Coverage and risk",
        said,
        chart.svg("Error against the share of pictures answered"),
        as_table(("answered", "threshold", "error"), rows),
    )


def _histogram(recall: np.ndarray) -> str:
    counts, edges = np.histogram(recall, bins=20, range=(0, 1))
    chart = Chart((0, 1), (0, float(counts.max()) * 1.05), "recall", "characters")
    whole = [tick for tick in ticks(0, counts.max()) if tick == int(tick)]
    chart.axes(_TENTHS, whole, lambda value: percent(value, 0), lambda value: f"{value:,.0f}")
    rows = []
    for (left, right), n in zip(pairwise(edges), counts, strict=True):
        said = f"{percent(left, 0)} to {percent(right, 0)}"
        chart.bar(left, right, n, f"recall {said}: {n:,} characters", "bar bad" if right <= 0.5 else "bar")
        rows.append([said, f"{n:,}"])
    return chart_figure(
        "Characters by recall",
        "How many characters are read how well; red: more than half is misread.",
        chart.svg("Number of characters by recall"),
        as_table(("recall", "characters"), rows),
    )


def _strokes(numbered: Sequence[Row], rows: Sequence[Row]) -> str:
    low = min((row.low for row in numbered if row.n), default=0.0)
    bounds = (max(0.0, low - 0.02), 1.0)
    last = max(int(row.name) for row in numbered)
    chart = Chart((0.5, last + 0.5), bounds, "strokes", "recall")
    digits = 0 if bounds[0] < 0.95 else 1
    chart.axes(ticks(1, last, 8), ticks(*bounds), lambda value: f"{value:.0f}", lambda value: percent(value, digits))
    for row in numbered:
        at = float(row.name)
        chart.line([at, at], [row.low, row.high], "whisker")
        chart.dot(at, row.recall, f"{row.name} strokes: {percent(row.recall)} of {row.n:,}")
    return chart_figure(
        "Recall by strokes",
        "Few strokes leave little to tell characters apart, many run together. The lines are 95% intervals.",
        chart.svg("Recall by number of strokes"),
        as_table(
            ("strokes", "characters", "pictures", "recall"),
            [[row.name, f"{row.classes:,}", f"{row.n:,}", percent(row.recall)] for row in rows],
        ),
    )


# The report's parts that are there when they were asked for: another run beside this one, and changed conditions.
#
# What a condition costs is a bar in its row of the table, not a chart: names that long leave a chart no room on a
# phone.
_CLASSES = 12  # that gained, and that lost


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
            ("Only this one is right", f"{found.gained:,}", f"of {found.n:,} pictures"),
            ("Only the other is right", f"{found.lost:,}", f"of {found.n:,} pictures"),
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
        f"The same {plain.n:,} pictures, changed before the network sees them. Worst: {escape(worst.name)}, "
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
