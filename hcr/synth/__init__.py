"""Handwriting drawn from stroke medians: the stroke table, the habits of drawn writers, the renderer.

Drawing needs torch, which is imported when it is first asked for: who only counts strokes can do without.
"""

from typing import TYPE_CHECKING

from hcr.lazy import lazy_attributes
from hcr.synth.strokes import StrokeTable

if TYPE_CHECKING:
    from hcr.synth.generator import Generator, draw_pages, fonts_in_cache

GENERATOR_VERSION = 6
"""Grows whenever the same arguments of `Generator.draw` give other pictures."""

__all__ = ["GENERATOR_VERSION", "Generator", "StrokeTable", "draw_pages", "fonts_in_cache"]

__getattr__ = lazy_attributes(
    __name__, dict.fromkeys(("Generator", "draw_pages", "fonts_in_cache"), "hcr.synth.generator")
)
