"""GNT, the format of CASIA-HWDB: one file a writer, one record a character.

A file is read whole (20-27 MB) and its pictures are views into it, so no pixel is copied or touched here. The price: a
sample kept for long keeps the bytes of its whole file.

Source: Liu et al., "CASIA Online and Offline Chinese Handwriting Databases", ICDAR 2011, and the description that the
offline archives come with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from struct import Struct

import numpy as np

from hcr.corpus.archive import Place
from hcr.corpus.sample import Damage, Digest, Partition, Sample
from hcr.errors import DataError

# Size of the record with its header, GBK code in reading order, width, height; the pixels follow row by row.
_HEADER = Struct("<I2sHH")
_LONGEST_SIDE = 0xFFFF


def encode_record(char: str, picture: np.ndarray) -> bytes:
    """Return one record of a picture uint8[H, W], 255 = paper.

    Raises: DataError where GBK has no code for `char`, or the picture cannot be a GNT picture.
    """
    try:
        tag = char.encode("gbk")
    except UnicodeEncodeError:
        tag = b""
    if not char or char_of_tag(tag) != char:
        raise DataError(f"GNT: {char!r} has no GBK code, so no record can name it; leave it out")
    sides = picture.shape
    if picture.dtype != np.uint8 or len(sides) != 2 or not 1 <= min(sides) <= max(sides) <= _LONGEST_SIDE:
        raise DataError(f"GNT: {char!r} is {picture.dtype}{list(sides)}, expected uint8[H, W] of 1 to 65535 a side")
    height, width = sides
    return _HEADER.pack(_HEADER.size + width * height, tag, width, height) + picture.tobytes()


def read_gnt(data: bytes, *, writer: str, name: str) -> Iterator[Sample | Damage]:
    """Read the records of a whole file, in its order; `name` is the file's, for origins and messages.

    Pictures are read-only views of `data`. The bytes of all records and all damage add up to `data`: a record whose tag
    means no character is stepped over, any other damage ends the file, since nothing says where the next record starts.
    """
    pixels = np.frombuffer(data, np.uint8)
    end = len(data)
    header = _HEADER.size
    if not end:
        yield _damage(name, 0, 0, f"an empty file, expected records of more than {header} bytes", "the file")
    start = 0
    while start < end:
        if end - start < header:
            found = f"a header cut short, expected {header} bytes, found {end - start}"
            yield _damage(name, start, end - start, found, "the rest of the file")
            return
        size, tag, width, height = _HEADER.unpack_from(data, start)
        expected = header + width * height
        if not width or not height:
            found = f"a picture of {width} × {height} pixels, expected at least 1 × 1"
        elif size != expected:
            found = f"record size {size}, expected {header} + {width} × {height} = {expected}"
        elif size > end - start:
            found = f"a picture cut short, expected a record of {size} bytes, found {end - start}"
        else:
            found = ""
        if found:
            yield _damage(name, start, end - start, found, "the rest of the file")
            return
        char = char_of_tag(tag)
        if char:
            picture = pixels[start + header : start + size].reshape(height, width)
            yield Sample(picture, char, writer, f"{name}:{start}")
        else:
            yield _damage(name, start, size, f"tag {tag.hex(' ')}, expected the GBK code of a character", "this record")
        start += size


@dataclass(frozen=True)
class GntPartition(Partition):
    """One GNT file, on disk or in a zip: all of it by one writer, after whom it is named.

    file: its name within `place`.
    """

    place: Place
    file: str

    def samples(self, digest: Digest) -> Iterator[Sample | Damage]:
        """Yield the records in the file's order."""
        try:
            data = self.place.read(self.file)
        except DataError as error:
            yield Damage(
                f"{self.name}:0",
                self.size,
                f"{error}; download it again, or pack with --skip-damaged to leave the file out",
            )
            return
        digest.update(data)
        yield from read_gnt(data, writer=self.writer, name=self.name)

    def changed(self) -> float:
        """Return when the file, or the zip that it lies in, last changed."""
        return self.place.changed(self.file)


@cache
def char_of_tag(tag: bytes) -> str:
    """Return the character of a two-byte tag, "" where it means none; ASCII is stored as b"!\\0".

    GBK, not GB2312: the two disagree on A1A4, A1AA and A844.
    """
    try:
        text = tag.rstrip(b"\0").decode("gbk")
    except UnicodeDecodeError:
        return ""
    # Two ASCII letters are no character, and a blank or a control code is nothing that can be written by hand.
    return text if len(text) == 1 and text.isprintable() and not text.isspace() else ""


def _damage(name: str, start: int, length: int, found: str, left_out: str) -> Damage:
    advice = f"fetch the file again, or pack with --skip-damaged to leave out {left_out}"
    return Damage(f"{name}:{start}", length, f"{name}: byte {start}: {found}; {advice}")
