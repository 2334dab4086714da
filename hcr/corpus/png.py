"""Pictures in class folders: a folder a character, its name the character or its number.

A unit is a whole class folder, listed only when it is read: a million files cost a few thousand units. Pictures of any
mode and polarity come out as uint8 with 255 = paper; nothing says who wrote them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from hcr.corpus.archive import Place
from hcr.corpus.sample import Damage, Digest, Partition, Sample
from hcr.errors import DataError
from hcr.preprocess.fit import open_picture, to_paper

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")


def is_picture(name: str) -> bool:
    """Say whether a file of this name is read as a picture."""
    return name.lower().endswith(PICTURES)


@dataclass(frozen=True)
class PicturePartition(Partition):
    """One class folder, on disk or in a zip: all pictures of one character in one split.

    char: the character. folder: its name within `place`.
    """

    place: Place
    folder: str
    char: str

    def samples(self, digest: Digest) -> Iterator[Sample | Damage]:
        """Read the pictures in the order of their names; other files in the folder are passed over."""
        for file in filter(is_picture, self.place.names(self.folder)):
            origin = f"{self.name}/{file}:0"
            length = 0
            try:
                data = self.place.read(f"{self.folder}/{file}" if self.folder else file)
                digest.update(data)
                length = len(data)
                picture = to_paper(open_picture(BytesIO(data), f"{self.name}/{file}"))
            except DataError as error:
                yield Damage(origin, length, f"{error}; mend or remove it, or pack with --skip-damaged to leave it out")
            else:
                yield Sample(picture, self.char, self.writer, origin)
