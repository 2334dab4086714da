"""Release a run: its weights into one file that comes with the package, its figures into the model card.

    python pipelines/release.py RUN [--mean]
    python benchmarks/real.py FOLDER --json figures.json
    python pipelines/release.py RUN [--mean] --figures figures.json

RUN is a run in artifacts that learnt from drawn handwriting, of GB2312 or its level 1. With `--mean` the weights are
the mean of its own and of those that it began with, which may know more characters; it may read better than either. The
figures are measured on the released file itself, so it is written twice; they are taken only if they are of these very
weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from hcr.charset import Charset
from hcr.errors import DataError, HcrError, UsageError
from hcr.files import atomic_write, read_json
from hcr.layout import ARTIFACTS, RELEASED, find_checkpoint
from hcr.models import Recognizer
from hcr.models.fine_tuning import transfer
from hcr.models.released import halved, is_released, read_released, weights_digest, write_released
from hcr.models.weights import load_recognizer, read_checkpoint, require_preprocessing

CARD = Path(__file__).parents[1] / "docs/model-card.md"
BEGIN, END = "<!-- figures: written by pipelines/release.py -->", "<!-- end of figures -->"
LICENCE = (
    "Apache-2.0. Learnt from handwriting that was drawn from stroke medians (hcr/pen/strokes.bin, under the Arphic "
    "Public License){fonts}; the weights hold nothing of them."
)
FONTS = " and from the outlines of the fonts that the recipe names"


def training_of(run: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Say what a run learnt from and how: its settings, pictures, seconds, machines and commit, and what was `before`.

    Raises: UsageError for a run that learnt from a pack: real handwriting is somebody's, and seldom free. That holds
    for the runs whose weights it began with, too.
    """
    config, record = content["config"], read_json(run / "run.json")
    if not config["draw"]:
        raise UsageError(f"{run}: learnt from {record['pack']['path']}; only what learnt from drawings can be released")
    timings = [json.loads(line) for line in (run / "timings.jsonl").read_text("utf-8").splitlines()]
    steps = sum(epoch["steps"] for epoch in timings)
    # An epoch's line has the steps since the run was last started, so a run that was stopped has no seconds for some.
    seconds = content["step"] * sum(epoch["seconds"] for epoch in timings) / steps if steps else None
    starts, fonts = record["starts"], config.get("font", ())
    return {
        # Which fonts and characters, not where on this machine they lay.
        "config": config | {"charset": Path(config["charset"]).name, "font": [Path(font).name for font in fonts]},
        "pack": content["pack"],
        "before": starts[0]["init"] and _before(Path(starts[0]["init"])),
        "steps": content["step"],
        "pictures": content["step"] * config["batch_size"],
        "seconds": seconds and round(seconds),
        "machines": sorted({start["machine"] for start in starts}),
        "versions": record["versions"],
        "git": record["git"],
        "validation": content["best"],
    }


def _before(weights: Path) -> dict[str, Any]:
    """Say what the weights that a run began with had learnt from."""
    if is_released(weights):
        return read_released(weights)["training"]
    run = weights.parent.parent
    if not (run / "run.json").is_file():
        raise UsageError(f"{weights}: a run began with these, and no run.json says what they had learnt from")
    return training_of(run, read_checkpoint(weights))


def stages(training: dict[str, Any]) -> list[dict[str, Any]]:
    """Give a training's runs, the first one first."""
    before = training["before"]
    return [*(stages(before) if before else ()), training]


