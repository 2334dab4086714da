"""A checkpoint judged on a split: each sample once, files to recompute, an interruption that leaves no trace."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch

from hcr.charset import Charset
from hcr.errors import DataError, Stopped, UsageError
from hcr.evaluation import evaluate, evaluate_checkpoint, prepare, summarise, write_report
from hcr.evaluation.partial import PARTIAL, forget
from hcr.feed.loader import Loader
from hcr.feed.order import SequentialBatches
from hcr.glyph import PREPROCESSING
from hcr.models import Recognizer, load_recognizer
from hcr.pack.store import open_pack

ROOT = Path(__file__).parents[1]


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
    found = evaluate(model, Loader(small_pack / "test.lmdb", SequentialBatches(24, 24)))
    whole = evaluate_checkpoint(path, small_pack, "test", batch_size=24)
    assert np.array_equal(found.top, whole.predictions.top) and np.array_equal(found.score, whole.predictions.score)
    assert summarise(found, 12).top1 == whole.summary.top1


def test_every_table_adds_up(small_pack: Path, tmp_path: Path) -> None:
    evaluation = evaluate_checkpoint(checkpoint(tmp_path, pack_charset(small_pack)), small_pack, "test")
    findings = write_report(tmp_path / "eval", evaluation)
    summary = json.loads((tmp_path / "eval/summary.json").read_text("utf-8"))
    right = round(summary["top1"] * 24)
    for name, key in (("writers", "writer"), ("strokes", "strokes"), ("groups", "characters")):
        rows = list(csv.DictReader((tmp_path / f"eval/{name}.csv").read_text("utf-8-sig").splitlines()))
        assert sum(int(row["n"]) for row in rows) == 24 and sum(int(row["correct"]) for row in rows) == right
        assert "seen" not in rows[0] and len({row[key] for row in rows}) == len(rows)
        for row in rows:
            assert float(row["recall_low"]) <= float(row["recall"]) <= float(row["recall_high"])
            assert float(row["recall"]) == pytest.approx(int(row["correct"]) / int(row["n"]), abs=1e-6)
    assert {row.name for row in findings.writers} == set(open_pack(small_pack / "test.lmdb").meta["writers"])
    assert sum(group.inside for group in findings.groups) <= 24 - right
    assert summary["seconds"] > 0 and summary["ms_per_picture"] * 24 == pytest.approx(evaluation.seconds * 1000)
    assert summary["seen"] == "" and summary["elsewhere"] is None and len(summary["checkpoint_digest"]) == 16
    score = evaluation.predictions.score[findings.confident_errors, 0]
    assert len(score) == 24 - right and (np.diff(score) <= 0).all()
    assert not evaluation.predictions.hit[findings.confident_errors].any()


def test_strokes_are_those_of_the_characters(small_pack: Path, tmp_path: Path) -> None:
    evaluation = evaluate_checkpoint(checkpoint(tmp_path, pack_charset(small_pack)), small_pack, "test")
    findings = write_report(tmp_path / "eval", evaluation)
    # 一 is in every charset that is spread over level 1, and nothing else has one stroke.
    assert evaluation.charset[0] == "一" and (findings.strokes[0].name, findings.strokes[0].n) == ("1", 2)
    assert [int(row.name) for row in findings.strokes] == sorted(int(row.name) for row in findings.strokes)


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
    judging = prepare(path, small_pack, "test", batch_size=5, folder=tmp_path / "eval")
    with pytest.raises(
        Stopped, match=rf"stopped by {number.name} after 15 of 24 .*: run the same command again"
    ) as why:
        judging.evaluation(Interrupted(10, number))
    assert why.value.exit_code == 75
    taken_up: list[int] = []
    rest = Interrupted(99)
    evaluation = judging.evaluation(rest, taken_up.append)
    assert taken_up == [15] and rest.done == 9
    for name in ("index", "target", "top", "score"):
        assert np.array_equal(getattr(evaluation.predictions, name), getattr(whole.predictions, name))
    # Until all files are written nothing has to be predicted again, and then nothing is left behind.
    again = Interrupted(99)
    assert judging.evaluation(again).seconds == pytest.approx(evaluation.seconds, abs=0.5) and again.done == 0
    forget(tmp_path / "eval")
    assert not (tmp_path / "eval" / PARTIAL).exists()


def test_what_another_checkpoint_began_is_not_taken_up(small_pack: Path, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, pack_charset(small_pack))
    folder = tmp_path / "eval"
    with pytest.raises(Stopped):
        prepare(path, small_pack, "test", batch_size=5, folder=folder).evaluation(Interrupted(5))
    content = torch.load(path, weights_only=True)
    content["step"] = 1
    torch.save(content, path)
    anew = Interrupted(99)
    prepare(path, small_pack, "test", batch_size=5, folder=folder).evaluation(anew)
    assert anew.done == 24
    (folder / PARTIAL / "plain.npz").write_bytes(b"damaged")
    anew = Interrupted(99)
    prepare(path, small_pack, "test", batch_size=5, folder=folder).evaluation(anew)
    assert anew.done == 24


def test_only_shared_characters_are_asked_for_and_answered(small_pack: Path, tmp_path: Path) -> None:
    mine = pack_charset(small_pack)
    # Of the pack's 12 characters the model knows 9, and two others.
    path = checkpoint(tmp_path, Charset(mine.characters[:9] + "龟鼠"))
    evaluation = evaluate_checkpoint(path, small_pack, "test", only_shared=True)
    assert evaluation.charset.characters == mine.characters[:9] and evaluation.left_out == 6
    labels = open_pack(small_pack / "test.lmdb").labels
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


LARGE = """
import sys, time
from pathlib import Path
import numpy as np
import hcr.evaluation.inference
from hcr.charset import Charset
from hcr.evaluation import Evaluation, Predictions, summarise, write_report
from hcr.pack.store import open_pack

folder, charset = Path(sys.argv[1]), Charset.level1()
process = Path("/proc/self")
def megabytes(key):
    return int((process / "status").read_text().split(key + ":")[1].split()[0]) / 1024
(process / "clear_refs").write_text("5")  # importing torch took more than all that follows
before, began = megabytes("VmRSS"), time.process_time()
target = open_pack(folder / "test.lmdb").labels.astype(np.int64)
n, rng = len(target), np.random.default_rng(0)
first = np.where(rng.random(n) < 0.9, target, (target + rng.integers(1, 40, n)) % 3755)
top = (first[:, None] + np.arange(10)) % 3755
score = np.sort(rng.random((n, 10), np.float32))[:, ::-1]
predictions = Predictions(np.arange(n), target, top, score)
evaluation = Evaluation(predictions, summarise(predictions, 3755), charset, folder, "test", "d", Path("x"), "d", "a")
write_report(folder / "eval", evaluation)
print(time.process_time() - began, megabytes("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured by Linux's /proc")
def test_a_whole_test_set_is_reported_in_five_seconds_and_200_megabytes(tmp_path: Path) -> None:
    blank_pack(tmp_path, np.random.default_rng(1).integers(0, 3755, 224_000), writers=60)
    run = subprocess.run([sys.executable, "-c", LARGE, tmp_path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    seconds, megabytes = map(float, run.stdout.split())
    summary = json.loads((tmp_path / "eval/summary.json").read_text("utf-8"))
    assert summary["n"] == 224_000 and 0.89 < summary["top1"] < 0.91
    assert seconds < 5 and megabytes < 200, run.stdout
