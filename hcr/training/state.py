"""What a run has learnt so far, and its checkpoints: exactly what a restart needs, in one file of plain types.

In this order: the schedules, the counts of an epoch and of faults, the state, and checkpoint files. A file is written
whole or not at all. It takes four times the weights (model, average, AdamW's two moments), so only the newest few are
kept, beside the best.
"""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, cast

import torch
from torch import Tensor, nn

from hcr.errors import DataError
from hcr.files import atomic_write, sync_folder
from hcr.layout import checkpoints
from hcr.models import Recognizer
from hcr.models.weights import FORMAT, VERSION, Checkpoint, load_weights, read_checkpoint
from hcr.preprocess.fit import PREPROCESSING
from hcr.records import MetricsRow
from hcr.training.config import ResolvedConfig
from hcr.training.distributed import Processes

# Of the plateau schedule, as in the tutorial that this project began with.
PATIENCE, FACTOR = 2, 0.5
# Checkpoints that are kept, beside the best.
KEPT = 2


def learning_rate(step: int, total: int, peak: float, warmup: float) -> float:
    """Return the learning rate at `step` of `total`: linear to `peak` over `warmup`, then a cosine to peak/1000."""
    rising = round(warmup * total)
    if step < rising:
        return peak * (step + 1) / rising
    falling = (step - rising) / max(1, total - rising)
    return peak * max(1e-3, 0.5 * (1 + math.cos(math.pi * falling)))


def ema_rate(step: int, decay: float) -> float:
    """Return the share of the newest weights in the average after `step`.

    It is large at first, or a short run would average its start: the average is over about the last quarter of the
    steps, until that is longer than `decay` makes it.
    Source: Shamir, Zhang 2013, "Stochastic gradient descent for non-smooth optimization", polynomial-decay averaging.
    """
    return max(1 - decay, 4 / (step + 4))


@dataclass
class Plateau:
    """Halves the learning rate when the validation loss has not fallen for more than `PATIENCE` epochs.

    factor: of the learning rate. best: the lowest loss, None before the first epoch. waited: epochs since then.
    """

    factor: float = 1.0
    best: float | None = None
    waited: int = 0

    def see(self, loss: float) -> None:
        """Count an epoch by its validation loss."""
        if self.best is None or loss < self.best:
            self.best, self.waited = loss, 0
        else:
            self.waited += 1
        if self.waited > PATIENCE:
            self.factor, self.waited = self.factor * FACTOR, 0


@dataclass
class Tally:
    """Sums over the training steps of the current epoch.

    They stay on the device, so that no step waits for them.
    """

    loss: float | Tensor = 0.0
    correct: float | Tensor = 0.0
    samples: float = 0.0

    @classmethod
    def of(cls, saved: dict[str, list[float]], processes: Processes) -> Tally:
        """Return this process's sums from a checkpoint; if it was of another number of processes, the first has all."""
        rows = [row if len(row) == processes.world else [sum(row)] + [0.0] * processes.world for row in saved.values()]
        return cls(*(row[processes.rank] for row in rows))


@dataclass
class Faults:
    """Counts of non-finite steps and of what was done about them; `trainer` says how these play together.

    skipped: steps left out in the whole run. in_row: of those, the ones since the last good step. halved: how often the
    run went back to a checkpoint with half the learning rate.
    """

    skipped: int = 0
    in_row: int = 0
    halved: int = 0


