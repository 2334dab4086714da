"""From GNT files to a finished store of 64 px pictures: samples a second, bytes on disk, memory.

Each way runs in a process of its own, timed from after its imports to its end, the GNT files in the page cache; the
ways take turns, so that the machine's other work hits all alike. The stores of the last turn stay for loading.py.

    python benchmarks/packing.py CORPUS        a folder of .gnt files
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import common
from stores import STORES

Figures = dict[str, list[tuple[float, int]]]


def one(way: str, folder: Path, out: Path) -> None:
    """Write one store and print the seconds it took; the way's imports come before."""
    common.end_with_parent()
    store = STORES[way]
    for module in (store.package, "hcr.cli.data" if way.startswith("pack") else None):
        if module:
            importlib.import_module(module)
    if way.startswith("pack"):
        importlib.import_module("hcr.pack.packer")
    files = sorted(folder.iterdir())
    # Libraries print what they like; stdout is for the figure alone.
    figure = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    began = time.perf_counter()
    store.write(files, out)
    json.dump(time.perf_counter() - began, figure)


def write(way: str, folder: Path, stores: Path) -> tuple[float, int]:
    """Write a store in a process of its own; give its seconds and its peak of memory."""
    finished, temporary = stores / way, stores / f"{way}.tmp"
    for path in stores.glob(f"{way}.*"):
        common.remove(path)
    command = [sys.executable, __file__, "--one", way, str(folder), str(temporary)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with common.peak_memory(process.pid) as peak:
        output, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(errors.strip().splitlines()[-1] if errors.strip() else f"exit code {process.returncode}")
    common.remove(finished)
    temporary.rename(finished)
    for path in stores.glob(f"{way}.*"):
        common.remove(path)
    # What this way left to be written must not slow the next.
    os.sync()
    return json.loads(output), peak[0]


def ensure(ways: list[str], folder: Path, stores: Path) -> dict[str, str]:
    """Write the stores that are not there yet; give the reasons of those that could not be."""
    failed = {}
    for way in ways:
        if not (stores / way).exists():
            common.say(f"writing {way}")
            try:
                write(way, folder, stores)
            except RuntimeError as error:
                failed[way] = str(error)
    return failed


def report(
    samples: int, source: int, figures: Figures, failed: dict[str, str], stores: Path, ways: list[str], before: str
) -> str:
    """Write the Markdown of the section."""
    speeds = {way: [samples / second for second, _ in runs] for way, runs in figures.items()}
    tutorial = speeds.get("png-native")
    rows = []
    for way, runs in figures.items():
        times = common.ratio(statistics.median(speeds[way]), statistics.median(tutorial)) if tutorial else ""
        rows.append(
            (
                STORES[way].name,
                STORES[way].processes,
                common.spread(speeds[way]),
                times,
                f"{common.bytes_on_disk(stores / way) / samples:,.0f}",
                f"{max(memory for _, memory in runs) / 2**20:,.0f}",
            )
        )
    header = ("way", "processes", "samples a second", "× the tutorial's", "bytes a sample on disk", "peak memory, MiB")
    repeats = max(map(len, figures.values()), default=0)
    packages = dict.fromkeys(STORES[way].package for way in ways if STORES[way].package)
    lines = [
        f"`{common.command_line()}`: n = {samples:,} samples ({source / 2**20:,.0f} MiB of GNT) to {common.SIZE} px. "
        f"Medians of {repeats} runs (lowest–highest), the ways in turn. {before}, {common.load()} after. "
        f"{common.versions(['hcr', 'numpy', 'Pillow', *packages])}.",
        "",
        common.table(header, rows),
        "",
        "Memory is that of the process tree beside the page cache, as loaded libraries count too. "
        "The tutorial's files keep their native size, and resizing is left to its loader.",
    ]
    lines += common.not_installed(packages)
    lines += [f"{STORES[way].name} failed: {reason}" for way, reason in failed.items()]
    return "\n".join(lines)


def main() -> None:
    """Measure every way that is installed, in turn."""
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=list(STORES), default=list(STORES), help="only these")
    parser.add_argument("--work", type=Path, default=common.WORK, help="folder for the stores (%(default)s)")
    given = parser.parse_args()
    before = common.machine()
    work = common.work_folder(given.work, given.corpus)
    files = common.gnt_files(given.corpus)
    folder = common.flat(files, work / "gnt")
    samples, source = count(folder), common.read_once(folder)
    figures: Figures = {
        way: [] for way, store in STORES.items() if way in given.ways and common.installed(store.package)
    }
    failed: dict[str, str] = {}
    for repeat in range(given.repeats):
        for way in list(figures):
            common.say(f"packing {repeat + 1} of {given.repeats}: {way}")
            try:
                figures[way].append(write(way, folder, work))
            except RuntimeError as error:
                failed[way] = str(error)
                del figures[way]
    print(report(samples, source, figures, failed, work, given.ways, before))


def count(folder: Path) -> int:
    """Count the samples of a folder of GNT files."""
    from stores import count_records

    return sum(map(count_records, folder.iterdir()))


if __name__ == "__main__":
    main()
