"""Each benchmark runs end to end on a tiny corpus and prints a well-formed table; what is not installed is said."""

from __future__ import annotations

import importlib
import itertools
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hcr.charset import Charset
from hcr.corpus.gnt import encode_record

pytestmark = pytest.mark.campaign

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
SAMPLES = 1200  # two batches of 512, and some
PEERS = {"webdataset", "litdata", "datasets", "h5py"}


@pytest.fixture(scope="session")
def gnt_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two splits of four writers; the pictures are blots, since nothing here reads them."""
    folder = tmp_path_factory.mktemp("benchmark") / "blots"
    random = np.random.default_rng(0)
    characters = Charset.level1().characters[:150]
    for writer in range(SAMPLES // len(characters)):
        path = folder / ("test" if writer == 0 else "train") / f"{writer:04d}.gnt"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = np.full((20, 30), 255, np.uint8)
        picture[4:16, 4:26] = random.integers(0, 200, (12, 22))
        path.write_bytes(b"".join(encode_record(character, picture) for character in characters))
    return folder


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the benchmarks write; what one leaves the next one uses."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="session")
def few_peers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the libraries of the extra are not installed, for speed and for what is said then."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(
        "import importlib.metadata as metadata\n"
        "known = metadata.version\n"
        "def version(name):\n"
        f"    if name in {sorted(PEERS)!r}:\n"
        "        raise metadata.PackageNotFoundError(name)\n"
        "    return known(name)\n"
        "metadata.version = version\n"
    )
    return os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def run(script: str, *arguments: object, environment: dict[str, str] | None = None, code: int = 0) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def tables(report: str) -> list[list[dict[str, str]]]:
    """Read every Markdown table of a report: a list of rows by column."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n?)+", report, re.M):
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().splitlines()]
        assert set(lines[1]) == {"---"} and len({len(line) for line in lines}) == 1, block
        found.append([dict(zip(lines[0], line, strict=True)) for line in lines[2:]])
    return found


def figure(cell: str) -> float:
    """Read `median (lowest–highest)`, and hold that it is one."""
    middle, low, high = (float(number.replace(",", "")) for number in re.findall(r"[\d,.]+", cell))
    assert 0 < low <= middle <= high, cell
    return middle


def test_packing(gnt_corpus: Path, work: Path, few_peers: dict[str, str]) -> None:
    report = run("packing.py", gnt_corpus, "--repeats", 2, "--work", work, environment=few_peers)
    ((*rows,),) = tables(report)
    ways = [row["way"] for row in rows]
    assert ways[:2] == ["**hcr-data pack**", "**hcr-data pack**, one worker"]
    assert "PNG files, native size (the tutorial's way)" in ways and "LMDB, a raw picture a value" in ways
    for row in rows:
        assert figure(row["samples a second"]) > 0
        assert float(row["bytes a sample on disk"].replace(",", "")) > 100
        assert float(row["peak memory, MiB"].replace(",", "")) > 1
    assert f"n = {SAMPLES:,} samples" in report and "Medians of 2 runs" in report and "load average" in report
    assert "python benchmarks/packing.py CORPUS --repeats 2`" in report and str(gnt_corpus) not in report
    assert "Not installed, so not measured: datasets, h5py, litdata, webdataset" in report
    assert "failed" not in report


def test_loading_and_its_plot(gnt_corpus: Path, work: Path, few_peers: dict[str, str], tmp_path: Path) -> None:
    plot = tmp_path / "loading.svg"
    ways = ["stream", "tutorial", "hdf5"]
    quick = ("--seconds", 0.05, "--repeats", 2, "--workers", 0, 1, "--warm-up", 0.1, "--work", work)
    report = run("loading.py", gnt_corpus, *quick, "--ways", *ways, "--plot", plot, environment=few_peers)
    ((*rows,),) = tables(report)
    assert [row["way"] for row in rows] == ["**hcr, streaming**", "the tutorial's dataset"]
    speeds = [figure(row["1 worker"]) for row in rows]
    assert float(rows[0]["×"]) == pytest.approx(speeds[0] / speeds[1], rel=0.06)
    for row in rows:
        assert figure(row["0 workers"]) > 0 and figure(row["1 worker"]) > 0
        assert row["a batch is"].startswith(("uint8[512", "float32[512"))
    assert "Not installed, so not measured: h5py (`pip install 'hcr[bench]'`)" in report
    assert "failed" not in report
    drawn = ElementTree.parse(plot).getroot()
    lines = [element for element in drawn.iter() if element.tag.endswith("polyline")]
    words = " ".join(element.text or "" for element in drawn.iter())
    assert len(lines) == 2 and all(len(line.attrib["points"].split()) == 2 for line in lines)
    assert "hcr, streaming" in words and "the tutorial's dataset" in words and "prefers-color-scheme: dark" in words


