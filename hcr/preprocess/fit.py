"""The ONE preprocessing: a picture of one character opened, turned to ink on 255 = paper, and fitted into a square.

Three steps: decoding to grey, polarity and background normalisation (`to_paper`), and size normalisation (`fit_square`:
crop to the ink's bounding box, resample with the aspect kept, centre). The packer and the recogniser call the same
functions, so training and use cannot disagree. The crop loses where on the page a character stood and how large it was;
the kept aspect keeps 日 and 曰 apart.
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
from hcr.preprocess.background import paper_is_dark, whiten

# Recorded in packs, checkpoints and exports: two artefacts meet only where this is equal.
PREPROCESSING: dict[str, object] = {
    "version": 2,
    "paper": 255,
    "margin": "size/16, rounded",
    "shrink": "bilinear, antialiased",
    "enlarge": "Lanczos, 3 lobes",
}

# Photos are averaged down to this many pixels on the longer side: a character a tenth as long still has 100.
LONGEST = 1024


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
    """Return a picture of any mode and polarity as uint8[H, W]: paper exactly 255, ink darker.

    A picture on flat paper of 255 or 0 keeps every byte (inverted for 0). Any other has its background divided out and
    its noise cut. Pictures longer than 1024 pixels come out smaller; a picture without ink comes out all 255.
    """
    grey, alpha = _grey_and_alpha(image)
    if alpha is None:
        return whiten(255 - grey if paper_is_dark(grey) else grey)
    shown = alpha >= 128
    if not shown.any():
        return np.full(grey.shape, 255, np.uint8)
    if _is_card(grey, shown):
        rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
        inside = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        return whiten(_over_white(255 - grey if paper_is_dark(grey[inside]) else grey, alpha))
    # Ink on nothing: light ink would vanish on white paper, so then its opacity is the ink.
    return _over_white(grey, alpha) if np.median(grey[shown]) < 160 else 255 - alpha


def fit_square(picture: np.ndarray, size: int) -> np.ndarray:
    """Return uint8[size, size]: a picture uint8[H, W] (255 = paper) cropped to its ink, resized and centred.

    The aspect is kept. The longer side of the ink fills `size` less a margin of 1/16 on each side. A picture without
    ink gives all 255.
    """
    square = np.empty((size, size), np.uint8)
    fit_squares([picture], [square[None]])
    return square


def fit_squares(pictures: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> None:
    """Fit each of n pictures as `fit_square` does, into every one of `outs`: uint8[n, S, S], contiguous.

    Several sizes share the crop. This takes half the time of n single calls, since Pillow draws straight into `outs`.
    """
    # Pillow's C objects, not its Image, which wraps each of the five calls a picture in checks and copies of metadata.
    # Those took as long together as the work itself. tests/test_preprocess.py holds this to what Image gives.
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
            # Antialiased bilinear, not a box filter: that averages one source pixel at one place and two at the next,
            # so the same character from scans of other resolutions agreed less (correlation 0.961 against 0.977).
            # Tensor libraries have this filter, too. Enlarged by it a small picture is a blur: Lanczos keeps more.
            kernel = Image.Resampling.LANCZOS if scale > 1 else Image.Resampling.BILINEAR
            resized = ink.resize((width, height), kernel, (0, 0, across, down))
            left, top = (size - width) // 2, place * size + (size - height) // 2
            canvas.paste(resized, (left, top, left + width, top + height))
    for squares in outs:
        np.invert(squares, out=squares)


def _shared(grey: np.ndarray) -> Any:
    """Return Pillow's C object for contiguous uint8[H, W], on the same memory."""
    return _imaging.map_buffer(grey, grey.shape[::-1], "raw", 0, ("L", 0, 1))


def _grey_and_alpha(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Return luminance uint8[H, W], and opacity uint8[H, W] where any pixel is not opaque; at most LONGEST long."""
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    elif image.mode in ("LAB", "HSV"):
        image = image.getchannel({"LAB": 0, "HSV": 2}[image.mode])
    elif image.has_transparency_data:
        image = image.convert("RGBA").convert("LA") if image.mode != "LA" else image
    elif image.mode != "L":
        image = image.convert("RGB").convert("L") if image.mode == "P" else image.convert("L")
    factor = -(-max(image.size) // LONGEST)
    if factor > 1:
        image = image.reduce(factor)
    if image.mode != "LA":
        return np.asarray(image), None
    grey, alpha = (np.asarray(channel) for channel in image.split())
    return grey, None if alpha.min() == 255 else alpha


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Return 16-bit, 32-bit or float samples as uint8, scaled from the smallest usual range that holds them."""
    values = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0).clip(0)
    top = float(values.max())
    fractions = top <= 1 and bool((values % 1).any())
    full = 1.0 if fractions else next((full for full in (255.0, 65535.0) if top <= full), top)
    return np.rint(values * (255 / full)).astype(np.uint8)


def _over_white(grey: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return grey uint8[H, W] composited over white by its opacity uint8[H, W]."""
    opacity = alpha.astype(np.float32) / 255
    return np.rint(255 - (255 - grey.astype(np.float32)) * opacity).astype(np.uint8)


def _is_card(grey: np.ndarray, shown: np.ndarray) -> bool:
    """Return whether this is a two-toned card with a transparent surround, not bare ink on nothing."""
    rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
    area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    darkest, lightest = np.percentile(grey[shown], (1, 99))
    return bool(shown.sum() > 0.6 * area and lightest - darkest > 96)
