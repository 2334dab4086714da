"""Kill training without mercy at random moments, start it again, and compare what comes out with a run left alone.

Each start is a process of its own, forked from this one, so that it need not import torch anew, and ended by SIGKILL
after a random time: while it opens the pack, takes steps, validates, or saves. Worker counts and ways of reading change
between starts. When a run has come to its end, the bytes of its last checkpoint's weights, averages, moments and of its
metrics.jsonl must be those of the run that nobody killed; then the next run begins, until there were enough kills.

    python benchmarks/kills.py --kills 200
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hcr.charset import Charset
from hcr.corpus.find import find_corpus
from hcr.corpus.synthetic import draw_corpus, spread
from hcr.layout import checkpoints
from hcr.models import BACKBONES, read_checkpoint
from hcr.pack.config import PackConfig
from hcr.pack.packer import pack
from hcr.pack.store import close_packs
from hcr.training import Execution, TrainConfig, train
from hcr.training.observer import NullObserver

# What a start may change without changing anything.
WAYS = ({"workers": 0}, {"workers": 1}, {"workers": 2}, {"workers": 0, "cache": "ram"})


class Tiny(nn.Module):
    """A network with all that has a state (batch norm, dropout), small enough to save in milliseconds."""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 5, 4, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
            nn.Dropout(0.2), nn.Linear(128, classes),
        )  # fmt: skip

    def forward(self, ink: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.layers(ink)


def small_pack(folder: Path) -> Path:
    """Draw and pack 12 characters by 10 writers, at 32 px."""
    draw_corpus(folder / "raw", spread(Charset.level1(), 12), writers=10, seed=7)
    pack(find_corpus([folder / "raw"], allowed=None, numbering=Charset.level1()), folder / "pack", PackConfig(size=32))
    return folder / "pack"


def start(settings: dict[str, Any], data: Path, run: Path, way: dict[str, Any]) -> int:
    """Train in a forked process, going on where the last one was; give its pid."""
    # LMDB environments must not cross a fork.
    close_packs()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        train(
            TrainConfig(**settings), data, run, Execution("cpu", checkpoint_every=1, **way), NullObserver(), resume=True
        )
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def digest(run: Path) -> dict[str, str]:
    """Return digests of what must not differ."""
    content = read_checkpoint(checkpoints(run)[0])
    found = {"metrics": hashlib.sha256((run / "metrics.jsonl").read_bytes()).hexdigest()}
    for part in ("model", "ema", "optimizer"):
        sha = hashlib.sha256()
        _feed(sha, content[part])
        found[part] = sha.hexdigest()
    rest = {key: content[key] for key in ("step", "epochs", "tally", "faults", "schedule", "best", "random")}
    return found | {"rest": repr(rest)}


def _feed(sha: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        sha.update(value.contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for key in value:
            sha.update(str(key).encode())
            _feed(sha, value[key])
    elif isinstance(value, list | tuple):
        for each in value:
            _feed(sha, each)
    else:
        sha.update(repr(value).encode())


def campaign(data: Path, folder: Path, kills: int, seed: int) -> str:
    """Kill so often; give a report. Raises: RuntimeError where a start fails, AssertionError where a bit differs."""
    rng = random.Random(seed)
    settings = {"arch": "tiny", "batch_size": 4, "epochs": 3, "lr": 3e-3, "seed": seed}
    whole = folder / "whole"
    began = time.monotonic()
    _, status = os.waitpid(start(settings, data, whole, WAYS[0]), 0)
    # Some starts are killed before they do anything, some come to their end: a slow machine must not change that.
    longest = 1.1 * (time.monotonic() - began)
    if status:
        raise RuntimeError("the run that nobody kills failed")
    wanted, done, runs, moments = digest(whole), 0, 0, Counter[str]()
    while done < kills or runs == 0:
        run, finished = folder / f"run-{runs}", False
        while not finished:
            pid = start(settings, data, run, rng.choice(WAYS))
            time.sleep(rng.uniform(0, longest))
            ended, status = os.waitpid(pid, os.WNOHANG if done < kills else 0)
            if not ended:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                done += 1
                moments[moment(run)] += 1
            elif status:
                raise RuntimeError(f"a start failed with status {status}")
            finished = bool(ended)
        assert digest(run) == wanted, f"after {done} kills {run} differs: {digest(run)} instead of {wanted}"
        shutil.rmtree(run)
        runs += 1
    told = ", ".join(f"{count} {name}" for name, count in moments.most_common())
    return f"{done} kills ({told}) in {runs} runs of 63 steps, 0 differences, torch {torch.__version__}"


def moment(run: Path) -> str:
    """Say what a start was doing when it was killed, as far as its files tell."""
    if list((run / "checkpoints").glob(".*.tmp")):
        for left in (run / "checkpoints").glob(".*.tmp"):
            left.unlink()
        return "while saving"
    return "between savings" if checkpoints(run) else "before the first checkpoint"


def main() -> None:
    """Run a campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    BACKBONES["tiny"] = Tiny
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(campaign(small_pack(Path(folder)), Path(folder), given.kills, given.seed))


if __name__ == "__main__":
    main()
