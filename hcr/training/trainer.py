"""The trainer: steps, a validation after each epoch, checkpoints, and a stop at any moment. `train` stands at the end.

Order, augmentation and dropout are functions of (seed, epoch, step), and the rest is in the checkpoint. So a run that
was stopped and resumed ends with the same bits as one that was not (on a CPU; a GPU also needs deterministic kernels).

A step whose loss or gradients are not finite is detected in `step`, which leaves the weights as they were; `state`
counts it. Here it is answered: after three in a row the run goes back to its newest checkpoint with half the learning
rate, twice at most, and then gives up and keeps the batch.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from hcr.errors import HcrError, Stopped
from hcr.feed.sampler import Batch, EndlessBatches, SequentialBatches, TrainingBatches
from hcr.feed.stream import WorkerError
from hcr.files import atomic_write, free_bytes, locked
from hcr.layout import checkpoints
from hcr.models import Recognizer
from hcr.records import MetricsRow, TimingsRow
from hcr.stop import StopFlag
from hcr.text import counted
from hcr.training.artefacts import RunArtefacts, write_record
from hcr.training.config import Execution, TrainConfig
from hcr.training.distributed import Processes, joined
from hcr.training.memory import batch_that_fits
from hcr.training.observer import NullObserver, Observer, StepReport
from hcr.training.setup import RunSetup, cache_note, process_settings_kept, set_up_run
from hcr.training.splits import Feed
from hcr.training.state import Faults, Tally, TrainState, learning_rate, newest_valid, save_checkpoint
from hcr.training.step import Stepper
from hcr.training.timing import EpochClock, estimate

# After this long the speed is known well enough to say how long the run will take; by LATEST_SECONDS it is said anyway.
ESTIMATE_SECONDS, LATEST_SECONDS = 15.0, 30.0
# Reading processes that may die one after the other without a batch between them.
DEATHS = 3
# Non-finite steps in a row before the run goes back, and how often it goes back with half the learning rate.
IN_ROW, HALVINGS = 3, 2
# Within so many seconds several signals count as one, since torchrun passes on what its processes get anyway.
MERGED_SECONDS = 2.0


@dataclass(frozen=True)
class TrainSummary:
    """How a run ended: its folder, its steps, and the row of its best epoch (None without a validation split).

    Example:
        config = hcr.TrainConfig(arch="compact", epochs=3)
        summary = hcr.train(config, data="data/packed/hwdb1.1-64", run="first", resume=True)
        print(summary.run, summary.steps, summary.best and summary.best["val_top1"])
    """

    run: Path
    steps: int
    best: MetricsRow | None


class _WentBack(Exception):
    """The state is an older one now: the epoch starts over at that state's step."""


