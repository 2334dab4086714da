"""hcr-eval: a run and a pack in, figures and files out."""

from __future__ import annotations

from pathlib import Path

import click

from hcr.cli.common import Command, choose_device, device_option, meter


@click.command(cls=Command)
@click.option("--run", "name", help="Name of the run.  [default: the only one in artifacts]")
@click.option("--data", type=click.Path(path_type=Path), help="The pack.  [default: the one the run was trained on]")
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option("--per-class", type=click.Path(path_type=Path, dir_okay=False), help="Write the per-class CSV here too.")
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True, help="Pictures a step.")
@click.option("--workers", type=click.IntRange(0), default=1, show_default=True, help="Processes that read batches.")
@device_option
def main(
    name: str | None,
    data: Path | None,
    split: str,
    per_class: Path | None,
    batch_size: int,
    workers: int,
    device: str,
) -> None:
    """Judge a run's best checkpoint on a split.

    Writes summary.json, per_class.csv, confusions.csv and predictions.npz into artifacts/<run>/eval/<split>.

    \b
    hcr-eval --per-class report.csv
    hcr-eval --run real --data data/packed/real-64 --split val
    """
    from hcr.evaluation import evaluate_checkpoint, write_report
    from hcr.files import atomic_write
    from hcr.layout import find_checkpoint, find_pack, find_run, pack_of

    run = find_run(name)
    pack = find_pack(data or pack_of(run))
    with meter("evaluate", " pictures") as progress:
        evaluation = evaluate_checkpoint(
            find_checkpoint(run.name),
            pack,
            split,
            batch_size=batch_size,
            workers=workers,
            device=choose_device(device),
            progress=progress,
        )
    folder = run / "eval" / split
    write_report(folder, evaluation)
    if per_class:
        with atomic_write(per_class) as file:
            file.write((folder / "per_class.csv").read_bytes())
    summary = evaluation.summary
    click.echo(
        f"{run} on {pack} {split}: n {summary.n:,}, top-1 {summary.top1:.2%}, top-5 {summary.top5:.2%}, "
        f"macro recall {summary.macro_recall:.2%}"
    )
    click.echo(f"written: {folder}{f', {per_class}' if per_class else ''}")
