"""hcr-train: a pack or drawn handwriting in, a run with checkpoints out; and what a run would be (--dry-run)."""

from __future__ import annotations

import json
import os
import shlex
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hcr.cli.common import Command, Meter, meter, note, version_option
from hcr.cli.options import setting_options
from hcr.config import settings_of
from hcr.layout import NAMED_WEIGHTS
from hcr.text import counted
from hcr.training.config import Execution, TrainConfig

if TYPE_CHECKING:
    from hcr.models.weights import Checkpoint
    from hcr.training import MetricsRow, StepReport, TimingsRow
    from hcr.training.setup import RunSetup

# The help's sections, each by its first flag.
SECTIONS = {
    "data": "What to train",
    "arch": "Settings (default < recipe < flag; a resumed run keeps its own)",
    "device": "How to run (may change from start to start)",
    "dry_run": "Before training",
    "debug": "Other",
}


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


@click.command(cls=_Command)
@click.option("--data", type=click.Path(path_type=Path), help="The pack.  [default: the only one in data/packed]")
@click.option(
    "--run", "name", help="Name of the run, a folder in artifacts/.  [default: <pack>-<arch>, endless-<size>-<arch>]"
)
@click.option("--recipe", type=click.Path(path_type=Path), help="TOML file of settings.")
@click.option("--init", metavar="RUN|FILE|NAME", help=f"Begin with these weights: {NAMED_WEIGHTS}.")
@click.option("--resume", is_flag=True, help="Continue from the newest valid checkpoint; start where there is none.")
@setting_options(TrainConfig)
@setting_options(Execution)
@click.option("--dry-run", is_flag=True, help="Show settings, memory and steps; train and write nothing.")
@click.option("--find-batch", is_flag=True, help="Try batch sizes on the GPU: speed and memory; train nothing.")
@version_option
@click.pass_context
def main(
    ctx: click.Context,
    /,
    data: Path | None,
    name: str | None,
    recipe: Path | None,
    init: str | None,
    resume: bool,
    dry_run: bool,
    find_batch: bool,
    **settings: Any,
) -> None:
    """Train a network on a pack, or on handwriting drawn as it is needed.

    Writes artifacts/<run>: run.json, first-batch.png, metrics, curves.svg and checkpoints. Ctrl-C and SIGTERM save and
    stop (exit code 75); the same command with --resume continues exactly where it stopped. torchrun starts it on many
    GPUs.

    \b
    hcr-train --resume
    hcr-train --data data/packed/real-64 --run real --arch compact
    hcr-train --draw --charset gb2312 --arch compact --resume
    hcr-train --run tuned --init real --epochs 3 --lr 2e-4
    torchrun --nproc-per-node 2 -m -- hcr.cli.train --run real --resume
    """
    if settings["deterministic"]:
        # cuBLAS reads it when CUDA starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    from hcr.config import read_recipe
    from hcr.layout import find_weights, is_drawn
    from hcr.training import train
    from hcr.training.setup import choose_run

    given = read_recipe(recipe, TrainConfig) if recipe else {}
    sources = dict.fromkeys(given, "recipe")
    for key in settings_of(TrainConfig):
        if ctx.get_parameter_source(key) is ParameterSource.COMMANDLINE:
            given[key], sources[key] = settings[key], "flag"
    config = TrainConfig(**given)
    execution = Execution(**{key: settings[key] for key in settings_of(Execution)})
    weights = find_weights(init) if init is not None else None
    pack, run = choose_run(config, data, name, resume=resume)
    # torchrun starts many processes, and the first one speaks.
    first = os.environ.get("RANK", "0") == "0"
    with meter("train", " steps") as steps, meter("validate", " pictures") as pictures:
        screen = _ConsoleObserver(steps, pictures)
        if dry_run or find_batch:
            if first:
                show_dry_run(
                    config, pack, run, execution, screen, sources, find_batch=find_batch, resume=resume, init=weights
                )
            return
        if first:
            drawn = config.draw or (resume and is_drawn(run))
            click.echo(f"training {run} on {'drawn handwriting' if drawn else pack}, {execution.device}", err=True)
        summary = train(config, pack, run, execution, screen, chosen=frozenset(given), resume=resume, init=weights)
    if not first:
        return
    if summary.best is None:
        click.echo(f"{run}: done after {counted(summary.steps, 'step')}; the pack has no val split to validate on")
    else:
        best = summary.best
        click.echo(
            f"{run}: done after {counted(summary.steps, 'step')}; best epoch {best['epoch']}: "
            f"val top-1 {best['val_top1']:.2%}, top-5 {best['val_top5']:.2%} of {best['val_n']:,}"
        )
    click.echo(f"next: {_next_step(run, pack)}")


def _next_step(run: Path, pack: Path | None) -> str:
    """Return the command that evaluates a run, and a line on what its figures are worth where they are no test."""
    from hcr.layout import splits_of
    from hcr.pack.store import open_reader
    from hcr.records import read_run_record

    command = f"hcr-eval --run {shlex.quote(run.name)} --data {shlex.quote(str(pack)) if pack else 'PACK'}"
    if pack is None:
        return f"{command}\nPACK: any pack with these characters, or add --only-shared"
    splits = splits_of(pack)
    record = read_run_record(run)
    # What is drawn may have other characters than the pack that validates.
    if record and record["charset"]["digest"] != open_reader(pack / f"{splits[-1]}.lmdb").charset.digest:
        command += " --only-shared"
    if "test" in splits:
        return command
    use = "chose this checkpoint" if "val" in splits else "were learnt from"
    return (
        f"{command} --split {splits[-1]} --allow-seen\n"
        f"no test split: these pictures {use}, so expect more errors on others; a folder with train and test in it "
        "makes a pack with one"
    )


