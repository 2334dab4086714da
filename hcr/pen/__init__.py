"""Handwriting drawn from stroke medians: the stroke table, the habits of drawn writers, the renderer.

Drawing needs torch, which is imported when it is first asked for: who only counts strokes can do without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hcr.pen.table import StrokeTable

if TYPE_CHECKING:
    from hcr.pen.picture import Pen, draw_pages, use_one_core

PEN_VERSION = 6
"""Grows whenever the same arguments of `Pen.draw` give other pictures."""

__all__ = ["PEN_VERSION", "Pen", "StrokeTable", "draw_pages", "use_one_core"]

_LATE = ("Pen", "draw_pages", "use_one_core")


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module("hcr.pen.picture"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
