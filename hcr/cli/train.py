"""hcr-train: a pack in, a run with checkpoints out."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from hcr.cli.common import Command, Meter, choose_device, device_option, meter, note


@click.command(cls=Command)
@click.option("--data", type=click.Path(path_type=Path), help="The pack.  [default: the only one in data/packed]")
@click.option("--run", "name", help="Name of the run, a folder in artifacts/.  [default: <pack>-<arch>]")
@click.option("--recipe", type=click.Path(path_type=Path), help="TOML file of settings; flags go before it.")
@click.option("--arch", default="efficientnet_v2_s", show_default=True, help="efficientnet_v2_s, or compact for a CPU.")
@click.option("--size", type=int, help="Pixels a side, from 32.  [default: the pack's]")
@click.option("--epochs", type=int, default=20, show_default=True, help="Passes over the training split.")
@click.option("--batch-size", type=int, help="Pictures a step.  [default: 256 on CUDA, 64 on a CPU]")
@click.option("--lr", type=float, default=2e-3, show_default=True, help="Highest learning rate.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of first weights, order and augmentation.")
@click.option(
    "--workers", type=click.IntRange(0), help="Processes that read batches.  [default: 4 on CUDA, 1 on a CPU]"
)
@click.option(
    "--cache",
    type=click.Choice(["none", "ram", "device"]),
    default="none",
    show_default=True,
    help="Hold all pictures in memory (ram), or on the device.",
)
@device_option
@click.option(
    "--checkpoint-every",
    type=click.IntRange(1),
    metavar="STEPS",
    help="Steps between checkpoints.  [default: ten minutes]",
)
@click.option("--resume", is_flag=True, help="Go on from the newest valid checkpoint; start where there is none.")
@click.pass_context
def main(
    ctx: click.Context,
    /,
    data: Path | None,
    name: str | None,
    recipe: Path | None,
    device: str,
    workers: int | None,
    cache: str,
    checkpoint_every: int | None,
    resume: bool,
    **settings: Any,
) -> None:
    """Train a network on a pack.

    Writes artifacts/<run>: run.json, metrics.jsonl and checkpoints. Ctrl-C and SIGTERM save and stop (exit code 75);
    the same command with --resume goes on exactly where it stopped.

    \b
    hcr-train --resume
    hcr-train --data data/packed/real-64 --run real --arch compact
    """
    from hcr.config import read_recipe
    from hcr.layout import ARTIFACTS, find_pack, pack_of
    from hcr.training import Execution, TrainConfig, train

    given = read_recipe(recipe, TrainConfig) if recipe else {}
    for key, value in settings.items():
        if ctx.get_parameter_source(key) is ParameterSource.COMMANDLINE:
            given[key] = value
    pack = data or (name and pack_of(ARTIFACTS / name)) or find_pack(None)
    device = choose_device(device)
    cuda = device == "cuda"
    run = ARTIFACTS / (name or f"{pack.name}-{given.get('arch', settings['arch'])}")
    if workers is None:
        workers = min(4, os.cpu_count() or 1) if cuda else 1
    execution = Execution(device, workers, cache, checkpoint_every)
    click.echo(f"training {run} on {pack}, {device}", err=True)
    with meter("train", " steps") as steps, meter("validate", " pictures") as pictures:
        summary = train(given, pack, run, execution, _Screen(steps, pictures), resume=resume)
    if summary.best is None:
        click.echo(f"{run}: done after {summary.steps:,} steps; the pack has no val split to judge it by")
    else:
        best = summary.best
        click.echo(
            f"{run}: done after {summary.steps:,} steps; best epoch {best['epoch']}: "
            f"val top-1 {best['val_top1']:.2%}, top-5 {best['val_top5']:.2%} of {best['val_n']:,}"
        )
    click.echo(f"next: hcr-eval --run {shlex.quote(run.name)} --data {shlex.quote(str(pack))}")


class _Screen:
    """Shows a run on stderr: bars, and a line an epoch."""

    def __init__(self, steps: Meter, pictures: Meter) -> None:
        self.steps, self.pictures = steps, pictures

    def note(self, message: str) -> None:
        note(message)

    def step(self, done: int, total: int, epoch: int, loss: float) -> None:
        if not self.steps.done:
            self.steps.start = done - 1
        self.steps.about = f"epoch {epoch}, loss {loss:.3f}"
        self.steps(1, total)

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
