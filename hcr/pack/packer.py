"""Samples in, packs out: read on all cores, cut the validation writers, count what is left out, write, go on.

One pass over the source, whatever the number of sizes. Processes read and fit; this one puts their chunks into the
corpus's order, counts and writes, and every second it commits, so that a pack that was stopped, killed or left without
disk goes on from there. That writes a block a second twice; it saves all that was packed.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hcr.charset import Charset
from hcr.corpus.sample import Corpus
from hcr.errors import DataError, HcrError, Stopped, UsageError
from hcr.files import free_bytes, locked
from hcr.layout import splits_of
from hcr.pack.chunks import Plan
from hcr.pack.resume import PartialPack, ValidationCut, work_folder
from hcr.pack.store import WriteError, open_pack
from hcr.pack.workers import read, usual_workers
from hcr.stop import Progress, StopFlag, silent

MIN_SIZE, MAX_SIZE = 16, 256
_COMMIT_SECONDS, _COMMIT_BYTES = 1.0, 32 << 20


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
    """What a pack holds, and what this run did.

    counts: samples a split. left_out: samples by reason. damaged: the first thousand messages. bytes: of its files.
    resumed: samples that an earlier run had packed; thrown_away: why what it had packed was of no use, "" where it was.
    seconds: that this run took.
    """

    path: Path
    counts: dict[str, int]
    charset: Charset
    left_out: dict[str, int]
    bytes: int
    damaged: list[str] = field(default_factory=list)
    already_there: bool = False
    resumed: int = 0
    thrown_away: str = ""
    seconds: float = 0.0


def pack(
    corpus: Corpus, out: Path, config: PackConfig, *, workers: int | None = None, progress: Progress = silent
) -> PackSummary:
    """Pack `corpus` into the folder `out`: `pack_sizes` for one pack."""
    return pack_sizes(corpus, {out: config}, workers=workers, progress=progress)[0]


def pack_sizes(
    corpus: Corpus, packs: Mapping[Path, PackConfig], *, workers: int | None = None, progress: Progress = silent
) -> list[PackSummary]:
    """Pack `corpus` into folders, one LMDB file a split, whose settings differ in their size alone.

    A pack of the same sources and settings that is already there is kept; one of others is refused. What a run that
    did not come to its end has packed is gone on with, and gives the same pack as one run. `workers` processes read
    (None: as many as there are cores, 1 for little work; 1: this one); `progress` counts bytes of the source.
    Raises: DataError for damage (unless `skip_damaged`) or where no sample is left; UsageError where a folder is taken;
    HcrError where another process packs into it, a reading process was killed, or the disk is full; Stopped.
    """
    if len({replace(config, size=MIN_SIZE) for config in packs.values()}) != 1:
        raise UsageError("packs made together may differ in their size alone")
    done: dict[Path, PackSummary] = {}
    with StopFlag() as stop, ExitStack() as held:
        partial: list[PartialPack] = []
        for out, config in packs.items():
            settings = _settings(corpus, config)
            if not splits_of(out) and out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise UsageError(f"{out}: exists and is no pack; name another --out")
            lock = out.with_name(f".{out.name}.lock")
            if not splits_of(out) or lock.exists():
                out.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(lock, f"packing into {out}"))
            if splits_of(out):
                done[out] = _existing(out, settings)
                if lock.exists():
                    # The run that made it was killed while it tidied up.
                    shutil.rmtree(work_folder(out), ignore_errors=True)
            else:
                partial.append(held.enter_context(closing(PartialPack(out, config.size, settings))))
        if partial:
            job = _Job(corpus, config, partial, progress)
            for summary in job.run(workers, stop):
                done[summary.path] = summary
    return [done[out] for out in packs]


class _Job:
    """One reading of a corpus into one or several partial packs, from where the furthest behind of them stopped."""

    def __init__(self, corpus: Corpus, config: PackConfig, packs: list[PartialPack], progress: Progress) -> None:
        self._corpus, self._config, self._packs, self._progress = corpus, config, list(packs), progress
        self._cut = ValidationCut(corpus, config.val, config.seed)
        self._state = min((pack.state for pack in packs), key=lambda state: state.cursor)
        self._cut.seen = self._state.seen
        if config.fixed and config.characters is not None:
            self._state.numbers = {char: label for label, char in enumerate(config.characters.characters)}
        self._total = sum(unit.size for unit in corpus.units)
        self._read = sum(unit.size for unit in corpus.units[: self._state.cursor[0]])
        self._began = self._committed = time.monotonic()
        # Whether all that the state counts has been given to the writers.
        self._whole = True

    def run(self, workers: int | None, stop: StopFlag) -> list[PackSummary]:
        try:
            try:
                self._fill(workers or usual_workers(self._total - self._read), stop)
                return self._finish()
            except WriteError:
                raise
            except HcrError as error:
                if self._whole:
                    self._commit()
                error.args = (f"{error}{self._kept()}",)
                raise
        except WriteError as error:
            raise HcrError(self._disk_full(error)) from None

    def _fill(self, workers: int, stop: StopFlag) -> None:
        config = self._config
        characters = None if config.characters is None else frozenset(config.characters.characters)
        starts = {pack.size: pack.state.cursor for pack in self._packs}
        plan = Plan(dict(enumerate(self._corpus.units)), characters, starts)
        self._progress(self._read, self._total)
        with closing(read(plan, workers)) as chunks:
            for chunk, squares in chunks:
                if stop.name:
                    raise Stopped(f"{self._corpus.name}: stopped by {stop.name}")
                if chunk.damage and not config.skip_damaged:
                    raise DataError(chunk.damage[0])
                self._whole = False
                parts = self._state.take(self._corpus.units[chunk.unit], chunk, self._cut)
                for pack in self._packs:
                    if pack.size in squares:
                        pack.add(parts, squares[pack.size], chunk.origins)
                self._whole = True
                self._read += chunk.bytes
                self._progress(chunk.bytes, self._total)
                full = sum(pack.uncommitted for pack in self._packs) >= _COMMIT_BYTES
                if full or time.monotonic() - self._committed >= _COMMIT_SECONDS:
                    self._commit()

    def _commit(self) -> None:
        for pack in self._packs:
            # A pack that is further than the state is waited for.
            if self._state.cursor >= pack.state.cursor:
                pack.commit(self._state)
        self._committed = time.monotonic()

    def _finish(self) -> list[PackSummary]:
        state = self._state
        if not state.count and not any(pack.complete for pack in self._packs):
            reasons = ", ".join(f"{count} {reason}" for reason, count in state.left_out.items())
            raise DataError(
                f"{self._corpus.name}: no sample left to pack ({reasons or 'the source is empty'}); "
                "choose another --charset"
            )
        summaries = []
        while self._packs:
            pack = self._packs[0]
            pack.finish(state, self._cut.rule)
            # It is no longer partial: an error in the next says nothing of it.
            self._packs.pop(0)
            summary = _existing(pack.out, pack.settings)
            summary.already_there, summary.thrown_away, summary.resumed = False, pack.thrown_away, pack.resumed
            summary.damaged, summary.seconds = state.damaged, time.monotonic() - self._began
            summaries.append(summary)
        return summaries

    def _kept(self) -> str:
        """Say what a next run would find, as the end of an error's line."""
        kept = [f"{pack.committed:,} samples are kept in {pack.work}" for pack in self._packs if pack.committed]
        return f"; {', '.join(kept)}; run the same command again to go on" if kept else ""

    def _disk_full(self, error: WriteError) -> str:
        needed = sum(pack.still_needed(self._read / max(1, self._total)) for pack in self._packs)
        free = free_bytes(self._packs[0].out.parent)
        return (
            f"{error}: disk full, or a limit on file sizes reached: about {needed:,} bytes more needed, {free:,} free; "
            f"make room{self._kept()}"
        )


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
        "names_and_sizes": hashlib.sha256(names.encode("utf-8", "replace")).hexdigest()[:16],
    }


def _existing(out: Path, settings: dict[str, Any]) -> PackSummary:
    """Look at a pack that is there. Raises: UsageError where it is of other sources or settings."""
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
    size = sum((out / f"{name}.lmdb").stat().st_size for name in counts)
    return PackSummary(out, counts, charset, meta["left_out"], size, already_there=True)
