"""The pieces of HTML that the report's parts are made of; whatever comes from data is escaped here.

A part is a plain string, so that the page needs no template engine; the price is that only these functions know the
classes that report.css styles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite


@dataclass(frozen=True)
class Section:
    """A part of the page: `name` in its address and `short` in the navigation; `intro` and `body` are HTML."""

    name: str
    short: str
    title: str
    intro: str
    body: str


def percent(share: float, digits: int = 2) -> str:
    """Write a share as "94.73%", nan as ""."""
    return f"{share:.{digits}%}" if isfinite(share) else ""


def between(interval: tuple[float, float]) -> str:
    """Write a 95 % interval as "93.78–95.55%", nan as ""."""
    low, high = interval
    return f"{100 * low:.2f}–{high:.2%}" if isfinite(low) else ""


def points(difference: float) -> str:
    """Write a difference of two shares as "+1.30 points", which cannot be taken for 1.30 % of one of them."""
    return f"{100 * difference:+.2f} points".replace("-", "−")  # as wide as a plus


def code_point(char: str) -> str:
    """Write the code point of a character as U+4E00."""
    return f"U+{ord(char):04X}"


def character(char: str) -> str:
    """Return the printed character in its ruled square; it opens the class."""
    return f'<a class="han" lang="zh" href="#{code_point(char)}">{escape(char)}</a>'


def inline(char: str) -> str:
    """Return a character within a sentence."""
    return f'<span lang="zh">{escape(char)}</span>'


def shot(picture: str, below: str) -> str:
    """Put the answer below a picture; "" where there is no picture."""
    return f'<span class="shot">{picture}<span>{below}</span></span>' if picture else ""


def line(shots: Sequence[str]) -> str:
    """Put pictures in a row that wraps."""
    return f'<div class="line">{"".join(shots)}</div>'


def folded(items: Sequence[str], shown: int, before: str, after: str, what: str) -> str:
    """Show the first items between `before` and `after`, and the rest when asked for."""
    html = before + "".join(items[:shown]) + after
    if rest := items[shown:]:
        summary = f"<summary>Show {len(rest)} more {what}</summary>"
        html += f'<details class="more">{summary}{before}{"".join(rest)}{after}</details>'
    return html


def figure_list(figures: Sequence[tuple[str, str, str]]) -> str:
    """List (name, figure, remark), as plain text; an empty figure becomes a dash."""
    cells = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(figure) or '–'}</dd><dd>{escape(note)}</dd></div>"
        for name, figure, note in figures
    )
    return f'<dl class="figures">{"".join(cells)}</dl>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of plain text whose first column names the row."""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{columns}</tr></thead><tbody>{lines}</tbody></table></div>'
    )


def as_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the numbers behind a chart, folded away."""
    return f"<details><summary>As a table</summary>{table(head, rows)}</details>"


def chart_figure(title: str, caption: str, svg: str, below: str = "") -> str:
    """Put a heading over a chart and its table below; `caption` is plain text."""
    return f"<figure><figcaption><b>{escape(title)}</b>{escape(caption)}</figcaption>{svg}{below}</figure>"
