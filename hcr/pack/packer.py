"""Samples in, packs out: read on all cores, cut the validation writers, count what is left out, write.

One pass over the source, whatever the number of sizes. Processes read and fit. This one puts their chunks into the
corpus's order, counts and writes. Every second it commits, so that the next run resumes a pack that was stopped, killed
or left without disk. That writes a block a second twice; it saves all that was packed.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from hcr.charset import Charset
from hcr.corpus.sample import Corpus
from hcr.errors import DataError, HcrError, Stopped, UsageError
from hcr.files import free_bytes, locked, short_digest
from hcr.layout import splits_of
from hcr.pack.chunks import ReadJob
from hcr.pack.config import MIN_SIZE, PackConfig
from hcr.pack.resume import UnfinishedPack, ValidationCut, difference, work_folder
from hcr.pack.sources import SourceCheck
from hcr.pack.store import PackSettings, WriteError, open_reader
from hcr.pack.workers import read, usual_workers
from hcr.stop import Progress, StopFlag, silent
from hcr.text import counted

_COMMIT_SECONDS, _COMMIT_BYTES = 1.0, 32 << 20


@dataclass
class PackSummary:
    """What a pack holds, and what this run did.

    counts: samples a split.
    left_out: samples by reason.
    bytes: of its files.
    damaged: the first thousand messages.
    already_packed: whether the pack was there before this run.
    resumed: samples that an earlier run had packed.
    unusable: why this run could not resume an unfinished pack, "" where it did or there was none.
    seconds: that this run took.
    """

    path: Path
    counts: dict[str, int]
    charset: Charset
    left_out: dict[str, int]
    bytes: int
    damaged: list[str] = field(default_factory=list)
    already_packed: bool = False
    resumed: int = 0
    unusable: str = ""
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

    A finished pack of the same sources and settings is kept; one of others is refused. An unfinished one is resumed,
    and becomes the same pack as in one run; one of others is removed, and the run starts over.

    workers: processes that read. None: as many as there are cores, 1 for little work. 1: this one.
    progress: counts bytes of the source.
    Raises: DataError for damage (unless `skip_damaged`), where no sample is left, and for a source that changes while
    it is packed; UsageError where a folder is taken; HcrError where another process packs into it, a reading process
    was killed, or the disk is full; Stopped.
    """
    if len({replace(config, size=MIN_SIZE) for config in packs.values()}) != 1:
        raise UsageError("packs made together may differ in their size alone")
    done: dict[Path, PackSummary] = {}
    with StopFlag() as stop, ExitStack() as held:
        check = SourceCheck(corpus, next(iter(packs.values())).characters, stop)
        unfinished: list[UnfinishedPack] = []
        for out, config in packs.items():
            settings = _compared_settings(corpus, config)
            if not splits_of(out) and out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise UsageError(f"{out}: exists and is not a pack; name another --out")
            lock = out.with_name(f".{out.name}.lock")
            if not splits_of(out) or lock.exists():
                out.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(lock, f"packing into {out}"))
            if splits_of(out):
                done[out] = _finished(out, settings, check.characters)
                _require_unchanged(out, check)
                if lock.exists():
                    # The run that made it was killed while it tidied up.
                    shutil.rmtree(work_folder(out), ignore_errors=True)
            else:
                unfinished.append(held.enter_context(closing(UnfinishedPack(out, config.size, settings, check))))
        if unfinished:
            job = _Job(corpus, config, unfinished, check, progress)
            for summary in job.run(workers, stop):
                done[summary.path] = summary
    return [done[out] for out in packs]


