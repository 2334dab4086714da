"""Samples in, packs out: fit each picture once, cut the validation writers, count what is left out.

One pass over the source. Which characters occur is known only at its end, so samples carry a provisional number (4
bytes each) that becomes the label when everything has been read; pictures go straight to disk and memory stays flat.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zlib
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hcr.charset import Charset
from hcr.corpus.sample import Corpus, Damage, Sample, Unit
from hcr.errors import DataError, UsageError
from hcr.files import sync_folder
from hcr.glyph import fit_square
from hcr.layout import splits_of
from hcr.pack.store import PackWriter, open_pack
from hcr.progress import Progress, silent

MIN_SIZE, MAX_SIZE = 16, 256
_MAX_LABELS = 1 << 16


@dataclass(frozen=True)
class PackConfig:
    """What decides the content of a pack, beside its sources.

    size: pixels a side. characters: keep these (None: all that occur). fixed: the charset is exactly `characters`, also
    those that do not occur; else those that do. val: share of the training writers that validate. seed: which ones.
    skip_damaged: leave damaged records and pictures out, counted, where the default stops at the first.
    """

    size: int = 64
    characters: Charset | None = None
    fixed: bool = False
    val: float = 0.1
    seed: int = 0
    skip_damaged: bool = False

    def __post_init__(self) -> None:
        if not MIN_SIZE <= self.size <= MAX_SIZE:
            raise UsageError(f"size {self.size}: expected {MIN_SIZE} to {MAX_SIZE} pixels")
        if not 0 <= self.val < 1:
            raise UsageError(f"val {self.val}: expected a share from 0 up to 1")


@dataclass
class PackSummary:
    """What a pack holds: samples a split, its charset, what was left out by reason, and damage by file."""

    path: Path
    counts: dict[str, int]
    charset: Charset
    left_out: dict[str, int]
    damaged: list[str] = field(default_factory=list)
    already_there: bool = False


class _Split:
    def __init__(self, path: Path, size: int) -> None:
        self.store = PackWriter(path, size)
        self.labels, self.writers = array("H"), array("H")
        self.names: dict[str, int] = {}
        self.sources: list[dict[str, object]] = []

    def add(self, picture: np.ndarray, number: int, sample: Sample) -> None:
        writer = self.names.setdefault(sample.writer, len(self.names))
        self.labels.append(_fits(number, "characters"))
        self.writers.append(_fits(writer, "writers"))
        self.store.add(picture, sample.origin)


def _fits(number: int, what: str) -> int:
    if number >= _MAX_LABELS:
        raise DataError(f"more than {_MAX_LABELS} {what}: the pack's format cannot number them")
    return number


def pack(corpus: Corpus, out: Path, config: PackConfig, progress: Progress = silent) -> PackSummary:
    """Pack `corpus` into the folder `out`, one LMDB file a split; `progress` counts bytes of the source.

    A pack of the same sources and settings that is already there is kept; one of others is refused.
    Raises: DataError for damage (unless `skip_damaged`) or where no sample is left; UsageError where `out` is taken.
    """
    settings = _settings(corpus, config)
    if splits_of(out):
        return _existing(out, settings)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: exists and is no pack; name another --out")
    work = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    try:
        summary = _pack_into(work, corpus, config, settings, progress)
        os.replace(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    sync_folder(out.parent)
    summary.path = out
    return summary


def _pack_into(
    work: Path, corpus: Corpus, config: PackConfig, settings: dict[str, Any], progress: Progress
) -> PackSummary:
    cut = _ValidationCut(corpus, config)
    numbers: dict[str, int] = {}
    if config.fixed and config.characters is not None:
        numbers = {char: label for label, char in enumerate(config.characters.characters)}
    splits: dict[str, _Split] = {}
    left_out: Counter[str] = Counter()
    damaged: list[str] = []
    total = sum(unit.size for unit in corpus.units)
    try:
        for unit in corpus.units:
            digest = hashlib.sha256()
            kept: Counter[str] = Counter()
            for sample in unit.samples(digest):
                if isinstance(sample, Damage):
                    if not config.skip_damaged:
                        raise DataError(sample.message)
                    left_out["damaged"] += 1
                    damaged.append(sample.message)
                    continue
                if config.characters is not None and sample.char not in config.characters:
                    left_out["outside the charset"] += 1
                    continue
                name = cut.split(unit, sample)
                if name not in splits:
                    splits[name] = _Split(work / f"{name}.lmdb", config.size)
                number = numbers.setdefault(sample.char, len(numbers))
                splits[name].add(fit_square(sample.picture, config.size), number, sample)
                kept[name] += 1
            for name in kept:
                splits[name].sources.append(
                    {"name": unit.name, "bytes": unit.size, "sha256": digest.hexdigest()[:16], "samples": kept[name]}
                )
            progress(unit.size, total)
        if not splits:
            raise DataError(f"{corpus.name}: no sample left to pack ({_reasons(left_out)}); choose another --charset")
        charset = Charset(numbers)
        label = np.array([charset.label(char) for char in numbers], np.uint16)
        for name, split in splits.items():
            split.store.finish(
                label[np.frombuffer(split.labels, np.uint16)],
                np.frombuffer(split.writers, np.uint16),
                {
                    "split": name,
                    "characters": charset.characters,
                    "charset_digest": charset.digest,
                    "writers": list(split.names),
                    "validation": cut.rule,
                    "sources": split.sources,
                    "settings": settings,
                    "left_out": dict(left_out),
                },
            )
    except BaseException:
        for split in splits.values():
            split.store.abandon()
        raise
    counts: dict[str, int] = {name: splits[name].store.count for name in ("train", "val", "test") if name in splits}
    return PackSummary(work, counts, charset, dict(left_out), damaged)


class _ValidationCut:
    """Decide the split of each sample.

    By writer where the training units name at least two: a validation set that shares writers with training reads about
    a point too high. Else stratified: of each run of `every` samples of a character one, chosen by the seed; never the
    first, so that no character is only validated.
    """

    def __init__(self, corpus: Corpus, config: PackConfig) -> None:
        training = [unit for unit in corpus.units if unit.split in (None, "train")]
        writers = sorted({unit.writer for unit in training if unit.writer})
        named = all(unit.writer for unit in training)
        self._seed, self._seen = config.seed, Counter[str]()
        self._writers: frozenset[str] = frozenset()
        self._every = 0
        if any(unit.split == "val" for unit in corpus.units):
            self.rule = "the source's own"
        elif config.val == 0 or not training:
            self.rule = "none"
        elif named and len(writers) > 1:
            count = min(max(1, round(config.val * len(writers))), len(writers) - 1)
            chosen = np.random.default_rng(config.seed).permutation(len(writers))[:count]
            self._writers = frozenset(writers[i] for i in chosen)
            self.rule = f"by writer: {count} of {len(writers)} training writers, seed {config.seed}"
        else:
            self._every = max(2, round(1 / config.val))
            self.rule = f"stratified, no writers known: 1 of {self._every} samples a character, seed {config.seed}"

    def split(self, unit: Unit, sample: Sample) -> str:
        if unit.split in ("val", "test"):
            return unit.split
        if self._every:
            run, place = divmod(self._seen[sample.char], self._every)
            self._seen[sample.char] += 1
            chosen = 1 + zlib.crc32(f"{self._seed} {ord(sample.char)} {run}".encode()) % (self._every - 1)
            return "val" if place == chosen else "train"
        return "val" if sample.writer in self._writers else "train"


def _settings(corpus: Corpus, config: PackConfig) -> dict[str, Any]:
    """What a second pack is compared by: the settings, and the names and sizes of all sources."""
    names = "\n".join(f"{unit.name} {unit.size}" for unit in corpus.units)
    return {
        "corpus": corpus.name,
        "size": config.size,
        "characters": "all" if config.characters is None else config.characters.digest,
        "fixed": config.fixed,
        "val": config.val,
        "seed": config.seed,
        "skip_damaged": config.skip_damaged,
        "units": len(corpus.units),
        "names_and_sizes": hashlib.sha256(names.encode()).hexdigest()[:16],
    }


def _existing(out: Path, settings: dict[str, Any]) -> PackSummary:
    counts: dict[str, int] = {}
    for name in splits_of(out):
        reader = open_pack(out / f"{name}.lmdb")
        counts[name], meta, charset = len(reader), reader.meta, reader.charset
        for key, wanted in settings.items():
            if meta["settings"].get(key) != wanted:
                raise UsageError(
                    f"{out}: holds another pack ({key} is {meta['settings'].get(key)}, asked for {wanted}); "
                    "name another --out, or remove the folder"
                )
    return PackSummary(out, counts, charset, meta["left_out"], already_there=True)


def _reasons(left_out: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "the source is empty"