def mean_with_before(run: Path, content: dict[str, Any]) -> dict[str, Tensor]:
    """Give the mean of a run's weights and of those that it began with, whose characters may be more.

    Raises: UsageError for a run that began with none, or with those that lack some of its characters; what `transfer`
    raises.
    """
    init = read_json(run / "run.json")["starts"][0]["init"]
    if not init:
        raise UsageError(f"{run}: began with no weights that a mean could be taken with; release it without --mean")
    before = Recognizer(content["arch"], Charset(content["characters"]), content["size"])
    if transfer(before, Path(init)).new:
        raise UsageError(
            f"{run}: began with weights that lack some of its characters ({init}); release it without --mean"
        )
    theirs = before.state_dict()
    return {
        name: (value + theirs[name]) / 2 if value.is_floating_point() else value
        for name, value in content["ema"].items()
    }


def release(name: str, out: Path, figures: Path | None, *, mean: bool = False) -> None:
    """Write the best weights of the run `name` to `out`, or their mean with those that it began with.

    Raises: DataError for figures of other weights; UsageError or DataError for what cannot be released.
    """
    checkpoint = find_checkpoint(name)
    content = read_checkpoint(checkpoint)
    require_preprocessing(content, checkpoint)
    if mean:
        content["ema"] = mean_with_before(ARTIFACTS / name, content)
    measured = read_json(figures) if figures else {}
    digest = weights_digest(halved(content["ema"]))
    if figures and measured.get("weights") != digest:
        raise DataError(
            f"{figures}: figures of the weights {measured.get('weights')}, expected {digest}; measure the file that "
            "this wrote without --figures"
        )
    training = training_of(ARTIFACTS / name, content) | {"mean": mean}
    drawn_from = any(run["config"]["font"] for run in stages(training))
    write_released(out, content, LICENCE.format(fonts=FONTS if drawn_from else ""), training, measured)
    load_recognizer(out)


def file_of(name: str) -> Path:
    """Give the file of the package that the run `name` would be. Raises: UsageError for characters of neither."""
    content = read_checkpoint(find_checkpoint(name))
    for charset, path in RELEASED.items():
        if content["characters"] == Charset.named(charset).characters:
            return path
    raise UsageError(f"{ARTIFACTS / name}: its characters are neither {' nor '.join(RELEASED)}; name a file with --out")


def card_table(paths: Sequence[Path]) -> str:
    """Give the model card's table of what released weights say about themselves, a column a file."""
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
        "time a picture": "not yet measured",
        "trained on": f"{sum(run['pictures'] for run in runs):,} drawn pictures in {len(runs)} runs, "
        f"{_hours(None if None in times else sum(times))}",
        "fonts drawn from, too": ", ".join(fonts) or "none",
        "weights": "mean of the last two runs'" if training["mean"] else "the last run's",
        "by": "; ".join(dict.fromkeys(machine for run in runs for machine in run["machines"])),
        "checkpoint chosen by": "drawn handwriting" if training["pack"]["val"].startswith("pen ") else "a pack",
    }
    if figures:
        low, high = figures["top1_interval"]
        facts |= {
            "top-1": f"{figures['top1']:.2%} (95 % interval {low:.2%} to {high:.2%})",
            "top-5": f"{figures['top5']:.2%}",
            "measured on": f"{figures['n']:,} pictures of {figures['characters']:,} characters in real handwriting, "
            f"all {figures['classes']:,} being possible answers",
            "hardest": ", ".join(f"{row['char']} {row['top1']:.0%}" for row in figures["worst"]),
            "time a picture": f"{figures['ms_1']:.1f} ms one at a time, {figures['ms_64']:.1f} ms 64 at a time, on "
            f"one core of {figures['machine']}",
        }
    return facts


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
    parser.add_argument("run", metavar="RUN", help="name of a run in artifacts")
    parser.add_argument("--mean", action="store_true", help="of its weights and of those that it began with")
    parser.add_argument("--out", type=Path, help="default: the file that comes with the package")
    parser.add_argument("--figures", type=Path, help="what benchmarks/real.py --json wrote")
    given = parser.parse_args()
    try:
        out = given.out or file_of(given.run)
        release(given.run, out, given.figures, mean=given.mean)
    except HcrError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if out in RELEASED.values():
        write_card()
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
