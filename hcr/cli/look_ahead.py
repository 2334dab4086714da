"""What hcr-train shows before anything is trained: the plan of a run (--dry-run), the batch sizes that a GPU takes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hcr.training import Execution, Observer
    from hcr.training.prepare import Plan


def look_ahead(
    given: dict[str, Any],
    pack: Path | None,
    run: Path,
    execution: Execution,
    observer: Observer,
    sources: dict[str, str],
    *,
    find_batch: bool,
    resume: bool,
    init: Path | None,
) -> None:
    """Show what a run would be, or which batch sizes its GPU takes; write nothing.

    sources: where each of the `given` settings comes from. Raises: what the run itself would at its start.
    """
    from hcr.training.prepare import find_start, plan_run
    from hcr.training.ranks import Ranks

    found, _ = find_start(run, execution, resume=resume)
    plan = plan_run(given, pack, run, execution, Ranks(device=execution.device), init=init, found=found)
    if find_batch:
        _show_batches(plan, observer)
        return
    if found:
        sources = dict.fromkeys(asdict(plan.config), "the run")
    else:
        usual = dict.fromkeys(execution.usual(), "the device")
        sources = usual | ({} if plan.config.draw else {"size": "the pack"}) | sources
    _show_plan(plan, found, observer, sources)


def _show_plan(plan: Plan, found: dict[str, Any] | None, observer: Observer, sources: dict[str, str]) -> None:
    """Show a plan; its settings as lines of a recipe."""
    from hcr.training.memory import estimate

    config, execution, every = plan.config, plan.execution, plan.execution.checkpoint_every
    parameters = sum(parameter.numel() for parameter in plan.state(found, observer).model.parameters())
    memory = estimate(plan)
    samples = " + ".join(f"{len(split):,} {name}" for name, split in plan.splits.items())
    origin = "drawn as they are needed" + (f", some after {', '.join(config.font)}" if config.font else "")
    if plan.pack:
        origin = f"{origin}, judged by {plan.pack}" if config.draw else str(plan.pack)
    start = f"goes on at step {found['step']:,}" if found else "new"
    pause = f"{every:,} steps" if isinstance(every, int) else f"{every:,.0f} seconds"
    step = memory.step + memory.picture * memory.pictures
    lines = {
        "run": f"{plan.run}, {start}",
        "pictures"
        if config.draw
        else "pack": f"{origin}: {samples} samples of {config.size} px, {len(plan.charset):,} characters",
        "device": f"{execution.device}, {execution.workers} reading, cache {execution.cache}, saving every {pause}",
        "steps": f"{plan.total:,}: {config.epochs:,} epochs of {plan.per_epoch:,}, of {config.batch_size:,} pictures",
        "parameters": f"{parameters:,}",
        "memory": f"about {_mb(memory.total)}: weights {_mb(memory.weights)}, gradients, optimizer and average "
        f"{_mb(memory.upkeep)}, {memory.pictures:,} pictures at a time {_mb(step)}",
    }
    for name, line in lines.items():
        click.echo(f"{name:11} {line}")
    click.echo("\nsettings, as a recipe")
    for name, value in asdict(config).items():
        setting = f"{name} = {json.dumps(value, ensure_ascii=False)}"
        click.echo(f"{setting:32} # {sources.get(name, 'default')}")


def _show_batches(plan: Plan, observer: Observer) -> None:
    from hcr.errors import HcrError
    from hcr.training.memory import find_batch

    batches = find_batch(plan, observer)
    if not batches:
        raise HcrError(
            f"--find-batch: a few pictures of {plan.config.size} px do not fit on this GPU; use a smaller --arch"
        )
    click.echo("batch size   pictures a second   memory at most")
    for size, speed, peak in batches:
        click.echo(f"{size:10,}   {speed:17,.0f}   {_mb(peak):>14}")
    click.echo(f"fastest: --batch-size {max(batches, key=lambda batch: batch[1])[0]}")


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
