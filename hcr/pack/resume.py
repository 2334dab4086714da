"""A pack in the making: its state, the split of each sample, and the files that another run resumes from.

An unfinished pack lies in a hidden folder beside its place. Each split's file is committed for itself, so after a kill
some are further than others. A run resumes from the newest state that every file has reached and rewinds the files that
are further, which loses about a second of work. It does so only where settings, preprocessing, block size and sources
are what they were; else it starts over and says why.

Characters get a provisional number in the order in which they occur: which occur at all, and so the labels, is known
only at the end. The whole state is written with every commit. It takes about 100 KB for a corpus of writers' files, a
megabyte for one of thousands of class folders.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from hcr.charset import KNOWN, Charset
from hcr.corpus.sample import Corpus, Partition
from hcr.errors import DataError
from hcr.files import sync_folder
from hcr.pack.chunks import Chunk
from hcr.pack.config import BLOCK
from hcr.pack.sources import SourceCheck
from hcr.pack.store import PackContent, PackSettings, Source
from hcr.pack.writer import PackWriter
from hcr.preprocess.fit import PREPROCESSING
from hcr.text import counted

SPLITS = ("train", "val", "test")
_MAX_LABELS = 1 << 16
_MAX_MESSAGES = 1000


class _UnfinishedSettings(PackSettings):
    """What an unfinished pack is compared by: a finished one has the last two in its meta instead."""

    preprocessing: dict[str, object]
    block: int


class _SplitRecord(TypedDict):
    """A `SplitState` in JSON."""

    count: int
    writers: dict[str, int]
    sources: list[Source]
    partition_samples: int


class _StateRecord(TypedDict):
    """A `PackState` in JSON."""

    cursor: tuple[int, int]
    numbers: dict[str, int]
    left_out: dict[str, int]
    damaged: list[str]
    splits: dict[str, _SplitRecord]
    seen: dict[str, int]
    sha256: str
    verified: float


class _Record(TypedDict):
    """The value of the key `state`."""

    settings: _UnfinishedSettings
    state: _StateRecord


@dataclass
class SplitState:
    """One split so far.

    count: samples.
    writers: their numbers by name, in the order of the numbers.
    sources: the partitions that gave samples, but for the one that is being read.
    partition_samples: samples of the partition that is being read.
    """

    count: int = 0
    writers: dict[str, int] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    partition_samples: int = 0


class Part(NamedTuple):
    """The samples of a chunk that go to one split.

    places: of the samples in the chunk.
    numbers, writers: uint16[n], of their characters and writers.
    """

    split: str
    places: slice | np.ndarray
    numbers: np.ndarray
    writers: np.ndarray


@dataclass
class PackState:
    """Where the reading is, and what was counted up to there.

    cursor: (partition, items of it) that come next.
    numbers: of the characters, provisional.
    left_out: samples by reason.
    damaged: the first thousand messages.
    splits: by name.
    seen: samples of each character, as the validation cut counts them.
    sha256: of the bytes read so far of the partition at the cursor, its first 16 hex digits.
    verified: seconds since 1970 at which the sources still were what was read.
    """

    cursor: tuple[int, int] = (0, 0)
    numbers: dict[str, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    damaged: list[str] = field(default_factory=list)
    splits: dict[str, SplitState] = field(default_factory=lambda: {name: SplitState() for name in SPLITS})
    seen: Counter[str] = field(default_factory=Counter)
    sha256: str = ""
    verified: float = 0.0

    @property
    def count(self) -> int:
        """Samples kept so far."""
        return sum(split.count for split in self.splits.values())

    @property
    def sources(self) -> list[Source]:
        """The partitions that gave samples to any split, once for each."""
        return [source for split in self.splits.values() for source in split.sources]

    def take(self, partition: Partition, chunk: Chunk, cut: ValidationCut) -> list[Part]:
        """Count a chunk, and return where its samples go; `cut` counts on from `seen`.

        Raises: DataError for more characters or writers than the format can number.
        """
        rows: dict[str, tuple[list[int], list[int], list[int]]] = {}
        for place, (char, writer) in enumerate(zip(chunk.chars, chunk.writers, strict=True)):
            name = cut.split(partition, char, writer)
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
            split.partition_samples += len(places)
            # One split alone, the usual case, is copied in one go.
            whole = len(places) == len(chunk.chars)
            where = slice(0, len(places)) if whole else np.array(places)
            parts.append(Part(name, where, np.array(numbers, "<u2"), np.array(writers, "<u2")))
        self._count_left_out("damaged", len(chunk.damage))
        self._count_left_out("outside the charset", chunk.left_out)
        self.damaged += chunk.damage[: _MAX_MESSAGES - len(self.damaged)]
        self.cursor, self.sha256 = (chunk.partition, chunk.items), chunk.sha256
        if chunk.last:
            self._end_partition(partition, chunk)
        return parts

    def _count_left_out(self, reason: str, count: int) -> None:
        if count:
            self.left_out[reason] += count

    def _end_partition(self, partition: Partition, chunk: Chunk) -> None:
        for split in self.splits.values():
            if split.partition_samples:
                split.sources.append(
                    {
                        "name": partition.name,
                        "bytes": partition.size,
                        "sha256": chunk.sha256,
                        "samples": split.partition_samples,
                    }
                )
                split.partition_samples = 0
        self.cursor, self.sha256 = (chunk.partition + 1, 0), ""

    def encode(self, settings: _UnfinishedSettings) -> bytes:
        """Return it as JSON, with the settings under which it holds."""
        content = {**vars(self), "splits": {name: vars(split) for name, split in self.splits.items()}}
        return json.dumps({"settings": settings, "state": content}, ensure_ascii=False).encode()

    @classmethod
    def restore(cls, record: _StateRecord) -> PackState:
        """Return the state that `encode` wrote. Raises: ValueError, KeyError or TypeError where it is damaged."""
        partition, items = record["cursor"]
        return cls(
            (partition, items),
            record["numbers"],
            Counter(record["left_out"]),
            record["damaged"],
            {name: SplitState(**record["splits"][name]) for name in SPLITS},
            Counter(record["seen"]),
            record["sha256"],
            record["verified"],
        )


def _require_few(count: int, noun: str) -> None:
    if count > _MAX_LABELS:
        raise DataError(f"more than {_MAX_LABELS} {noun}: the pack's format cannot number them")


class ValidationCut:
    """Decide the split of each sample from the corpus and the seed alone, so that a resumed pack is cut alike.

    By writer where the training partitions name at least two: a validation set that shares writers with training reads
    about a point too high. Else stratified: of each run of samples of a character, `1 / val` long, the seed chooses
    one; never the first, so that no character is only validated. The partitions' names tell before anything is read
    whether the writers are known, so a corpus of which one partition has no writer is cut without any.

    rule: what was decided, in words.
    seen: the samples of each character so far, where the cut is stratified.
    """

    def __init__(self, corpus: Corpus, val: float, seed: int) -> None:
        training = [partition for partition in corpus.partitions if partition.split in (None, "train")]
        writers = sorted({partition.writer for partition in training if partition.writer})
        named = all(partition.writer for partition in training)
        self.seen: Counter[str] = Counter()
        self._seed, self._every = seed, 0
        self._writers: frozenset[str] = frozenset()
        if any(partition.split == "val" for partition in corpus.partitions):
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
            reason = "too few writers to hold one out" if named else "no writers known"
            self.rule = f"stratified, {reason}: 1 of {self._every} samples a character, seed {seed}"

    def split(self, partition: Partition, char: str, writer: str) -> str:
        """Return the split of the next sample of `partition`: "train", "val" or "test"."""
        if partition.split in ("val", "test"):
            return partition.split
        if self._every:
            run, place = divmod(self.seen[char], self._every)
            self.seen[char] += 1
            chosen = 1 + zlib.crc32(f"{self._seed} {ord(char)} {run}".encode()) % (self._every - 1)
            return "val" if place == chosen else "train"
        return "val" if writer in self._writers else "train"


def work_folder(out: Path) -> Path:
    """Return the folder in which the pack `out` is made."""
    return out.with_name(f".{out.name}.tmp")


_DIFFERENCES = {
    "corpus": "packed from {found}, now {requested} requested",
    "size": "packed with --size {found}, now --size {requested}",
    "val": "packed with --val {found}, now --val {requested}",
    "seed": "packed with --seed {found}, now --seed {requested}",
    "units": "packed from a source of {found} parts, which now has {requested}",
    "names_and_sizes": "packed from files of other names or sizes",
    "preprocessing": "pictures prepared by {found}, now by {requested}",
    "block": "packed in blocks of {found} pictures, now {requested}",
}
_SWITCHES = {
    "fixed": ("the characters that occur", "all characters of a --charset FILE"),
    "skip_damaged": ("no --skip-damaged", "--skip-damaged"),
}


def difference(key: str, found: object, requested: object, characters: Charset | None, packed: int | None) -> str:
    """Return how a pack's setting `key` differs from the requested one, in the terms of the command line.

    characters: those that are requested, None for all.
    packed: how many characters the pack has, None where it may still get more.
    """
    if key == "characters":
        # A pack of a known charset may lack some of its characters.
        counts = {charset.digest: len(charset) for charset in (named() for named in KNOWN.values())}
        count = counts.get(str(found), packed)
        before = "all characters" if found == "all" else "others" if count is None else counted(count, "character")
        now = "all" if characters is None else f"{len(characters):,}{' others' if len(characters) == count else ''}"
        return f"packed with {before}, now {now} requested by --charset"
    if key in _SWITCHES:
        off, on = _SWITCHES[key]
        return f"packed with {on if found else off}, now {on if requested else off} requested"
    return _DIFFERENCES[key].format(found=found, requested=requested)


class UnfinishedPack:
    """The unfinished pack in `.NAME.tmp` for the pack `out`, or a new one. The caller holds the lock on it.

    state: where to resume.
    unusable: why an unfinished pack was removed, "" where it is resumed, or where there was none.
    resumed: samples that it held.
    committed: samples that a next run would find.
    complete: whether only the last step is missing, moving it to its place.
    Raises: WriteError where it cannot be written; Stopped.
    """

    def __init__(self, out: Path, size: int, settings: PackSettings, check: SourceCheck) -> None:
        self.out, self.size, self.settings, self._characters = out, size, settings, check.characters
        self.work = work_folder(out)
        is_new = not self.work.exists()
        self.unusable, self.committed, self.complete = "", 0, False
        self._files = self.work / "pack"
        self._writers: dict[str, PackWriter] = {}
        self._compared: _UnfinishedSettings = {**settings, "preprocessing": PREPROCESSING, "block": BLOCK}
        try:
            try:
                self._open(check)
            except DataError as error:
                self.unusable = str(error)
                self._close_files()
                shutil.rmtree(self.work)
                self._open(check)
        except BaseException:
            self._close_files()
            if is_new:
                shutil.rmtree(self.work, ignore_errors=True)
            raise
        # The check has just found the sources to be what was read.
        self.state.verified = check.began
        self.resumed = self.committed = self.state.count

    def _open(self, check: SourceCheck) -> None:
        """Open the files and find the state to resume from.

        Raises: DataError where they are damaged, or of other settings or sources.
        """
        self._files.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            self._writers[split] = PackWriter(self._files / f"{split}.lmdb", self.size)
        stored = {split: self._stored(writer) for split, writer in self._writers.items()}
        finished = {split: writer.meta for split, writer in self._writers.items() if writer.meta is not None}
        if finished and not any(state.count for state in stored.values()):
            self.state = PackState(cursor=(sys.maxsize, 0))
            sources: Iterable[Source] = [source for meta in finished.values() for source in meta["sources"]]
            self.state.verified = min(self._writers[split].path.stat().st_mtime for split in finished)
            self.complete = True
        else:
            reached = {split: state.splits[split].count for split, state in stored.items()}
            reached |= dict.fromkeys(finished, sys.maxsize)
            agreed = [
                state
                for state in (PackState(verified=check.began), *stored.values())
                if all(reached[split] >= state.splits[split].count for split in SPLITS)
            ]
            self.state = max(agreed, key=lambda state: state.cursor)
            sources = self.state.sources
            self.complete = False
        changed = check.changed(sources, self.state.verified, self.state.cursor, self.state.sha256)
        if changed:
            raise DataError(f"{changed} has changed since it was packed")
        if not self.complete:
            for split, writer in self._writers.items():
                if split not in finished:
                    writer.rewind(self.state.splits[split].count)

    def _stored(self, writer: PackWriter) -> PackState:
        """Return the state at a file's last commit, an empty one for a new file. Raises: DataError."""
        if writer.meta is not None:
            meta = writer.meta
            self._require_same({**meta["settings"], "preprocessing": meta["preprocessing"], "block": meta["block"]})
        elif writer.stored is not None:
            try:
                record: _Record = json.loads(writer.stored)
                settings = record["settings"]
                if "damaged" not in record["state"]["left_out"]:
                    # Nothing damaged was met yet, so nothing depended on what is done with it.
                    settings["skip_damaged"] = self.settings["skip_damaged"]
                self._require_same(settings)
                return PackState.restore(record["state"])
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{writer.path}: key state: not readable ({error})") from None
        return PackState()

    def _require_same(self, settings: Mapping[str, object]) -> None:
        """Raise DataError where an unfinished pack of these settings cannot be resumed."""
        for key, requested in self._compared.items():
            if key not in settings:
                raise DataError(f"{self.work}: an older version of hcr made it, without recording its {key}")
            if settings[key] != requested:
                raise DataError(f"{self.work}: {difference(key, settings[key], requested, self._characters, None)}")

    @property
    def uncommitted(self) -> int:
        """Bytes that wait for a commit."""
        return sum(writer.uncommitted for writer in self._writers.values())

    def add(self, parts: list[Part], squares: np.ndarray, origins: list[str]) -> None:
        """Append the samples of a chunk, parted among the splits: its squares uint8[n, S, S] and its origins."""
        for part in parts:
            writer = self._writers[part.split]
            if writer.meta is None:
                places = np.arange(len(origins))[part.places].tolist()
                writer.add(squares[part.places], part.numbers, part.writers, [origins[place] for place in places])

    def commit(self, state: PackState) -> None:
        """Put everything added so far on disk, with `state`, in the files that have anything new."""
        encoded = state.encode(self._compared)
        for writer in self._writers.values():
            if writer.meta is None and writer.uncommitted:
                writer.commit(encoded)
        self.committed = state.count

    def still_needed(self, done: float) -> int:
        """Estimate the bytes that are still to be written when the share `done` of the source is packed."""
        count = sum(writer.count for writer in self._writers.values())
        written = sum(writer.path.stat().st_size for writer in self._writers.values())
        # Beside its pixels a sample takes some 24 bytes: labels, origin, checksums, LMDB's pages.
        return max(0, round(count / done * (self.size * self.size + 24)) - written) if done else 0

    def finish(self, state: PackState, rule: str) -> None:
        """Write labels and meta of every split that has samples, and put the pack into its place.

        rule: how the validation split was cut.
        """
        if not self.complete:
            charset = Charset(state.numbers)
            filled = {split: writer for split, writer in self._writers.items() if writer.meta is None and writer.count}
            if self.committed:
                # So a kill from here on goes back no further than to here; a small pack is spared the room it takes.
                for writer in filled.values():
                    writer.commit(state.encode(self._compared))
                self.committed = state.count
            labels = np.array([charset.label(char) for char in state.numbers], np.uint16)
            for split, writer in filled.items():
                content: PackContent = {
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
                writer.finish(labels, content)
        for writer in self._writers.values():
            writer.close()
            if writer.meta is None:
                writer.path.unlink()
        sync_folder(self._files)
        os.replace(self._files, self.out)
        shutil.rmtree(self.work)
        sync_folder(self.out.parent)

    def _close_files(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def close(self) -> None:
        """Close the files; where they hold no sample, remove them."""
        self._close_files()
        if not self.committed and not self.complete:
            shutil.rmtree(self.work, ignore_errors=True)
