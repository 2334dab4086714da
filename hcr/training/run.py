"""A run from its beginning: who trains, on what, from where; the loop does the rest.

Everything that can be refused is refused before the run folder is touched.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hcr.files import locked
from hcr.stop import StopFlag
from hcr.training.config import Execution
from hcr.training.loop import Trainer, TrainSummary
from hcr.training.observer import Deaf, Observer
from hcr.training.prepare import choose_kernels, find_start, held, plan_run
from hcr.training.ranks import Ranks, joined
from hcr.training.record import write_record
from hcr.training.views import Views

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
        ranks = held_open.enter_context(joined(execution.device))
        # Slurm signals torchrun and its processes, and torchrun passes it on to them.
        stop = held_open.enter_context(StopFlag(merged=0.0 if ranks.world == 1 else MERGED_SECONDS))
        if ranks.first:
            run.parent.mkdir(parents=True, exist_ok=True)
            held_open.enter_context(locked(run.with_name(f".{run.name}.lock"), f"training {run}"))
        else:
            observer = Deaf()
        return start(given, pack, run, execution, observer, stop, ranks, resume=resume, init=init).run_to_end()


def start(
    given: dict[str, Any],
    pack: Path | None,
    run: Path,
    execution: Execution,
    observer: Observer,
    stop: StopFlag,
    ranks: Ranks,
    *,
    resume: bool,
    init: Path | None,
) -> Trainer:
    """Bring settings, pack and checkpoint together, or refuse what does not fit; the run folder then has its record."""
    choose_kernels(execution)
    found, skipped = find_start(run, execution, resume=resume)
    plan = plan_run(given, pack, run, execution, ranks, init=init, found=found)
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
    views = Views(run, plan.charset, tensorboard=execution.tensorboard) if ranks.first else None
    if ranks.first:
        start = {"step": state.step, "processes": ranks.world, "init": init and str(init)}
        start |= {name: getattr(execution, name) for name in ("device", "workers", "cache")}
        write_record(plan, start)
    return Trainer(plan, observer, state, stop, ranks, views)
