"""Data that a run learnt from: told by digest and by source files, refused, and marked where it is scored anyway."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hcr.charset import Charset
from hcr.corpus.find import find_corpus
from hcr.errors import DataError
from hcr.evaluation import evaluate_checkpoint, evaluate_conditions, make_evaluator, write_report
from hcr.layout import checkpoints
from hcr.pack.config import PackConfig
from hcr.pack.packer import pack
from hcr.training import Execution, TrainConfig, train
from tests.runs import GIVEN, Watcher


@pytest.fixture(scope="module")
def run(small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on the small pack."""
    folder = tmp_path_factory.mktemp("artifacts") / "run"
    train(TrainConfig(**GIVEN | {"epochs": 1}), small_pack, folder, Execution("cpu"), Watcher(), resume=False)
    return folder


@pytest.fixture
def redrawn(corpus_folder: Path, tmp_path: Path) -> Path:
    """The same corpus with another draw of validation writers: no digest is the same but the test split's."""
    corpus = find_corpus([corpus_folder], allowed=None, numbering=Charset.level1())
    pack(corpus, tmp_path / "redrawn", PackConfig(size=32, seed=3))
    return tmp_path / "redrawn"


@pytest.mark.parametrize(("split", "how"), [("train", "trained"), ("val", "validated")])
def test_its_own_splits_are_refused(run: Path, small_pack: Path, split: str, how: str) -> None:
    with pytest.raises(DataError, match=f"{how} on this split, .*{split}.lmdb, so .*--allow-seen, which marks"):
        evaluate_checkpoint(checkpoints(run)[0], small_pack, split)
    assert evaluate_checkpoint(checkpoints(run)[0], small_pack, "test").seen == ""


def test_the_same_files_in_another_pack_are_refused(run: Path, redrawn: Path) -> None:
    path = checkpoints(run)[0]
    with pytest.raises(DataError, match=r"trained on 1 of the 1 source files of this split \(12 of 12 samples\)"):
        evaluate_checkpoint(path, redrawn, "val")
    with pytest.raises(DataError, match=r"trained on 6 of the 7 source files of this split \(72 of 84 samples\)"):
        evaluate_checkpoint(path, redrawn, "train")
    assert evaluate_checkpoint(path, redrawn, "test").seen == ""


def test_a_lone_checkpoint_is_known_by_its_digests(run: Path, small_pack: Path, tmp_path: Path) -> None:
    lone = shutil.copy(checkpoints(run)[0], tmp_path / "lone.pt")
    with pytest.raises(DataError, match="validated on this split"):
        evaluate_checkpoint(lone, small_pack, "val")


def test_what_is_allowed_is_marked_in_every_file(run: Path, small_pack: Path, tmp_path: Path) -> None:
    evaluator = make_evaluator(checkpoints(run)[0], small_pack, "val", allow_seen=True)
    evaluation = evaluator.evaluation()
    assert evaluation.seen == "validated on this split"
    write_report(tmp_path, evaluation, conditions=evaluate_conditions(evaluator, evaluation))
    assert json.loads((tmp_path / "summary.json").read_text("utf-8"))["seen"] == evaluation.seen
    assert str(np.load(tmp_path / "predictions.npz")["seen"]) == evaluation.seen
    files = {path.name for path in tmp_path.iterdir()}
    for name in ("per_class", "confusions", "writers", "strokes", "groups", "robustness"):
        rows = list(csv.DictReader((tmp_path / f"{name}.csv").read_text("utf-8-sig").splitlines()))
        assert rows and {row["seen"] for row in rows} == {evaluation.seen}
        files.remove(f"{name}.csv")
    for name in ("report.html", "robustness.svg"):
        assert evaluation.seen in (tmp_path / name).read_text("utf-8")
        files.remove(name)
    assert files == {"summary.json", "predictions.npz"}
