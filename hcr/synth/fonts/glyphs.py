"""Fonts as one more kind of copybook: each glyph's centre lines, as flat tensors.

A font of handwriting has what rules about components do not: how one hand really runs its strokes together. Its brush
is taken off (`thinning.py`), so that drawn writers write its forms with their own pens (`retrace.py`). The price is
time at the first start, about a millisecond of a core for each glyph, and 3 KB of memory (`cache.py` keeps the result).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from hcr.errors import DataError
from hcr.files import short_digest
from hcr.synth.fonts.thinning import Lines, centre_lines
from hcr.text import counted
from hcr.workers import usual_processes, worker_pool

_EM = 96  # pixels, as large as glyphs are thinned
_SIDE = 144  # of the square they lie on: what swings out of the em box is kept
_BOX = 0.86  # sides of the unit box that a large glyph takes
_LARGE = "永国家道海语我学"  # by which a font's size and the width of its brush are told
_BRUSH = 4.0  # pixels, the radius where none of them is there
_ABSENT = "\U0010ffff"  # no character, so that a font shows what it shows for those that it lacks
_BATCH = 256  # glyphs thinned at a time
_TASK = 512  # glyphs of a font that one process takes
_WORTH_POOL = 6000  # glyphs; with fewer, two processes take as long to start as they save
_MOST_PROCESSES = 32  # by then what cannot be shared takes longer


class Forms(NamedTuple):
    """The lines of F fonts' glyphs; P points. Glyph `font * C + label` of a charset of C characters.

    first, rows: int64[F * C], the points of each glyph; no rows: the font lacks it. host_rows: the same in memory.
    points: float32[P, 2], x right and y down in the unit box. broad: float32[P], how wide the brush is here, 1 on the
    font's average.
    bow: float32[P, 2], where a line bent by one of its chord goes. line: int64[P], number of the line in its glyph.
    opens: float32[P], closes: float32[P], how near the point is to where a line sets in, where one ends, 0-1.
    """

    first: Tensor
    rows: Tensor
    host_rows: Tensor
    points: Tensor
    broad: Tensor
    bow: Tensor
    line: Tensor
    opens: Tensor
    closes: Tensor

    def to(self, device: torch.device) -> Forms:
        """Return the same on a device."""
        return Forms(*(tensor.to(device) for tensor in self))._replace(host_rows=self.host_rows)


def make_forms(fonts: Sequence[Path], characters: str) -> Forms:
    """Read the forms of `characters`, label order, from fonts. Raises: DataError for what is no font of these."""
    for path in fonts:
        require_font(path, characters)
    parts = [characters[start : start + _TASK] for start in range(0, len(characters), _TASK)]
    with worker_pool(processes_for(len(fonts) * len(characters))) as mapped:
        found = mapped(read_font, [(path, part) for path in fonts for part in parts])
        counts, columns = zip(*found, strict=True)
    rows = torch.from_numpy(np.concatenate(counts))
    points, broad, bow, line, opens, closes = (
        torch.from_numpy(np.concatenate(column)) for column in zip(*columns, strict=True)
    )
    return Forms(rows.cumsum(0) - rows, rows, rows, points, broad, bow, line, opens, closes)


def processes_for(glyphs: int) -> int:
    """Return how many processes to share the work on so many glyphs among."""
    return min(_MOST_PROCESSES, usual_processes()) if glyphs >= _WORTH_POOL else 1


def font_digest(path: Path) -> str:
    """Return the first 16 hex digits of the SHA-256 of a font's bytes. Raises: DataError where it cannot be read."""
    return short_digest(_bytes(path))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot read this font ({error.strerror}); name a TTF, OTF or WOFF2 file") from None


def require_font(path: Path, characters: str) -> None:
    """Check that a file is a font that has some of the characters, without reading them.

    Raises: DataError where it is not.
    """
    font, absent = _opened(path)
    if all((shape := _shape(font, char)).tobytes() == absent.tobytes() or not shape.any() for char in characters):
        raise DataError(f"{path}: this font has none of the {counted(len(characters), 'character')}; name one that has")