class _Job:
    """One reading of a corpus into one or several unfinished packs, from where the furthest behind of them stopped."""

    def __init__(
        self, corpus: Corpus, config: PackConfig, packs: list[UnfinishedPack], check: SourceCheck, progress: Progress
    ) -> None:
        self._corpus, self._config, self._packs, self._progress = corpus, config, list(packs), progress
        self._check = check
        self._cut = ValidationCut(corpus, config.val, config.seed)
        self._state = min((pack.state for pack in packs), key=lambda state: state.cursor)
        self._cut.seen = self._state.seen
        if config.fixed and config.characters is not None:
            self._state.numbers = {char: label for label, char in enumerate(config.characters.characters)}
        self._total = sum(partition.size for partition in corpus.partitions)
        self._read = sum(partition.size for partition in corpus.partitions[: self._state.cursor[0]])
        self._began = self._committed = time.monotonic()
        # Whether the writers have been given all that the state counts.
        self._consistent = True

    def run(self, workers: int | None, stop: StopFlag) -> list[PackSummary]:
        """Read the rest of the corpus and finish the packs. Raises: as `pack_sizes` does."""
        try:
            try:
                self._fill(workers or usual_workers(self._total - self._read), stop)
                return self._finish()
            except WriteError:
                raise
            except HcrError as error:
                if self._consistent:
                    self._commit()
                error.args = (f"{error}{self._kept()}",)
                raise
        except WriteError as error:
            raise HcrError(self._disk_full(error)) from None

    def _fill(self, workers: int, stop: StopFlag) -> None:
        config = self._config
        characters = None if config.characters is None else frozenset(config.characters.characters)
        starts = {pack.size: pack.state.cursor for pack in self._packs}
        job = ReadJob(dict(enumerate(self._corpus.partitions)), characters, starts)
        self._progress(self._read, self._total)
        with closing(read(job, workers)) as chunks:
            for chunk, squares in chunks:
                if stop.name:
                    raise Stopped(f"{self._corpus.name}: stopped by {stop.name}")
                if chunk.damage and not config.skip_damaged:
                    raise DataError(chunk.damage[0])
                self._consistent = False
                parts = self._state.take(self._corpus.partitions[chunk.partition], chunk, self._cut)
                for pack in self._packs:
                    if pack.size in squares:
                        pack.add(parts, squares[pack.size], chunk.origins)
                self._consistent = True
                self._read += chunk.bytes
                self._progress(chunk.bytes, self._total)
                full = sum(pack.uncommitted for pack in self._packs) >= _COMMIT_BYTES
                if full or time.monotonic() - self._committed >= _COMMIT_SECONDS:
                    self._commit()

    def _commit(self) -> None:
        for pack in self._packs:
            # A pack that is further than the state waits for it.
            if self._state.cursor >= pack.state.cursor:
                pack.commit(self._state)
        self._committed = time.monotonic()

    def _finish(self) -> list[PackSummary]:
        state = self._state
        if not state.count and not any(pack.complete for pack in self._packs):
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in state.left_out.items())
            raise DataError(
                f"{self._corpus.name}: no sample left to pack ({reasons or 'the source is empty'}); "
                "choose another --charset"
            )
        if changed := self._check.changed(state.sources, self._check.began, state.cursor):
            raise DataError(f"{changed} changed while it was packed; pack again when nothing writes to it any more")
        summaries = []
        while self._packs:
            pack = self._packs[0]
            pack.finish(state, self._cut.rule)
            # It is finished, so the message of an error in the next must not count it.
            self._packs.pop(0)
            summary = _finished(pack.out, pack.settings, self._config.characters)
            summary.already_packed, summary.unusable, summary.resumed = False, pack.unusable, pack.resumed
            summary.damaged, summary.seconds = state.damaged, time.monotonic() - self._began
            summaries.append(summary)
        return summaries

    def _kept(self) -> str:
        """Return what a next run would find, as the end of an error's line."""
        kept = [f"{counted(pack.committed, 'sample')} kept in {pack.work}" for pack in self._packs if pack.committed]
        return f"; {', '.join(kept)}; run the same command again to resume" if kept else ""

    def _disk_full(self, error: WriteError) -> str:
        needed = sum(pack.still_needed(self._read / max(1, self._total)) for pack in self._packs)
        free = free_bytes(self._packs[0].out.parent)
        return (
            f"{error}: disk full, or a limit on file sizes reached: about {needed:,} bytes more needed, {free:,} free; "
            f"make room{self._kept()}"
        )


def _compared_settings(corpus: Corpus, config: PackConfig) -> PackSettings:
    """Return what tells this pack from another: the settings, and the names and sizes of all sources."""
    names = "\n".join(f"{partition.name} {partition.size}" for partition in corpus.partitions)
    return {
        "corpus": corpus.name,
        "size": config.size,
        "characters": "all" if config.characters is None else config.characters.digest,
        "fixed": config.fixed,
        "val": config.val,
        "seed": config.seed,
        "skip_damaged": config.skip_damaged,
        "units": len(corpus.partitions),
        "names_and_sizes": short_digest(hashlib.sha256(names.encode("utf-8", "replace"))),
    }


def _finished(out: Path, settings: PackSettings, characters: Charset | None) -> PackSummary:
    """Return what a finished pack holds. Raises: UsageError where it is of other sources or settings.

    characters: those that are requested, None for all.
    """
    counts: dict[str, int] = {}
    for name in splits_of(out):
        reader = open_reader(out / f"{name}.lmdb")
        counts[name], meta, charset = len(reader), reader.meta, reader.charset
        for key, requested in settings.items():
            if (found := meta["settings"].get(key)) != requested:
                differs = difference(key, found, requested, characters, len(charset))
                raise UsageError(f"{out}: holds another pack ({differs}); name another --out, or remove the folder")
    size = sum((out / f"{name}.lmdb").stat().st_size for name in counts)
    return PackSummary(out, counts, charset, meta["left_out"], size, already_packed=True)


def _require_unchanged(out: Path, check: SourceCheck) -> None:
    """Raise UsageError where a source of a finished pack has changed since."""
    paths = [out / f"{name}.lmdb" for name in splits_of(out)]
    sources = [source for path in paths for source in open_reader(path).meta["sources"]]
    if changed := check.changed(sources, min(path.stat().st_mtime for path in paths)):
        raise UsageError(f"{out}: {changed} has changed since it was packed; delete the pack, or choose another --out")
