"""A checkpoint evaluated on a split: each sample once, files to recompute, an interruption that leaves no trace."""

from __future__ import annotations

import csv
import json
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from hcr.charset import Charset
from hcr.errors import DataError, Stopped, UsageError
from hcr.evaluation import evaluate_checkpoint, evaluate_external, make_evaluator, predict_all, summarise, write_report
from hcr.evaluation.evaluator import PARTIAL
from hcr.feed.loader import Loader
from hcr.feed.sampler import SequentialBatches
from hcr.models import Recognizer, load_recognizer
from hcr.pack.store import open_reader
from hcr.preprocess.fit import PREPROCESSING


def checkpoint(folder: Path, charset: Charset, size: int = 32) -> Path:
    torch.manual_seed(0)
    model = Recognizer("compact", charset, size)
    path = folder / f"{charset.digest}-{size}.pt"
    content = {"format": "hcr-checkpoint", "version": 1, "arch": "compact", "size": size, "ema": model.state_dict()}
    torch.save(content | {"characters": charset.characters, "preprocessing": PREPROCESSING}, path)
    return path


def pack_charset(pack: Path) -> Charset:
    from hcr.pack.inspect import info

    return Charset(info(pack)["test"]["meta"]["characters"])


def test_each_sample_once_whatever_the_batches_and_workers(small_pack: Path, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, pack_charset(small_pack))
    whole = evaluate_checkpoint(path, small_pack, "test", batch_size=24)
    assert whole.predictions.index.tolist() == list(range(24)) and whole.summary.n == 24
    for batch_size, workers in ((7, 0), (5, 2)):
        other = evaluate_checkpoint(path, small_pack, "test", batch_size=batch_size, workers=workers).predictions
        assert np.array_equal(other.index, whole.predictions.index)
        assert np.array_equal(other.target, whole.predictions.target)
        np.testing.assert_allclose(other.score, whole.predictions.score, rtol=1e-4)


