"""A pack in the making: its splits' files in a hidden folder beside its place, and the state they agree on.

Each split's file is committed for itself, so after a kill some are further than others. What is gone on from is the
newest state that every file has reached; files that are further are rewound to it, which loses about a second of work.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hcr.charset import Charset
from hcr.errors import DataError
from hcr.files import sync_folder
from hcr.pack.state import SPLITS, PackState, Part
from hcr.pack.store import WriteError
from hcr.pack.writer import PackWriter


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
        """Give the state at a file's last commit, an empty one for a new file."""
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
