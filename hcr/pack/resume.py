"""A pack in the making: its splits' files in a hidden folder beside its place, and the state they agree on.

Each split's file is committed for itself, so after a kill some are further than others. What is gone on from is the
newest state that every file has reached; files that are further are rewound to it, which loses about a second of work.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hcr.charset import Charset
from hcr.corpus.sample import Corpus, Partition
from hcr.errors import DataError
from hcr.files import sync_folder
from hcr.pack.chunks import Chunk
from hcr.pack.store import WriteError
from hcr.pack.writer import PackWriter

# What a pack must remember beside its pictures to be gone on with: where the reading is, and what was counted.
#
# Characters get a provisional number in the order in which they occur; which occur at all, and so the labels, is known
# only at the end. The whole state is written with every commit: about 100 KB for a corpus of writers' files, a megabyte
# for one of thousands of class folders.
#
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

    def take(self, unit: Partition, chunk: Chunk, cut: ValidationCut) -> list[Part]:
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

    def _end_unit(self, unit: Partition, chunk: Chunk) -> None:
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


def work_folder(out: Path) -> Path:
    """Name the folder in which the pack `out` is made."""
    return out.with_name(f".{out.name}.tmp")


class PartialPack:
    """What lies in `.NAME.tmp` for the pack `out`, or a new one. The caller holds the lock on it.

    state: what to go on from. thrown_away: why what lay there was of no use, "" where it was, or nothing lay there.
    resumed: samples that were there; committed: that a next run would find. complete: only its place is missing.
    Raises: WriteError where it cannot be written.
    """

    def __init__(self, out: Path, size: int, settings: dict[str, Any]) -> None:
        self.out, self.size, self.settings = out, size, settings
        self.work = work_folder(out)
        self._files = self.work / "pack"
        self._writers: dict[str, PackWriter] = {}
        self.thrown_away, self.committed, self.complete = "", 0, False
        try:
            try:
                self._open()
            except DataError as error:
                self.thrown_away = str(error)
                self.close()
                self._open()
        except WriteError:
            self.close()
            raise
        self.resumed = self.committed = self.state.count

    def _open(self) -> None:
        """Open the files and agree on a state. Raises: DataError where they are damaged or of other settings."""
        self._files.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            self._writers[split] = PackWriter(self._files / f"{split}.lmdb", self.size)
        stored = {split: self._stored(writer) for split, writer in self._writers.items()}
        finished = {split for split, writer in self._writers.items() if writer.meta is not None}
        self.complete = bool(finished) and not any(state.count for state in stored.values())
        if self.complete:
            self.state = PackState(cursor=(sys.maxsize, 0))
            return
        there = {split: state.splits[split].count for split, state in stored.items()}
        there |= dict.fromkeys(finished, sys.maxsize)
        agreed = [
            state
            for state in (PackState(), *stored.values())
            if all(there[split] >= state.splits[split].count for split in SPLITS)
        ]
        self.state = max(agreed, key=lambda state: state.cursor)
        for split, writer in self._writers.items():
            if split not in finished:
                writer.rewind(self.state.splits[split].count)

    def _stored(self, writer: PackWriter) -> PackState:
        """Return the state at a file's last commit, an empty one for a new file."""
        settings, state = self.settings, PackState()
        if writer.meta is not None:
            settings = writer.meta["settings"]
        elif writer.stored is not None:
            try:
                settings, state = PackState.decode(writer.stored)
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{writer.path}: key state: not readable ({error})") from None
            if not state.left_out["damaged"]:
                # Nothing damaged was met yet, so nothing depended on what is done with it.
                settings = settings | {"skip_damaged": self.settings["skip_damaged"]}
        for key, wanted in self.settings.items():
            if settings.get(key) != wanted:
                raise DataError(f"{self.work}: was begun with {key} {settings.get(key)}, asked for {wanted}")
        return state

    @property
    def uncommitted(self) -> int:
        """Bytes that wait for a commit."""
        return sum(writer.uncommitted for writer in self._writers.values())

    def add(self, parts: list[Part], squares: np.ndarray, origins: list[str]) -> None:
        """Append the samples of a chunk: its squares uint8[n, S, S] and origins, parted among the splits."""
        for part in parts:
            writer = self._writers[part.split]
            if writer.meta is None:
                some = [origins[place] for place in np.arange(len(origins))[part.places].tolist()]
                writer.add(squares[part.places], part.numbers, part.writers, some)

    def commit(self, state: PackState) -> None:
        """Put everything added so far on disk, with `state`, in the files that have anything new."""
        encoded = state.encode(self.settings)
        for writer in self._writers.values():
            if writer.meta is None and writer.uncommitted:
                writer.commit(encoded)
        self.committed = state.count

    def still_needed(self, done: float) -> int:
        """Estimate the bytes that are still to be written when the share `done` of the source is packed."""
        count = sum(writer.count for writer in self._writers.values())
        there = sum(writer.path.stat().st_size for writer in self._writers.values())
        # Beside its pixels a sample takes some 24 bytes: labels, origin, checksums, LMDB's pages.
        return max(0, round(count / done * (self.size * self.size + 24)) - there) if done else 0

    def finish(self, state: PackState, rule: str) -> None:
        """Write labels and meta of every split that has samples, and put the pack into its place; `rule` of the cut."""
        if not self.complete:
            charset = Charset(state.numbers)
            filled = {split: writer for split, writer in self._writers.items() if writer.meta is None and writer.count}
            if self.committed:
                # So a kill from here on goes back no further than to here; a small pack is spared the room it takes.
                for writer in filled.values():
                    writer.commit(state.encode(self.settings))
                self.committed = state.count
            labels = np.array([charset.label(char) for char in state.numbers], np.uint16)
            for split, writer in filled.items():
                meta = {
                    "split": split,
                    "characters": charset.characters,
                    "charset_digest": charset.digest,
                    "writers": list(state.splits[split].writers),
                    "validation": rule,
                    "sources": state.splits[split].sources,
                    "settings": self.settings,
                    # In this order whatever the chunks were, so that the same pack is the same bytes.
                    "left_out": dict(sorted(state.left_out.items())),
                }
                writer.finish(labels, meta)
        for writer in self._writers.values():
            writer.close()
            if writer.meta is None:
                writer.path.unlink()
        sync_folder(self._files)
        os.replace(self._files, self.out)
        shutil.rmtree(self.work)
        sync_folder(self.out.parent)

    def close(self) -> None:
        """Close the files; where no sample is kept in them, remove them."""
        for writer in self._writers.values():
            writer.close()
        if not self.committed and not self.complete:
            shutil.rmtree(self.work, ignore_errors=True)


# Which split each sample goes to: decided once from the corpus and the seed, so that a resumed pack cuts alike.
#
# Whether the writers are known is told by the units' names, before anything is read; so a corpus of which one unit
# has no writer is cut without any.
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

    def split(self, unit: Partition, char: str, writer: str) -> str:
        """Return the split of the next sample of `unit`: "train", "val" or "test"."""
        if unit.split in ("val", "test"):
            return unit.split
        if self._every:
            run, place = divmod(self.seen[char], self._every)
            self.seen[char] += 1
            chosen = 1 + zlib.crc32(f"{self._seed} {ord(char)} {run}".encode()) % (self._every - 1)
            return "val" if place == chosen else "train"
        return "val" if writer in self._writers else "train"
