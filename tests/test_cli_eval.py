"""hcr-eval as people run it: what it says and writes, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.test_cli import hcr, ok, refused
from tests.test_evaluation import checkpoint, pack_charset
from tests.test_training import GIVEN, Watcher


@pytest.fixture(scope="module")
def trained(small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, "one", of one epoch on the small pack."""
    from hcr.training import Execution, train

    folder = tmp_path_factory.mktemp("here")
    train(GIVEN | {"epochs": 1}, small_pack, folder / "artifacts/one", Execution(), Watcher(), resume=False)
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with that run."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_figures_files_and_conditions(here: Path) -> None:
    said = ok(hcr("eval", "--robustness", "--error", 0.5))
    folder = here / "artifacts/one/eval/test"
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    assert f"n 24, top-1 {summary['top1']:.2%} ({summary['top1_interval'][0]:.2%} to" in said
    assert (
        f"calibration error {summary['ece']:.2%}" in said
        and "ms a picture" in said
        and summary["rejection"]["wanted"] == 0.5
    )
    assert "inverted polarity" in said and "worst condition: " in said and "NOT A TEST" not in said
    assert {path.name for path in folder.iterdir()} == {
        "report.html", "summary.json", "per_class.csv", "confusions.csv", "writers.csv", "strokes.csv", "groups.csv",
        "predictions.npz", "robustness.csv", "robustness.svg",
    }  # fmt: skip
    # What the files say is always of one evaluation: conditions of an earlier one do not stay beside new figures.
    ok(hcr("eval"))
    assert not list(folder.glob("robustness.*")) and (folder / "report.html").is_file()


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
    assert (here / "artifacts/two/eval/test/comparison.csv").is_file()


def test_predictions_from_elsewhere(here: Path, small_pack: Path) -> None:
    ok(hcr("eval"))
    shutil.copy("artifacts/one/eval/test/predictions.npz", "theirs.npz")
    said = ok(hcr("eval", "--predictions", "theirs.npz", "--pack", small_pack, "--compare", "one"))
    assert "artifacts/theirs on " in said and "0 gained, 0 lost" in said and "ms a picture" not in said
    assert (here / "artifacts/theirs/eval/test/report.html").is_file()
    arguments = ("--predictions", "theirs.npz", "--pack", small_pack)
    assert "is a run of hcr-train" in refused(hcr("eval", *arguments, "--run", "one"), 2)
    assert "there is no model to run" in refused(hcr("eval", *arguments, "--robustness"), 2)


def test_only_shared_says_how_many(here: Path, small_pack: Path) -> None:
    from hcr.charset import Charset

    run = here / "artifacts/narrow/checkpoints"
    run.mkdir(parents=True)
    shutil.move(checkpoint(here, Charset(pack_charset(small_pack).characters[:9] + "龟")), run / "step-00000001.pt")
    arguments = ("--run", "narrow", "--data", small_pack)
    assert "another charset" in refused(hcr("eval", *arguments), 3)
    said = ok(hcr("eval", *arguments, "--only-shared"))
    assert "only the 9 shared characters: 6 samples of others are left out" in said
