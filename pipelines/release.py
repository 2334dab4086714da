"""Release a run: its weights into one file that comes with the package, its figures into the model card.

    python pipelines/release.py RUN [--mean OTHER …]
    python benchmarks/real.py FOLDER --json figures.json
    python pipelines/release.py RUN [--mean OTHER …] --figures figures.json

RUN is a run in artifacts, or one of its checkpoints, that learnt from drawn handwriting of GB2312 or its level 1. With
`--mean` the weights are the mean of its own and of those of other runs, checkpoints or released files that go back to
the same weights; it may read better than each of them.
Label smoothing leaves a network's scores too low; the released one's are probabilities, of drawn handwriting at least.
The figures are measured on the released file itself, so it is written twice; they are taken only if they are of these
very weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from hcr.charset import Charset
from hcr.errors import DataError, HcrError, UsageError
from hcr.feed.degrade import degrade
from hcr.feed.sampler import SequentialBatches
from hcr.feed.synthetic import VALIDATION_WRITERS, SyntheticBatches
from hcr.files import atomic_write, read_json
from hcr.layout import RELEASED, find_weights
from hcr.models import Recognizer
from hcr.models.fine_tuning import classifier, transfer
from hcr.models.released import (
    Figures,
    ReleasedTraining,
    TrainingRecord,
    halved,
    is_released,
    read_released,
    weights_digest,
    write_released,
)
from hcr.models.weights import (
    Checkpoint,
    load_recognizer,
    load_weights,
    read_checkpoint,
    read_model,
    require_preprocessing,
)
from hcr.records import read_run_record, read_timings
from hcr.text import counted

CARD = Path(__file__).parents[1] / "docs/model-card.md"
BEGIN, END = "<!-- figures: written by pipelines/release.py -->", "<!-- end of figures -->"
LICENCE = (
    "Apache-2.0. Learnt from handwriting that was drawn from stroke medians (hcr/synth/strokes.bin, under the Arphic "
    "Public License){fonts}; the weights hold nothing of them."
)
CALIBRATED_BY = 2048  # drawn pictures
SHARPEST = 32.0  # what logits are multiplied by at most, and divided by
FONTS = " and from the outlines of the fonts that the recipe names"


def training_of(run: Path, content: Checkpoint, others: Sequence[str] = ()) -> ReleasedTraining:
    """Return what a run learnt from and how: settings, pictures, seconds, machines, commit, and the runs before it.

    others: the weights that its own are averaged with.
    Raises: UsageError for a run that learnt from a pack: real handwriting is somebody's, and seldom free. That holds
    for the runs whose weights it began with and whose answers it learnt, too. DataError for a teacher that has changed.
    """
    config, record = content["config"], read_run_record(run)
    if record is None:
        raise DataError(f"{run}: no run.json says what it learnt from")
    if not config["draw"]:
        raise UsageError(f"{run}: learnt from {record['pack']['path']}; only what learnt from drawings can be released")
    timings = read_timings(run / "timings.jsonl")
    steps = sum(epoch["steps"] for epoch in timings)
    # An epoch's line has the steps since the run was last started, so a run that was stopped has no seconds for some.
    seconds = content["step"] * sum(epoch["seconds"] for epoch in timings) / steps if steps else None
    starts, fonts = record["starts"], config.get("font", ())
    init, runs = starts[0]["init"], list[TrainingRecord]()
    teacher = config.get("teacher", "")
    # Which fonts and characters, not where on this machine they lay.
    names = {key: Path(config[key]).name for key in ("charset", "teacher") if key in config}
    return {
        "config": config | names | {"font": [Path(font).name for font in fonts]},
        "pack": content["pack"],
        "before": _placed(_before(Path(init)), runs) if init else None,
        "teacher": _placed(_taught(find_weights(teacher), content.get("teacher")), runs) if teacher else None,
        "mean_with": [_placed(_before(find_weights(other)), runs) for other in others],
        "steps": content["step"],
        "pictures": content["step"] * config["batch_size"],
        "seconds": None if seconds is None else round(seconds),
        "machines": sorted({start["machine"] for start in starts}),
        "versions": record["versions"],
        "git": record["git"],
        "validation": content["best"],
        "runs": runs,
    }


def _placed(training: ReleasedTraining, runs: list[TrainingRecord]) -> int:
    """Put a training and those that went into it among `runs`, each once; return its place."""
    places: list[int] = []
    for known in [*training["runs"], _without_runs(training)]:
        record = known.copy()
        record["before"] = None if (place := known.get("before")) is None else places[place]
        # Older files have no teacher.
        record["teacher"] = None if (place := known.get("teacher")) is None else places[place]
        record["mean_with"] = [places[place] for place in known["mean_with"]]
        if record not in runs:
            runs.append(record)
        places.append(runs.index(record))
    return places[-1]


def _without_runs(training: ReleasedTraining) -> TrainingRecord:
    """Return the record of the last run alone."""
    record: Any = {key: value for key, value in training.items() if key != "runs"}
    return cast(TrainingRecord, record)


def _before(weights: Path) -> ReleasedTraining:
    """Return what released weights, or those of a run, had learnt from."""
    if is_released(weights):
        return read_released(weights)["training"]
    run = weights.parent.parent
    if not (run / "run.json").is_file():
        raise UsageError(f"{weights}: no run.json says what these had learnt from")
    return training_of(run, read_checkpoint(weights))


def _taught(weights: Path, digest: str | None) -> ReleasedTraining:
    """Return what a teacher of this digest had learnt from. Raises: DataError where its weights have changed."""
    found = weights_digest(read_model(weights)["ema"])
    if found != digest:
        raise DataError(f"{weights}: weights {found}, but the run learnt from {digest}; put those back to release it")
    return _before(weights)


def stages(training: ReleasedTraining) -> list[dict[str, Any]]:
    """Return the runs that went into a training, each once, the first one first, whatever means were taken of them."""
    of_means = {"before", "mean_with", "temperature", "runs"}
    runs: list[dict[str, Any]] = [
        {key: value for key, value in run.items() if key not in of_means} for run in [*training["runs"], training]
    ]
    return [run for place, run in enumerate(runs) if run not in runs[:place]]


def mean_with(content: Checkpoint, others: Sequence[str]) -> dict[str, Tensor]:
    """Return the mean of a run's weights and of those of other runs or released files, which may know more characters.

    Raises: UsageError for one that lacks some of the characters; what `find_weights` and `transfer` raise.
    """
    states = [content["ema"]]
    for other in others:
        weights = find_weights(other)
        model = Recognizer(content["arch"], Charset(content["characters"]), content["size"])
        if lacking := transfer(model, weights).new:
            raise UsageError(f"{weights}: lacks {lacking:,} of the characters; leave it out of the mean")
        state = model.state_dict()
        if is_released(weights):  # its logits were divided by a constant, a run's were not
            scale = read_released(weights)["training"].get("temperature", 1)
            state |= {key: state[key] * scale for key in classifier(model)}
        states.append(state)
    return {
        name: torch.stack([state[name] for state in states]).mean(0) if value.is_floating_point() else value
        for name, value in content["ema"].items()
    }


def temperature(model: Recognizer, seed: int) -> float:
    """Return what a model's logits are to be divided by so that its scores are probabilities, to two decimals.

    The likeliest one for degraded pictures by CALIBRATED_BY drawn writers of whom no training learns. The answers stay
    as they are. Source: Guo et al. 2017, "On calibration of modern neural networks".
    """
    batches = SyntheticBatches(
        model.charset.characters,
        SequentialBatches(CALIBRATED_BY, 256),
        writers=VALIDATION_WRITERS,
        seed=seed,
        size=model.size,
    )
    model.eval()
    with torch.inference_mode():
        answers = [
            (model(degrade(batch.images, seed=seed, step=step)), batch.labels) for step, batch in enumerate(batches)
        ]
        logits, labels = (torch.cat(parts) for parts in zip(*answers, strict=True))
        low, high = 1 / SHARPEST, SHARPEST
        while high - low > 1e-3 * low:  # the loss is convex in the factor
            third = (high - low) / 3
            if F.cross_entropy((low + third) * logits, labels) < F.cross_entropy((high - third) * logits, labels):
                high -= third
            else:
                low += third
    return round(2 / (low + high), 2)


def release(name: str, out: Path, figures: Path | None, *, others: Sequence[str] = ()) -> None:
    """Write the weights of a checkpoint, or the best ones of the run `name`, to `out`, or their mean with `others`.

    Raises: DataError for figures of other weights; UsageError or DataError for what cannot be released.
    """
    checkpoint = find_weights(name)
    content = read_checkpoint(checkpoint)
    require_preprocessing(content, checkpoint)
    training = training_of(checkpoint.parent.parent, content, others)
    content["ema"] = mean_with(content, others)
    model = Recognizer(content["arch"], Charset(content["characters"]), content["size"])
    load_weights(model, content["ema"], checkpoint)
    training["temperature"] = temperature(model, content["config"]["seed"])
    content["ema"] |= {key: content["ema"][key] / training["temperature"] for key in classifier(model)}
    measured: Figures = read_json(figures) if figures else {}
    digest = weights_digest(halved(content["ema"]))
    if figures and measured.get("weights") != digest:
        raise DataError(
            f"{figures}: figures of the weights {measured.get('weights')}, expected {digest}; measure the file that "
            "this wrote without --figures"
        )
    drawn_from = any(run["config"]["font"] for run in stages(training))
    write_released(out, content, LICENCE.format(fonts=FONTS if drawn_from else ""), training, measured)
    load_recognizer(out)


def file_of(name: str) -> Path:
    """Return the file of the package that the run `name` would be. Raises: UsageError for characters of neither."""
    content = read_checkpoint(find_weights(name))
    for charset, path in RELEASED.items():
        if content["characters"] == Charset.named(charset).characters:
            return path
    raise UsageError(f"{name}: its characters are neither {' nor '.join(RELEASED)}; name a file with --out")


def card_table(paths: Sequence[Path]) -> str:
    """Return the model card's table of what released weights say about themselves, a column a file."""
    columns = [_facts(path) for path in paths]
    rows = [[name, *(facts[name] for facts in columns)] for name in columns[0]]
    return "\n".join(f"| {' | '.join(row)} |" for row in [[""] * len(rows[0]), ["---"] * len(rows[0]), *rows])


