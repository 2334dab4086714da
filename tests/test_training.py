"""Training: what a run leaves, settings, and what is refused."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hcr.config import read_recipe, settings_of
from hcr.errors import DataError, HcrError, Stopped, UsageError
from hcr.layout import checkpoints
from hcr.models import load_recognizer, read_checkpoint
from hcr.training import Execution, TrainConfig, train, trainer
from hcr.training.config import resolved
from hcr.training.distributed import Processes
from hcr.training.setup import choose_run, process_settings_kept, set_up_run
from hcr.training.state import ema_rate, learning_rate
from tests.runs import GIVEN, Watcher, end_of, require_equal, run_to_end


def test_a_run_leaves_what_is_promised(whole: Path, small_pack: Path) -> None:
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [(row["epoch"], row["step"], row["val_n"]) for row in rows] == [(1, 4, 12), (2, 8, 12), (3, 12, 12)]
    assert [path.name for path in checkpoints(whole)] == ["step-00000012.pt", "step-00000011.pt"]
    content = read_checkpoint(whole / "checkpoints/best.pt")
    best = max(rows, key=lambda row: (row["val_top1"], -row["epoch"]))
    assert content["best"] == best and content["step"] == best["step"]
    assert content["config"] == {**TrainConfig(**GIVEN, size=32).__dict__, "pages": 0.0}
    record = json.loads((whole / "run.json").read_text())
    assert record["pack"]["path"] == str(small_pack) and set(record["pack"]["digests"]) == {"train", "val"}
    assert record["config"]["seed"] == 5 and record["versions"]["torch"] and record["charset"]["count"] == 12
    assert not list(whole.rglob("*.tmp"))


@pytest.mark.parametrize(("workers", "cache"), [(2, "none"), (0, "ram"), (1, "device")])
def test_how_batches_come_changes_nothing(
    whole: Path, small_pack: Path, tmp_path: Path, workers: int, cache: str
) -> None:
    watcher = run_to_end(small_pack, tmp_path / "run", workers=workers, cache=cache)
    require_equal(end_of(tmp_path / "run"), end_of(whole))
    held = [f"--cache {cache}: reading train and val, {(84 + 12) * 32 * 32:,} bytes, to hold in memory"]
    assert [note for note in watcher.notes if "--cache" in note] == ([] if cache == "none" else held)
    assert json.loads((tmp_path / "run/run.json").read_text())["starts"][0]["cache"] == cache


def test_epochs_are_timed_beside_the_metrics(small_pack: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Stopped):
        interrupted = Watcher(6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        train(TrainConfig(**GIVEN), small_pack, run, Execution("cpu"), interrupted, resume=False)
    watcher = run_to_end(small_pack, run, resume=True)
    lines = [json.loads(line) for line in (run / "timings.jsonl").read_text().splitlines()]
    assert lines == interrupted.timings + watcher.timings
    # An epoch that was stopped is timed from where it went on.
    assert [(line["epoch"], line["steps"]) for line in lines] == [(1, 4), (2, 2), (3, 4)]
    for line in lines:
        assert 0 < line["data_wait"] < 1
        assert line["pictures_per_second"] == pytest.approx(line["steps"] * 20 / line["seconds"], rel=0.05)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_so_much_of_the_networks_dropout_is_used(small_pack: Path, tmp_path: Path, share: float) -> None:
    given = GIVEN | {"dropout": share}
    setup = set_up_run(TrainConfig(**given), small_pack, tmp_path / "run", Execution("cpu"), Processes(), Watcher())[0]
    model = setup.state(None, Watcher()).model
    shares = [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout | nn.Dropout2d)]
    assert shares == pytest.approx([0.05 * share, 0.1 * share, 0.15 * share, 0.5 * share])


def estimate_after(seconds: float, pack: Path, run: Path) -> str:
    """The time left that a run of two epochs tells, whose first step takes `seconds` longer."""
    watcher = Watcher(1, lambda: time.sleep(seconds))
    train(TrainConfig(**GIVEN | {"epochs": 2}), pack, run, Execution("cpu", workers=0), watcher, resume=False)
    (note,) = (note for note in watcher.notes if "steps left" in note)
    return note


def test_the_first_step_does_not_count_for_the_time_left(small_pack: Path, tmp_path: Path) -> None:
    # With --compile it takes a minute.
    note = estimate_after(3.0, small_pack, tmp_path / "run")
    found = re.search(r"for the (\d+) steps left of 2 epochs, at ([\d,]+) pictures a second", note)
    assert found, note
    assert float(found[2].replace(",", "")) > int(found[1]) * GIVEN["batch_size"] / 3


def test_slow_steps_do_not_hold_back_the_time_left(
    small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "LATEST_SECONDS", 1.0)
    note = estimate_after(1.5, small_pack, tmp_path / "run")
    # Of 8 steps one is taken, and by it the others are judged: 20 pictures in 1.5 seconds and a little.
    found = re.search(r"for the 7 steps left of 2 epochs, at ([\d,]+) pictures a second", note)
    assert found and 1 <= int(found[1]) <= 13, note


def test_training_keeps_the_memory_that_it_frees() -> None:
    code = """
