"""Pictures a second into shuffled batches of 512, with 0, 1 and 2 worker processes.

Each way runs in a process of its own, which is stopped (SIGSTOP, workers and all) while the others have their turn, so
that the machine's other work hits all alike and nobody fetches ahead unseen. A turn leaves out the batches that were
fetched ahead, then counts for `--seconds`. Stores that packing.py has not left are written first.

    python benchmarks/loading.py CORPUS --plot docs/loading.svg
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import plot
from packing import count, ensure


@dataclass(frozen=True)
class Reader:
    """A way to load, in words: its name, the store it reads, the distribution it needs, and what a batch holds."""

    name: str
    store: str
    package: str | None
    gives: str
    ours: bool = False


_GREY = "uint8[512, 1, 64, 64]"
# readers.BATCHES has the functions: it imports torch, which this process does not need.
READERS = {
    "stream": Reader("**hcr, streaming**", "pack", None, _GREY, True),
    "ram": Reader("**hcr, `--cache ram`**", "pack", None, _GREY, True),
    "tutorial": Reader("the tutorial's dataset", "png-native", None, "float32[512, 3, 32, 32]"),
    "image-folder": Reader("torchvision ImageFolder", "png-64", None, _GREY),
    "lmdb-png": Reader("LMDB, a PNG a value", "lmdb-png", "lmdb", _GREY),
    "lmdb-raw": Reader("LMDB, a raw picture a value", "lmdb-raw", "lmdb", _GREY),
    "hdf5": Reader("HDF5", "hdf5", "h5py", _GREY),
    "webdataset": Reader("webdataset", "webdataset", "webdataset", "uint8[512, 64, 64]"),
    "litdata": Reader("litdata", "litdata", "litdata", _GREY),
    "datasets": Reader("Hugging Face datasets", "datasets", "datasets", _GREY),
    "limit": Reader("`index_select` in memory, the limit", "pack", None, _GREY),
}

Figures = dict[tuple[str, int], list[float]]


def child(way: str, store: Path, workers: int, pictures: int, warm_up: float) -> None:
    """Load for ever; for each line of stdin, which is a number of seconds, answer with pictures a second."""
    common.end_with_parent()
    from readers import BATCHES

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    batches = BATCHES[way](store, workers)
    began, done = time.perf_counter(), 0
    # Each worker has to see the whole store once.
    while done < (workers + 1) * pictures and time.perf_counter() - began < warm_up:
        done += next(batches)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        seconds = float(line)
        # Two batches a worker are fetched ahead by default.
        for _ in range(3 * workers + 1):
            next(batches)
        began, done, spent = time.perf_counter(), 0, 0.0
        while spent < seconds:
            done += next(batches)
            spent = time.perf_counter() - began
        print(json.dumps(done / spent), file=answers, flush=True)


class Runner:
    """The process of one way; stopped but while it is asked."""

    def __init__(self, way: str, store: Path, workers: int, pictures: int, warm_up: float) -> None:
        words = map(str, (way, store, workers, pictures, warm_up))
        command = [sys.executable, __file__, "--child", *words]
        self.errors = store.with_name(f"{way}.log")
        with self.errors.open("w") as errors:
            self.process: subprocess.Popen[str] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )
        try:
            self._answer()
        except RuntimeError:
            self.end()
            raise

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            said = self.errors.read_text(errors="replace").strip().splitlines()
            raise RuntimeError(said[-1] if said else f"exit code {self.process.wait()}")
        os.killpg(self.process.pid, signal.SIGSTOP)
        return line

    def turn(self, seconds: float) -> float:
        """Load for that long; give pictures a second."""
        assert self.process.stdin is not None
        os.killpg(self.process.pid, signal.SIGCONT)
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return float(json.loads(self._answer()))

    def end(self) -> None:
        """Kill the process and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def measure(ways: list[str], work: Path, workers: int, pictures: int, given: Any) -> tuple[Figures, dict[str, str]]:
    """Measure all ways with that many workers, in turn."""
    runners: dict[str, Runner] = {}
    figures: Figures = {}
    failed: dict[str, str] = {}
    try:
        for way in ways:
            common.say(f"{workers} workers: starting {way}")
            try:
                runners[way] = Runner(way, work / READERS[way].store, workers, pictures, given.warm_up)
            except RuntimeError as error:
                failed[way] = str(error)
        for repeat in range(given.repeats):
            common.say(f"{workers} workers: turn {repeat + 1} of {given.repeats}")
            for way in [way for way in runners if way not in failed]:
                try:
                    figures.setdefault((way, workers), []).append(runners[way].turn(given.seconds))
                except (RuntimeError, BrokenPipeError) as error:
                    failed[way] = str(error)
    finally:
        for runner in runners.values():
            runner.end()
    return figures, failed


