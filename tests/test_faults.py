"""Numbers that are not finite: such a step is left out, a row of them undone, and nothing of it is saved."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hcr.errors import HcrError, Stopped
from hcr.layout import checkpoints
from hcr.models import BACKBONES, read_checkpoint
from hcr.training import Execution, TrainConfig, train
from tests.runs import GIVEN, Tiny, Watcher, end_of, require_equal, run_to_end


class Poisoned(Tiny):
    """A network that gives no numbers at some of the steps that it is trained in; it counts them over all instances."""

    at: frozenset[int] = frozenset()
    steps = 0

    def __init__(self, classes: int, size: int) -> None:
        super().__init__(classes, size)
        self.norm = torch.nn.BatchNorm2d(1)

    def forward(self, ink: torch.Tensor) -> torch.Tensor:
        if self.training:
            Poisoned.steps += 1
            if Poisoned.steps in Poisoned.at:
                ink = ink * torch.nan
        return super().forward(self.norm(ink))


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Poisoned]]:
    monkeypatch.setitem(BACKBONES, "poisoned", Poisoned)
    Poisoned.at, Poisoned.steps = frozenset(), 0
    yield Poisoned


SETTINGS: dict[str, Any] = GIVEN | {"arch": "poisoned"}


def run(pack: Path, folder: Path, **given: Any) -> Watcher:
    watcher = Watcher()
    train(
        TrainConfig(**SETTINGS | given),
        pack,
        folder,
        Execution("cpu", workers=0, checkpoint_every=4),
        watcher,
        resume=True,
    )
    return watcher


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_bad_step_is_left_out_and_counted(
    poisoned: type[Poisoned], small_pack: Path, tmp_path: Path, precision: str
) -> None:
    poisoned.at = frozenset({6, 10, 11})
    watcher = run(small_pack, tmp_path / "run", precision=precision)
    assert [note for note in watcher.notes if "finite" in note] == [
        f"step {step}: loss or gradients are not finite; left out" for step in (6, 10, 11)
    ]
    assert [row["skipped_steps"] for row in watcher.rows] == [0, 1, 3]
    content = read_checkpoint(checkpoints(tmp_path / "run")[0])
    assert content["step"] == 12 and content["faults"] == {"skipped": 3, "in_row": 0, "halved": 0}
    # Batch norm saw the bad pictures, too: its averages must not have kept them.
    for part in ("model", "ema"):
        assert all(tensor.isfinite().all() for tensor in content[part].values())
    assert 0 < watcher.rows[-1]["train_loss"] < 10


def test_three_in_a_row_go_back_with_half_the_rate(poisoned: type[Poisoned], small_pack: Path, tmp_path: Path) -> None:
    poisoned.at = frozenset({6, 7, 8})
    folder = tmp_path / "run"
    watcher = run(small_pack, folder)
    # Back to step 4, where the last checkpoint is: steps 5 to 8 are taken again.
    assert "going back to step 4 with half the learning rate" in watcher.notes
    assert watcher.steps == [1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8, 9, 10, 11, 12]
    assert [(row["epoch"], row["step"]) for row in watcher.rows] == [(1, 4), (2, 8), (3, 12)]
    assert [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] == watcher.rows
    poisoned.at, poisoned.steps = frozenset(), 0
    plain = run(small_pack, tmp_path / "plain")
    assert [a["lr"] / b["lr"] for a, b in zip(watcher.rows, plain.rows, strict=True)] == [1, 0.5, 0.5]


def test_a_run_that_fails_from_the_start_goes_back_twice_and_leaves_the_batch(
    poisoned: type[Poisoned], small_pack: Path, tmp_path: Path
) -> None:
    poisoned.at = frozenset(range(100))
    with pytest.raises(
        HcrError, match=r"finite after step 3, although the learning rate was halved 2 times"
    ) as gave_up:
        run(small_pack, tmp_path / "run")
    assert poisoned.steps == 9 and not checkpoints(tmp_path / "run")
    file = tmp_path / "run/not-finite-step-00000003.npz"
    assert str(gave_up.value).endswith(
        f"2 times; there is no checkpoint yet, and the batch is in {file}. Look at the batch, or start another --run "
        "with a lower --lr, --clip 0.1 or --precision fp32"
    )
    with np.load(file) as kept:
        assert kept["images"].shape == (20, 1, 32, 32) and kept["images"].dtype == np.uint8
        assert kept["labels"].shape == kept["index"].shape == (20,)


def test_a_run_that_gives_up_says_that_its_checkpoint_is_kept(
    poisoned: type[Poisoned], small_pack: Path, tmp_path: Path
) -> None:
    poisoned.at = frozenset(range(6, 100))
    with pytest.raises(HcrError, match=r"2 times; the last checkpoint is kept, and the batch is in .*\.npz\. Look at"):
        run(small_pack, tmp_path / "run")
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-00000004.pt"]


class Moody(Tiny):
    """Gives no numbers for some pictures, always the same ones."""

    modulus = 0

    def forward(self, ink: torch.Tensor) -> torch.Tensor:
        bad = self.training and int(ink.sum()) % Moody.modulus == 0
        return super().forward(ink * torch.nan if bad else ink)


def test_steps_left_out_are_left_out_again(monkeypatch: pytest.MonkeyPatch, small_pack: Path, tmp_path: Path) -> None:
    monkeypatch.setitem(BACKBONES, "moody", Moody)
    given, skipped = GIVEN | {"arch": "moody"}, 0
    # Which pictures these are depends on how they are drawn: some number finds a few of them, and not three in a row.
    for Moody.modulus in range(4, 20):
        run = tmp_path / f"whole-{Moody.modulus}"
        with suppress(HcrError):
            run_to_end(small_pack, run, **given)
            skipped = end_of(run)[0]["faults"]["skipped"]
        if skipped:
            break
    assert skipped
    for step in (2, 5, 6, 7, 10):
        watcher = Watcher(step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped):
            train(TrainConfig(**given), small_pack, tmp_path / "cut", Execution("cpu", workers=0), watcher, resume=True)
    run_to_end(small_pack, tmp_path / "cut", resume=True, **given)
    require_equal(end_of(tmp_path / "cut"), end_of(run))


def test_a_rate_that_blows_up_is_never_saved(small_pack: Path, tmp_path: Path) -> None:
    with pytest.raises(HcrError, match="not finite after step"):
        run_to_end(small_pack, tmp_path / "run", lr=10.0, weight_decay=10.0, warmup=0.0, epochs=500, precision="fp32")
    for path in checkpoints(tmp_path / "run"):
        assert all(tensor.isfinite().all() for tensor in read_checkpoint(path)["model"].values())


def test_clipping_bounds_what_a_step_does(poisoned: type[Poisoned], small_pack: Path, tmp_path: Path) -> None:
    rows = {clip: run(small_pack, tmp_path / str(clip), clip=clip).rows for clip in (0.0, 1e6, 1e-6)}
    require_equal(rows[0.0], rows[1e6])
    assert rows[1e-6][-1]["train_loss"] != rows[0.0][-1]["train_loss"]
