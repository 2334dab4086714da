"""hcr-eval: weights and a pack in, figures and files out."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hcr.charset import KNOWN
from hcr.cli.common import Command, RenamedOption, device_option, meter, note, version_option
from hcr.errors import UsageError
from hcr.layout import NAMED_WEIGHTS
from hcr.models.device import choose_device
from hcr.text import counted

if TYPE_CHECKING:
    from hcr.cli.common import Meter
    from hcr.evaluation import Analysis, Comparison, Evaluation, Evaluator
    from hcr.evaluation.groups import Row

# So many entries of a long list are shown; the files have them all.
SHOWN = 5


@click.command(cls=Command)
@click.option("--run", "name", help="Name of the run.  [default: the only one in artifacts]")
@click.option(
    "--weights",
    metavar="RUN|FILE|NAME",
    help=f"Evaluate these instead: {NAMED_WEIGHTS}. --run then names the folder in artifacts/ for the results.",
)
@click.option(
    "--data", "--pack", "data", cls=RenamedOption, type=click.Path(path_type=Path),
    help="The pack.  [default: the one the run was trained on]",
)  # fmt: skip
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option("--per-class", type=click.Path(path_type=Path, dir_okay=False), help="Write the per-class CSV here too.")
@click.option("--compare", metavar="RUN", help="Compare with another run that was evaluated on the same split.")
@click.option(
    "--robustness",
    is_flag=True,
    help="Evaluate again under 17 distortions: stroke width, contrast, shift, scale, blur, noise ….",
)
@click.option(
    "--target-error", "--error", "target_error", cls=RenamedOption, type=click.FloatRange(0, 1), default=0.01,
    show_default=True, help="Find the score below which answers must be rejected for this share of errors.",
)  # fmt: skip
@click.option("--only-shared", is_flag=True, help="Where model and pack differ, count the characters that both have.")
@click.option("--allow-seen", is_flag=True, help="Evaluate on data that the run learnt from; every file then says so.")
@click.option("--predictions", type=click.Path(path_type=Path), metavar="FILE",
              help="Evaluate another system's predictions, .npz or .csv, instead of a run.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True, help="Pictures a step.")
@click.option("--workers", type=click.IntRange(0), default=1, show_default=True, help="Processes that read batches.")
@device_option
@version_option
def main(
    name: str | None,
    weights: str | None,
    data: Path | None,
    split: str,
    per_class: Path | None,
    compare: str | None,
    robustness: bool,
    target_error: float,
    only_shared: bool,
    allow_seen: bool,
    predictions: Path | None,
    batch_size: int,
    workers: int,
    device: str,
) -> None:
    """Evaluate a run's best checkpoint on a split that it has not seen.

    Writes report.html, summary.json, predictions.npz and tables by class, writer, strokes, group and confusion into
    artifacts/<run>/eval/<split>. Ctrl-C saves and stops (exit code 75); run the same command again to resume.

    \b
    hcr-eval --per-class report.csv
    hcr-eval --run second --compare first --robustness
    hcr-eval --weights level1 --data data/packed/hwdb1.1-64
    hcr-eval --predictions theirs.csv --data data/packed/hwdb1.1-64
    """
    from hcr.evaluation import compare_with, evaluate_external, write_report
    from hcr.files import atomic_write
    from hcr.layout import find_pack, pack_of

    if not 0 <= target_error <= 1:
        # click's range lets nan pass.
        raise UsageError(f"--target-error {target_error}: expected 0 to 1")
    if predictions and (weights is not None or robustness or allow_seen):
        raise UsageError("--predictions: no model is run; leave out --weights, --robustness and --allow-seen")
    run, checkpoint = _find_run(name, weights, predictions)
    folder = run / "eval" / split
    pack = find_pack(data or (None if checkpoint is None else pack_of(run)))
    other = None if compare is None else _find_compared(compare, pack, split)
    evaluator = None
    if checkpoint is None:
        assert predictions is not None
        evaluation = evaluate_external(predictions, pack, split, only_shared=only_shared)
    else:
        from hcr.evaluation import make_evaluator

        evaluator = make_evaluator(
            checkpoint, pack, split, batch_size=batch_size, workers=workers, device=choose_device(device),
            allow_seen=allow_seen, only_shared=only_shared, folder=folder,
        )  # fmt: skip
        with meter("evaluate", " pictures") as progress:
            evaluation = evaluator.evaluation(progress, _on_resume(progress))
    comparison = compare_with(evaluation, other) if other else None
    write = partial(
        write_report, folder, evaluation, target_error=target_error, comparison=comparison,
        curves=run / "metrics.jsonl",
    )  # fmt: skip
    analysis = write()
    if per_class:
        with atomic_write(per_class) as file:
            file.write((folder / "per_class.csv").read_bytes())
    _show(run, evaluation, analysis)
    if comparison:
        _show_comparison(str(compare), comparison, evaluation)
    if evaluator and robustness:
        rows = _evaluate_conditions(evaluator, evaluation)
        write(conditions=rows)
        _show_conditions(rows)
    if evaluator:
        evaluator.forget()
    click.echo(f"written: {folder}{f', {per_class}' if per_class else ''}")


def _find_run(name: str | None, weights: str | None, predictions: Path | None) -> tuple[Path, Path | None]:
    """Return the folder whose eval/ gets the results, and the weights to evaluate, None for predictions.

    Weights that are no run's, and predictions, get a folder of their own, named by `name`, or else by the file.
    """
    from hcr.layout import checkpoints, find_checkpoint, find_run, identify_weights, run_folder

    checkpoint = None
    if predictions:
        label = predictions.stem
    elif weights is None:
        run = find_run(name)
        return run, find_checkpoint(run.name)
    else:
        found = identify_weights(weights)
        if name is None and found.run:
            return found.run, found.file
        checkpoint, label = found.file, found.released or found.file.stem
    folder = run_folder(label if name is None else name)
    if checkpoints(folder):
        raise UsageError(f"{folder}: is a run of hcr-train; give these results a name of their own with --run")
    return folder, checkpoint


def _find_compared(name: str, pack: Path, split: str) -> Path:
    """Return the predictions that --compare names. Raises: UsageError that says how to make them."""
    from hcr.evaluation.analysis import open_split
    from hcr.layout import RELEASED, checkpoints, run_folder

    folder = run_folder(name)
    path = folder / "eval" / split / "predictions.npz"
    if path.is_file():
        return path
    if checkpoints(folder):
        command = f"--run {shlex.quote(name)}"
    elif name in RELEASED:
        command = f"--weights {name} --data {shlex.quote(str(pack))}"
        if open_split(pack, split).charset != KNOWN[name]():
            command += " --only-shared"
    else:
        names = sorted(found.parents[2].name for found in folder.parent.glob(f"*/eval/{split}/{path.name}"))
        raise UsageError(f"--compare {name}: no {path}; name what was evaluated: {', '.join(names) or 'nothing yet'}")
    raise UsageError(f"--compare {name}: no {path}; make it with hcr-eval {command} --split {split}")


def _on_resume(progress: Meter) -> Callable[[int], None]:
    """Return what lets a bar begin where an earlier sitting ended."""

    def on_resume(done: int) -> None:
        progress.start = done
        note(f"{progress.label}: resumed after {counted(done, 'picture')}")

    return on_resume


def _show(run: Path, evaluation: Evaluation, analysis: Analysis) -> None:
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
            f"only the {len(charset):,} shared characters: {counted(evaluation.left_out, 'sample')} of others "
            "are left out"
        )
    if analysis.calibration and analysis.rejection:
        kept = analysis.rejection
        if kept.coverage == 1:
            rejected = f"all answers together have no more than the target of {kept.target:.2%} errors"
        elif kept.n:
            answered = f"answers with a score of at least {kept.threshold:.4f}, {kept.coverage:.1%} of them,"
            rejected = f"{answered} have {kept.error:.2%} errors"
        else:
            rejected = f"no threshold leaves {kept.target:.2%} errors"
        click.echo(f"calibration error {analysis.calibration.ece:.2%}; {rejected}")
    if evaluation.checkpoint:
        click.echo(f"{evaluation.ms_per_picture:.2f} ms a picture, {evaluation.pictures_per_second:,.0f} a second")
    pairs = [f"{charset[p.target]}→{charset[p.predicted]} {p.count}" for p in analysis.confusions[:SHOWN]]
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


def _evaluate_conditions(evaluator: Evaluator, evaluation: Evaluation) -> list[Row]:
    from tqdm import tqdm

    from hcr.evaluation import evaluate_conditions
    from hcr.evaluation.robustness import CONDITIONS

    # Some conditions cost more than the network does, most of all beside a GPU.
    least = tqdm.format_interval(len(CONDITIONS) * evaluation.seconds)
    note(f"robustness: {len(CONDITIONS)} more passes, at least {least}; Ctrl-C keeps what is done")
    with meter("", " pictures") as progress:

        def on_start(condition: str) -> None:
            progress.close()
            progress.label = condition

        return evaluate_conditions(evaluator, evaluation, progress, on_start, _on_resume(progress))


def _show_conditions(rows: Sequence[Row]) -> None:
    from hcr.evaluation.page.markup import points

    for row in rows:
        change = f"{points(row.recall - rows[0].recall):>15}" if row is not rows[0] else ""
        click.echo(f"  {row.name:<26} {row.recall:7.2%} ({_span((row.low, row.high))}){change}")
    click.echo("  uncleaned noise reaches the network as it is; hcr-predict would remove most of it first")
    worst = min(rows[1:], key=lambda row: row.recall)
    click.echo(f"worst condition: {worst.name}, top-1 {worst.recall:.2%}")


if __name__ == "__main__":
    main()
