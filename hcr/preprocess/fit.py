"""One picture of one character: opened, made dark on 255 = paper, and fitted into a square.

This is the ONE preprocessing. The packer and the recogniser both call `fit_square`, and `fit_square(to_paper(image))`
for pictures of unknown kind, so training and use cannot disagree. Cropping to the ink and keeping the aspect loses
where on the page a character stood and how large it was, but 日 and 曰 stay two characters.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, _imaging

from hcr.errors import DataError
from hcr.preprocess.background import coarse, flat_paper, near, paper_is_dark, stretched
from hcr.preprocess.ink import ink_on_paper, without_lines
from hcr.preprocess.pieces import without_border_pieces, without_outsiders
from hcr.preprocess.sheet import COARSE, peel, surround

# Recorded in packs, checkpoints and exports: two artefacts meet only where this is the same, or compatible.
PREPROCESSING: dict[str, object] = {
    "version": 3,
    "paper": 255,
    "sheet": "bars along the sides, desk, frame off",
    "lines": "off by colour, tone or place",
    "apart": "specks and a neighbour's strokes off",
    "margin": "size/16, rounded",
    "shrink": "bilinear, antialiased",
    "enlarge": "Lanczos, 3 lobes",
}

# What version 2 recorded. Clean pictures, as GNT records are, have the same bytes in both.
_VERSION_2: dict[str, object] = {
    "version": 2,
    "paper": 255,
    "margin": "size/16, rounded",
    "shrink": "bilinear, antialiased",
    "enlarge": "Lanczos, 3 lobes",
}

# Photos are averaged down to this many pixels on the longer side: a character that fills a tenth of it still has 100.
LONGEST = 1024
# What has to be evened out is averaged further: that takes its time by the pixel.
LONGEST_UNEVEN = 640


def is_compatible(recorded: object) -> bool:
    """Return whether packs and weights that record this preprocessing belong with this program's.

    Those of version 2 do: nobody has to pack CASIA again, or train again on it.
    """
    return recorded in (PREPROCESSING, _VERSION_2)


def open_picture(source: Path | BinaryIO | Image.Image, name: str) -> Image.Image:
    """Return a picture, decoded and turned upright as its EXIF orientation says; an open one stays open.

    Raises: DataError, with `name`, for what is missing, empty, no picture, cut short, or larger than Pillow's safe
    size.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with nullcontext(source) if isinstance(source, Image.Image) else Image.open(source) as image:
                image.load()
                if 0 in image.size:
                    raise ValueError(f"{image.width} x {image.height} pixels")
                return ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise DataError(f"{name}: not a picture in any known format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise DataError(f"{name}: more than {limit} million pixels; crop it to the character") from None
    except Exception as error:
        # Whatever bytes a file holds, a decoder's own exception (of any type) means only that it cannot be read.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{name}: cannot read this picture ({reason})") from None


def to_paper(image: Image.Image) -> np.ndarray:
    """Turn a picture of any mode and polarity into uint8[H, W]: paper exactly 255, ink darker.

    A picture on flat paper of 255 or 0 keeps every byte (inverted for 0) but for what is no character: a frame, a bar
    along a side, printed lines, a neighbour's stroke, specks. Any other has its paper evened out and its noise cut.
    Large pictures come out smaller; a picture without ink comes out all 255.
    """
    return readings(image)[0]


def readings(image: Image.Image) -> list[np.ndarray]:
    """Return what `to_paper` gives, the likeliest first, and other readings where the picture has several."""
    colour, grey, alpha = _channels(image)
    if alpha is None:
        return _on_paper(grey, colour)
    shown = alpha >= 128
    if not shown.any():
        return [np.full(grey.shape, 255, np.uint8)]
    if _is_card(grey, shown):
        rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
        inside = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        return _on_paper(_over_white(255 - grey if paper_is_dark(grey[inside]) else grey, alpha), None)
    # Ink on nothing: light ink would vanish on white paper, so then its opacity is the ink.
    return [_over_white(grey, alpha) if np.median(grey[shown]) < 160 else 255 - alpha]


def _on_paper(grey: np.ndarray, colour: Image.Image | None) -> list[np.ndarray]:
    """Find the character in opaque uint8[H, W]; `colour` is the same picture in RGB, where it has colours."""
    sheet = peel(grey)
    if sheet is not None:
        grey = grey[sheet]
    dark = paper_is_dark(grey)
    paper = flat_paper(255 - grey if dark else grey)
    if paper is not None:
        rgb = _pixels(colour, sheet) if colour is not None and not dark else None
        return [without_outsiders(found) for found in without_lines(paper, rgb)]
    # From here on a picture takes a hundred times as long.
    rgb = _pixels(colour, sheet) if colour is not None else None
    factor = -(-max(grey.shape) // LONGEST_UNEVEN)
    if factor > 1:
        grey = np.asarray(Image.fromarray(grey).reduce(factor))
        rgb = None if rgb is None else np.asarray(Image.fromarray(rgb).reduce(factor))
    hidden = surround(coarse(grey, COARSE))
    if hidden is not None:
        hidden = stretched(near(hidden, 1), grey.shape)
        rows, columns = (np.flatnonzero((~hidden).any(axis)) for axis in (1, 0))
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        grey, rgb, hidden = grey[box], None if rgb is None else rgb[box], hidden[box]
        dark = paper_is_dark(np.where(hidden, np.uint8(np.median(grey[~hidden])), grey))
    if dark:
        grey, rgb = 255 - grey, None
    found = [without_outsiders(paper) for paper in ink_on_paper(grey, rgb, hidden)]
    other = without_border_pieces(found[-1])
    return found if other is None else [*found, other]


def _pixels(colour: Image.Image, box: tuple[slice, slice] | None) -> np.ndarray:
    pixels: np.ndarray = np.asarray(colour)
    return pixels if box is None else pixels[box]


def candidate_squares(image: Image.Image, size: int) -> list[np.ndarray]:
    """Return the squares uint8[size, size] of a picture's readings, the likeliest first: one, or up to four."""
    return [fit_square(paper, size) for paper in readings(image)]


def fit_square(picture: np.ndarray, size: int) -> np.ndarray:
    """Crop uint8[H, W] (255 = paper) to its ink and centre it in uint8[size, size], its aspect kept.

    The longer side of the ink fills `size` less a margin of 1/16 on each side. An empty picture gives all 255.
    """
    squares = np.empty((1, size, size), np.uint8)
    fit_squares([picture], [squares])
    square: np.ndarray = squares[0]
    return square


def fit_squares(pictures: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> None:
    """Fit each of n pictures as `fit_square` does, into every one of `outs`: uint8[n, S, S], whole and contiguous.

    Several sizes share the crop. It takes half of the time of n single calls: Pillow draws straight into `outs`.
    """
    # Pillow's C objects, not its Image: that wraps each of the five calls a picture in checks and copies of metadata,
    # which together took as long as the work itself. tests/test_glyph.py holds this to what Image gives.
    canvases = []
    for squares in outs:
        count, size = squares.shape[:2]
        squares[:] = 0
        canvases.append((_shared(squares.reshape(count * size, size)), size, size - 2 * round(size / 16)))
    for place, picture in enumerate(pictures):
        ink = _shared(np.invert(picture, order="C")) if picture.size else None
        box = ink.getbbox() if ink else None
        if ink is None or box is None:
            continue
        ink = ink.crop(box)
        across, down = ink.size
        longest = max(across, down)
        for canvas, size, inner in canvases:
            scale = inner / longest
            width, height = max(1, round(across * scale)), max(1, round(down * scale))
            # Antialiased bilinear, not BOX: BOX averages one source pixel here and two there, so the same character
            # from scans of other resolutions agreed less (correlation 0.961 against 0.977), and tensor libraries have
            # this filter. Enlarged by it, what few pixels hold is a blur: Lanczos keeps more of it.
            kernel = Image.Resampling.LANCZOS if scale > 1 else Image.Resampling.BILINEAR
            resized = ink.resize((width, height), kernel, (0, 0, across, down))
            left, top = (size - width) // 2, place * size + (size - height) // 2
            canvas.paste(resized, (left, top, left + width, top + height))
    for squares in outs:
        np.invert(squares, out=squares)


def _shared(grey: np.ndarray) -> Any:
    """Return contiguous uint8[H, W] as Pillow's C object for a picture, of the same memory."""
    return _imaging.map_buffer(grey, grey.shape[::-1], "raw", 0, ("L", 0, 1))


def _channels(image: Image.Image) -> tuple[Image.Image | None, np.ndarray, np.ndarray | None]:
    """Return a picture in RGB where it has colours, luminance uint8[H, W], and opacity where any pixel is not opaque.

    Opacity is uint8[H, W]. All are at most LONGEST long.
    """
    colour = None
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    elif image.mode in ("LAB", "HSV"):
        image = image.getchannel({"LAB": 0, "HSV": 2}[image.mode])
    elif image.has_transparency_data:
        image = image.convert("RGBA").convert("LA") if image.mode != "LA" else image
    elif image.mode not in ("1", "L"):
        colour = image if image.mode == "RGB" else image.convert("RGB")
        image = colour.convert("L") if image.mode == "P" else image.convert("L")
    elif image.mode == "1":
        image = image.convert("L")
    factor = -(-max(image.size) // LONGEST)
    if factor > 1:
        image = image.reduce(factor)
        colour = colour.reduce(factor) if colour else None
    if image.mode != "LA":
        return colour, np.asarray(image), None
    grey, alpha = (np.asarray(channel) for channel in image.split())
    return None, grey, None if alpha.min() == 255 else alpha


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Bring 16-bit, 32-bit and float samples to 0..255 from the smallest customary range that holds them."""
    values = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0).clip(0)
    top = float(values.max())
    fractions = top <= 1 and bool((values % 1).any())
    full = 1.0 if fractions else next((full for full in (255.0, 65535.0) if top <= full), top)
    return np.rint(values * (255 / full)).astype(np.uint8)


def _over_white(grey: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    opacity = alpha.astype(np.float32) / 255
    return np.rint(255 - (255 - grey.astype(np.float32)) * opacity).astype(np.uint8)


def _is_card(grey: np.ndarray, shown: np.ndarray) -> bool:
    """Tell a two-toned card with a transparent surround from bare ink on nothing."""
    rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
    area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    darkest, lightest = np.percentile(grey[shown], (1, 99))
    return bool(shown.sum() > 0.6 * area and lightest - darkest > 96)
