"""Where things lie, and which one is meant when none is named.

Everything but the released weights and the cache is relative to the current folder: `data/packed/<corpus>-<size>`,
`artifacts/<run>`. A default is the only candidate or it is an error that lists the candidates; guessing between two
packs would train on the wrong one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from hcr.errors import DataError, UsageError
from hcr.files import read_json

RAW = Path("data/raw")
PACKED = Path("data/packed")
ARTIFACTS = Path("artifacts")
# The weights that came with this program, by the charset that they name; the first are the default.
_RELEASED = Path(__file__).parent / "models" / "released"
RELEASED = {"level1": _RELEASED / "compact.safetensors", "gb2312": _RELEASED / "compact-gb2312.safetensors"}


# What `find_weights` takes, in the words of every help text.
NAMED_WEIGHTS = "a run (its best checkpoint), a file (.pt, .safetensors), or released weights (level1, gb2312)"


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
            raise DataError(
                f"{given}: no pack here (expected train.lmdb, val.lmdb or test.lmdb); make one with "
                f"`hcr-data pack SOURCE --out {given}`"
            )
        return given
    packs = [folder for folder in _folders(PACKED) if splits_of(folder)]
    if not packs:
        raise DataError(
            f"{PACKED}: no pack here; run `make dataset`, or `hcr-data pack SOURCE`, or name one with --data"
        )
    return _only(packs, "packs", "--data")


def splits_of(pack: Path) -> list[str]:
    """Name the splits that a pack folder has, in the order train, val, test."""
    return [split for split in ("train", "val", "test") if (pack / f"{split}.lmdb").is_file()]


def run_folder(name: str) -> Path:
    """Return the folder of a run, whether it exists or not.

    Raises: UsageError for a name that is a path: "../x" would lie outside artifacts.
    """
    if name in ("", ".", "..") or Path(name).name != name or "\\" in name:
        raise UsageError(f"--run {name}: expected one plain name, which becomes a folder in {ARTIFACTS}")
    return ARTIFACTS / name


def find_run(name: str | None) -> Path:
    """Return the folder of the run `name`, or of the only run that has checkpoints.

    Where there are several, runs on a pack outside data/packed (the demo's) step aside.
    Raises: DataError where there is none, UsageError where there are several, and what `run_folder` raises.
    """
    runs = [folder for folder in _folders(ARTIFACTS) if checkpoints(folder)]
    if name is not None:
        folder = run_folder(name)
        if folder not in runs:
            listed = ", ".join(run.name for run in runs) or "none"
            raise DataError(
                f"{folder}: no checkpoint here; train one with `hcr-train --run {name}` (runs with one: {listed})"
            )
        return folder
    if not runs:
        raise DataError(f"{ARTIFACTS}: no run with a checkpoint; train one with hcr-train")
    if len(runs) > 1:
        packed = PACKED.resolve()
        runs = [run for run in runs if not (pack := pack_of(run)) or pack.resolve().parent == packed] or runs
    return _only(runs, "runs", "--run")


def pack_of(run: Path) -> Path | None:
    """Return the pack that a run was trained or validated on, from its run.json; None where it has none."""
    record = run / "run.json"
    path = read_json(record)["pack"]["path"] if record.is_file() else None
    return Path(path) if path else None


def is_drawn(run: Path) -> bool:
    """Tell whether a run learns from handwriting drawn as it is needed, by its run.json."""
    record = run / "run.json"
    return record.is_file() and read_json(record)["config"].get("draw", 0) > 0


def find_checkpoint(run: str) -> Path:
    """Return the checkpoint by which a run is evaluated: its best one, else its newest.

    Raises: DataError where there is none.
    """
    folder = find_run(run)
    best = folder / "checkpoints" / "best.pt"
    return best if best.is_file() else checkpoints(folder)[0]


def find_weights(named: str | Path) -> Path:
    """Return the file of weights that `named` means: released ones ("level1", "gb2312"), a file, or a run's best.

    Raises: DataError where there is no such file or run, or the run has no checkpoint.
    """
    text = str(named)
    if text in RELEASED:
        return RELEASED[text]
    if Path(text).is_file():
        return Path(text)
    if Path(text).name != text or Path(text).suffix in (".pt", ".pth", ".safetensors"):
        raise DataError(f"{text}: no such file of weights; name a file, a run, or {' or '.join(RELEASED)}")
    return find_checkpoint(text)


def checkpoints(run: Path) -> list[Path]:
    """List a run's step checkpoints, the newest (highest step) first; whether they are valid is not looked at."""
    return sorted((run / "checkpoints").glob("step-*.pt"), reverse=True)


def _folders(parent: Path) -> list[Path]:
    return sorted(entry for entry in parent.iterdir() if entry.is_dir()) if parent.is_dir() else []


def _only(found: Iterable[Path], kind: str, flag: str) -> Path:
    paths = list(found)
    if len(paths) > 1:
        names = [str(path) if flag == "--data" else path.name for path in paths]
        raise UsageError(f"several {kind}: {', '.join(names)}; choose one with {flag}")
    return paths[0]