@dataclass
class TrainState:
    """Model, averaged weights, optimizer and position.

    step: steps taken. epochs: those validated and recorded. best: the best one's row. metrics_bytes: the length of
    metrics.jsonl with its line.
    """

    model: Recognizer
    ema: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    step: int = 0
    epochs: int = 0
    tally: Tally = field(default_factory=Tally)
    plateau: Plateau = field(default_factory=Plateau)
    faults: Faults = field(default_factory=Faults)
    best: MetricsRow | None = None
    metrics_bytes: int = 0

    @classmethod
    def of(cls, model: Recognizer, config: ResolvedConfig) -> TrainState:
        """Return the state of step 0 of training `model`, on the model's device."""
        model = model.to(memory_format=torch.channels_last)
        if config.sync_bn:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
                # Norms and biases: pulling them to zero would fight what they are for.
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=config.lr,
            # One pass over the weights instead of a dozen: a twentieth of a step of the compact network on a CPU.
            fused=True,
        )
        scaler = torch.amp.GradScaler(parameters[0].device.type, enabled=config.precision == "fp16")
        return cls(model, {key: value.clone() for key, value in model.state_dict().items()}, optimizer, scaler)

    def average(self, decay: float) -> None:
        """Move the averaged weights towards the model's, after a step."""
        rate = ema_rate(self.step, decay)
        current = self.model.state_dict()
        floats = [key for key, value in current.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.ema[key] for key in floats], [current[key] for key in floats], rate)
        for key in current.keys() - set(floats):
            self.ema[key].copy_(current[key])

    def plain(
        self, config: ResolvedConfig, pack: dict[str, str], teacher: str | None, processes: Processes
    ) -> Checkpoint:
        """Return the content of a checkpoint; all processes call this.

        pack: a digest for each split. teacher: the digest of its weights.
        """
        return {
            "format": FORMAT,
            "version": VERSION,
            "step": self.step,
            "arch": self.model.arch,
            "size": self.model.size,
            "characters": self.model.charset.characters,
            "charset_digest": self.model.charset.digest,
            "preprocessing": PREPROCESSING,
            "pack": pack,
            "teacher": teacher,
            "config": asdict(config),
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"step": self.step, **asdict(self.plateau)},
            "scaler": self.scaler.state_dict(),
            # A step's random numbers are a function of these two and the process's number.
            "random": {"seed": config.seed, "step": self.step},
            "epochs": self.epochs,
            "tally": dict(zip(vars(self.tally), processes.all(*vars(self.tally).values()), strict=True)),
            "faults": asdict(self.faults),
            "best": self.best,
            "metrics_bytes": self.metrics_bytes,
        }

    def restore(self, content: Checkpoint, path: Path, processes: Processes) -> None:
        """Take over a checkpoint's state. Raises: DataError naming `path` where its weights are another model's."""
        load_weights(self.model, content["model"], path)
        self.ema = {key: value.clone() for key, value in content["ema"].items()}
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        self.step, self.epochs = content["step"], content["epochs"]
        self.tally = Tally.of(content["tally"], processes)
        self.plateau = Plateau(**{name: content["schedule"][name] for name in vars(Plateau())})
        self.faults = Faults(**content["faults"])
        self.best = cast("MetricsRow | None", content["best"])
        self.metrics_bytes = content["metrics_bytes"]


def save_checkpoint(run: Path, content: Checkpoint, *, best: bool) -> None:
    """Write checkpoints/step-….pt, name it best.pt too where it is the best, and drop all but the newest.

    Raises: OSError where it cannot be written; the older checkpoints are then as they were.
    """
    path = checkpoint_path(run, content["step"])
    # A process that was killed while it wrote left these behind; only one at a time trains a run.
    for unfinished in path.parent.glob(".*.tmp"):
        unfinished.unlink()
    with atomic_write(path) as file:
        _write(content, file)
    if best:
        _link(path, path.with_name("best.pt"))
    # A resume skipped the files of later steps as damaged: they must not push out good ones.
    for old in [known for known in checkpoints(run) if known.name <= path.name][KEPT:]:
        old.unlink()


def checkpoint_path(run: Path, step: int) -> Path:
    """Return the file of a run's checkpoint after `step`."""
    return run / "checkpoints" / f"step-{step:08d}.pt"


def _write(content: object, file: IO[bytes]) -> None:
    """Save `content` as torch does. Raises: OSError where the disk is full."""
    try:
        torch.save(content, file)
    except RuntimeError as error:
        # torch reports that it cannot end the file, and hides the reason (a full disk).
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _link(path: Path, name: Path) -> None:
    """Give the file a second name: no bytes are copied, and dropping one name leaves the other."""
    temporary = name.with_name(f".{name.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:
        # A file system without hard links (exFAT, some network ones).
        shutil.copyfile(path, temporary)
    os.replace(temporary, name)
    sync_folder(name.parent)


def newest_valid(run: Path, device: str) -> tuple[Checkpoint | None, list[str]]:
    """Return a run's newest valid checkpoint by step (None without one), and why each newer one was skipped."""
    skipped: list[str] = []
    for path in checkpoints(run):
        try:
            return read_checkpoint(path, device), skipped
        except DataError as error:
            skipped.append(str(error))
    return None, skipped