class _ConsoleObserver:
    """Shows a run on stderr: bars, and a line for each epoch."""

    def __init__(self, steps: Meter, pictures: Meter) -> None:
        self.steps, self.pictures = steps, pictures
        self._epoch = self._first = 0
        self._start = 0.0

    def note(self, message: str) -> None:
        note(message)

    def step(self, report: StepReport) -> None:
        if report.step != self.steps.done + 1:
            # A run that was resumed, or went back to an older checkpoint.
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
            self._epoch, self._first, self._start = report.epoch, report.step, now
            return ""
        return f", {(report.step - self._first) * report.pictures / (now - self._start):,.0f} pictures/s"

    def validating(self, advance: int, total: int) -> None:
        self.pictures(advance, total)

    def epoch(self, row: MetricsRow, timing: TimingsRow) -> None:
        self.pictures.close()
        validated = f", val top-1 {row['val_top1']:.2%}, top-5 {row['val_top5']:.2%}" if "val_top1" in row else ""
        note(
            f"epoch {row['epoch']}: step {row['step']}, train loss {row['train_loss']:.3f}, "
            f"top-1 {row['train_top1']:.2%}{validated}; {timing['pictures_per_second']:,.0f} pictures a second, "
            f"{timing['data_wait']:.1%} of the time waiting for data"
        )


def show_dry_run(
    config: TrainConfig,
    pack: Path | None,
    run: Path,
    execution: Execution,
    observer: _ConsoleObserver,
    sources: dict[str, str],
    *,
    find_batch: bool,
    resume: bool,
    init: Path | None,
) -> None:
    """Show what a run would be, or which batch sizes its GPU takes; write nothing.

    sources: for each setting that somebody chose, where it comes from. Raises: what the run itself would at its start.
    """
    from hcr.training.distributed import Processes
    from hcr.training.setup import set_up_run

    processes = Processes(device=execution.device)
    setup, checkpoint = set_up_run(
        config, pack, run, execution, processes, observer, chosen=frozenset(sources), resume=resume, init=init
    )
    if find_batch:
        _show_batches(setup, observer)
        return
    if checkpoint:
        sources = dict.fromkeys(settings_of(TrainConfig), "the run")
    else:
        usual = dict.fromkeys(execution.usual(), "the device")
        if setup.config.batch_size != execution.usual()["batch_size"]:
            usual["batch_size"] = "the training samples"
        sources = usual | ({} if setup.config.draw else {"size": "the pack"}) | sources
    _show_setup(setup, checkpoint, observer, sources)


def _show_setup(
    setup: RunSetup, checkpoint: Checkpoint | None, observer: _ConsoleObserver, sources: dict[str, str]
) -> None:
    """Show a run's setup; its settings as lines of a recipe."""
    from hcr.training.memory import estimate

    config, execution, every = setup.config, setup.execution, setup.execution.pause
    parameters = sum(parameter.numel() for parameter in setup.state(checkpoint, observer).model.parameters())
    memory = estimate(setup)
    samples = " + ".join(f"{len(split):,} {name}" for name, split in setup.splits.items())
    origin = "drawn as they are needed" + (f", some after {', '.join(config.font)}" if config.font else "")
    if setup.pack:
        origin = f"{origin}, validated on {setup.pack}" if config.draw else str(setup.pack)
    start = f"resumes at step {checkpoint['step']:,}" if checkpoint else "new"
    pause = f"{counted(every, 'step')}" if isinstance(every, int) else f"{every:,.0f} seconds"
    step = memory.step + memory.picture * memory.pictures
    lines = {
        "run": f"{setup.run}, {start}",
        "pictures"
        if config.draw
        else "pack": f"{origin}: {samples} samples of {config.size} px, {counted(len(setup.charset), 'character')}",
        "device": f"{execution.device}, {execution.readers} reading, cache {execution.cache}, saving every {pause}",
        "steps": f"{setup.total:,}: {counted(config.epochs, 'epoch')} of {setup.per_epoch:,}, of "
        f"{counted(config.batch_size, 'picture')}",
        "parameters": f"{parameters:,}",
        "memory": f"about {_mb(memory.total)}: weights {_mb(memory.weights)}, gradients, optimizer and average "
        f"{_mb(memory.upkeep)}, {counted(memory.pictures, 'picture')} at a time {_mb(step)}",
    }
    for name, line in lines.items():
        click.echo(f"{name:11} {line}")
    click.echo("\nsettings, as a recipe")
    for name, value in asdict(config).items():
        setting = f"{name} = {json.dumps(value, ensure_ascii=False)}"
        click.echo(f"{setting:32} # {sources.get(name, 'default')}")


def _show_batches(setup: RunSetup, observer: _ConsoleObserver) -> None:
    from hcr.errors import HcrError
    from hcr.training.memory import find_batch

    batches = find_batch(setup, observer)
    if not batches:
        raise HcrError(
            f"--find-batch: a few pictures of {setup.config.size} px do not fit on this GPU; use a smaller --arch"
        )
    click.echo("batch size   pictures a second   memory at most")
    for size, speed, peak in batches:
        click.echo(f"{size:10,}   {speed:17,.0f}   {_mb(peak):>14}")
    click.echo(f"fastest: --batch-size {max(batches, key=lambda batch: batch[1])[0]}")


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


if __name__ == "__main__":
    main()
