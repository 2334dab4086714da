"""The report's parts that are there when they were asked for: another run beside this one, and changed conditions.

What a condition costs is a bar in its row of the table, not a chart: names that long leave a chart no room on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from hcr.charset import Charset
from hcr.evaluation.compare import Comparison
from hcr.evaluation.groups import Row
from hcr.evaluation.page.markup import Section, between, character, figure_list, percent, points

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