class Trainer:
    """One run in progress."""

    def __init__(
        self,
        setup: RunSetup,
        observer: Observer,
        state: TrainState,
        stop: StopFlag,
        artefacts: RunArtefacts | None,
    ) -> None:
        config, execution, splits, processes = setup.config, setup.execution, setup.splits, setup.processes
        self.setup, self.config, self.execution, self.run = setup, config, execution, setup.run
        self.observer, self.stop, self.processes, self.state = observer, stop, processes, state
        self.artefacts = artefacts
        self.stepper = Stepper(config, state, processes, setup.teacher, compiled=execution.compile)
        share = (processes.rank, processes.world)
        order = EndlessBatches if config.draw else TrainingBatches
        self.batches = order(len(splits["train"]), config.batch_size, config.seed, *share)
        self.training = splits["train"].feed(self.batches, execution)
        self.validation = None
        if "val" in splits:
            whole = SequentialBatches(len(splits["val"]), config.batch_size, *share)
            self.validation = splits["val"].feed(whole, execution)
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
        """Train what is left of an epoch, validate, and record it."""
        state, metrics = self.state, self.run / "metrics.jsonl"
        if self.processes.first:
            metrics.touch()
            # A later, lost part of the run may have written lines, which would stand there twice.
            os.truncate(metrics, min(state.metrics_bytes, metrics.stat().st_size))
        timing = self._train_epoch()
        row = self._row()
        self._validate_into(row)
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
        if self.artefacts:
            self.artefacts.epoch()
        self._save(best=best)
        self.observer.epoch(row, timing)

    def _train_epoch(self) -> TimingsRow:
        """Take the steps that are left of an epoch, and return how long they took."""
        state, clock = self.state, EpochClock(self.execution.device)
        state.model.train()
        first = state.step
        for batch in self._remaining(clock):
            if self.artefacts and not state.step:
                self.artefacts.first_batch(self.stepper.pictures(batch), batch.labels)
            # Read before the step: a later signal is seen at the end of the next step, which may be long.
            asked = bool(self.stop.name)
            try:
                bad, asked, due = self.stepper.take(batch, self._learning_rate(state.step), asked, self._save_is_due())
            except torch.OutOfMemoryError as error:
                raise out_of_memory(self.setup) from error
            self._answer_fault(batch, bad=bad)
            self._report(clock, first)
            if due:
                self._save(best=False)
            self._stop_if(asked or (self.processes.world == 1 and bool(self.stop.name)))
        steps = state.step - first
        return clock.row(state.epochs + 1, steps, steps * self.config.batch_size)

    def _remaining(self, clock: EpochClock) -> Iterator[Batch]:
        """Return the epoch's batches from the present step on, whatever happens to the processes that read them."""
        state, deaths = self.state, 0
        self.batches.epoch = state.epochs
        while True:
            self.batches.start = state.step - state.epochs * self.setup.per_epoch
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

    def _learning_rate(self, step: int) -> float:
        config, state = self.config, self.state
        rate = config.lr * state.plateau.factor
        if config.schedule == "cosine":
            rate = learning_rate(step, self.setup.total, config.lr, config.warmup)
        return rate * 0.5**state.faults.halved

    def _answer_fault(self, batch: Batch, *, bad: bool) -> None:
        """Count a step that was left out (`bad`); after IN_ROW in a row go back, HALVINGS times at most.

        Raises: HcrError when the run gives up; _WentBack when the state is another one.
        """
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
            kept = "the last checkpoint is kept" if checkpoints(self.run) else "there is no checkpoint yet"
            raise HcrError(
                f"{self.run}: loss or gradients are not finite after step {state.step}, although the learning rate was "
                f"halved {HALVINGS} times; {kept}, and the batch is in {file}. Look at the batch, or start another "
                "--run with a lower --lr, --clip 0.1 or --precision fp32"
            )
        faults = state.faults
        checkpoint, _ = newest_valid(self.run, self.execution.device)
        self.state = self.setup.state(checkpoint, self.observer)
        self.state.faults = Faults(faults.skipped, 0, faults.halved + 1)
        self.stepper = Stepper(
            self.config, self.state, self.processes, self.setup.teacher, compiled=self.execution.compile
        )
        self.observer.note(f"going back to step {self.state.step} with half the learning rate")
        raise _WentBack

    def _report(self, clock: EpochClock, first: int) -> None:
        state = self.state
        samples = max(1.0, state.tally.samples)
        loss, top1 = float(state.tally.loss) / samples, float(state.tally.correct) / samples
        pictures, epoch = self.config.batch_size, state.epochs + 1
        self.observer.step(StepReport(state.step, self.setup.total, pictures, epoch, loss, top1, clock.data_wait))
        done = state.step - first
        if done == 1:
            # It makes kernels, with --compile for a minute: what comes after it says how long the rest takes.
            self.first_step = clock.seconds
        since = clock.seconds - self.first_step
        # A first step that long says enough by itself, unless most of it was the making of kernels.
        late = clock.seconds > LATEST_SECONDS and (done > 1 or not self.execution.compile)
        known = since > ESTIMATE_SECONDS or late or done == len(self.batches)
        if known and not self.estimated and state.step < self.setup.total:
            self.estimated = True
            batches = len(self.validation) if self.validation else 0
            seconds = since / (done - 1) if done > 1 else self.first_step
            self.observer.note(estimate(self.setup, state.step, state.epochs, batches, seconds))

    def _row(self) -> MetricsRow:
        """Return the epoch's row of metrics.jsonl, as far as training says it."""
        state = self.state
        loss, correct, samples = self.processes.total(*vars(state.tally).values())
        # All steps of an epoch may have been left out.
        samples = max(1.0, samples)
        return {
            "epoch": state.epochs + 1,
            "step": state.step,
            "lr": self._learning_rate(state.step - 1),
            "train_loss": loss / samples,
            "train_top1": correct / samples,
            "skipped_steps": state.faults.skipped,
        }

    def _validate_into(self, row: MetricsRow) -> None:
        """Add the figures of the averaged weights on the val split, where there is one."""
        if self.validation is None:
            return
        # Each process averages its own batch norm statistics; those of the first are saved, so those are validated.
        self.processes.broadcast(self.state.ema.values())
        model = self.setup.network()
        model.load_state_dict(self.state.ema)

        def progress(count: int) -> None:
            self.observer.validating(count, len(self.setup.splits["val"]))
            self._stop_if(*self.processes.any_of(bool(self.stop.name)))

        # On a CPU always in float32: the score must not depend on which numbers the machine multiplies fastest.
        autocast = self.stepper.autocast if self.execution.device == "cuda" else nullcontext
        loss, top1, top5, count = validate(model, self.validation, autocast, self.processes, progress)
        row["val_loss"], row["val_top1"], row["val_top5"], row["val_n"] = loss, top1, top5, count

    def _save_is_due(self) -> bool:
        every = self.execution.pause
        if isinstance(every, int):
            return self.state.step + 1 - self.saved_step >= every
        return self.processes.first and time.monotonic() - self.saved_at > every

    def _save(self, *, best: bool) -> None:
        state = self.state
        teacher = self.setup.teacher.digest if self.setup.teacher else None
        content = state.plain(self.config, self.setup.digests, teacher, self.processes)
        if self.processes.first:
            try:
                save_checkpoint(self.run, content, best=best)
            except OSError as error:
                kept = checkpoints(self.run)
                raise HcrError(
                    f"{self.run}: the checkpoint of step {state.step} cannot be written ({error.strerror or error}, "
                    f"{free_bytes(self.run):,} bytes free); {kept[0] if kept else 'none'} is kept: make room, then "
                    "resume with --resume"
                ) from error
        # A process that ends while the first still writes would let torchrun end them all.
        self.processes.wait()
        self.saved_at, self.saved_step = time.monotonic(), state.step

    def _stop_if(self, asked: bool) -> None:
        if not asked:
            return
        self._save(best=False)
        raise Stopped(
            f"stopped by {self.stop.name or 'another process'} at step {self.state.step} of {self.setup.total}; all is "
            f"saved in {self.run}: run the same command with --resume to continue"
        )


