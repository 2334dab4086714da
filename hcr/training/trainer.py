"""The training loop: steps, a validation an epoch, checkpoints, and a stop at any moment.

Order, augmentation and dropout are functions of (seed, epoch, step) and the rest is in the checkpoint, so a run that
was stopped and resumed ends with the same bits as one that was not (on a CPU; a GPU also needs deterministic kernels).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from hcr.errors import HcrError, Stopped
from hcr.feed.sampler import Batch, EndlessBatches, SequentialBatches, TrainingBatches
from hcr.feed.stream import WorkerError
from hcr.files import atomic_write, free_bytes, locked
from hcr.layout import checkpoints
from hcr.models import Recognizer
from hcr.stop import StopFlag
from hcr.training.artefacts import RunArtefacts, write_record
from hcr.training.config import Execution
from hcr.training.distributed import Processes, joined
from hcr.training.memory import batch_that_fits
from hcr.training.observer import NullObserver, Observer, StepReport
from hcr.training.setup import RunSetup, choose_kernels, find_start, held, set_up_run
from hcr.training.splits import Feed
from hcr.training.state import Faults, Tally, TrainState, learning_rate, newest_valid, save_checkpoint
from hcr.training.step import Stepper
from hcr.training.timing import EpochClock, estimate

# What a run does about numbers that are not finite and about memory that runs out.
# Steps in a row that are left out before the run goes back, and how often it does so with half the rate.
IN_ROW, HALVINGS = 3, 2


def keep_batch(run: Path, step: int, rank: int, batch: Batch) -> Path:
    """Write the batch after which a run gave up: images uint8[B, 1, S, S], labels and index int64[B], as .npz."""
    path = run / f"not-finite-step-{step:08d}{f'-process-{rank}' if rank else ''}.npz"
    arrays = {name: tensor.cpu().numpy() for name, tensor in batch._asdict().items() if tensor is not None}
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)
    return path


def out_of_memory(plan: RunSetup, processes: Processes) -> HcrError:
    """Say how much memory a step took on this GPU, and which batch size should fit."""
    free, whole = torch.cuda.mem_get_info()
    peak = torch.cuda.max_memory_allocated()
    config = plan.config
    share = config.batch_size // processes.world
    advice = f"--accumulate {2 * config.accumulate} computes the same steps in smaller parts"
    fits = batch_that_fits(plan, whole)
    if fits and fits < share:
        advice = f"--batch-size {fits * processes.world} should fit, or {advice}"
    return HcrError(
        f"CUDA out of memory: {share} pictures of {config.size} px took {peak:,} bytes and more, of {whole:,} on this "
        f"GPU ({free:,} free now); {advice}"
    )


# How good the averaged weights are on the val split: what decides which epoch is the best, no evaluation.
#
# `evaluation` judges finished models in many ways; here loss and two counts are enough, summed over the processes, each
# of which judges its share: every sample counts once.
#
@torch.inference_mode()
def validate(
    model: Recognizer,
    loader: Feed,
    autocast: Callable[[], AbstractContextManager[None]],
    processes: Processes,
    judged: Callable[[int], None],
) -> dict[str, float]:
    """Return val_loss (a mean, in nats), val_top1, val_top5 and val_n over all processes.

    judged: called after each batch, in all processes equally often, with the number of samples that all have judged.
    """
    loss, hits, samples = 0.0, torch.zeros(2, device=processes.device), 0
    batches = iter(loader)
    whole, size = loader.batches.n, loader.batches.batch_size
    for start in range(0, whole, size):
        # The last one may have no sample for this process.
        batch = next(batches, None)
        if batch is not None:
            with autocast():
                logits = model(batch.images)
            loss += float(F.cross_entropy(logits, batch.labels, reduction="sum"))
            within = logits.topk(min(5, logits.shape[1])).indices == batch.labels[:, None]
            hits += torch.stack([within[:, 0].sum(), within.sum()])
            samples += len(batch.labels)
        judged(min(size, whole - start))
    loss, top1, top5, count = processes.total(loss, *hits, samples)
    return {"val_loss": loss / count, "val_top1": top1 / count, "val_top5": top5 / count, "val_n": round(count)}


# After this long the speed is known well enough to say how long the run will take.
ESTIMATE_SECONDS = 15.0
# Workers that die one after the other without a batch between them.
DEATHS = 3


@dataclass(frozen=True)
class TrainSummary:
    """How a run ended: its folder, its steps, and the row of its best epoch (None without a validation split)."""

    run: Path
    steps: int
    best: dict[str, Any] | None


class _WentBack(Exception):
    """The state is another one now: the epoch begins anew at its step."""


class Trainer:
    """One run in progress."""

    def __init__(
        self,
        plan: RunSetup,
        observer: Observer,
        state: TrainState,
        stop: StopFlag,
        processes: Processes,
        views: RunArtefacts | None,
    ) -> None:
        config, execution, splits = plan.config, plan.execution, plan.splits
        self.plan, self.config, self.execution, self.run = plan, config, execution, plan.run
        self.observer, self.stop, self.processes, self.state, self.views = observer, stop, processes, state, views
        self.stepper = Stepper(config, state, processes, plan.teacher, compiled=execution.compile)
        mine = (processes.rank, processes.world)
        order = EndlessBatches if config.draw else TrainingBatches
        self.batches = order(len(splits["train"]), config.batch_size, config.seed, *mine)
        self.training = splits["train"].feed(self.batches, execution)
        self.validation = None
        if "val" in splits:
            every = SequentialBatches(len(splits["val"]), config.batch_size, *mine)
            self.validation = splits["val"].feed(every, execution)
        self.saved_at, self.saved_step = time.monotonic(), state.step
        self.estimated, self.first_step = False, 0.0

    def run_to_end(self) -> TrainSummary:
        """Train and validate until the last epoch is recorded."""
        while self.state.epochs < self.config.epochs:
            try:
                self._epoch()
            except _WentBack:
                continue
        return TrainSummary(self.run, self.state.step, self.state.best)

    def _epoch(self) -> None:
        """Train what is left of an epoch, judge it, and record it."""
        state, metrics = self.state, self.run / "metrics.jsonl"
        if self.processes.first:
            metrics.touch()
            # Lines that a later, lost part of the run wrote would stand there twice.
            os.truncate(metrics, min(state.metrics_bytes, metrics.stat().st_size))
        timing = self._train_epoch()
        row = self._row(self._judge())
        if self.processes.first:
            for path, line in ((metrics, row), (self.run / "timings.jsonl", timing)):
                with path.open("a", encoding="utf-8", newline="\n") as file:
                    file.write(json.dumps(line) + "\n")
            state.metrics_bytes = metrics.stat().st_size
        state.epochs += 1
        state.tally = Tally()
        if "val_loss" in row and self.config.schedule == "plateau":
            state.plateau.see(row["val_loss"])
        best = "val_top1" in row and (state.best is None or row["val_top1"] > state.best["val_top1"])
        if best:
            state.best = row
        # Before the checkpoint: a resume that finds it would never draw this epoch.
        if self.views:
            self.views.epoch(row)
        self._save(best=best)
        self.observer.epoch(row, timing)

    def _train_epoch(self) -> dict[str, Any]:
        """Take the steps that are left of an epoch, and say how long they took."""
        state, clock = self.state, EpochClock(self.execution.device)
        state.model.train()
        first = state.step
        for batch in self._from_here(clock):
            if self.views and not state.step:
                self.views.first_batch(self.stepper.pictures(batch), batch.labels)
            # Read before the step: what comes after it is seen at the end of the next, and that may be long.
            asked = bool(self.stop.name)
            try:
                bad, asked, due = self.stepper.take(batch, self._rate(state.step), asked, self._save_is_due())
            except torch.OutOfMemoryError as error:
                raise out_of_memory(self.plan, self.processes) from error
            self._look_at(batch, bad=bad)
            self._report(clock, first)
            if due:
                self._save(best=False)
            self._stop_if(asked or (self.processes.world == 1 and bool(self.stop.name)))
        steps = state.step - first
        return clock.line(state.epochs + 1, steps, steps * self.config.batch_size)

    def _from_here(self, clock: EpochClock) -> Iterator[Batch]:
        """Return the epoch's batches from the present step on, whatever happens to the workers that read them."""
        state, deaths = self.state, 0
        self.batches.epoch = state.epochs
        while True:
            self.batches.start = state.step - state.epochs * self.plan.per_epoch
            try:
                for batch in clock.watch(self.training):
                    yield batch
                    deaths = 0
                return
            except WorkerError as error:
                deaths += 1
                if deaths == DEATHS:
                    raise
                self.observer.note(
                    f"{error}; others take its place, and step {state.step + 1} follows as it would have"
                )

    def _rate(self, step: int) -> float:
        config, state = self.config, self.state
        rate = config.lr * state.plateau.factor
        if config.schedule == "cosine":
            rate = learning_rate(step, self.plan.total, config.lr, config.warmup)
        return rate * 0.5**state.faults.halved

    def _look_at(self, batch: Batch, *, bad: bool) -> None:
        """Count a step that was left out, and go back after three in a row, twice at most. Raises: HcrError."""
        state = self.state
        state.faults.in_row = state.faults.in_row + 1 if bad else 0
        if not bad:
            return
        state.faults.skipped += 1
        self.observer.note(f"step {state.step}: loss or gradients are not finite; left out")
        if state.faults.in_row < IN_ROW:
            return
        if state.faults.halved == HALVINGS:
            file = keep_batch(self.run, state.step, self.processes.rank, batch)
            raise HcrError(
                f"{self.run}: loss or gradients are not finite after step {state.step}, although the rate was halved "
                f"{HALVINGS} times; the batch is in {file}, nothing of it is saved. Look at it, or start again with a "
                "lower --lr, --clip 1 or --precision fp32"
            )
        faults = state.faults
        found, _ = newest_valid(self.run, self.execution.device)
        self.state = self.plan.state(found, self.observer)
        self.state.faults = Faults(faults.skipped, 0, faults.halved + 1)
        self.stepper = Stepper(
            self.config, self.state, self.processes, self.plan.teacher, compiled=self.execution.compile
        )
        self.observer.note(f"going back to step {self.state.step} with half the learning rate")
        raise _WentBack

    def _report(self, clock: EpochClock, first: int) -> None:
        state = self.state
        samples = max(1.0, state.tally.samples)
        loss, top1 = float(state.tally.loss) / samples, float(state.tally.correct) / samples
        pictures, epoch = self.config.batch_size, state.epochs + 1
        self.observer.step(StepReport(state.step, self.plan.total, pictures, epoch, loss, top1, clock.data_wait))
        done = state.step - first
        if done == 1:
            # It makes kernels, with --compile for a minute: what comes after it says how long the rest takes.
            self.first_step = clock.seconds
        since = clock.seconds - self.first_step
        known = since > ESTIMATE_SECONDS or done == len(self.batches)
        if known and not self.estimated and state.step < self.plan.total:
            self.estimated = True
            batches = len(self.validation) if self.validation else 0
            seconds = since / (done - 1) if done > 1 else self.first_step
            self.observer.note(estimate(self.plan, state.step, state.epochs, batches, seconds))

    def _judge(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        # Each process has averages of its own batch norms; those of the first are saved, so those are judged.
        self.processes.broadcast(self.state.ema.values())
        model = self.plan.network()
        model.load_state_dict(self.state.ema)

        def judged(count: int) -> None:
            self.observer.validating(count, len(self.plan.splits["val"]))
            self._stop_if(*self.processes.any_of(bool(self.stop.name)))

        # On a CPU always in float32: the score is not to depend on what the machine multiplies fastest.
        autocast = self.stepper.autocast if self.execution.device == "cuda" else nullcontext
        return validate(model, self.validation, autocast, self.processes, judged)

    def _row(self, validated: dict[str, float]) -> dict[str, Any]:
        state = self.state
        loss, correct, samples = self.processes.total(*vars(state.tally).values())
        # All steps of an epoch may have been left out.
        samples = max(1.0, samples)
        row = {
            "epoch": state.epochs + 1,
            "step": state.step,
            "lr": self._rate(state.step - 1),
            "train_loss": loss / samples,
            "train_top1": correct / samples,
            "skipped_steps": state.faults.skipped,
        }
        return row | validated

    def _save_is_due(self) -> bool:
        every = self.execution.checkpoint_every
        if isinstance(every, int):
            return self.state.step + 1 - self.saved_step >= every
        return self.processes.first and time.monotonic() - self.saved_at > every

    def _save(self, *, best: bool) -> None:
        state = self.state
        teacher = self.plan.teacher.digest if self.plan.teacher else None
        content = state.plain(self.config, self.plan.digests, teacher, self.processes)
        if self.processes.first:
            try:
                save_checkpoint(self.run, state.step, content, best=best)
            except OSError as error:
                raise HcrError(
                    f"{self.run}: the checkpoint of step {state.step} cannot be written ({error.strerror or error}, "
                    f"{free_bytes(self.run):,} bytes free); {self._last()} stands: make room, then go on with --resume"
                ) from error
        # A process that is done while the first still writes would let torchrun end them all.
        self.processes.wait()
        self.saved_at, self.saved_step = time.monotonic(), state.step

    def _last(self) -> str:
        kept = checkpoints(self.run)
        return str(kept[0]) if kept else "none"

    def _stop_if(self, asked: bool) -> None:
        if not asked:
            return
        self._save(best=False)
        raise Stopped(
            f"stopped by {self.stop.name or 'another process'} at step {self.state.step} of {self.plan.total}; all is "
            f"saved in {self.run}: run the same command with --resume to go on"
        )


# A run from its beginning: who trains, on what, from where; the loop does the rest.
#
# Everything that can be refused is refused before the run folder is touched.
#
MERGED_SECONDS = 2.0


def train(
    given: dict[str, Any],
    pack: Path | None,
    run: Path,
    execution: Execution,
    observer: Observer,
    *,
    resume: bool,
    init: Path | None = None,
) -> TrainSummary:
    """Train on the train split of `pack` into the folder `run`, judging each epoch on its val split where it has one.

    Where the settings say `draw`, training pictures are drawn, and without a pack those that judge, too.
    given: the fields of TrainConfig that somebody chose; the others are the run's, or the usual ones. init: checkpoint
    whose weights a new run begins with. As one of torchrun's processes this trains with the others; the first writes.
    Raises: Stopped after a signal, with everything saved; DataError or UsageError for what does not fit together;
    HcrError for a run that another process trains, a full disk or memory, numbers that stay not finite, and workers
    that keep dying: the last checkpoint then stands.
    """
    with ExitStack() as held_open:
        # First of all, so that a signal ends a process that waits for the others to come.
        processes = held_open.enter_context(joined(execution.device))
        # Slurm signals torchrun and its processes, and torchrun passes it on to them.
        stop = held_open.enter_context(StopFlag(merged=0.0 if processes.world == 1 else MERGED_SECONDS))
        if processes.first:
            run.parent.mkdir(parents=True, exist_ok=True)
            held_open.enter_context(locked(run.with_name(f".{run.name}.lock"), f"training {run}"))
        else:
            observer = NullObserver()
        return start(given, pack, run, execution, observer, stop, processes, resume=resume, init=init).run_to_end()


def start(
    given: dict[str, Any],
    pack: Path | None,
    run: Path,
    execution: Execution,
    observer: Observer,
    stop: StopFlag,
    processes: Processes,
    *,
    resume: bool,
    init: Path | None,
) -> Trainer:
    """Bring settings, pack and checkpoint together, or refuse what does not fit; the run folder then has its record."""
    choose_kernels(execution)
    found, skipped = find_start(run, execution, resume=resume)
    plan = set_up_run(given, pack, run, execution, processes, init=init, found=found)
    for message in skipped:
        observer.note(f"skipped a checkpoint: {message}")
    state = plan.state(found, observer)
    if found:
        observer.note(f"resuming {run} at step {state.step}")
    if plan.config.precision == "bf16" and not execution.multiplies_bf16:
        device = execution.device.upper()
        observer.note(f"precision bf16: this {device} has no such arithmetic; steps take many times as long as in fp32")
    if execution.cache != "none" and plan.packed:
        observer.note(held(plan))
    views = RunArtefacts(run, plan.charset, tensorboard=execution.tensorboard) if processes.first else None
    if processes.first:
        start = {"step": state.step, "processes": processes.world, "init": init and str(init)}
        start |= {name: getattr(execution, name) for name in ("device", "workers", "cache")}
        write_record(plan, start)
    return Trainer(plan, observer, state, stop, processes, views)
