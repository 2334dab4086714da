"""Training on handwriting drawn as it is needed: which samples come, exact resumes, who judges, what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from hcr.charset import Charset
from hcr.cli import eval, predict
from hcr.cli.train import main
from hcr.errors import DataError, HcrError, Stopped, UsageError
from hcr.evaluation import evaluate_checkpoint
from hcr.feed import synthetic as feed
from hcr.feed.augment import augment
from hcr.feed.sampler import Batch, EndlessBatches, SequentialBatches
from hcr.feed.synthetic import TRAINING_WRITERS, VALIDATION_WRITERS, SyntheticBatches, generator_digest
from hcr.layout import checkpoints, find_run, is_drawn, pack_of
from hcr.pack.store import open_reader
from hcr.synth import Generator
from hcr.synth.pages import are_pages
from hcr.training import Execution, TrainConfig, train
from hcr.training.config import DRAWN_PAGES
from hcr.training.distributed import Processes
from hcr.training.setup import VALIDATION_PICTURES, set_up_run
from hcr.training.step import Stepper
from tests.runs import GIVEN, Watcher, end_of, require_equal

CHARACTERS = Charset("一二十丁厂七口日永我的").characters
DRAW = {"draw": 88, "size": 32}


def drawn(order: EndlessBatches | SequentialBatches, **other: Any) -> list[Batch]:
    given = {"writers": TRAINING_WRITERS, "seed": 3, "size": 32} | other
    return list(SyntheticBatches(CHARACTERS, order, **given))


def epochs(count: int, n: int, batch_size: int) -> list[np.ndarray]:
    order = EndlessBatches(n, batch_size, seed=0)
    found = []
    for order.epoch in range(count):
        found += list(order)
    return found


def test_no_sample_comes_twice_and_epochs_go_on_counting() -> None:
    found = epochs(3, 47, 10)
    assert len(found) == 3 * 4 and np.array_equal(np.concatenate(found), np.arange(120))
    order = EndlessBatches(47, 10, seed=0)
    order.epoch, order.start = 2, 3
    assert len(order) == 1
    require_equal([index.tolist() for index in order], [found[11].tolist()])


def test_every_character_comes_equally_often_each_time_by_another_writer() -> None:
    (batch,) = drawn(EndlessBatches(66, 66, seed=0))
    passes = batch.labels.view(6, 11)
    assert torch.equal(passes.sort(1).values, torch.arange(11).expand(6, 11))
    assert len({tuple(labels) for labels in passes.tolist()}) == 6
    assert len({picture.numpy().tobytes() for picture in batch.images}) == 66
    first = Generator(CHARACTERS).draw(
        batch.labels[:3], torch.arange(3) + TRAINING_WRITERS.start, torch.zeros(3, dtype=torch.int64), seed=3, size=32
    )
    assert torch.equal(batch.images[:3], first)
    # Two writers take turns, and write otherwise each time.
    (again,) = drawn(EndlessBatches(66, 66, seed=0), writers=range(5, 7))
    assert len({picture.numpy().tobytes() for picture in again.images}) == 66


def test_batches_that_are_drawn_at_once_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, draw = [], Generator.draw

    def counted(pen: Generator, labels: torch.Tensor, *others: Any, **more: Any) -> torch.Tensor:
        calls.append(len(labels))
        return draw(pen, labels, *others, **more)

    monkeypatch.setattr(Generator, "draw", counted)
    for order in (EndlessBatches(70, 12, seed=0), SequentialBatches(41, 12)):
        alone = drawn(order)
        monkeypatch.setitem(feed._AT_ONCE, "cpu", 30)
        require_equal([batch._asdict() for batch in drawn(order)], [batch._asdict() for batch in alone])
        monkeypatch.setitem(feed._AT_ONCE, "cpu", 1)
    assert calls == [12, 12, 12, 12, 12, 36, 24, 12, 12, 12, 5, 36, 5]


@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_ranks_draws_the_same_samples(world: int) -> None:
    alone = drawn(EndlessBatches(24, 12, seed=0))
    shares = [drawn(EndlessBatches(24, 12, 0, rank, world)) for rank in range(world)]
    for batch, *parts in zip(alone, *shares, strict=True):
        for rank, part in enumerate(parts):
            require_equal(list(part[:3]), [tensor[rank::world] for tensor in batch[:3]])


def test_no_writer_both_teaches_and_judges_nor_writes_files() -> None:
    assert TRAINING_WRITERS.start > 10**6 and TRAINING_WRITERS.stop <= VALIDATION_WRITERS.start
    assert VALIDATION_WRITERS.stop <= 1 << 32
    teaching = drawn(SequentialBatches(22, 22))
    judging = drawn(SequentialBatches(22, 22), writers=VALIDATION_WRITERS)
    assert torch.equal(teaching[0].labels, judging[0].labels)
    assert not any(torch.equal(a, b) for a, b in zip(teaching[0].images, judging[0].images, strict=True))


@pytest.fixture(scope="module")
def charset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with the characters."""
    path = tmp_path_factory.mktemp("charset") / "eleven.txt"
    path.write_text("\n".join(CHARACTERS), "utf-8")
    return str(path)