def test_loading_compares_with_the_best_peer_and_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    loading = module("loading", monkeypatch)
    speeds = {"stream": 900.0, "ram": 1900.0, "tutorial": 5.0, "lmdb-raw": 100.0, "litdata": 90.0, "limit": 2000.0}
    (line,) = loading.aims({(way, 2): speed for way, speed in speeds.items()}, [2])
    assert line == (
        "- 2 workers: streaming is 9.0 × the best peer (LMDB, a raw picture a value); resident is 95% of the limit."
    )


def test_every_way_of_loading_has_a_store_and_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    loading, readers, stores = (module(name, monkeypatch) for name in ("loading", "readers", "stores"))
    assert loading.READERS.keys() == readers.BATCHES.keys()
    assert {reader.store for reader in loading.READERS.values()} <= stores.STORES.keys()


def test_loading_refuses_what_would_never_fill_a_batch(gnt_corpus: Path, work: Path) -> None:
    said = run("loading.py", gnt_corpus, "--workers", 2, "--work", work, code=1)
    assert f"{SAMPLES} pictures, expected at least 2048" in said


def test_make_bench_measures_a_corpus_of_ones_own_without_touching_the_docs() -> None:
    for corpus, plot in (("../mine", "data/benchmark/loading.svg"), ("data/benchmark/drawn", "docs/loading.svg")):
        command = ["make", "--dry-run", "--old-file", "install", "bench", f"CORPUS={corpus}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert f'python benchmarks/loading.py "{corpus}" --plot "{plot}"' in done.stdout


def test_an_empty_corpus_is_said(tmp_path: Path) -> None:
    assert "no .gnt files" in run("packing.py", tmp_path, code=1)


def test_first_batch(gnt_corpus: Path, work: Path) -> None:
    report = run("first_batch.py", gnt_corpus, "--samples", 2000, "--repeats", 1, "--work", work)
    ((*rows,),) = tables(report)
    assert [row["way"] for row in rows].count("`--cache none --workers 2`") == 2
    for row in rows:
        assert 0 < figure(row["seconds to the first batch"]) < 60
        assert float(row["of which imports"]) > 10
    assert "n = 2,400 samples" in report


def test_gpu_without_cuda(tmp_path: Path) -> None:
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    assert run("gpu.py", "--work", tmp_path, environment=hidden, code=2).strip() == "no CUDA device"


def test_gpu_script_on_a_cpu(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    report = run("gpu.py", "--device", "cpu", "--tiny", "--work", tmp_path, environment=environment)
    feeding, others, augmentation, scaling = tables(report)
    assert len(feeding) == 5 and feeding[0]["of the ceiling"] == "100.0%"
    assert all(figure(row["pictures a second"]) > 0 for row in [*feeding, *others, *scaling])
    assert [row["loop"].split(",")[0] for row in others] == [
        "torchvision's reference loop",
        "a timm-style loop",
        "the tutorial's loop",
    ]
    assert augmentation[0]["of a step"] == "100.0%" and len(scaling) == 2
    assert "One epoch of 72 samples" in report


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


def test_memory_counts_what_a_process_tree_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    common = module("common", monkeypatch)
    # The parent waits for a child that holds 64 MiB.
    inner = "data = bytearray(b'x' * (64 << 20)); print('there', flush=True); input()"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    command = [sys.executable, "-c", outer]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "there\n"
        held = common.tree_memory(process.pid)
        process.stdin.close()
    assert 64 << 20 < held < 200 << 20


def test_labels_of_the_plot_do_not_lie_on_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    plot = module("plot", monkeypatch)
    lines = {f"way {n}": ([(0, 1000.0 + n), (2, 2000.0)], n == 0) for n in range(14)}
    drawn = ElementTree.fromstring(plot.draw(lines, "a & b"))
    places = sorted(float(e.attrib["y"]) for e in drawn.iter() if e.tag.endswith("text") and "way" in (e.text or ""))
    assert len(places) == 14 and min(b - a for a, b in itertools.pairwise(places)) >= 1.2 * plot.FONT
    assert places[0] > 0 and places[-1] < plot.HEIGHT


@pytest.mark.parametrize("peer", ["hdf5", "webdataset", "litdata", "datasets"])
def test_a_peer_stores_and_loads(peer: str, gnt_corpus: Path, tmp_path: Path) -> None:
    """The libraries of the extra, where they are installed: their stores hold every picture, and their batches fill."""
    pytest.importorskip("h5py" if peer == "hdf5" else peer)
    code = (
        "import sys, itertools; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from stores import STORES; from readers import BATCHES; import common\n"
        "if __name__ == '__main__':\n"
        "    peer, corpus, out = sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])\n"
        "    STORES[peer].write(sorted(common.flat(common.gnt_files(corpus), out / 'gnt').iterdir()), out / 'store')\n"
        "    print(*itertools.islice(BATCHES[peer](out / 'store', 0), 5), file=sys.stderr)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    command = [sys.executable, str(script), str(BENCHMARKS), peer, str(gnt_corpus), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "512 512 512 512 512"
