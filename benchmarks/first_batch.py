"""Time to the first batch of a million pictures, and the memory that loading them takes.

The corpus is packed as often over as makes a million samples (the pack stays for the next run: 4.2 GB at 64 px). Then,
each time in a new process and after its imports: open the pack, and wait for the first shuffled batch of 512. The
memory is that of the process tree after a number of batches, beside the page cache, torch itself included.

    python benchmarks/first_batch.py CORPUS
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import common
from packing import count

MORE = 400  # batches after the first, before memory is read: workers and ring are then in full use
# (cache, workers, whether the pack is in the page cache)
WAYS = [("none", 0, True), ("none", 2, True), ("none", 0, False), ("none", 2, False), ("ram", 0, True)]


def child(pack: Path, cache: str, workers: int) -> None:
    """Print the seconds to the first batch and the bytes of memory after more of them."""
    common.end_with_parent()
    imports = time.perf_counter()
    from hcr.feed.loader import Loader
    from hcr.feed.sampler import TrainingBatches
    from hcr.pack.store import open_reader

    at_rest, began = common.tree_memory(os.getpid()), time.perf_counter()
    loader = Loader(pack, TrainingBatches(len(open_reader(pack)), common.BATCH, seed=0), workers=workers, cache=cache)
    batches = iter(loader)
    next(batches)
    first = time.perf_counter() - began
    for _, _batch in zip(range(MORE), batches, strict=False):
        pass
    memory = common.tree_memory(os.getpid())
    print(json.dumps([began - imports, first, at_rest, memory]))


def million(corpus: Path, work: Path, samples: int) -> tuple[Path, int]:
    """Pack the corpus as often over as makes `samples`; give the train split and its samples."""
    files = common.gnt_files(corpus)
    once = count(common.flat(files, work / "gnt"))
    times = -(-samples // once)
    pack = work / f"pack-{times}-times"
    if not pack.is_dir():
        common.say(f"packing {times} times {once:,} samples: once, some minutes")
        source = common.flat(files, work / f"gnt-{times}-times", times)
        code = "import sys; from hcr.cli.data import main; main(sys.argv[1:])"
        arguments = ["pack", str(source), "--size", str(common.SIZE), "--charset", "all", "--val", "0"]
        subprocess.run([sys.executable, "-c", code, *arguments, "--out", str(pack)], check=True, stdout=sys.stderr)
    return pack / "train.lmdb", times * once


def forget(pack: Path) -> None:
    """Ask the system to drop the file from the page cache."""
    os.sync()
    with pack.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    """Measure every way in turn."""
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--work", type=Path, default=common.WORK, help="folder for the pack (%(default)s)")
    given = parser.parse_args()
    before = common.machine()
    pack, samples = million(given.corpus, common.work_folder(given.work, given.corpus), given.samples)
    figures: dict[tuple[str, int, bool], list[list[float]]] = {way: [] for way in WAYS}
    for repeat in range(given.repeats):
        for way, runs in figures.items():
            cache, workers, warm = way
            common.say(f"turn {repeat + 1} of {given.repeats}: {way}")
            if warm:
                common.read_once(pack)
            else:
                forget(pack)
            command = [sys.executable, __file__, "--child", str(pack), cache, str(workers)]
            runs.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    rows = []
    for (cache, workers, warm), runs in figures.items():
        imports, first, at_rest, memory = (list(column) for column in zip(*runs, strict=True))
        rows.append(
            (
                f"`--cache {cache} --workers {workers}`",
                "in memory" if warm else "on disk",
                common.spread(first, 2),
                f"{statistics.median(memory) / 2**20:,.0f}",
                f"{statistics.median(at_rest) / 2**20:,.0f}",
                f"{statistics.median(imports):.1f}",
            )
        )
    header = ("way", "pack", "seconds to the first batch", "memory, MiB", "of which imports", "seconds of imports")
    print(
        f"`{common.command_line()}`: n = {samples:,} samples of {common.SIZE} px ({pack.stat().st_size:,} bytes), "
        f"batches of {common.BATCH}, medians of {given.repeats} processes (lowest–highest) in turn; memory after "
        f"{MORE} batches, of the process tree beside the page cache. {before}, {common.load()} after. "
        f"{common.versions(['hcr', 'torch', 'numpy', 'lmdb'])}."
    )
    print(f"\n{common.table(header, rows)}")


if __name__ == "__main__":
    main()
