"""The strokes of 9,574 characters: the centre line of each, in writing order.

Writers' styles bend these lines and the renderer inks them. The table travels inside the package, so that drawing
needs no download. For that each point is rounded to a grid of 256 and each line simplified by at most 6/1024 of the
box, less than a pen's width: 0.86 MB instead of the 30 MB of the JSON files.

The file, little-endian:

| bytes | what |
|---|---|
| 8 | magic `HCRSTROK` |
| `<H` | version, 1 |
| `<I` × 3 | counts: characters C, strokes S, points P |
| `<I` | CRC32 of the payload before compression |
| `<H` | N, length of the notice |
| N | the notice that the Arphic Public License asks for in a changed file: where from, what was changed, when; UTF-8 |
| the rest | an xz stream of the payload |

The payload: `uint32[C]` code points, ascending; `uint8[C]` strokes of each character; `uint8[S]` points of each stroke;
`uint8[P]` steps in x; `uint8[P]` steps in y. A step is the difference from the point before it in the whole file,
modulo 256, from (0, 0) on. The sums are in 256ths of the box, x to the right, y down.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from functools import cache
from pathlib import Path

import numpy as np

from hcr.errors import DataError
from hcr.text import counted

HEADER = struct.Struct("<8sHIIIIH")
MAGIC = b"HCRSTROK"
VERSION = 1
GRID = 256
"""Steps a side of the box."""

_REMEDY = "install hcr again, or build the table with pipelines/build_strokes.py"


class StrokeTable:
    """The centre lines of every character in one file.

    characters: those with strokes, in code-point order.
    Raises: DataError where the file is missing, damaged, or of another version.
    """

    def __init__(self, path: Path) -> None:
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot read the stroke table ({error.strerror}); {_REMEDY}") from None
        characters, strokes, points, payload = _unpack(path, raw)
        sizes = (4 * characters, characters, strokes, points, points)
        if len(payload) != sum(sizes):
            raise DataError(f"{path}: expected {sum(sizes)} bytes of strokes, found {len(payload)}; {_REMEDY}")
        ends = np.cumsum(sizes)
        codes, per_character, per_stroke, dx, dy = (
            np.frombuffer(payload[end - size : end], "<u4" if column == 0 else "u1")
            for column, (size, end) in enumerate(zip(sizes, ends, strict=True))
        )
        self._first_stroke = np.concatenate([[0], np.cumsum(per_character, dtype=np.int64)])
        self._first_point = np.concatenate([[0], np.cumsum(per_stroke, dtype=np.int64)])
        if self._first_stroke[-1] != strokes or self._first_point[-1] != points:
            raise DataError(
                f"{path}: its characters and strokes add up to {counted(self._first_stroke[-1], 'stroke')} and "
                f"{self._first_point[-1]} points, expected {strokes} and {points}; {_REMEDY}"
            )
        self._points = np.stack([np.cumsum(dx, dtype=np.uint8), np.cumsum(dy, dtype=np.uint8)], 1)
        self.characters = codes.tobytes().decode("utf-32-le")
        self._index = {char: index for index, char in enumerate(self.characters)}

    @classmethod
    def load(cls) -> StrokeTable:
        """Return the table inside the package, read once a process."""
        return _packaged()

    def __contains__(self, char: object) -> bool:
        return char in self._index

    def medians(self, char: str) -> list[np.ndarray]:
        """Return the centre lines of `char` in writing order: float32[K, 2], K >= 2, x right, y down, in the unit box.

        Raises: DataError for a character without strokes.
        """
        index = self._index.get(char)
        if index is None:
            raise DataError(
                f"no strokes for {char!r} (U+{ord(char):04X}), only for "
                f"{counted(len(self.characters), 'other character')}; "
                "leave it out of the charset"
            )
        first, last = self._first_stroke[index : index + 2]
        bounds = self._first_point[first : last + 1]
        points = self._points[bounds[0] : bounds[-1]].astype(np.float32) / GRID
        return np.split(points, bounds[1:-1] - bounds[0])


@cache
def _packaged() -> StrokeTable:
    return StrokeTable(Path(__file__).with_name("strokes.bin"))


def _unpack(path: Path, raw: bytes) -> tuple[int, int, int, bytes]:
    """Check header and CRC; return the three counts and the payload."""
    if len(raw) < HEADER.size or raw[: len(MAGIC)] != MAGIC:
        raise DataError(f"{path}: byte 0: expected {MAGIC!r}, found {raw[: len(MAGIC)]!r}; {_REMEDY}")
    _, version, characters, strokes, points, crc, notice = HEADER.unpack_from(raw)
    if version != VERSION:
        raise DataError(f"{path}: byte {len(MAGIC)}: expected version {VERSION}, found {version}; {_REMEDY}")
    start = HEADER.size + notice
    try:
        payload = lzma.decompress(raw[start:], lzma.FORMAT_XZ)
    except lzma.LZMAError as error:
        raise DataError(f"{path}: byte {start}: the strokes do not decompress ({error}); {_REMEDY}") from None
    if zlib.crc32(payload) != crc:
        raise DataError(f"{path}: expected CRC32 {crc:08x}, found {zlib.crc32(payload):08x}; {_REMEDY}")
    return characters, strokes, points, payload