def read_font(path: Path, characters: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Read the centre lines of `characters` from a font (TTF, OTF, WOFF2).

    Returns how many points each character has, int64[C], and the columns of Forms from `points` on.
    Raises: DataError for what is no font.
    """
    font, absent = _opened(path)

    def lines_of(chars: str) -> Lines:
        return centre_lines(_shapes(font, absent, chars))

    found, known = [], 0
    for start in range(0, len(characters), _BATCH):
        lines = lines_of(characters[start : start + _BATCH])
        found.append(lines._replace(glyph=lines.glyph + start, line=lines.line + known))
        known += len(np.unique(lines.line))
    lines = Lines(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    return np.bincount(lines.glyph, minlength=len(characters)), _columns(lines, *_measures(lines_of(_LARGE)))


def printed(path: Path, characters: str) -> np.ndarray:
    """Draw characters as a font has them: bool[C, S, S], ink, its rim empty; empty where the font lacks one.

    Raises: DataError for what is no font.
    """
    return _shapes(*_opened(path), characters)


def _opened(path: Path) -> tuple[ImageFont.FreeTypeFont, np.ndarray]:
    """Open a font; return it and the shape that it shows for characters that it lacks."""
    try:
        # From memory: Pillow would look for a missing file among the system's fonts.
        font = ImageFont.truetype(io.BytesIO(_bytes(path)), _EM, layout_engine=ImageFont.Layout.BASIC)
        return font, _shape(font, _ABSENT)
    except OSError as error:
        raise DataError(f"{path}: not a font ({error}); name a TTF, OTF or WOFF2 file") from None


def _shapes(font: ImageFont.FreeTypeFont, absent: np.ndarray, characters: str) -> np.ndarray:
    shapes = np.stack([_shape(font, char) for char in characters])
    shapes[(shapes == absent).all((1, 2))] = False
    return shapes


def _shape(font: ImageFont.FreeTypeFont, char: str) -> np.ndarray:
    """Draw a character: bool[_SIDE, _SIDE], its rim empty."""
    image = Image.new("L", (_SIDE, _SIDE))
    ImageDraw.Draw(image).text((_SIDE / 2, _SIDE / 2), char, font=font, fill=255, anchor="mm")
    shape = np.asarray(image) >= 128
    shape[[0, -1]] = shape[:, [0, -1]] = False
    return shape


def _measures(large: Lines) -> tuple[float, float]:
    """Return the size of large glyphs and the mean radius of their lines, in pixels."""
    if not len(large.glyph):
        return _BOX * _EM, _BRUSH
    begin = _begins(large.glyph)
    extent = np.maximum.reduceat(large.points, begin) - np.minimum.reduceat(large.points, begin)
    return float(np.median(extent.max(1))), float(large.radius.mean())


def _begins(numbers: np.ndarray) -> np.ndarray:
    """Return where in an ascending row a new number begins."""
    return np.flatnonzero(np.diff(numbers, prepend=-1))


def _columns(lines: Lines, size: float, brush: float) -> list[np.ndarray]:
    """Return the columns of Forms from `points` on."""
    place = np.arange(len(lines.line))
    begins = _begins(lines.line)
    begin, end = begins[lines.line], np.append(begins[1:], len(place))[lines.line] - 1
    chord = lines.points[end] - lines.points[begin]
    share = (place - begin) / np.maximum(end - begin, 1)
    bow = np.stack([-chord[:, 1], chord[:, 0]], 1) * (4 * share * (1 - share))[:, None]
    # People write from the left and from above.
    forward = chord[:, 0] + 0.7 * chord[:, 1] >= 0
    from_start, to_end = np.where(forward, place - begin, end - place), np.where(forward, end - place, place - begin)
    sets_in, ends = (
        np.where(forward, lines.open[first], lines.open[last]) for first, last in ((begin, end), (end, begin))
    )
    opens, closes = sets_in * np.clip(1 - from_start / 2, 0, 1), ends * np.clip(1 - to_end / 3, 0, 1)

    glyphs = _begins(lines.glyph)
    number = lines.line - lines.line[glyphs].repeat(np.diff(np.append(glyphs, len(place))))
    scale = _BOX / size
    points = (lines.points + 0.5 - _SIDE / 2) * scale + 0.5
    floats = [values.astype(np.float32) for values in (points, lines.radius / brush, bow * scale, opens, closes)]
    return [*floats[:3], number.astype(np.int64), *floats[3:]]