import resource, torch
from hcr.training import Execution
from hcr.training.setup import choose_kernels

def cleared_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(12_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = cleared_pages()
choose_kernels(Execution("cpu"))
print(before, cleared_pages())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, run.stdout.split())
    # 48 MB are 11,719 pages: cleared twenty times before; after it once, or a few times until the block is reused.
    assert before > 200_000 and after < 60_000


def test_what_does_not_fit_the_run_is_refused(whole: Path, small_pack: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has checkpoints; resume it with --resume"):
        run_to_end(small_pack, whole)
    with pytest.raises(UsageError, match=r"--lr 0\.5: the run was started with 0\.002"):
        run_to_end(small_pack, whole, resume=True, lr=0.5)
    with pytest.raises(UsageError, match="--arch efficientnet_v2_s: the run was started with compact"):
        run_to_end(small_pack, whole, resume=True, arch="efficientnet_v2_s")
    with pytest.raises(DataError, match=r"train\.lmdb: pictures of 32 px, expected 64: pack with --size 64"):
        run_to_end(small_pack, tmp_path / "a", size=64)
    with pytest.raises(
        UsageError, match=r"--batch-size 85: .* has only 84 training samples; use --batch-size 84 or fewer"
    ):
        run_to_end(small_pack, tmp_path / "a", batch_size=85)
    with pytest.raises(DataError, match="not a pack"):
        run_to_end(tmp_path, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_run_stays_with_its_pack(whole: Path, corpus_folder: Path, tmp_path: Path) -> None:
    from hcr.charset import Charset
    from hcr.corpus.find import find_corpus
    from hcr.pack.config import PackConfig
    from hcr.pack.packer import pack

    corpus = find_corpus([corpus_folder], allowed=None, numbering=Charset.level1())
    pack(corpus, tmp_path / "other", PackConfig(size=32, seed=1))
    with pytest.raises(DataError, match="but the run was started on"):
        run_to_end(tmp_path / "other", whole, resume=True)
    allowed = Charset(read_checkpoint(checkpoints(whole)[0])["characters"][1:])
    pack(corpus, tmp_path / "fewer", PackConfig(size=32, characters=allowed))
    with pytest.raises(DataError, match=r"another charset \(11 characters.*label 0 is"):
        run_to_end(tmp_path / "fewer", whole, resume=True)


def test_a_pack_without_validation_trains(small_pack: Path, tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    shutil.copy(small_pack / "train.lmdb", tmp_path / "pack/train.lmdb")
    run = tmp_path / "run"
    watcher = run_to_end(tmp_path / "pack", run, epochs=1)
    assert "val_top1" not in watcher.rows[0] and not (run / "checkpoints/best.pt").exists()


def test_training_learns(small_pack: Path, tmp_path: Path) -> None:
    watcher = run_to_end(small_pack, tmp_path / "run", epochs=25)
    assert watcher.rows[0]["train_loss"] > 2 and watcher.rows[-1]["train_top1"] > 0.9
    best = read_checkpoint(tmp_path / "run/checkpoints/best.pt")
    assert best["best"]["val_top1"] >= 0.5
    assert load_recognizer(tmp_path / "run/checkpoints/best.pt").charset.characters == best["characters"]


def test_efficientnet_takes_steps(small_pack: Path, tmp_path: Path) -> None:
    given = GIVEN | {"arch": "efficientnet_v2_s", "epochs": 1, "batch_size": 4}
    watcher = Watcher(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Stopped, match="at step 2 of 21"):
        train(TrainConfig(**given), small_pack, tmp_path / "run", Execution("cpu"), watcher, resume=False)


def test_schedules() -> None:
    rates = [learning_rate(step, 100, 1.0, 0.1) for step in range(100)]
    assert rates[0] == 0.1 and rates[9] == 1.0 and rates[10] == 1.0 and rates[99] < 0.01
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert ema_rate(0, 0.999) == 1 and ema_rate(10**6, 0.999) == pytest.approx(0.001)
    average = 0.0
    for step in range(1000):
        average += (step - average) * ema_rate(step, 0.9999)
    assert average == pytest.approx(800, abs=2), "the mean step of a short run's average, whatever the decay"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "--epochs 0: expected 1 to 10,000"),
        ({"lr": -1.0}, "--lr -1.0: expected 1e-08 to 10"),
        ({"size": 16}, "--size 16: expected 32 to 256"),
        ({"batch_size": 1}, "--batch-size 1: expected 2 to"),
        ({"schedule": "linear"}, "--schedule 'linear': expected one of cosine, plateau"),
        ({"arch": "compat"}, r"did you mean compact\?"),
    ],
)
def test_settings_out_of_range(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(**given)


def test_ways_of_execution_out_of_range() -> None:
    with pytest.raises(UsageError, match="--workers -1: expected 0 or more"):
        Execution("cpu", workers=-1)
    with pytest.raises(UsageError, match="--cache 'disk': expected one of none, ram, device"):
        Execution(cache="disk")


def test_settings_describe_themselves() -> None:
    for settings in (TrainConfig, Execution):
        text = settings.__doc__ or ""
        for name, declared in settings_of(settings).items():
            (line,) = (line.strip() for line in text.splitlines() if line.strip().startswith(f"{name} ("))
            assert line.endswith(declared.help)


def test_what_nobody_chose_is_decided_by_device_and_pack(small_pack: Path, tmp_path: Path) -> None:
    config = TrainConfig(arch="compact", epochs=1)
    assert (config.size, config.batch_size, config.precision) == (None, None, None)
    setup, _ = set_up_run(config, small_pack, tmp_path / "run", Execution("cpu"), Processes(), Watcher())
    usual = Execution("cpu").usual()
    assert (setup.config.size, setup.config.batch_size, setup.config.precision) == (32, 64, usual["precision"])
    assert Execution("cpu").readers == 1 and Execution("cpu", workers=3).readers == 3


@pytest.mark.parametrize(("samples", "batch_size"), [(255, 64), (64, 64), (63, 32), (43, 32), (3, 2), (2, 2), (1, 2)])
def test_a_batch_size_that_nobody_chose_fits_a_small_pack(samples: int, batch_size: int) -> None:
    assert resolved(TrainConfig(), Execution("cpu"), 64, samples).batch_size == batch_size
    assert resolved(TrainConfig(batch_size=50), Execution("cpu"), 64, samples).batch_size == 50


def test_a_small_epoch_trains_in_small_steps_and_says_so(small_pack: Path, tmp_path: Path) -> None:
    config, watcher = TrainConfig(arch="compact", epochs=1, draw=43, size=32, charset="level1"), Watcher()
    setup, _ = set_up_run(config, None, tmp_path / "run", Execution("cpu"), Processes(), watcher)
    assert setup.config.batch_size == 32 and setup.per_epoch == 1
    assert watcher.notes == ["32 pictures a step, as there are only 43 training samples"]
    watcher = Watcher()
    set_up_run(TrainConfig(arch="compact"), small_pack, tmp_path / "run", Execution("cpu"), Processes(), watcher)
    assert watcher.notes == []
    with pytest.raises(UsageError, match=r"^--batch-size 64: --draw 43 .* samples; use --batch-size 43 or fewer$"):
        set_up_run(replace(config, batch_size=64), None, tmp_path / "run", Execution("cpu"), Processes(), watcher)
    with pytest.raises(UsageError, match=r"; use --batch-size 42 or fewer$"):
        two = Processes(0, 2)
        set_up_run(replace(config, batch_size=64), None, tmp_path / "run", Execution("cpu"), two, watcher)
    with pytest.raises(UsageError, match=r"^--batch-size 2: --draw 1 .* sample; there must be 2 or more$"):
        set_up_run(replace(config, draw=1), None, tmp_path / "run", Execution("cpu"), Processes(), watcher)


def test_training_leaves_the_process_as_it_was(small_pack: Path, tmp_path: Path) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    run_to_end(small_pack, tmp_path / "run", epochs=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("ends_well", [True, False])
def test_what_training_changes_is_put_back(ends_well: bool) -> None:
    def state() -> tuple[object, ...]:
        return (
            torch.backends.cudnn.benchmark,
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.get_rng_state().tolist(),
        )

    before = state()
    with suppress(HcrError), process_settings_kept("cpu"):
        torch.backends.cudnn.benchmark = not before[0]
        torch.set_float32_matmul_precision("medium")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.manual_seed(1)
        assert not {before[0], before[1]} & {torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()}
        if not ends_well:
            raise HcrError("failed")
    assert state() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_training_on_a_gpu_leaves_the_process_as_it_was(small_pack: Path, tmp_path: Path) -> None:
    torch.cuda.manual_seed(11)
    expected = torch.rand(3, device="cuda")
    torch.cuda.manual_seed(11)
    assert Execution("cuda").readers >= 1
    before = (torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision())
    config, run = TrainConfig(**GIVEN | {"epochs": 1}), tmp_path / "run"
    train(config, small_pack, run, Execution(deterministic=True), Watcher())
    assert torch.equal(torch.rand(3, device="cuda"), expected)
    assert (torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()) == before
    assert not torch.are_deterministic_algorithms_enabled()
    assert json.loads((run / "run.json").read_text())["starts"][0]["device"] == "cuda"


def test_only_chosen_settings_are_held_against_a_run(whole: Path, small_pack: Path) -> None:
    before = end_of(whole)
    # By themselves the differences from the defaults count as chosen.
    train(TrainConfig(arch="compact"), small_pack, whole, Execution("cpu"), Watcher(), resume=True)
    with pytest.raises(UsageError, match="--epochs 7: the run was started with 3"):
        train(TrainConfig(epochs=7), small_pack, whole, Execution("cpu"), Watcher(), resume=True)
    # A default that somebody chose counts, too; what nobody chose does not.
    with pytest.raises(UsageError, match="--epochs 20: the run was started with 3"):
        chosen = frozenset({"epochs"})
        train(TrainConfig(), small_pack, whole, Execution("cpu"), Watcher(), chosen=chosen, resume=True)
    train(TrainConfig(epochs=7), small_pack, whole, Execution("cpu"), Watcher(), chosen=frozenset(), resume=True)
    require_equal(end_of(whole), before)


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", "/abs/x", "a\\b"])
def test_a_run_has_one_plain_name(name: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"run {name!r}: expected one plain name")):
        choose_run(TrainConfig(), Path("pack"), name, resume=False)


def test_recipes(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('arch = "compact"\nlr = 1\nbatch-size = 32\naugmentation = false\n')
    expected = {"arch": "compact", "lr": 1.0, "batch_size": 32, "augmentation": False}
    assert read_recipe(path, TrainConfig) == expected
    for text, message in (
        ("epoch = 3", r"unknown key 'epoch': did you mean 'epochs'\?"),
        ("epochs = 2.5", r"epochs = 2.5: expected a whole number"),
        ("batch_size = true", "batch_size = True: expected a whole number"),
        ("precision = 16", "precision = 16: expected text in quotes"),
        ('lr = "high"', "lr = 'high': expected a number"),
        ("epochs 3", "not TOML"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            read_recipe(path, TrainConfig)
    with pytest.raises(UsageError, match="cannot read the recipe"):
        read_recipe(tmp_path / "none.toml", TrainConfig)
