"""hcr-eval as people run it: what it says and writes, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import lmdb
import numpy as np
import pytest

from hcr.charset import Charset
from hcr.evaluation.robustness import CONDITIONS
from hcr.preprocess.fit import PREPROCESSING
from tests.runs import GIVEN, Watcher
from tests.test_cli import hcr, ok, refused
from tests.test_evaluation import checkpoint, pack_charset


@pytest.fixture(scope="module")
def trained(small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, "one", of one epoch on the small pack."""
    from hcr.training import Execution, TrainConfig, train

    folder = tmp_path_factory.mktemp("here")
    train(
        TrainConfig(**GIVEN | {"epochs": 1}),
        small_pack,
        folder / "artifacts/one",
        Execution("cpu"),
        Watcher(),
        resume=False,
    )
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with that run."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_figures_files_and_conditions(here: Path) -> None:
    result = hcr("eval", "--robustness", "--target-error", 0.5, "--workers", 0)
    said = ok(result)
    assert "robustness: 17 more passes, at least 00:" in result.stderr
    folder = here / "artifacts/one/eval/test"
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    assert f"n 24, top-1 {summary['top1']:.2%} ({summary['top1_interval'][0]:.2%} to" in said
    assert (
        f"calibration error {summary['ece']:.2%}" in said
        and "ms a picture" in said
        and summary["rejection"]["wanted"] == 0.5
    )
    page = (folder / "report.html").read_text("utf-8")
    assert 'id="robustness"' in page and all(f"<td>{name}</td>" in page for name in CONDITIONS)
    assert "inverted polarity" in said and "worst condition: " in said and "NOT A TEST" not in said
    assert {path.name for path in folder.iterdir()} == {
        "report.html", "summary.json", "per_class.csv", "confusions.csv", "writers.csv", "strokes.csv", "groups.csv",
        "predictions.npz", "robustness.csv", "robustness.svg",
    }  # fmt: skip
    # What the files say is always of one evaluation: conditions of an earlier one do not stay beside new figures.
    ok(hcr("eval"))
    assert not list(folder.glob("robustness.*")) and "inverted" not in (folder / "report.html").read_text("utf-8")


def test_older_spellings_work_and_help_shows_the_new_ones(here: Path, small_pack: Path) -> None:
    ok(hcr("eval", "--pack", small_pack, "--error", 0.25, "--workers", 0))
    summary = json.loads((here / "artifacts/one/eval/test/summary.json").read_text("utf-8"))
    assert summary["rejection"]["wanted"] == 0.25 and summary["pack"]["path"] == str(small_pack)
    shown = ok(hcr("eval", "--help"))
    assert "--data" in shown and "--target-error" in shown
    assert "--pack" not in shown and "--error" not in shown.replace("--target-error", "")


def test_weights_of_a_run_and_of_a_file(here: Path, small_pack: Path) -> None:
    ok(hcr("eval"))
    first = np.load(here / "artifacts/one/eval/test/predictions.npz")["top"]
    shutil.rmtree(here / "artifacts/one/eval")
    ok(hcr("eval", "--weights", "one"))
    assert np.array_equal(np.load(here / "artifacts/one/eval/test/predictions.npz")["top"], first)
    shutil.copy(here / "artifacts/one/checkpoints/best.pt", here / "kept.pt")
    for more, folder in ((), "kept"), (("--run", "other"), "other"):
        said = ok(hcr("eval", "--weights", "kept.pt", "--data", small_pack, *more))
        assert said.startswith(f"artifacts/{folder} on ")
        assert np.array_equal(np.load(here / f"artifacts/{folder}/eval/test/predictions.npz")["top"], first)
    line = refused(hcr("eval", "--weights", "kept.pt", "--data", small_pack, "--run", "one"), 2)
    assert "artifacts/one: is a run of hcr-train; give these results a name of their own with --run" in line
    assert "no such weights" in refused(hcr("eval", "--weights", "gone.pt", "--data", small_pack), 3)
    both = ("--weights", "one", "--predictions", "artifacts/kept/eval/test/predictions.npz")
    assert "no model is run; leave out --weights" in refused(hcr("eval", *both), 2)


