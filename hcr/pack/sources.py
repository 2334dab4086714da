"""Whether a corpus is still what was packed of it: times first, digests where they leave a doubt.

Names and sizes are compared before this, with the other settings. A partition whose files are older than the pack is
taken to be what it was. Any other is read again, so a touched file costs its reading and nothing else.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice

from hcr.charset import Charset
from hcr.corpus.sample import Corpus, Partition, Sample
from hcr.errors import Stopped
from hcr.files import short_digest
from hcr.pack.store import Source
from hcr.stop import StopFlag

# File systems keep times as coarsely as this (FAT does), and the clock of a file server may be a little off.
_CLOCK_SECONDS = 2.0


class SourceCheck:
    """Compare a corpus with what was recorded when it was packed.

    corpus: as it lies there now.
    characters: those that the pack keeps, None for all.
    stop: checked between partitions, since reading a corpus again may take minutes.
    began: when this check was made, in seconds since 1970: what a successful check says holds of this moment.
    """

    def __init__(self, corpus: Corpus, characters: Charset | None, stop: StopFlag) -> None:
        self._corpus, self.characters, self._stop = corpus, characters, stop
        self.began = time.time()

    def changed(
        self,
        sources: Iterable[Source],
        since: float,
        cursor: tuple[int, int] = (sys.maxsize, 0),
        sha256: str = "",
    ) -> str:
        """Return the name of the first partition that has changed since it was packed, "" where none has.

        sources: the pack's records of all partitions that gave samples.
        since: seconds since 1970 until which nothing had changed.
        cursor: (partition, items of it) up to which the corpus was packed. Of a partition packed in part `sha256` is
        the digest of the bytes that gave those items.
        Raises: Stopped.
        """
        digests: Mapping[str, str] = {source["name"]: source["sha256"] for source in sources}
        number, items = cursor
        for place, partition in enumerate(self._corpus.partitions[: number + (items > 0)]):
            if partition.changed() < since - _CLOCK_SECONDS:
                continue
            if self._stop.name:
                raise Stopped(f"{self._corpus.name}: stopped by {self._stop.name}")
            if place == number:
                same = _digest(partition, items) == sha256
            elif partition.name in digests:
                same = _digest(partition) == digests[partition.name]
            else:
                # It gave no sample, so it has no digest: it counts as changed where it gives one now.
                same = not any(map(self._is_kept, partition.samples(hashlib.sha256())))
            if not same:
                return partition.name
        return ""

    def _is_kept(self, found: object) -> bool:
        return isinstance(found, Sample) and (self.characters is None or found.char in self.characters)


def _digest(partition: Partition, items: int | None = None) -> str:
    """Return the digest of a partition's bytes: of all of them, or of those that give the first `items` items."""
    digest = hashlib.sha256()
    if items is None:
        partition.feed(digest)
    else:
        deque(islice(partition.samples(digest), items), maxlen=0)
    return short_digest(digest)