@torch.inference_mode()
def validate(
    model: Recognizer,
    loader: Feed,
    autocast: Callable[[], AbstractContextManager[None]],
    processes: Processes,
    progress: Callable[[int], None],
) -> tuple[float, float, float, int]:
    """Return mean loss (nats), top-1, top-5 and the number of samples, over all processes.

    Each process predicts its share, so that every sample counts once. This chooses the best epoch; `evaluation` judges
    finished models in many more ways. progress: called after each batch, in all processes equally often, with the
    number of samples that all have predicted.
    """
    loss, hits, samples = 0.0, torch.zeros(2, device=processes.device), 0
    batches = iter(loader)
    whole, size = loader.batches.n, loader.batches.batch_size
    for start in range(0, whole, size):
        # The last batch may have no sample for this process.
        batch = next(batches, None)
        if batch is not None:
            with autocast():
                logits = model(batch.images)
            loss += float(F.cross_entropy(logits, batch.labels, reduction="sum"))
            within = logits.topk(min(5, logits.shape[1])).indices == batch.labels[:, None]
            hits += torch.stack([within[:, 0].sum(), within.sum()])
            samples += len(batch.labels)
        progress(min(size, whole - start))
    loss, top1, top5, count = processes.total(loss, *hits, samples)
    return loss / count, top1 / count, top5 / count, round(count)