def run_drawn(run: Path, charset: str, pack: Path | None = None, *, resume: bool = False, **given: Any) -> Watcher:
    watcher = Watcher()
    execution = Execution("cpu", workers=0, checkpoint_every=1)
    train(TrainConfig(**GIVEN | DRAW | {"charset": charset} | given), pack, run, execution, watcher, resume=resume)
    return watcher


@pytest.fixture(scope="module")
def uncut(charset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn run of 3 epochs of 4 steps that was never stopped. Do not change it."""
    run = tmp_path_factory.mktemp("uncut") / "run"
    run_drawn(run, charset)
    return run


@pytest.mark.parametrize("step", [1, 4, 7])
def test_a_stopped_run_ends_like_one_that_was_not(uncut: Path, charset: str, tmp_path: Path, step: int) -> None:
    run = tmp_path / "run"
    file = shutil.copy(charset, tmp_path / "charset.txt")
    watcher = Watcher(step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped, match=f"stopped by SIGTERM at step {step} of 12; all is saved"):
        train(TrainConfig(**GIVEN | DRAW | {"charset": str(file)}), None, run, Execution("cpu"), watcher, resume=False)
    # What is learnt stands in the checkpoint.
    Path(file).unlink()
    train(TrainConfig(), None, run, Execution("cpu", workers=1, checkpoint_every=2), Watcher(), resume=True)
    one, other = end_of(run), end_of(uncut)
    for content, _ in (one, other):
        del content["config"]["charset"]
    require_equal(one, other)


def test_a_drawn_run_leaves_what_a_run_leaves(uncut: Path) -> None:
    rows = [json.loads(line) for line in (uncut / "metrics.jsonl").read_text().splitlines()]
    assert [(row["epoch"], row["step"], row["val_n"]) for row in rows] == [(1, 4, 22), (2, 8, 22), (3, 12, 22)]
    record = json.loads((uncut / "run.json").read_text())
    digests = dict.fromkeys(("train", "val"), generator_digest(pages=DRAWN_PAGES))
    assert record["pack"] == {"path": None, "digests": digests, "sources": {"train": [], "val": []}}
    assert record["charset"]["count"] == 11 and record["config"]["draw"] == 88
    assert re.fullmatch(r"pen \d+, strokes [0-9a-f]{16}", generator_digest())
    assert end_of(uncut)[0]["pack"] == digests
    assert is_drawn(uncut) and pack_of(uncut) is None


def test_it_learns_from_what_is_drawn(charset: str, tmp_path: Path) -> None:
    watcher = run_drawn(tmp_path / "run", charset, epochs=12, augmentation=False)
    assert watcher.rows[0]["train_loss"] > 2
    assert max(row["val_top1"] for row in watcher.rows) >= 0.5


def test_another_pen_does_not_go_on(uncut: Path, charset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    was = generator_digest(pages=DRAWN_PAGES)
    monkeypatch.setattr("hcr.feed.synthetic.GENERATOR_VERSION", 999)
    with pytest.raises(DataError) as refused:
        run_drawn(uncut, charset, resume=True)
    assert str(refused.value) == (
        f"{uncut}: drawn by {was}, but this program draws by {generator_digest(pages=DRAWN_PAGES)}; resume with the "
        "release named in its run.json, or start another --run"
    )


def test_drawn_pictures_are_degraded_where_pictures_are_distorted(charset: str, tmp_path: Path) -> None:
    def seen(rank: int = 0, **given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        given = GIVEN | DRAW | {"charset": charset, "pages": 0.0} | given
        setup = set_up_run(TrainConfig(**given), None, tmp_path / "run", Execution("cpu"), Processes(), Watcher())[0]
        batch = drawn(SequentialBatches(40, 40))[0]
        stepper = Stepper(setup.config, setup.state(None, Watcher()), Processes(), None, compiled=False)
        stepper.processes = Processes(rank, 2)
        return batch.images, stepper.pictures(batch)

    plain, as_drawn = seen(augmentation=False)
    assert torch.equal(plain, as_drawn)
    _, distorted = seen()
    only_augmented = augment(plain, GIVEN["seed"], 0)
    same = (distorted == only_augmented).flatten(1).all(1)
    # Some pictures take none of the effects.
    assert 1 <= same.sum() <= 20
    assert torch.equal(distorted, seen()[1]) and not torch.equal(distorted, seen(seed=6)[1])
    assert not torch.equal(distorted, seen(rank=1)[1])


def test_what_was_cut_out_of_a_page_is_not_degraded(charset: str, tmp_path: Path) -> None:
    given = GIVEN | DRAW | {"charset": charset}
    setup = set_up_run(TrainConfig(**given), None, tmp_path / "run", Execution("cpu"), Processes(), Watcher())[0]
    assert setup.config.pages == DRAWN_PAGES
    batch = drawn(SequentialBatches(60, 60))[0]
    seen = Stepper(setup.config, setup.state(None, Watcher()), Processes(), None, compiled=False).pictures(batch)
    distorted = augment(batch.images, GIVEN["seed"], 0)
    paged = are_pages(batch.index, GIVEN["seed"], DRAWN_PAGES)
    assert torch.equal(seen[paged], distorted[paged]) and not torch.equal(seen[~paged], distorted[~paged])


def test_a_pack_judges(small_pack: Path, charset: str, tmp_path: Path) -> None:
    reader = open_reader(small_pack / "val.lmdb")
    more = tmp_path / "more.txt"
    more.write_text("\n".join({*CHARACTERS, *reader.charset.characters}), "utf-8")
    run = tmp_path / "run"
    watcher = run_drawn(run, str(more), small_pack, epochs=1)
    assert watcher.rows[0]["val_n"] == 12
    record = json.loads((run / "run.json").read_text())["pack"]
    assert record["path"] == str(small_pack) and record["digests"] == {
        "train": generator_digest(pages=DRAWN_PAGES),
        "val": reader.digest,
    }
    assert record["sources"]["train"] == [] and len(record["sources"]["val"]) == 1
    given = GIVEN | DRAW | {"charset": str(more)}
    setup = set_up_run(TrainConfig(**given), small_pack, tmp_path / "other", Execution("cpu"), Processes(), Watcher())[
        0
    ]
    (batch,) = setup.splits["val"].feed(SequentialBatches(12, 12), Execution("cpu", workers=0))
    meant = [reader.charset[label] for label in reader.labels]
    assert [setup.charset[label] for label in batch.labels.tolist()] == meant and setup.charset != reader.charset
    # Of the pack it has seen the val split and no other.
    best = run / "checkpoints/best.pt"
    with pytest.raises(DataError, match="validated on this split"):
        evaluate_checkpoint(best, small_pack, "val", only_shared=True)
    for split in ("train", "test"):
        assert evaluate_checkpoint(best, small_pack, split, only_shared=True).seen == ""
    # The run is resumed with that val split, too.
    with pytest.raises(DataError, match=r"no pack: pack .* but the run was started on"):
        run_drawn(run, str(more), resume=True, epochs=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 89}, r"--batch-size 89: --draw 88 draws only 88 training samples"),
        ({"draw": -1}, "--draw -1: expected 0 to"),
        ({"draw": 0}, "nothing to train on: name a pack with --data, or give --draw"),
        ({"charset": "nowhere.txt"}, r"charset 'nowhere\.txt': no such name or file; name level1, gb2312"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str, charset: str, tmp_path: Path) -> None:
    with pytest.raises(HcrError, match=message):
        run_drawn(tmp_path / "run", **{"charset": charset} | given)
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_drawn_or_judged_is_refused(uncut: Path, charset: str, small_pack: Path, tmp_path: Path) -> None:
    file, run = tmp_path / "charset.txt", tmp_path / "run"
    file.write_text("一\nア\n", "utf-8")
    with pytest.raises(UsageError, match="--charset: no strokes for 'ア'; leave out what cannot be drawn"):
        run_drawn(run, str(file))
    with pytest.raises(DataError, match=r"val\.lmdb: '.{8}' and \d more not among the 11 characters that are drawn"):
        run_drawn(run, charset, small_pack)
    with pytest.raises(DataError, match=r"val\.lmdb: pictures of 32 px, expected 64: pack with --size 64"):
        run_drawn(run, "level1", small_pack, size=64)
    (tmp_path / "pack").mkdir()
    shutil.copy(small_pack / "train.lmdb", tmp_path / "pack/train.lmdb")
    with pytest.raises(UsageError, match="has no val split to validate on; leave --data out"):
        run_drawn(run, charset, tmp_path / "pack")
    with pytest.raises(UsageError, match="--charset gb2312: names what --draw draws; a pack has its own characters"):
        train(TrainConfig(**GIVEN | {"charset": "gb2312"}), small_pack, run, Execution("cpu"), Watcher(), resume=False)
    with pytest.raises(UsageError, match=r"--pages 0\.5: says how --draw draws; a pack has its own pictures"):
        train(TrainConfig(**GIVEN | {"pages": 0.5}), small_pack, run, Execution("cpu"), Watcher(), resume=False)
    with pytest.raises(UsageError, match="--draw 99: the run was started with 88"):
        run_drawn(uncut, charset, resume=True, draw=99)
    assert not run.exists()


def hcr(command: Any, *arguments: object) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


def test_the_commands_draw_go_on_judge_and_predict(
    charset: str, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cpu = ("--device", "cpu")
    flags = ("--size", 32, "--arch", "compact", "--epochs", 1, "--batch-size", 20, "--precision", "fp32", *cpu)
    shown = hcr(main, "--draw", "--dry-run", "--charset", charset, *flags).stdout
    assert shown.startswith(
        "run         artifacts/endless-32-compact, new\npictures    drawn as they are needed: 100,000"
    )
    assert (
        f"100,000 train + {VALIDATION_PICTURES:,} val samples of 32 px, 11 characters" in shown
        and "steps       5,000" in shown
    )
    assert "draw = 100000" in shown and not Path("artifacts").exists()
    # Nor does it need a name or a pack where there are two packs.
    for name in ("first-32", "second-32"):
        shutil.copytree(small_pack, Path("data/packed", name))
    first = hcr(main, "--draw", 80, "--charset", charset, *flags)
    assert first.stdout.startswith("artifacts/endless-32-compact: done after 4 steps; best epoch 1: val top-1 ")
    assert first.stdout.endswith(
        "of 20\nnext: hcr-eval --run endless-32-compact --data PACK\n"
        "PACK: any pack with these characters, or add --only-shared\n"
    )
    assert "training artifacts/endless-32-compact on drawn handwriting, cpu" in first.stderr
    again = hcr(main, "--run", "endless-32-compact", "--resume", *cpu)
    assert "resuming artifacts/endless-32-compact at step 4" in again.stderr
    repeated = hcr(main, "--draw", 80, "--charset", charset, "--resume", *flags)
    assert "resuming artifacts/endless-32-compact at step 4" in repeated.stderr
    assert find_run(None) == Path("artifacts/endless-32-compact")
    judged = hcr(eval.main, "--data", "data/packed/first-32", "--only-shared", *cpu, "--workers", 0).stdout
    assert "NOT A TEST" not in judged and "artifacts/endless-32-compact on data/packed/first-32 test: n " in judged
    Image.fromarray(drawn(SequentialBatches(1, 1))[0].images[0, 0].numpy()).save("picture.png")
    assert "picture.png" in hcr(predict.main, "picture.png", "--run", "endless-32-compact", *cpu).stdout
    # A pack named beside --draw judges, and is remembered.
    more = {*CHARACTERS, *open_reader(small_pack / "val.lmdb").charset.characters}
    Path("more.txt").write_text("\n".join(more), "utf-8")
    judge = ("--draw", 80, "--charset", "more.txt", "--run", "by", "--data", "data/packed/first-32")
    assert (
        "of 12\nnext: hcr-eval --run by --data data/packed/first-32 --only-shared\n" in hcr(main, *judge, *flags).stdout
    )
    shown = hcr(main, "--run", "by", "--resume", "--dry-run", *cpu).stdout
    assert "drawn as they are needed, validated on data/packed/first-32: 80 train + 12 val samples" in shown
    assert checkpoints(Path("artifacts/by"))[0].name == "step-00000004.pt"
