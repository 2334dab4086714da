"""Which split each sample goes to: decided once from the corpus and the seed, so that a resumed pack cuts alike.

Whether the writers are known is told by the units' names, before anything is read; so a corpus of which one unit has no
writer is cut without any.
"""

from __future__ import annotations

import zlib
from collections import Counter

import numpy as np

from hcr.corpus.sample import Corpus, Unit


class ValidationCut:
    """Decide the split of each sample; `rule` says how, in words.

    By writer where the training units name at least two: a validation set that shares writers with training reads about
    a point too high. Else stratified: of each run of `every` samples of a character one, chosen by the seed; never the
    first, so that no character is only validated. seen: for that, the samples of each character so far.
    """

    def __init__(self, corpus: Corpus, val: float, seed: int) -> None:
        training = [unit for unit in corpus.units if unit.split in (None, "train")]
        writers = sorted({unit.writer for unit in training if unit.writer})
        named = all(unit.writer for unit in training)
        self.seen: Counter[str] = Counter()
        self._seed, self._every = seed, 0
        self._writers: frozenset[str] = frozenset()
        if any(unit.split == "val" for unit in corpus.units):
            self.rule = "the source's own"
        elif val == 0 or not training:
            self.rule = "none"
        elif named and len(writers) > 1:
            count = min(max(1, round(val * len(writers))), len(writers) - 1)
            chosen = np.random.default_rng(seed).permutation(len(writers))[:count]
            self._writers = frozenset(writers[i] for i in chosen)
            self.rule = f"by writer: {count} of {len(writers)} training writers, seed {seed}"
        else:
            self._every = max(2, round(1 / val))
            self.rule = f"stratified, no writers known: 1 of {self._every} samples a character, seed {seed}"

    def split(self, unit: Unit, char: str, writer: str) -> str:
        """Give the split of the next sample of `unit`: "train", "val" or "test"."""
        if unit.split in ("val", "test"):
            return unit.split
        if self._every:
            run, place = divmod(self.seen[char], self._every)
            self.seen[char] += 1
            chosen = 1 + zlib.crc32(f"{self._seed} {ord(char)} {run}".encode()) % (self._every - 1)
            return "val" if place == chosen else "train"
        return "val" if writer in self._writers else "train"