def _facts(path: Path) -> dict[str, str]:
    content = read_released(path)
    training, figures = content["training"], content["figures"]
    runs = stages(training)
    times = [run["seconds"] for run in runs]
    fonts = dict.fromkeys(font for run in runs for font in run["config"]["font"])
    facts = {
        "file": f"`{path.name}`, {path.stat().st_size / 1e6:.2f} MB, half precision",
        "characters": f"{len(content['characters']):,}",
        "network": f"{content['arch']}, pictures of {content['size']} px",
        "top-1": "not yet measured",
        "top-5": "not yet measured",
        "measured on": "not yet measured",
        "hardest": "not yet measured",
        "scores": "not yet measured",
        "time a picture": "not yet measured",
        "trained on": f"{sum(run['pictures'] for run in runs):,} drawn pictures in {counted(len(runs), 'run')}, "
        f"{_hours(None if None in times else sum(times))}",
        "fonts used by the generator": ", ".join(fonts) or "none",
        "weights": _mixture(training),
        "machine": "; ".join(dict.fromkeys(machine for run in runs for machine in run["machines"])),
        "checkpoint": judge_of(training),
    }
    if figures:
        low, high = figures["top1_interval"]
        facts |= {
            "top-1": f"{figures['top1']:.2%} (95 % interval {low:.2%} to {high:.2%})",
            "top-5": f"{figures['top5']:.2%}",
            "measured on": f"{figures['n']:,} pictures of {figures['characters']:,} characters in real handwriting, "
            f"all {figures['classes']:,} being possible answers",
            "hardest": ", ".join(f"{row['char']} {row['top1']:.0%}" for row in figures["worst"]),
            "scores": f"mean score {figures['mean_score']:.1%}, calibration error {figures['calibration_error']:.1%}",
            "time a picture": f"{figures['ms_1']:.1f} ms one at a time, {figures['ms_64']:.1f} ms 64 at a time, on "
            f"one core of {figures['machine']}",
        }
    return facts


