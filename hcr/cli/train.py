"""hcr-train: a pack or the pen in, a run with checkpoints out."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hcr.cli.common import Command, Meter, choose_device, device_option, meter, note

if TYPE_CHECKING:
    from hcr.training import Execution, Observer
    from hcr.training.setup import RunSetup
if TYPE_CHECKING:
    from hcr.training import StepReport


# What hcr-train shows before anything is trained: the plan of a run (--dry-run), the batch sizes that a GPU takes.
def show_dry_run(
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
    from hcr.training.distributed import Processes
    from hcr.training.setup import find_start, set_up_run

    found, _ = find_start(run, execution, resume=resume)
    plan = set_up_run(given, pack, run, execution, Processes(device=execution.device), init=init, found=found)
    if find_batch:
        _show_batches(plan, observer)
        return
    if found:
        sources = dict.fromkeys(asdict(plan.config), "the run")
    else:
        usual = dict.fromkeys(execution.usual(), "the device")
        sources = usual | ({} if plan.config.draw else {"size": "the pack"}) | sources
    _show_plan(plan, found, observer, sources)


def _show_plan(plan: RunSetup, found: dict[str, Any] | None, observer: Observer, sources: dict[str, str]) -> None:
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


def _show_batches(plan: RunSetup, observer: Observer) -> None:
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


# The help's sections, each by its first flag.
SECTIONS = {
    "data": "What to train",
    "arch": "Settings (default < recipe < flag; a run that goes on keeps its own)",
    "device": "How to run (may change from start to start)",
    "dry_run": "Before training",
    "debug": "Other",
}
# Pictures of a drawn epoch where --draw stands alone.
DRAWN = 100_000
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class _Command(Command):
    """A command whose help has sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        title = ""
        for parameter in self.get_params(ctx):
            title = SECTIONS.get(parameter.name or "", title)
            if record := parameter.get_help_record(ctx):
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class _Every(click.ParamType):
    """Steps, as 500 or 500steps, to an int; a time, as 30s, 10m or 2h, to seconds as a float."""

    name = "every"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        found = re.fullmatch(r"(\d+)(?:steps?)?|(\d+(?:\.\d+)?)([smh])", value)
        if not found or not float(found[1] or found[2]):
            self.fail(f"{value!r}: expected steps as 500, or a time as 30s, 10m or 2h", param, ctx)
        return int(found[1]) if found[1] else float(found[2]) * SECONDS[found[3]]


