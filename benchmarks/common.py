"""What every benchmark needs: the corpus, the machine in words, the memory of a process tree, Markdown tables.

Everything a benchmark writes lies below data/benchmark (`--work` names another folder) and may be deleted.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import os
import platform
import shlex
import shutil
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# As the commands set it: threads that wait by spinning make a shared machine several times slower, whoever uses them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Nothing here needs a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

WORK = Path("data/benchmark")
SIZE = 64
BATCH = 512


def gnt_files(corpus: Path) -> list[Path]:
    """List the GNT files of a corpus, or end the program where there are none."""
    files = sorted(corpus.rglob("*.gnt"))
    if not files:
        sys.exit(f"error: {corpus}: no .gnt files; draw some: hcr-data draw --out {corpus}")
    return files


def work_folder(work: Path, corpus: Path) -> Path:
    """Return the folder for what is made of this corpus; other files of the same name have another folder."""
    named = "\n".join(f"{path.relative_to(corpus)} {path.stat().st_size}" for path in gnt_files(corpus))
    folder = work / f"{corpus.resolve().name}-{hashlib.sha256(named.encode()).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def flat(files: Sequence[Path], folder: Path, times: int = 1) -> Path:
    """Fill `folder` with links to the files, `times` times over: one split, whatever their own folders say."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(times * len(files)):
        link = folder / f"s{number:05d}.gnt"
        if not link.exists():
            link.symlink_to(files[number % len(files)].resolve())
    return folder


def read_once(path: Path) -> int:
    """Read every file below `path` so that it lies in the page cache; give the bytes."""
    total = 0
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file():
            with file.open("rb", buffering=0) as opened:
                while chunk := len(opened.read(1 << 20)):
                    total += chunk
    return total


def bytes_on_disk(path: Path) -> int:
    """Count what `du` counts: whole disk blocks, folders included."""
    return sum(entry.lstat().st_blocks for entry in (path, *path.rglob("*"))) * 512


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def process_tree(root: int) -> list[int]:
    """List a process and all below it."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry))
    found = [root]
    for process in found:
        found += parents.get(process, [])
    return found


def tree_memory(root: int) -> int:
    """Return the bytes that a process tree holds beside the page cache.

    Anonymous and shared memory (smaps_rollup's Pss_Anon and Pss_Shmem), each shared page counted once; mapped files are
    page cache, which the system takes back when it needs it.
    """
    total = 0
    for process in process_tree(root):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return total * 1024


@contextmanager
def peak_memory(root: int, every: float = 0.1) -> Iterator[list[int]]:
    """Watch a process tree; the list's only element is the most that `tree_memory` gave so far."""
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.is_set():
            peak[0] = max(peak[0], tree_memory(root))
            ended.wait(every)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def end_with_parent() -> None:
    """Let the kernel kill this process when the one that started it has ended, however that ended (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Name this machine's processor."""
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> str:
    """Describe this machine in words, with how busy it is."""
    memory = ""
    if Path("/proc/meminfo").exists():
        kib = int(Path("/proc/meminfo").read_text().split()[1])
        memory = f", {kib / 2**20:.0f} GB of memory"
    system = f"{platform.system()} {platform.release()}"
    return f"{cores()} cores of {processor()}{memory}, {system}; load average {load()} before"


def load() -> str:
    """Return the load average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def versions(packages: Iterable[str]) -> str:
    """List the installed versions of distributions; those that are not installed are left out."""
    found = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def installed(package: str | None) -> bool:
    """Tell whether a distribution is there; None needs nothing."""
    try:
        return package is None or bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


def not_installed(packages: Iterable[str | None]) -> list[str]:
    """Return a sentence that names what was not measured for want of a package; an empty list where nothing lacks."""
    lacking = sorted({package for package in packages if not installed(package) and package})
    return [f"Not installed, so not measured: {', '.join(lacking)} (`pip install 'hcr[bench]'`)."] if lacking else []


def command_line() -> str:
    """Return the command that repeats this run, with CORPUS for a corpus of somebody's own."""
    script, *words = sys.argv
    if "--work" in words:
        place = words.index("--work")
        del words[place : place + 2]
    shown = ["CORPUS" if Path(word).is_dir() and not word.startswith("data/") else word for word in words]
    return shlex.join(["python", f"benchmarks/{Path(script).name}", *shown])


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Write the median with lowest and highest."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):,.{digits}f} ({low:,.{digits}f}–{high:,.{digits}f})"


def ratio(value: float, reference: float) -> str:
    """Write a ratio with about two digits."""
    share = value / reference
    return f"{share:,.0f}" if share >= 10 else f"{share:.1f}" if share >= 1 else f"{share:.2f}"


def say(message: str) -> None:
    """Tell on stderr what is being done: stdout is for the report."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)