def report(figures: Figures, failed: dict[str, str], pictures: int, given: Any, before: str) -> str:
    """Write the Markdown of the section."""
    counts = sorted({workers for _, workers in figures})
    median = {key: statistics.median(speeds) for key, speeds in figures.items()}
    header = ["way", "a batch is"]
    for workers in counts:
        header += [f"{workers} workers" if workers != 1 else "1 worker", "×"]
    rows = []
    for way, reader in READERS.items():
        cells = [reader.name, reader.gives]
        for workers in counts:
            speeds = figures.get((way, workers))
            tutorial = median.get(("tutorial", workers))
            cells.append(common.spread(speeds) if speeds else "")
            cells.append(common.ratio(median[way, workers], tutorial) if speeds and tutorial else "")
        if any(way == known for known, _ in figures):
            rows.append(cells)
    packages = dict.fromkeys(READERS[way].package for way in given.ways if READERS[way].package)
    lines = [
        f"`{common.command_line()}`: n = {pictures:,} pictures of {common.SIZE} px, shuffled, batches of "
        f"{common.BATCH}; pictures a second. Medians of {given.repeats} turns of {given.seconds:g} s "
        f"(lowest–highest), the ways in turn, each warmed, the ends of epochs included; × is against the tutorial's "
        f"with as many workers; waiting threads sleep. {before}, {common.load()} after. "
        f"{common.versions(['hcr', 'torch', 'torchvision', 'numpy', 'Pillow', *packages])}.",
        "",
        common.table(header, rows),
        "",
        *aims(median, counts),
        "",
        "Residence and the limit use no workers; `--cache device` is `--cache ram` where there is no other device. "
        "webdataset shuffles shards and a buffer of pictures, not the whole.",
    ]
    lines += common.not_installed(packages)
    lines += [f"{way} failed: {reason}" for way, reason in failed.items()]
    return "\n".join(lines)


def aims(median: dict[tuple[str, int], float], counts: list[int]) -> list[str]:
    """Write the ratios that matter, one line for each number of workers."""
    lines = []
    for workers in counts:
        peers = {w: v for (w, n), v in median.items() if n == workers and not READERS[w].ours and w != "limit"}
        stream, ram = median.get(("stream", workers)), median.get(("ram", workers))
        limit = median.get(("limit", workers))
        if not (peers and stream and ram and limit):
            continue
        best = max(peers, key=lambda way: peers[way])
        lines.append(
            f"- {workers} workers: streaming is {common.ratio(stream, peers[best])} × the best peer "
            f"({READERS[best].name}); resident is {ram / limit:.0%} of the limit."
        )
    return lines


def main() -> None:
    """Measure every way that is installed, for each number of workers."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warm-up", type=float, default=3.0, help="seconds at most; one pass if that is less")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=list(READERS), default=list(READERS), help="only these")
    parser.add_argument("--plot", type=Path, help="draw speed against workers into this SVG file")
    parser.add_argument("--work", type=Path, default=common.WORK, help="folder for the stores (%(default)s)")
    given = parser.parse_args()
    before = common.machine()
    work = common.work_folder(given.work, given.corpus)
    folder = common.flat(common.gnt_files(given.corpus), work / "gnt")
    pictures = count(folder)
    if pictures < (needed := 2 * common.BATCH * max(1, *given.workers)):
        # A worker that never fills a batch of its share would be waited for without end.
        sys.exit(f"error: {given.corpus}: {pictures} pictures, expected at least {needed}")
    ways = [way for way in READERS if way in given.ways and common.installed(READERS[way].package)]
    stores = list(dict.fromkeys(READERS[way].store for way in ways))
    unwritten = ensure(stores, folder, work)
    failed = {way: unwritten[READERS[way].store] for way in ways if READERS[way].store in unwritten}
    for store in stores:
        common.read_once(work / store)
    figures: Figures = {}
    for workers in given.workers:
        found, new = measure([way for way in ways if way not in failed], work, workers, pictures, given)
        figures |= found
        failed |= {f"{way} with {workers} workers": reason for way, reason in new.items()}
    print(report(figures, failed, pictures, given, before))
    if given.plot:
        lines = {
            READERS[way].name.replace("*", "").replace("`", ""): (
                [(n, statistics.median(figures[way, n])) for n in given.workers if (way, n) in figures],
                READERS[way].ours,
            )
            for way in ways
        }
        given.plot.write_text(plot.draw(lines, f"{pictures:,} pictures of 64 px, {before}"), "utf-8")


if __name__ == "__main__":
    main()
