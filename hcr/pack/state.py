"""What a pack must remember beside its pictures to be gone on with: where the reading is, and what was counted.

Characters get a provisional number in the order in which they occur; which occur at all, and so the labels, is known
only at the end. The whole state is written with every commit: about 100 KB for a corpus of writers' files, a megabyte
for one of thousands of class folders.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from hcr.corpus.sample import Unit
from hcr.errors import DataError
from hcr.pack.reading import Chunk
from hcr.pack.validation import ValidationCut

SPLITS = ("train", "val", "test")
_MAX_LABELS = 1 << 16
_MAX_MESSAGES = 1000


@dataclass
class SplitState:
    """One split so far: samples, its writers in the order of their numbers, the units that gave samples.

    unit_samples: of the unit that is being read.
    """

    count: int = 0
    writers: dict[str, int] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    unit_samples: int = 0


class Part(NamedTuple):
    """The samples of a chunk that go to one split: their places in it, characters' and writers' numbers uint16[n]."""

    split: str
    places: slice | np.ndarray
    numbers: np.ndarray
    writers: np.ndarray


@dataclass
class PackState:
    """Where the reading is, `cursor` (unit, items of it), and what was counted up to there.

    numbers: characters by their provisional number. damaged: the first messages. seen: the validation cut's counts.
    """

    cursor: tuple[int, int] = (0, 0)
    numbers: dict[str, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    damaged: list[str] = field(default_factory=list)
    splits: dict[str, SplitState] = field(default_factory=lambda: {name: SplitState() for name in SPLITS})
    seen: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """Samples kept so far."""
        return sum(split.count for split in self.splits.values())

    def take(self, unit: Unit, chunk: Chunk, cut: ValidationCut) -> list[Part]:
        """Count a chunk in, and say where its samples go; `cut` counts on from `seen`.

        Raises: DataError for more characters or writers than the format can number.
        """
        rows: dict[str, tuple[list[int], list[int], list[int]]] = {}
        for place, (char, writer) in enumerate(zip(chunk.chars, chunk.writers, strict=True)):
            name = cut.split(unit, char, writer)
            places, numbers, writers = rows.setdefault(name, ([], [], []))
            places.append(place)
            numbers.append(self.numbers.setdefault(char, len(self.numbers)))
            known = self.splits[name].writers
            writers.append(known.setdefault(writer, len(known)))
        parts = []
        for name, (places, numbers, writers) in rows.items():
            split = self.splits[name]
            _require_few(len(self.numbers), "characters")
            _require_few(len(split.writers), f"writers in {name}")
            split.count += len(places)
            split.unit_samples += len(places)
            # One split alone, the usual case, is copied in one go.
            whole = len(places) == len(chunk.chars)
            where = slice(0, len(places)) if whole else np.array(places)
            parts.append(Part(name, where, np.array(numbers, "<u2"), np.array(writers, "<u2")))
        self._count_out("damaged", len(chunk.damage))
        self._count_out("outside the charset", chunk.left_out)
        self.damaged += chunk.damage[: _MAX_MESSAGES - len(self.damaged)]
        self.cursor = chunk.unit, chunk.items
        if chunk.last:
            self._end_unit(unit, chunk)
        return parts

    def _count_out(self, reason: str, count: int) -> None:
        if count:
            self.left_out[reason] += count

    def _end_unit(self, unit: Unit, chunk: Chunk) -> None:
        for split in self.splits.values():
            if split.unit_samples:
                source = {"name": unit.name, "bytes": unit.size, "sha256": chunk.sha256}
                split.sources.append({**source, "samples": split.unit_samples})
                split.unit_samples = 0
        self.cursor = chunk.unit + 1, 0

    def encode(self, settings: dict[str, Any]) -> bytes:
        """Write it as JSON, with the settings under which it holds."""
        content = {**vars(self), "splits": {name: vars(split) for name, split in self.splits.items()}}
        return json.dumps({"settings": settings, "state": content}, ensure_ascii=False).encode()

    @classmethod
    def decode(cls, raw: bytes) -> tuple[dict[str, Any], PackState]:
        """Read what `encode` wrote: settings and state. Raises: ValueError, KeyError or TypeError for other bytes."""
        found = json.loads(raw)
        state = found["state"]
        splits = {name: SplitState(**split) for name, split in state["splits"].items()}
        state |= {"splits": splits, "cursor": tuple(state["cursor"])}
        state |= {"left_out": Counter(state["left_out"]), "seen": Counter(state["seen"])}
        return found["settings"], cls(**state)


def _require_few(count: int, what: str) -> None:
    if count > _MAX_LABELS:
        raise DataError(f"more than {_MAX_LABELS} {what}: the pack's format cannot number them")