@click.command(cls=_Command)
@click.option("--data", type=click.Path(path_type=Path), help="The pack.  [default: the only one in data/packed]")
@click.option(
    "--draw",
    type=int,
    is_flag=False,
    flag_value=DRAWN,
    metavar="[PICTURES]",
    help=f"Train on handwriting drawn as it is needed, PICTURES ({DRAWN}) an epoch; drawn handwriting judges it, too, "
    "or the val split of --data.  [default: train on a pack]",
)
@click.option("--charset", help="What --draw draws: level1, gb2312, or a FILE of characters.  [default: level1]")
@click.option(
    "--font",
    multiple=True,
    metavar="FILE",
    help="TTF, OTF or WOFF2: one drawn writer in four writes its forms, or those of the other fonts given; the others "
    "take their proportions from them, more or less. Repeatable.",
)
@click.option(
    "--pages",
    type=float,
    help="Share of the drawn pictures that are cut out of drawn pages: neighbours, lines, shade, few pixels.  "
    "[default: 0.5]",
)
@click.option(
    "--run", "name", help="Name of the run, a folder in artifacts/.  [default: <pack>-<arch>, endless-<size>-<arch>]"
)
@click.option("--recipe", type=click.Path(path_type=Path), help="TOML file of settings.")
@click.option(
    "--init", metavar="RUN|FILE", help="Begin with the weights of a run (its best ones) or file (.pt, .safetensors)."
)
@click.option(
    "--teacher",
    metavar="RUN|FILE",
    help="Learn the answers of this trained network, too, named as for --init; it knows all characters, or more.  "
    "[default: none]",
)
@click.option("--resume", is_flag=True, help="Go on from the newest valid checkpoint; start where there is none.")
@click.option(
    "--arch",
    default="efficientnet_v2_s",
    show_default=True,
    help="Or efficientnet_v2_s_stride1, compact (for a CPU), compact_wide, vgg19_bn, timm:NAME.",
)
@click.option("--size", type=int, help="Pixels a side, from 32.  [default: the pack's; drawn: 64]")
@click.option("--epochs", type=int, default=20, show_default=True, help="Passes over the training split.")
@click.option("--batch-size", type=int, help="Pictures a step, of all processes.  [default: 256 on CUDA, 64 on a CPU]")
@click.option(
    "--accumulate", type=int, default=1, show_default=True, help="Parts of a step, where memory is too short for it."
)
@click.option("--lr", type=float, default=2e-3, show_default=True, help="Highest learning rate.")
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "plateau"]),
    default="cosine",
    show_default=True,
    help="Plateau: half the rate when the val loss stays.",
)
@click.option("--warmup", type=float, default=0.1, show_default=True, help="Share of the steps in which it rises.")
@click.option("--weight-decay", type=float, default=0.05, show_default=True, help="AdamW's; 0 is Adam.")
@click.option("--clip", type=float, default=1.0, show_default=True, help="Greatest norm of the gradients; 0: any.")
@click.option("--label-smoothing", type=float, default=0.1, show_default=True, help="Share spread over all classes.")
@click.option("--dropout", type=float, default=1.0, show_default=True, help="How much of the network's own; 0: none.")
@click.option("--ema-decay", type=float, default=0.999, show_default=True, help="Of the averaged weights; 0: the last.")
@click.option("--augmentation/--no-augmentation", default=True, show_default=True, help="Distort training pictures.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    help="Of convolutions and products.  [default: bf16 where the hardware has it, else fp32]",
)
@click.option("--sync-bn", is_flag=True, help="Batch norm over the pictures of all processes (CUDA).")
@click.option("--seed", type=int, default=0, show_default=True, help="Of first weights, pictures, order, dropout.")
@device_option
@click.option("--workers", type=click.IntRange(0), help="Processes that read.  [default: 4 on CUDA, 1 on a CPU]")
@click.option(
    "--cache",
    type=click.Choice(["none", "ram", "device"]),
    default="none",
    show_default=True,
    help="Hold all pictures in memory (ram), or on the device.",
)
@click.option(
    "--checkpoint-every",
    type=_Every(),
    default="10m",
    show_default=True,
    metavar="STEPS|TIME",
    help="Between checkpoints: 500 (steps), 30s, 10m, 2h.",
)
@click.option("--compile", is_flag=True, help="Let torch.compile make the kernels.")
@click.option("--deterministic", is_flag=True, help="The same bits each time on CUDA, too; slower.")
@click.option("--tensorboard", is_flag=True, help="Write metrics for TensorBoard, too.")
@click.option("--dry-run", is_flag=True, help="Show settings, memory and steps; train and write nothing.")
@click.option("--find-batch", is_flag=True, help="Try batch sizes on the GPU: speed and memory; train nothing.")
@click.pass_context
def main(
    ctx: click.Context,
    /,
    data: Path | None,
    name: str | None,
    recipe: Path | None,
    init: str | None,
    resume: bool,
    device: str,
    workers: int | None,
    cache: str,
    checkpoint_every: int | float,
    compile: bool,
    deterministic: bool,
    tensorboard: bool,
    dry_run: bool,
    find_batch: bool,
    **settings: Any,
) -> None:
    """Train a network on a pack, or on handwriting drawn as it is needed.

    Writes artifacts/<run>: run.json, first-batch.png, metrics, curves.svg and checkpoints. Ctrl-C and SIGTERM save and
    stop (exit code 75); the same command with --resume goes on exactly where it stopped. torchrun starts it on many
    GPUs.

    \b
    hcr-train --resume
    hcr-train --data data/packed/real-64 --run real --arch compact
    hcr-train --draw --charset gb2312 --arch compact --resume
    hcr-train --run tuned --init real --epochs 3 --lr 2e-4
    torchrun --nproc-per-node 2 -m -- hcr.cli.train --run real --resume
    """
    if deterministic:
        # cuBLAS reads it when CUDA starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    from hcr.config import read_recipe
    from hcr.layout import ARTIFACTS, find_pack, is_drawn, pack_of
    from hcr.training import Execution, TrainConfig, train

    given = read_recipe(recipe, TrainConfig) if recipe else {}
    sources = dict.fromkeys(given, "recipe")
    for key, value in settings.items():
        if ctx.get_parameter_source(key) is ParameterSource.COMMANDLINE:
            given[key], sources[key] = value, "flag"
    if given.get("teacher"):
        given["teacher"] = str(_weights(given["teacher"]))
    device = choose_device(device)
    cuda = device == "cuda"
    named, arch = name and ARTIFACTS / name, given.get("arch", settings["arch"]).replace(":", "-")
    drawn = bool(given.get("draw") or (named and resume and is_drawn(named)))
    pack: Path | None
    if drawn:
        # Not "drawn-": a pack of the drawn corpus has that name, and so have the runs that learn from it.
        run = named or ARTIFACTS / f"endless-{given.get('size', TrainConfig.size)}-{arch}"
        pack = data or (pack_of(run) if resume else None)
    else:
        pack = data or (named and pack_of(named)) or find_pack(None)
        run = named or ARTIFACTS / f"{pack.name}-{arch}"
    if workers is None:
        workers = min(4, os.cpu_count() or 1) if cuda else 1
    execution = Execution(device, workers, cache, checkpoint_every, compile, deterministic, tensorboard)
    start: dict[str, Any] = {"resume": resume, "init": _weights(init) if init else None}
    # torchrun starts many processes, and the first one speaks.
    first = os.environ.get("RANK", "0") == "0"
    with meter("train", " steps") as steps, meter("validate", " pictures") as pictures:
        screen = _ConsoleObserver(steps, pictures)
        if dry_run or find_batch:
            if first:
                show_dry_run(given, pack, run, execution, screen, sources, find_batch=find_batch, **start)
            return
        if first:
            click.echo(f"training {run} on {'drawn handwriting' if drawn else pack}, {device}", err=True)
        summary = train(given, pack, run, execution, screen, **start)
    if not first:
        return
    if summary.best is None:
        click.echo(f"{run}: done after {summary.steps:,} steps; the pack has no val split to judge it by")
    else:
        best = summary.best
        click.echo(
            f"{run}: done after {summary.steps:,} steps; best epoch {best['epoch']}: "
            f"val top-1 {best['val_top1']:.2%}, top-5 {best['val_top5']:.2%} of {best['val_n']:,}"
        )
    click.echo(f"next: hcr-eval --run {shlex.quote(run.name)} --data {shlex.quote(str(pack)) if pack else 'PACK'}")