def judge_of(training: ReleasedTraining) -> str:
    """Return which of a run's checkpoints it is, and what it was selected on."""
    best = training["validation"]
    if not best or best["step"] != training["steps"]:
        return "the last; none was selected"
    return f"selected on {'drawn handwriting' if training['pack']['val'].startswith('pen ') else 'a pack'}"


def _mixture(training: ReleasedTraining) -> str:
    """Return of how many weights a file's are the mean, and of how many those were that are means themselves."""
    others = [training["runs"][place] for place in training["mean_with"]]
    inner = [f", of which one is a mean of {1 + len(other['mean_with'])}" for other in others if other["mean_with"]]
    return f"mean of {len(others) + 1} runs'{''.join(inner)}" if others else "the last run's"


def write_card() -> None:
    """Put the table into the model card, in the place of the one that it has."""
    before, _, rest = CARD.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    with atomic_write(CARD, "w") as file:
        file.write(f"{before}{BEGIN}\n\n{card_table(list(RELEASED.values()))}\n\n{END}{after}")


def _hours(seconds: int | None) -> str:
    if seconds is None:
        return "an unknown time"
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def main() -> None:
    """Write the file, and the card where it is the one that comes with the package."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", metavar="RUN", help="name of a run in artifacts, or a checkpoint")
    parser.add_argument(
        "--mean",
        metavar="OTHER",
        nargs="+",
        default=(),
        help="of its weights and of those of these runs, checkpoints or released files",
    )
    parser.add_argument("--out", type=Path, help="default: the file that comes with the package")
    parser.add_argument("--figures", type=Path, help="what benchmarks/real.py --json wrote")
    given = parser.parse_args()
    try:
        out = given.out or file_of(given.run)
        release(given.run, out, given.figures, others=given.mean)
    except HcrError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if out in RELEASED.values():
        write_card()
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