def keep_batch(run: Path, step: int, rank: int, batch: Batch) -> Path:
    """Write the batch after which a run gave up: images uint8[B, 1, S, S], labels and index int64[B], as .npz."""
    path = run / f"not-finite-step-{step:08d}{f'-process-{rank}' if rank else ''}.npz"
    arrays = {name: tensor.cpu().numpy() for name, tensor in batch._asdict().items() if tensor is not None}
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)
    return path


def out_of_memory(setup: RunSetup) -> HcrError:
    """Return the error that says how much memory a step took on this GPU, and which batch size should fit."""
    free, whole = torch.cuda.mem_get_info()
    peak = torch.cuda.max_memory_allocated()
    config, processes = setup.config, setup.processes
    share = config.batch_size // processes.world
    advice = f"--accumulate {2 * config.accumulate} computes the same steps in smaller parts"
    fits = batch_that_fits(setup, whole)
    if fits and fits < share:
        advice = f"--batch-size {fits * processes.world} should fit, or {advice}"
    return HcrError(
        f"CUDA out of memory: {counted(share, 'picture')} of {config.size} px took {peak:,} bytes and more, of "
        f"{whole:,} on this "
        f"GPU ({free:,} free now); {advice}"
    )


def start(
    config: TrainConfig,
    pack: Path | None,
    run: Path,
    execution: Execution,
    observer: Observer,
    stop: StopFlag,
    processes: Processes,
    *,
    chosen: frozenset[str] | None = None,
    resume: bool = False,
    init: Path | None = None,
) -> Trainer:
    """Return the trainer of a run, ready to train, and write the run's record; the arguments are those of `train`.

    Everything that can be refused is refused before the run folder is touched.
    """
    setup, checkpoint = set_up_run(
        config, pack, run, execution, processes, observer, chosen=chosen, resume=resume, init=init
    )
    state = setup.state(checkpoint, observer)
    if checkpoint:
        observer.note(f"resuming {run} at step {state.step}")
    if setup.config.precision == "bf16" and not execution.multiplies_bf16:
        device = execution.device.upper()
        observer.note(f"precision bf16: this {device} has no such arithmetic; steps take many times as long as in fp32")
    if execution.cache != "none" and setup.packed:
        observer.note(cache_note(setup))
    artefacts = None
    if processes.first:
        artefacts = RunArtefacts(run, setup.charset, tensorboard=execution.tensorboard)
        write_record(setup, state.step)
    return Trainer(setup, observer, state, stop, artefacts)


def train(
    config: TrainConfig,
    pack: Path | None,
    run: Path,
    execution: Execution,
    observer: Observer,
    *,
    chosen: frozenset[str] | None = None,
    resume: bool = False,
    init: Path | None = None,
) -> TrainSummary:
    """Train on the train split of `pack` into the folder `run`, and validate each epoch on its val split if it has one.

    Where the settings say `draw`, training pictures are drawn; without a pack validation pictures are drawn, too.
    As one of torchrun's processes this trains with the others; the first writes.

    chosen: names of the settings that somebody set; None for those that differ from TrainConfig's defaults. The others
    are the run's own when it is resumed, else the usual ones. resume: continue from the newest valid checkpoint; start
    where there is none. init: a file of weights that a new run begins with.
    Raises: Stopped after a signal, with everything saved; DataError or UsageError for what does not fit together;
    HcrError for a run that another process trains, a full disk or memory, numbers that stay not finite, and workers
    that keep dying: the last checkpoint is then kept.
    """
    with ExitStack() as held_open:
        # First of all, so that a signal ends a process that waits for the others.
        processes = held_open.enter_context(joined(execution.device))
        held_open.enter_context(process_settings_kept(execution.device))
        # Slurm signals torchrun and its processes, and torchrun passes its signal on to them.
        stop = held_open.enter_context(StopFlag(merged=0.0 if processes.world == 1 else MERGED_SECONDS))
        if processes.first:
            run.parent.mkdir(parents=True, exist_ok=True)
            held_open.enter_context(locked(run.with_name(f".{run.name}.lock"), f"training {run}"))
        else:
            observer = NullObserver()
        trainer = start(
            config, pack, run, execution, observer, stop, processes, chosen=chosen, resume=resume, init=init
        )
        return trainer.run_to_end()
