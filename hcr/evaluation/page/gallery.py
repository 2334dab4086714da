"""Pictures for the report: each one once, on sheets of 256 that stand in the page's style as PNG.

They are shrunk to 48 px and 16 greys, about 410 bytes each, where a picture in the pack has 4,096 bytes; the page shows
them at that size. A sheet is the background of a class, so it needs no script, and is decoded when it is seen.
"""

from __future__ import annotations

from base64 import b64encode
from html import escape
from io import BytesIO
from zlib import Z_RLE

import numpy as np
from PIL import Image

from hcr.pack.store import PackReader

# Pictures in a page at most, about 3.5 MB of it.
LIMIT = 6000
# Pixels of a picture, pictures in a row and a column of a sheet, greys.
_SIDE, _SHEET, _GREYS = 48, 16, 16


class Gallery:
    """Collects the pictures that a page shows; the first that are asked for get a place, up to LIMIT.

    reader: the split that indices refer to.
    """

    def __init__(self, reader: PackReader) -> None:
        self._reader = reader
        self._places: dict[int, int] = {}

    def place(self, index: int) -> int | None:
        """Return the number under which the page has the sample `index`, or None where no more fit."""
        if index not in self._places:
            if len(self._places) >= LIMIT:
                return None
            self._places[index] = len(self._places)
        return self._places[index]

    def picture(self, index: int, label: str, miss: bool = False) -> str:
        """Return the HTML of sample `index`, "" where no more fit; `label` is read out, `miss` marks it as misread."""
        place = self.place(index)
        if place is None:
            return ""
        sheet, y, x = place // _SHEET**2, place // _SHEET % _SHEET, place % _SHEET
        spoken = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
        return f'<i class="pic s{sheet}{" miss" * miss}" style="--x:{x};--y:{y}" {spoken}></i>'

    def css(self) -> str:
        """Return the style rules that hold all pictures asked for. Raises: DataError for a damaged block."""
        indices = np.fromiter(self._places, np.int64, len(self._places))
        starts = range(0, len(indices), _SHEET**2)
        return "\n".join(self._rule(sheet, indices[at : at + _SHEET**2]) for sheet, at in enumerate(starts))

    def _rule(self, number: int, indices: np.ndarray) -> str:
        pictures = np.empty((len(indices), self._reader.size, self._reader.size), np.uint8)
        self._reader.pictures(indices, pictures)
        sheet = np.full((_SHEET, _SHEET, _SIDE, _SIDE), 255, np.uint8)
        for slot, picture in enumerate(pictures):
            shrunk = Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
            sheet[slot // _SHEET, slot % _SHEET] = np.asarray(shrunk)
        pixels = sheet.transpose(0, 2, 1, 3).reshape(_SHEET * _SIDE, _SHEET * _SIDE)
        greys = np.round(pixels * ((_GREYS - 1) / 255)).astype(np.uint8)
        image = Image.frombytes("P", (greys.shape[1], greys.shape[0]), greys.tobytes())
        image.putpalette([level * 255 // (_GREYS - 1) for level in range(_GREYS) for _ in "rgb"])
        file = BytesIO()
        # Run lengths alone: as small as the best compression here, in a thirtieth of its time.
        image.save(file, "PNG", bits=4, compress_type=Z_RLE)
        return f".s{number}{{background-image:url(data:image/png;base64,{b64encode(file.getvalue()).decode()})}}"
