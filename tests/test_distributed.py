"""Several processes train one network: the same samples, the same losses, one writer, and exact restarts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hcr.feed.sampler import SequentialBatches, TrainingBatches
from tests.runs import end_of, require_equal

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_any_number_of_ranks_sees_the_same_samples_each_step(world: int) -> None:
    alone = list(TrainingBatches(103, 12, seed=3))
    shares = [list(TrainingBatches(103, 12, 3, rank, world)) for rank in range(world)]
    assert [len(share) for share in shares] == [len(alone)] * world
    for batch, *parts in zip(alone, *shares, strict=True):
        assert all(len(part) == 12 // world for part in parts)
        assert set(np.concatenate(parts)) == set(batch)


@pytest.mark.parametrize(("n", "world"), [(12, 2), (13, 2), (17, 4), (8, 3), (1, 3)])
def test_evaluation_counts_each_sample_once(n: int, world: int) -> None:
    shares = [SequentialBatches(n, 8, rank, world) for rank in range(world)]
    for share in shares:
        assert len(list(share)) == len(share) and all(len(batch) <= share.share for batch in share)
    seen = [index for share in shares for batch in share for index in batch.tolist()]
    assert sorted(seen) == list(range(n))


SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from hcr.models import BACKBONES
from hcr.training import Execution, TrainConfig, train
from tests.runs import Tiny, Watcher
BACKBONES["tiny"] = Tiny
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
pack, run, victim = Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
settings = {"arch": "tiny", "epochs": 3, "batch_size": 20, "seed": 5, "augmentation": False, "precision": "fp32"}
if victim and os.environ["RANK"] == victim and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    from hcr.training.step import Stepper
    take = Stepper.take
    def die(self, *given):
        if self.state.step == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return take(self, *given)
    Stepper.take = die
watcher = Watcher()
train(TrainConfig(**settings), pack, run, Execution("cpu", workers=0, checkpoint_every=1), watcher, resume=True)
if watcher.steps:
    print("spoke:", os.environ.get("RANK"), watcher.steps[0], flush=True)
"""


def torchrun(pack: Path, run: Path, processes: int, *, victim: str = "") -> str:
    """Train by torchrun; give what the processes that were told of steps printed."""
    script = run.parent / "script.py"
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    launcher += ["--max-restarts", "1"] if victim else []
    done = subprocess.run(
        [*launcher, str(script), str(ROOT), str(pack), str(run), victim],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_ranks_learn_what_one_learns_and_a_killed_one_changes_nothing(small_pack: Path, tmp_path: Path) -> None:
    assert torchrun(small_pack, tmp_path / "one", 1) == "spoke: 0 1\n"
    assert torchrun(small_pack, tmp_path / "two", 2) == "spoke: 0 1\n"
    one, two = (
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    )
    assert len(one) == len(two) == 3
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys() and (a["step"], a["val_n"]) == (b["step"], b["val_n"]) == (4 * a["epoch"], 12)
        for name in ("train_loss", "val_loss"):
            assert abs(a[name] - b[name]) < 1e-5
        for name in ("train_top1", "val_top1", "val_top5"):
            assert a[name] == b[name]
    assert json.loads((tmp_path / "two/run.json").read_text())["starts"][0]["processes"] == 2
    # The second rank dies in its 7th step; torchrun starts both anew, which go on from the checkpoint of step 6.
    assert torchrun(small_pack, tmp_path / "killed", 2, victim="1").splitlines()[-1] == "spoke: 0 7"
    require_equal(end_of(tmp_path / "killed"), end_of(tmp_path / "two"))


def test_a_batch_that_cannot_be_shared_is_refused(small_pack: Path, tmp_path: Path) -> None:
    line = ["--data", str(small_pack), "--run", "run", "--arch", "compact", "--batch-size", "7", "--device", "cpu"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "--", "hcr.cli.train", *line], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: --batch-size 7: no multiple of the 2 processes that share it" in done.stderr