def test_the_files_can_be_recomputed(small_pack: Path, tmp_path: Path) -> None:
    charset = pack_charset(small_pack)
    evaluation = evaluate_checkpoint(checkpoint(tmp_path, charset), small_pack, "test")
    write_report(tmp_path / "eval", evaluation)
    summary = json.loads((tmp_path / "eval/summary.json").read_text("utf-8"))
    saved = np.load(tmp_path / "eval/predictions.npz")
    assert set(saved.files) == {"index", "target", "top", "score", "characters", "pack_digest", "seen"}
    assert saved["top"].shape == (24, 10) and str(saved["characters"]) == charset.characters
    hit = saved["top"][:, 0] == saved["target"]
    assert summary["n"] == 24 and summary["top1"] == hit.mean()
    assert summary["top5"] == (saved["top"][:, :5] == saved["target"][:, None]).any(1).mean()
    raw = (tmp_path / "eval/per_class.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(raw.decode("utf-8-sig").splitlines()))
    assert [row["char"] for row in rows] == list(charset.characters)
    assert [int(row["n"]) for row in rows] == np.bincount(saved["target"], minlength=12).tolist()
    for row in rows:
        label = int(row["index"])
        assert int(row["correct"]) == (hit & (saved["target"] == label)).sum()
        assert row["code_point"] == f"U+{ord(row['char']):04X}"
        never = not (saved["top"][:, 0] == label).any()
        assert (row["precision"] == "") == never
    listed = list(csv.DictReader((tmp_path / "eval/confusions.csv").read_text("utf-8-sig").splitlines()))
    assert sum(int(row["count"]) for row in listed) == (~hit).sum()
    assert [int(row["count"]) for row in listed] == sorted((int(row["count"]) for row in listed), reverse=True)


def test_what_does_not_fit_is_refused(small_pack: Path, tmp_path: Path) -> None:
    charset = pack_charset(small_pack)
    with pytest.raises(UsageError, match="no split 'dev'; it has train, val, test"):
        evaluate_checkpoint(checkpoint(tmp_path, charset), small_pack, "dev")
    other = Charset(charset.characters[:-1] + "龟鼠")
    message = rf"another charset \(12 characters, {charset.digest}\) than .*{other.digest}.*; --only-shared scores"
    with pytest.raises(DataError, match=message):
        evaluate_checkpoint(checkpoint(tmp_path, other), small_pack, "test")
    with pytest.raises(DataError, match="pictures of 32 px, expected 64"):
        evaluate_checkpoint(checkpoint(tmp_path, charset, size=64), small_pack, "test")


def test_the_library_alone_gives_the_same_figures(small_pack: Path, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, pack_charset(small_pack))
    model = load_recognizer(path)
    found = predict_all(model, Loader(small_pack / "test.lmdb", SequentialBatches(24, 24)))
    whole = evaluate_checkpoint(path, small_pack, "test", batch_size=24)
    assert np.array_equal(found.top, whole.predictions.top) and np.array_equal(found.score, whole.predictions.score)
    assert summarise(found, 12).top1 == whole.summary.top1


def test_every_table_adds_up(small_pack: Path, tmp_path: Path) -> None:
    evaluation = evaluate_checkpoint(checkpoint(tmp_path, pack_charset(small_pack)), small_pack, "test")
    analysis = write_report(tmp_path / "eval", evaluation)
    summary = json.loads((tmp_path / "eval/summary.json").read_text("utf-8"))
    right = round(summary["top1"] * 24)
    for name, key in (("writers", "writer"), ("strokes", "strokes"), ("groups", "characters")):
        rows = list(csv.DictReader((tmp_path / f"eval/{name}.csv").read_text("utf-8-sig").splitlines()))
        assert sum(int(row["n"]) for row in rows) == 24 and sum(int(row["correct"]) for row in rows) == right
        assert "seen" not in rows[0] and len({row[key] for row in rows}) == len(rows)
        for row in rows:
            assert float(row["recall_low"]) <= float(row["recall"]) <= float(row["recall_high"])
            assert float(row["recall"]) == pytest.approx(int(row["correct"]) / int(row["n"]), abs=1e-6)
    assert {row.name for row in analysis.writers} == set(open_reader(small_pack / "test.lmdb").meta["writers"])
    assert sum(group.inside for group in analysis.groups) <= 24 - right
    assert summary["seconds"] > 0 and summary["ms_per_picture"] * 24 == pytest.approx(evaluation.seconds * 1000)
    assert summary["seen"] == "" and summary["elsewhere"] is None and len(summary["checkpoint_digest"]) == 16
    score = evaluation.predictions.score[analysis.confident_errors, 0]
    assert len(score) == 24 - right and (np.diff(score) <= 0).all()
    assert not evaluation.predictions.hit[analysis.confident_errors].any()


def test_strokes_are_those_of_the_characters(small_pack: Path, tmp_path: Path) -> None:
    evaluation = evaluate_checkpoint(checkpoint(tmp_path, pack_charset(small_pack)), small_pack, "test")
    analysis = write_report(tmp_path / "eval", evaluation)
    # 一 is in every charset that is spread over level 1, and nothing else has one stroke.
    assert evaluation.charset[0] == "一" and (analysis.strokes[0].name, analysis.strokes[0].n) == ("1", 2)
    assert [int(row.name) for row in analysis.strokes] == sorted(int(row.name) for row in analysis.strokes)


class Interrupted:
    """A `Progress` that sends this process a signal when `at` samples are done."""

    def __init__(self, at: int, number: signal.Signals = signal.SIGINT) -> None:
        self.at, self.number, self.done = at, number, 0

    def __call__(self, count: int, total: int) -> None:
        assert total == 24
        self.done += count
        if self.done == self.at:
            signal.raise_signal(self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_no_trace(small_pack: Path, tmp_path: Path, number: signal.Signals) -> None:
    path = checkpoint(tmp_path, pack_charset(small_pack))
    whole = evaluate_checkpoint(path, small_pack, "test", batch_size=5)
    evaluator = make_evaluator(path, small_pack, "test", batch_size=5, folder=tmp_path / "eval")
    with pytest.raises(
        Stopped, match=rf"stopped by {number.name} after 15 of 24 .*: run the same command again"
    ) as why:
        evaluator.evaluation(Interrupted(10, number))
    assert why.value.exit_code == 75
    resumed: list[int] = []
    rest = Interrupted(99)
    evaluation = evaluator.evaluation(rest, resumed.append)
    assert resumed == [15] and rest.done == 9
    for name in ("index", "target", "top", "score"):
        assert np.array_equal(getattr(evaluation.predictions, name), getattr(whole.predictions, name))
    # Until all files are written nothing has to be predicted again, and then nothing is left behind.
    again = Interrupted(99)
    assert evaluator.evaluation(again).seconds == pytest.approx(evaluation.seconds, abs=0.5) and again.done == 0
    evaluator.forget()
    assert not (tmp_path / "eval" / PARTIAL).exists()


def test_what_another_checkpoint_began_is_not_resumed(small_pack: Path, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, pack_charset(small_pack))
    folder = tmp_path / "eval"
    with pytest.raises(Stopped):
        make_evaluator(path, small_pack, "test", batch_size=5, folder=folder).evaluation(Interrupted(5))
    content = torch.load(path, weights_only=True)
    content["step"] = 1
    torch.save(content, path)
    anew = Interrupted(99)
    make_evaluator(path, small_pack, "test", batch_size=5, folder=folder).evaluation(anew)
    assert anew.done == 24
    (folder / PARTIAL / "plain.npz").write_bytes(b"damaged")
    anew = Interrupted(99)
    make_evaluator(path, small_pack, "test", batch_size=5, folder=folder).evaluation(anew)
    assert anew.done == 24


def test_only_shared_characters_are_asked_for_and_answered(small_pack: Path, tmp_path: Path) -> None:
    mine = pack_charset(small_pack)
    # Of the pack's 12 characters the model knows 9, and two others.
    path = checkpoint(tmp_path, Charset(mine.characters[:9] + "龟鼠"))
    evaluation = evaluate_checkpoint(path, small_pack, "test", only_shared=True)
    assert evaluation.charset.characters == mine.characters[:9] and evaluation.left_out == 6
    labels = open_reader(small_pack / "test.lmdb").labels
    assert evaluation.predictions.index.tolist() == np.flatnonzero(labels < 9).tolist()
    assert np.array_equal(evaluation.predictions.target, labels[labels < 9])
    assert evaluation.predictions.top.shape == (18, 9) and (np.sort(evaluation.predictions.top) == np.arange(9)).all()
    # Scores are shared out anew among them.
    np.testing.assert_allclose(evaluation.predictions.score.sum(1), 1, rtol=1e-5)
    write_report(tmp_path / "eval", evaluation)
    summary = json.loads((tmp_path / "eval/summary.json").read_text("utf-8"))
    assert (summary["n"], summary["classes"], summary["left_out"], summary["only_shared"]) == (18, 9, 6, True)
    # A model that knows more than the pack has is held to the pack's characters too.
    wide = evaluate_checkpoint(
        checkpoint(tmp_path, Charset(mine.characters + "龟")), small_pack, "test", only_shared=True
    )
    assert (wide.left_out, wide.only_shared, wide.predictions.top.max()) == (0, True, 11)
    with pytest.raises(DataError, match=r"no sample of a character that .* knows"):
        evaluate_checkpoint(checkpoint(tmp_path, Charset("龟鼠")), small_pack, "test", only_shared=True)


def test_the_program_in_evaluation_md_writes_a_table_that_can_be_evaluated(
    small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[1] / "docs/evaluation.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    Path("data/packed").mkdir(parents=True)
    Path("data/packed/hwdb1.1-64").symlink_to(small_pack)
    (program,) = (text for text in re.findall(r"```python\n(.*?)```", page, re.S) if "theirs.csv" in text)
    exec(program, {})
    # It answers 一 for each picture, and 2 of the 24 show that.
    assert evaluate_external(Path("theirs.csv"), small_pack, "test").summary.top1 == 2 / 24
