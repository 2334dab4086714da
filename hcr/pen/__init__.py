"""Handwriting drawn from stroke medians: the stroke table, the habits of drawn writers, the renderer."""

from hcr.pen.hand import Hand, hand_of
from hcr.pen.picture import BOX, draw, use_one_core
from hcr.pen.table import StrokeTable

PEN_VERSION = 1
"""Grows whenever the same arguments of `draw` give other pictures."""

__all__ = ["BOX", "PEN_VERSION", "Hand", "StrokeTable", "draw", "hand_of", "use_one_core"]
