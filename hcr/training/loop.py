"""The training run: steps, a validation an epoch, checkpoints, and a stop at any moment.

Order and augmentation are functions of (seed, epoch, step) and the rest is in the checkpoint, so a run that was stopped
and resumed ends with the same bits as one that was not (on a CPU; a GPU also needs deterministic kernels).
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from hcr.charset import Charset
from hcr.errors import DataError, HcrError, Stopped, UsageError
from hcr.feed.augment import augment
from hcr.feed.batch import Batch
from hcr.feed.loader import Loader
from hcr.feed.order import SequentialBatches, TrainingBatches, steps_per_epoch
from hcr.feed.resident import resident_bytes
from hcr.feed.stream import worker_errors
from hcr.layout import checkpoints, splits_of
from hcr.models import Recognizer
from hcr.pack.store import PackReader, open_pack
from hcr.stop import StopFlag
from hcr.training import checkpoint
from hcr.training.config import Execution, TrainConfig, config_for
from hcr.training.observer import Observer
from hcr.training.record import write_record
from hcr.training.schedule import learning_rate
from hcr.training.state import Tally, TrainState
from hcr.training.timing import EpochClock

# Without --checkpoint-every, a checkpoint is written when the last one is this old.
CHECKPOINT_SECONDS = 600.0
# Pictures a step where nobody says. On a CPU a step of 256 would take half a minute, and a stop waits for its end.
CUDA_BATCH, CPU_BATCH = 256, 64
# After this long the speed is known well enough to say how long the run will take.
ESTIMATE_SECONDS = 15.0
# Steps between looks at the loss on a GPU, each of which waits for it.
LOSS_STEPS = 20


@dataclass(frozen=True)
class TrainSummary:
    """How a run ended: its folder, its steps, and the row of its best epoch (None without a validation split)."""

    run: Path
    steps: int
    best: dict[str, Any] | None


def train(
    given: dict[str, Any], pack: Path, run: Path, execution: Execution, observer: Observer, *, resume: bool
) -> TrainSummary:
    """Train on the train split of `pack` into the folder `run`, judging each epoch on its val split where it has one.

    given: the fields of TrainConfig that somebody chose; else `size` is the pack's and `batch_size` the device's.
    Raises: Stopped after a signal, with everything saved; DataError or UsageError for what does not fit together;
    HcrError for a worker that died, in which case the last checkpoint stands.
    """
    with StopFlag() as stop, worker_errors():
        trainer = _prepare(given, pack, run, execution, observer, stop, resume=resume)
        return trainer.run_to_end()


def _prepare(
    given: dict[str, Any],
    pack: Path,
    run: Path,
    execution: Execution,
    observer: Observer,
    stop: StopFlag,
    *,
    resume: bool,
) -> Trainer:
    """Bring settings, pack and checkpoint together, or refuse what does not fit."""
    if checkpoints(run) and not resume:
        raise UsageError(f"{run}: has checkpoints; go on with --resume, or name another --run")
    readers = {split: open_pack(pack / f"{split}.lmdb") for split in ("train", *splits_of(pack)) if split != "test"}
    reader = readers["train"]
    digests = {split: opened.digest for split, opened in readers.items()}
    found, skipped = checkpoint.newest_valid(run, execution.device)
    for message in skipped:
        observer.note(f"skipped a checkpoint: {message}")
    if not found:
        given = {"size": reader.size, "batch_size": CPU_BATCH if execution.device == "cpu" else CUDA_BATCH} | given
    config = config_for(given, found and found["config"])
    if config.size != reader.size:
        raise DataError(
            f"{reader.path}: pictures of {reader.size} px, expected {config.size}: pack with --size {config.size}"
        )
    if len(reader) < config.batch_size:
        raise UsageError(f"--batch-size {config.batch_size}: {reader.path} has only {len(reader)} samples")
    state = TrainState.fresh(config, reader.charset, execution.device)
    if found:
        source = run / "checkpoints" / f"step-{found['step']:08d}.pt"
        reader.charset.require_same(Charset(found["characters"]), str(reader.path), str(source))
        if found["pack"] != digests:
            raise DataError(
                f"{pack}: pack {digests}, but the run was started on {found['pack']}; name that one with --data"
            )
        state.restore(found, source)
        observer.note(f"resuming {run} at step {state.step}")
    if execution.cache != "none":
        size = sum(resident_bytes(opened) for opened in readers.values())
        where = "in memory" if execution.cache == "ram" or execution.device == "cpu" else f"on {execution.device}"
        observer.note(f"--cache {execution.cache}: reading {' and '.join(readers)}, {size:,} bytes, to hold {where}")
    start = {"step": state.step} | {name: getattr(execution, name) for name in ("device", "workers", "cache")}
    write_record(run, config, pack, digests, reader.charset, start)
    return Trainer(config, readers, run, execution, observer, state, stop)


class Trainer:
    """One run in progress; `train` makes it."""

    def __init__(
        self,
        config: TrainConfig,
        readers: dict[str, PackReader],
        run: Path,
        execution: Execution,
        observer: Observer,
        state: TrainState,
        stop: StopFlag,
    ) -> None:
        self.config, self.run, self.execution, self.observer = config, run, execution, observer
        self.state, self.stop = state, stop
        self.digests = {split: reader.digest for split, reader in readers.items()}
        cuda = execution.device == "cuda"
        self.bfloat16 = execution.has_bfloat16()
        if cuda:
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
        samples = len(readers["train"])
        self.per_epoch = steps_per_epoch(samples, config.batch_size)
        self.total = self.per_epoch * config.epochs
        self.batches = TrainingBatches(samples, config.batch_size, config.seed)
        feed: dict[str, Any] = {name: getattr(execution, name) for name in ("device", "workers", "cache")}
        self.training = Loader(readers["train"].path, self.batches, **feed)
        self.validation = None
        if "val" in readers:
            every = SequentialBatches(len(readers["val"]), config.batch_size)
            self.validation = Loader(readers["val"].path, every, **feed)
        self.saved_at, self.saved_step = time.monotonic(), state.step
        self.estimated = False

    def run_to_end(self) -> TrainSummary:
        """Train and validate until the last epoch is recorded."""
        metrics = self.run / "metrics.jsonl"
        metrics.touch()
        # Lines that a later, lost part of the run wrote would stand there twice.
        os.truncate(metrics, min(self.state.metrics_bytes, metrics.stat().st_size))
        while self.state.epochs < self.config.epochs:
            timing = self._train_epoch()
            row = self._row(self._validate())
            for path, line in ((metrics, row), (self.run / "timings.jsonl", timing)):
                with path.open("a", encoding="utf-8", newline="\n") as file:
                    file.write(json.dumps(line) + "\n")
            self.state.metrics_bytes = metrics.stat().st_size
            self.state.epochs += 1
            self.state.tally = Tally()
            best = self.validation is not None and (
                self.state.best is None or row["val_top1"] > self.state.best["val_top1"]
            )
            if best:
                self.state.best = row
            self._save(best=best)
            self.observer.epoch(row, timing)
        return TrainSummary(self.run, self.state.step, self.state.best)

    def _train_epoch(self) -> dict[str, Any]:
        """Take the steps that are left of an epoch, and say how long they took."""
        state, clock = self.state, EpochClock(self.execution.device)
        self.batches.epoch = state.epochs
        self.batches.start = state.step - state.epochs * self.per_epoch
        state.model.train()
        began, first, mean = time.monotonic(), state.step, math.nan
        for batch in clock.watch(self.training):
            self._step(batch)
            if self.execution.device == "cpu" or state.step % LOSS_STEPS == 0:
                mean = float(state.tally.loss) / state.tally.samples
            self.observer.step(state.step, self.total, state.epochs + 1, mean)
            seconds = time.monotonic() - began
            if not self.estimated and (seconds > ESTIMATE_SECONDS or state.step == first + len(self.batches)):
                self._estimate(seconds / (state.step - first))
            every = self.execution.checkpoint_every
            if (
                state.step - self.saved_step >= every
                if every
                else time.monotonic() - self.saved_at > CHECKPOINT_SECONDS
            ):
                self._save(best=False)
            self._stop_if_asked()
        steps = state.step - first
        return clock.line(state.epochs + 1, steps, steps * self.config.batch_size)

    def _step(self, batch: Batch) -> None:
        config, state, device = self.config, self.state, self.execution.device
        images, labels = batch.images, batch.labels
        if config.augmentation:
            images = augment(images, config.seed, state.step)
        rate = learning_rate(state.step, self.total, config.lr, config.warmup)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(device, torch.bfloat16, enabled=self.bfloat16):
            logits = state.model(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        state.optimizer.step()
        state.step += 1
        state.average(config.ema_decay)
        count = len(labels)
        state.tally.loss = state.tally.loss + loss.detach() * count
        state.tally.correct = state.tally.correct + (logits.detach().argmax(1) == labels).sum()
        state.tally.samples += count

    @torch.inference_mode()
    def _validate(self) -> dict[str, float]:
        """Judge the averaged weights on the val split; an empty dict where there is none."""
        if self.validation is None:
            return {}
        device = self.execution.device
        model = Recognizer(self.config.arch, self.state.model.charset, self.config.size)
        model = model.to(device).to(memory_format=torch.channels_last).eval()
        model.load_state_dict(self.state.ema)
        loss, hits, samples = 0.0, torch.zeros(2, device=device), 0
        for batch in self.validation:
            with torch.autocast("cuda", torch.bfloat16, enabled=device == "cuda"):
                logits = model(batch.images)
            loss += float(F.cross_entropy(logits, batch.labels, reduction="sum"))
            within = logits.topk(min(5, logits.shape[1])).indices == batch.labels[:, None]
            hits += torch.stack([within[:, 0].sum(), within.sum()])
            samples += len(batch.labels)
            self.observer.validating(len(batch.labels), self.validation.batches.n)
            self._stop_if_asked()
        top1, top5 = (hits / samples).tolist()
        return {"val_loss": loss / samples, "val_top1": top1, "val_top5": top5, "val_n": samples}

    def _row(self, validated: dict[str, float]) -> dict[str, Any]:
        tally = self.state.tally.plain()
        row = {
            "epoch": self.state.epochs + 1,
            "step": self.state.step,
            "lr": learning_rate(self.state.step - 1, self.total, self.config.lr, self.config.warmup),
            "train_loss": tally["loss"] / tally["samples"],
            "train_top1": tally["correct"] / tally["samples"],
        }
        return row | validated

    def _save(self, *, best: bool) -> None:
        state = self.state
        if not (math.isfinite(float(state.tally.loss)) and state.is_finite()):
            raise HcrError(
                f"{self.run}: loss or weights are not finite after step {state.step}; nothing of it is saved. "
                "Start again with a lower --lr, or --resume from the last checkpoint"
            )
        checkpoint.save(self.run, state.step, state.plain(self.config, self.digests), best=best)
        self.saved_at, self.saved_step = time.monotonic(), state.step

    def _stop_if_asked(self) -> None:
        if not self.stop.name:
            return
        self._save(best=False)
        raise Stopped(
            f"stopped by {self.stop.name} at step {self.state.step} of {self.total}; all is saved in {self.run}: "
            "run the same command with --resume to go on"
        )

    def _estimate(self, step_seconds: float) -> None:
        self.estimated = True
        left = self.total - self.state.step
        epochs = self.config.epochs - self.state.epochs
        # A validation batch costs a forward pass, about a third of a training step.
        judged = epochs * len(self.validation) / 3 if self.validation else 0
        speed = self.config.batch_size / step_seconds
        advice = ""
        if self.execution.device == "cpu":
            small = "" if self.config.arch == "compact" else "; --arch compact is the network for a CPU"
            advice = f". Ctrl-C saves and stops, --resume goes on{small}"
        self.observer.note(
            f"about {_duration((left + judged) * step_seconds)} for the {left:,} steps left of {epochs} epochs, "
            f"at {speed:,.0f} pictures a second on this {self.execution.device.upper()}{advice}"
        )


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
