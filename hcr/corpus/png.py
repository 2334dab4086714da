"""Pictures in class folders: a folder a character, its name the character or its number.

A partition is a whole class folder, listed only when it is read: a million files cost a few thousand partitions.
Pictures of any mode and polarity come out as uint8 with 255 = paper; nothing says who wrote them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO

from hcr.corpus.archive import Place
from hcr.corpus.sample import Damage, Digest, Partition, Sample
from hcr.errors import DataError
from hcr.preprocess.fit import open_picture, to_paper

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")


def is_picture(name: str) -> bool:
    """Return whether a file of this name is read as a picture."""
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
        """Yield the pictures in the order of their names; other files in the folder are ignored."""
        for file in self._files():
            origin = f"{self.name}/{file}:0"
            length = 0
            try:
                data = self.place.read(self._inside(file))
                digest.update(data)
                length = len(data)
                picture = to_paper(open_picture(BytesIO(data), f"{self.name}/{file}"))
            except DataError as error:
                yield Damage(
                    origin, length, f"{error}; repair or remove it, or pack with --skip-damaged to leave it out"
                )
            else:
                yield Sample(picture, self.char, self.writer, origin)

    def feed(self, digest: Digest) -> None:
        """Feed the files' bytes to `digest` without decoding them."""
        for file in self._files():
            with suppress(DataError):
                digest.update(self.place.read(self._inside(file)))

    def changed(self) -> float:
        """Return when the folder or a picture in it, or the zip that they lie in, last changed."""
        return max(map(self.place.changed, [self.folder, *map(self._inside, self._files())]))

    def _files(self) -> Iterator[str]:
        return filter(is_picture, self.place.names(self.folder))

    def _inside(self, file: str) -> str:
        """Return the name of a file of the folder within `place`."""
        return f"{self.folder}/{file}" if self.folder else file