def _weights(named: str) -> Path:
    """Find the weights that --init or --teacher names: a file, or a run's best checkpoint."""
    from hcr.layout import find_checkpoint

    return Path(named) if "/" in named or named.endswith((".pt", ".safetensors")) else find_checkpoint(named)


class _ConsoleObserver:
    """Shows a run on stderr: bars, and a line an epoch."""

    def __init__(self, steps: Meter, pictures: Meter) -> None:
        self.steps, self.pictures = steps, pictures
        self._epoch = self._first = 0
        self._began = 0.0

    def note(self, message: str) -> None:
        note(message)

    def step(self, report: StepReport) -> None:
        if report.step != self.steps.done + 1:
            # A run that goes on, or that went back.
            self.steps.close()
            self.steps.start = report.step - 1
        self.steps.about = (
            f"epoch {report.epoch}, loss {report.loss:.3f}, top-1 {report.top1:.1%}{self._speed(report)}, "
            f"{report.data_wait:.1%} waiting for data"
        )
        self.steps(1, report.total)

    def _speed(self, report: StepReport) -> str:
        """Say the pictures a second since the first step of the epoch, which may have been a slow one."""
        now = time.monotonic()
        if report.epoch != self._epoch or report.step <= self._first:
            self._epoch, self._first, self._began = report.epoch, report.step, now
            return ""
        return f", {(report.step - self._first) * report.pictures / (now - self._began):,.0f} pictures/s"

    def validating(self, advance: int, total: int) -> None:
        self.pictures(advance, total)

    def epoch(self, row: dict[str, Any], timing: dict[str, Any]) -> None:
        self.pictures.close()
        judged = f", val top-1 {row['val_top1']:.2%}, top-5 {row['val_top5']:.2%}" if "val_top1" in row else ""
        note(
            f"epoch {row['epoch']}: step {row['step']}, train loss {row['train_loss']:.3f}, "
            f"top-1 {row['train_top1']:.2%}{judged}; {timing['pictures_per_second']:,.0f} pictures a second, "
            f"{timing['data_wait']:.1%} of the time waiting for data"
        )


if __name__ == "__main__":
    main()