def test_released_weights_by_name(tmp_path: Path, corpus_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ok(hcr("data", "pack", corpus_folder, "--size", 64, "--out", "some-64"))
    said = ok(hcr("eval", "--weights", "level1", "--data", "some-64", "--only-shared"))
    summary = json.loads((tmp_path / "artifacts/level1/eval/test/summary.json").read_text("utf-8"))
    assert said.startswith("artifacts/level1 on some-64 test: n 24, ")
    # They learnt from drawn handwriting, so of 24 drawn pictures of 12 characters they read nearly all.
    assert summary["classes"] == 12 and summary["top1"] >= 22 / 24
    assert summary["checkpoint"].endswith("compact.safetensors") and summary["seen"] == ""


def test_data_that_was_seen(here: Path) -> None:
    line = refused(hcr("eval", "--split", "val"), 3)
    assert "best.pt: validated on this split" in line and "--allow-seen, which marks every file" in line
    assert not (here / "artifacts/one/eval").exists()
    assert ok(hcr("eval", "--split", "val", "--allow-seen")).startswith("NOT A TEST: validated on this split\n")


def test_two_runs_side_by_side(here: Path) -> None:
    shutil.copytree(here / "artifacts/one", here / "artifacts/two")
    line = refused(hcr("eval", "--run", "two", "--compare", "one"), 2)
    assert "make it with hcr-eval --run one --split test" in line
    ok(hcr("eval", "--run", "one"))
    said = ok(hcr("eval", "--run", "two", "--compare", "one"))
    assert "against one (" in said and "0 gained, 0 lost, McNemar p = 1 (exact binomial)" in said
    summary = json.loads((here / "artifacts/two/eval/test/summary.json").read_text("utf-8"))
    assert summary["comparison"]["difference"] == 0
    assert summary["comparison"]["other"] == "artifacts/one/eval/test/predictions.npz"
    assert (here / "artifacts/two/eval/test/comparison.csv").is_file()
    assert "95% interval -" in (here / "artifacts/two/eval/test/report.html").read_text("utf-8")


def test_predictions_of_another_system(here: Path, small_pack: Path) -> None:
    ok(hcr("eval"))
    shutil.copy("artifacts/one/eval/test/predictions.npz", "theirs.npz")
    said = ok(hcr("eval", "--predictions", "theirs.npz", "--pack", small_pack, "--compare", "one"))
    assert "artifacts/theirs on " in said and "0 gained, 0 lost" in said and "ms a picture" not in said
    assert (here / "artifacts/theirs/eval/test/report.html").is_file()
    arguments = ("--predictions", "theirs.npz", "--pack", small_pack)
    assert "is a run of hcr-train" in refused(hcr("eval", *arguments, "--run", "one"), 2)
    assert "no model is run; leave out --weights, --robustness" in refused(hcr("eval", *arguments, "--robustness"), 2)


def test_only_shared_says_how_many(here: Path, small_pack: Path) -> None:
    run = here / "artifacts/narrow/checkpoints"
    run.mkdir(parents=True)
    shutil.move(checkpoint(here, Charset(pack_charset(small_pack).characters[:9] + "龟")), run / "step-00000001.pt")
    arguments = ("--run", "narrow", "--data", small_pack)
    assert "another charset" in refused(hcr("eval", *arguments), 3)
    said = ok(hcr("eval", *arguments, "--only-shared"))
    assert "only the 9 shared characters: 6 samples of others are left out" in said


def blank_pack(folder: Path, labels: np.ndarray, writers: int) -> None:
    """A test split as docs/formats.md describes it, of white pictures of 4 px and all of level 1."""
    n, side = len(labels), 4
    meta = {"format": "hcr-pack", "version": 1, "size": side, "count": n, "block": 256, "digest": "d", "sources": []}
    meta |= {"preprocessing": PREPROCESSING, "characters": Charset.level1().characters}
    meta |= {"writers": [str(writer) for writer in range(writers)]}
    env = lmdb.open(str(folder / "test.lmdb"), subdir=False, map_size=1 << 28)
    with env.begin(write=True) as pack:
        pack.put(b"labels", labels.astype("<u2").tobytes())
        pack.put(b"writers", (np.arange(n) * writers // n).astype("<u2").tobytes())
        for block in range(-(-n // 256)):
            count = min(256, n - 256 * block)
            pixels = b"\xff" * (count * side * side)
            pack.put(b"block/%08d" % block, pixels + zlib.crc32(pixels).to_bytes(4, "little"))
            pack.put(b"origin/%08d" % block, "\n".join(f"x.gnt:{place}" for place in range(count)).encode())
        pack.put(b"meta", json.dumps(meta).encode())
    env.close()


MEASURED = """
import sys, time
from pathlib import Path
from hcr.cli.eval import main
main(["--predictions", "theirs.npz", "--pack", "."], standalone_mode=False)
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
print("torch" in sys.modules, time.process_time(), peak)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured by Linux's /proc")
def test_a_whole_test_set_is_reported_in_five_seconds_and_200_megabytes(tmp_path: Path) -> None:
    n, classes, random = 224_000, 3755, np.random.default_rng(1)
    target = random.integers(0, classes, n)
    blank_pack(tmp_path, target, writers=60)
    first = np.where(random.random(n) < 0.9, target, (target + random.integers(1, 40, n)) % classes)
    top = (first[:, None] + np.arange(10)) % classes
    score = np.sort(random.random((n, 10), np.float32))[:, ::-1]
    np.savez(tmp_path / "theirs.npz", index=np.arange(n), target=target, top=top, score=score)
    command = [sys.executable, "-c", MEASURED]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    torch, seconds, megabytes = run.stdout.splitlines()[-1].split()
    summary = json.loads((tmp_path / "artifacts/theirs/eval/test/summary.json").read_text("utf-8"))
    assert summary["n"] == n and summary["top1"] == (first == target).mean()
    # Seconds of its own, so that a busy machine does not decide.
    assert torch == "False" and float(seconds) < 5 and float(megabytes) < 200, run.stdout
