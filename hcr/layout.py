"""Where things lie, and which one is meant when none is named.

Everything but the released weights and the cache is relative to the current folder: `data/packed/<corpus>-<size>`,
`artifacts/<run>`. A default is the only candidate or it is an error that lists the candidates; guessing between two
packs would train on the wrong one.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from hcr.errors import DataError, UsageError
from hcr.records import read_run_record

RAW = Path("data/raw")
PACKED = Path("data/packed")
ARTIFACTS = Path("artifacts")
# The weights that came with this program, by the charset that they name; the first are the default.
_RELEASED = Path(__file__).parent / "models" / "released"
RELEASED = {"level1": _RELEASED / "compact.safetensors", "gb2312": _RELEASED / "compact-gb2312.safetensors"}
# What `find_weights` takes, in the words of every help text.
NAMED_WEIGHTS = f"a run (its best checkpoint), a file (.pt, .safetensors), or released weights ({', '.join(RELEASED)})"


def cache_folder() -> Path:
    """Return where this program keeps what it can make again: $HCR_CACHE, or `hcr` in the user's cache folder.

    The user's folder is $XDG_CACHE_HOME where that is an absolute path, else ~/.cache.
    Source: XDG Base Directory Specification 0.8.
    """
    if given := os.environ.get("HCR_CACHE"):
        return Path(given)
    user = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (user if user.is_absolute() else Path("~/.cache").expanduser()) / "hcr"


def find_pack(given: Path | None) -> Path:
    """Return the pack folder `given`, or the only one in data/packed.

    Raises: DataError where there is none, UsageError where there are several.
    """
    if given is not None:
        if not splits_of(given):
            raise no_pack(given)
        return given
    packs = _packs()
    if not packs:
        raise DataError(
            f"{PACKED}: no pack here; run `make dataset`, or `hcr-data pack SOURCE`, or name one with --data"
        )
    return _only(packs, "packs", "--data")


def no_pack(given: Path) -> DataError:
    """Return the error for a path that is not a pack; for one that exists, with the packs in data/packed."""
    if not given.exists():
        return DataError(f"{given}: no such pack; make it with `hcr-data pack SOURCE --out {shlex.quote(str(given))}`")
    packs = ", ".join(map(str, _packs())) or f"none in {PACKED}, make one with `hcr-data pack SOURCE`"
    return DataError(
        f"{given}: not a pack (expected a folder with train.lmdb, val.lmdb or test.lmdb); packs here: {packs}"
    )


def _packs() -> list[Path]:
    return [folder for folder in _folders(PACKED) if splits_of(folder)]


def splits_of(pack: Path) -> list[str]:
    """Name the splits that a pack folder has, in the order train, val, test."""
    return [split for split in ("train", "val", "test") if (pack / f"{split}.lmdb").is_file()]


def run_folder(name: str) -> Path:
    """Return the folder of a run, whether it exists or not.

    Raises: UsageError for a name that is a path: "../x" would lie outside artifacts.
    """
    if name in ("", ".", "..") or Path(name).name != name or "\\" in name:
        raise UsageError(f"run {name!r}: expected one plain name, which is a folder in {ARTIFACTS}")
    return ARTIFACTS / name


def find_run(name: str | None) -> Path:
    """Return the folder of the run `name`, or of the only run that has checkpoints.

    Where there are several, runs on a pack outside data/packed (the demo's) step aside.
    Raises: DataError where there is none, UsageError where there are several, and what `run_folder` raises.
    """
    runs = _runs()
    if name is not None:
        folder = run_folder(name)
        if folder not in runs:
            train = f"train one with `hcr-train --run {shlex.quote(name)}`"
            advice = f"released weights are named with --weights {name}" if name in RELEASED else train
            raise DataError(f"{folder}: no checkpoint here; {advice} (runs with one: {_listed(runs)})")
        return folder
    if not runs:
        raise DataError(f"{ARTIFACTS}: no run with a checkpoint; train one with hcr-train")
    if len(runs) > 1:
        packed = PACKED.resolve()
        runs = [run for run in runs if not (pack := pack_of(run)) or pack.resolve().parent == packed] or runs
    return _only(runs, "runs", "--run")


def pack_of(run: Path) -> Path | None:
    """Return the pack that a run was trained or validated on, from its run.json; None where it has none."""
    record = read_run_record(run)
    path = record["pack"]["path"] if record else None
    return Path(path) if path else None


def is_drawn(run: Path) -> bool:
    """Tell whether a run learns from handwriting drawn as it is needed, by its run.json."""
    record = read_run_record(run)
    return record is not None and record["config"].get("draw", 0) > 0


def find_checkpoint(run: str) -> Path:
    """Return the checkpoint by which a run is evaluated: its best one, else its newest.

    Raises: DataError where there is none.
    """
    folder = find_run(run)
    best = folder / "checkpoints" / "best.pt"
    return best if best.is_file() else checkpoints(folder)[0]


class Weights(NamedTuple):
    """A file of weights, and what named it: released weights, a run's folder, or neither where it was the file."""

    file: Path
    released: str = ""
    run: Path | None = None


def identify_weights(named: str | Path) -> Weights:
    """Return the weights that `named` means: released ones ("level1", "gb2312"), a file, or a run's best.

    Raises: DataError where there is none of these; UsageError where there are two.
    """
    text = str(named)
    runs = _runs()
    found = {}
    if text in RELEASED:
        found[f"released weights ({RELEASED[text]})"] = Weights(RELEASED[text], released=text)
    if Path(text).is_file():
        found[f"a file ({Path(text).absolute()})"] = Weights(Path(text))
    if (run := ARTIFACTS / text) in runs and run.name == text:
        checkpoint = find_checkpoint(text)
        found[f"a run ({checkpoint})"] = Weights(checkpoint, run=run)
    if len(found) > 1:
        raise UsageError(f"{text}: means {' and '.join(found)}; give the path of the one")
    if not found:
        raise DataError(
            f"{text or repr(text)}: no such weights; name a file, released weights ({', '.join(RELEASED)}), or a run "
            f"(those with a checkpoint: {_listed(runs)})"
        )
    return next(iter(found.values()))


def find_weights(named: str | Path) -> Path:
    """Return the file of weights that `named` means. Raises: as `identify_weights`."""
    return identify_weights(named).file


def checkpoints(run: Path) -> list[Path]:
    """List a run's step checkpoints, the newest (highest step) first; whether they are valid is not looked at."""
    return sorted((run / "checkpoints").glob("step-*.pt"), reverse=True)


def _runs() -> list[Path]:
    """List the runs that have a checkpoint."""
    return [folder for folder in _folders(ARTIFACTS) if checkpoints(folder)]


def _listed(runs: Iterable[Path]) -> str:
    return ", ".join(run.name for run in runs) or "none"


def _folders(parent: Path) -> list[Path]:
    return sorted(entry for entry in parent.iterdir() if entry.is_dir()) if parent.is_dir() else []


def _only(found: Iterable[Path], kind: str, flag: str) -> Path:
    paths = list(found)
    if len(paths) > 1:
        names = [str(path) if flag == "--data" else path.name for path in paths]
        raise UsageError(f"several {kind}: {', '.join(names)}; choose one with {flag}")
    return paths[0]
