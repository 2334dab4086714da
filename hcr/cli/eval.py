"""hcr-eval: a run and a pack in, figures and files out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hcr.cli.common import Command, choose_device, device_option, meter, note
from hcr.errors import UsageError

if TYPE_CHECKING:
    from hcr.cli.common import Meter
    from hcr.evaluation import Analysis, Comparison, Evaluation, Evaluator
    from hcr.evaluation.groups import Row

# Of the longest lists, this many are shown; the files have them all.
SHOWN = 5


@click.command(cls=Command)
@click.option("--run", "name", help="Name of the run.  [default: the only one in artifacts]")
@click.option(
    "--data", "--pack", "data", type=click.Path(path_type=Path),
    help="The pack.  [default: the one the run was trained on]",
)  # fmt: skip
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option("--per-class", type=click.Path(path_type=Path, dir_okay=False), help="Write the per-class CSV here too.")
@click.option("--compare", metavar="RUN", help="Compare with what another run was scored on the same split.")
@click.option("--robustness", is_flag=True, help="Score again with other lines, ink, places, sizes, noise ….")
@click.option("--error", type=click.FloatRange(0, 1), default=0.01, show_default=True,
              help="Give the score below which answers must be rejected for this share of errors.")  # fmt: skip
@click.option("--only-shared", is_flag=True, help="Where model and pack differ, score the characters both have.")
@click.option("--allow-seen", is_flag=True, help="Score data that the run learnt from; every file then says so.")
@click.option("--predictions", type=click.Path(path_type=Path), metavar="FILE",
              help="Score another system's predictions, .npz or .csv, instead of a run.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True, help="Pictures a step.")
@click.option("--workers", type=click.IntRange(0), default=1, show_default=True, help="Processes that read batches.")
@device_option
def main(
    name: str | None,
    data: Path | None,
    split: str,
    per_class: Path | None,
    compare: str | None,
    robustness: bool,
    error: float,
    only_shared: bool,
    allow_seen: bool,
    predictions: Path | None,
    batch_size: int,
    workers: int,
    device: str,
) -> None:
    """Judge a run's best checkpoint on a split that it has not seen.

    Writes report.html, summary.json, predictions.npz and tables by class, writer, strokes, group and confusion into
    artifacts/<run>/eval/<split>. Ctrl-C saves and stops (exit code 75); the same command goes on.

    \b
    hcr-eval --per-class report.csv
    hcr-eval --run second --compare first --robustness
    hcr-eval --predictions theirs.csv --data data/packed/hwdb1.1-64
    """
    from hcr.evaluation import compare_with, evaluate_external, write_report
    from hcr.evaluation.evaluator import forget
    from hcr.files import atomic_write
    from hcr.layout import ARTIFACTS, checkpoints, find_checkpoint, find_pack, find_run, pack_of

    if predictions and (robustness or allow_seen):
        raise UsageError("--predictions: there is no model to run; leave out --robustness and --allow-seen")
    run = ARTIFACTS / (name or predictions.stem) if predictions else find_run(name)
    folder = run / "eval" / split
    other = ARTIFACTS / compare / "eval" / split / "predictions.npz" if compare else None
    if other and not other.is_file():
        raise UsageError(f"--compare {compare}: no {other}; make it with hcr-eval --run {compare} --split {split}")
    evaluator = None
    if predictions:
        if checkpoints(run):
            raise UsageError(f"{run}: is a run of hcr-train; return the predictions a name of their own with --run")
        evaluation = evaluate_external(predictions, find_pack(data), split, only_shared=only_shared)
    else:
        from hcr.evaluation import make_evaluator

        evaluator = make_evaluator(
            find_checkpoint(run.name), find_pack(data or pack_of(run)), split, batch_size=batch_size, workers=workers,
            device=choose_device(device), allow_seen=allow_seen, only_shared=only_shared, folder=folder,
        )  # fmt: skip
        with meter("evaluate", " pictures") as progress:
            evaluation = evaluator.evaluation(progress, _going_on(progress))
    comparison = compare_with(evaluation, other) if other else None
    write = partial(
        write_report, folder, evaluation, wanted_error=error, comparison=comparison, curves=run / "metrics.jsonl"
    )
    findings = write()
    if per_class:
        with atomic_write(per_class) as file:
            file.write((folder / "per_class.csv").read_bytes())
    _show(run, evaluation, findings)
    if comparison:
        _show_comparison(str(compare), comparison, evaluation)
    if evaluator and robustness:
        rows = _judge_conditions(evaluator, evaluation)
        write(conditions=rows)
        _show_conditions(rows)
    forget(folder)
    click.echo(f"written: {folder}{f', {per_class}' if per_class else ''}")


def _going_on(progress: Meter) -> Callable[[int], None]:
    """Let a bar begin where an earlier sitting ended."""

    def taken_up(done: int) -> None:
        progress.start = done
        note(f"{progress.label}: going on after {done:,} pictures")

    return taken_up


def _show(run: Path, evaluation: Evaluation, findings: Analysis) -> None:
    summary, charset = evaluation.summary, evaluation.charset
    if evaluation.seen:
        click.echo(f"NOT A TEST: {evaluation.seen}")
    click.echo(
        f"{run} on {evaluation.pack} {evaluation.split}: n {summary.n:,}, top-1 {summary.top1:.2%} "
        f"({_span(summary.top1_interval)}), top-5 {summary.top5:.2%}, top-10 {summary.top10:.2%}, "
        f"macro recall {summary.macro_recall:.2%}, macro F1 {summary.macro_f1:.2%}"
    )
    if evaluation.only_shared:
        click.echo(
            f"only the {len(charset):,} shared characters: {evaluation.left_out:,} samples of others are left out"
        )
    if findings.calibration and findings.rejection:
        kept = findings.rejection
        if kept.coverage == 1:
            wanted = f"all answers together have no more than the {kept.wanted:.2%} errors wanted"
        elif kept.n:
            answered = f"answers with a score of at least {kept.threshold:.4f}, {kept.coverage:.1%} of them,"
            wanted = f"{answered} have {kept.error:.2%} errors"
        else:
            wanted = f"no threshold leaves {kept.wanted:.2%} errors"
        click.echo(f"calibration error {findings.calibration.ece:.2%}; {wanted}")
    if evaluation.checkpoint:
        click.echo(f"{evaluation.ms_per_picture:.2f} ms a picture, {evaluation.pictures_per_second:,.0f} a second")
    pairs = [f"{charset[p.target]}→{charset[p.predicted]} {p.count}" for p in findings.confusions[:SHOWN]]
    if pairs:
        click.echo(f"most confused: {', '.join(pairs)}")


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.2%} to {interval[1]:.2%}"


def _show_comparison(other: str, comparison: Comparison, evaluation: Evaluation) -> None:
    from hcr.evaluation.page.markup import points

    low, high = comparison.interval
    net = (comparison.class_gained - comparison.class_lost).tolist()
    order = sorted(range(len(net)), key=lambda label: (-net[label], label))
    gained = [f"{evaluation.charset[label]} {net[label]:+d}" for label in order[:SHOWN] if net[label] > 0]
    lost = [f"{evaluation.charset[label]} {net[label]:+d}" for label in order[: -SHOWN - 1 : -1] if net[label] < 0]
    click.echo(
        f"against {other} ({comparison.other_top1:.2%}): {points(comparison.difference)} "
        f"({100 * low:+.2f} to {100 * high:+.2f}), {comparison.gained:,} gained, {comparison.lost:,} lost, "
        f"McNemar {comparison.significance} ({comparison.test}); "
        f"gained most: {', '.join(gained) or 'none'}; lost most: {', '.join(lost) or 'none'}"
    )


def _judge_conditions(evaluator: Evaluator, evaluation: Evaluation) -> list[Row]:
    from tqdm import tqdm

    from hcr.evaluation import judge_conditions
    from hcr.evaluation.robustness import CONDITIONS

    # Some conditions cost more than the network does, most of all beside a GPU.
    least = tqdm.format_interval(len(CONDITIONS) * evaluation.seconds)
    note(f"robustness: {len(CONDITIONS)} more passes, at least {least}; Ctrl-C keeps what is done")
    with meter("", " pictures") as progress:

        def started(condition: str) -> None:
            progress.close()
            progress.label = condition

        return judge_conditions(evaluator, evaluation, progress, started, _going_on(progress))


def _show_conditions(rows: Sequence[Row]) -> None:
    from hcr.evaluation.page.markup import points

    for row in rows:
        change = f"{points(row.recall - rows[0].recall):>15}" if row is not rows[0] else ""
        click.echo(f"  {row.name:<26} {row.recall:7.2%} ({_span((row.low, row.high))}){change}")
    click.echo("  uncleaned noise reaches the network as it is; hcr-predict would remove most of it first")
    worst = min(rows[1:], key=lambda row: row.recall)
    click.echo(f"worst condition: {worst.name}, top-1 {worst.recall:.2%}")
