"""hcr-predict: pictures in, a table or JSON lines out."""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path

import click

from hcr.cli.common import Command, choose_device, device_option, meter, note
from hcr.errors import DataError, UsageError
from hcr.layout import RELEASED

# Longer paths push their row to the right instead of all rows.
WIDEST_PATH = 60


@click.command(cls=Command)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--run", "name", help="Name of the run whose best checkpoint answers.  [default: the released weights]")
@click.option("--weights", type=click.Path(path_type=Path), help="A file of weights (.pt, .safetensors) that answers.")
@click.option(
    "--charset",
    type=click.Choice(list(RELEASED)),
    help="Which released weights: 3,755 characters, or 6,763 and a little less sure.  [default: level1]",
)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Characters a picture.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout instead of a table.")
@device_option
@click.pass_context
def main(
    ctx: click.Context,
    paths: tuple[Path, ...],
    name: str | None,
    weights: Path | None,
    charset: str | None,
    top: int,
    as_json: bool,
    device: str,
) -> None:
    """Name the handwritten character on each picture.

    PATH is a picture of one character, or a folder of them: any format, mode and size, dark ink or light. The weights
    that come with hcr answer, or a run's. Files that cannot be read are one line each on stderr; the others are
    answered, and the exit code is then 3.

    \b
    hcr-predict photo.jpg
    hcr-predict photo.jpg --charset gb2312
    hcr-predict photo.jpg --run mine
    hcr-predict scans/ --top 3 --json > readings.jsonl
    """
    if sum(choice is not None for choice in (name, weights, charset)) > 1:
        raise UsageError("--run, --weights and --charset exclude each other: name a run, a file or released weights")
    from hcr.inference.predictor import Predictor, find_pictures, read_pictures, shown_path
    from hcr.layout import find_checkpoint
    from hcr.models import load_recognizer

    if name is not None:
        weights = find_checkpoint(name)
    model = load_recognizer(weights or RELEASED[charset or "level1"], choose_device(device))
    named = shown_path(weights) if weights else "released weights"
    note(f"model: {named}, {model.arch}, {len(model.charset):,} characters, {model.size} px")
    predictor = Predictor(model, top)
    files = list(find_pictures(paths))
    column = min(WIDEST_PATH, max(map(_width, map(shown_path, files))))
    failed = False
    with meter("predict", " pictures") as progress:
        for answer in read_pictures(predictor, files):
            if isinstance(answer, DataError):
                failed = True
                note(f"error: {answer}")
            else:
                shown = shown_path(answer.path)
                click.echo(_json_line(shown, answer.top) if as_json else _row(shown, answer.top, column))
            # Rows on a terminal show progress enough, and a bar would break them up.
            if len(files) > 100 and not sys.stdout.isatty():
                progress(1, len(files))
    if failed:
        ctx.exit(DataError.exit_code)


def _json_line(path: str, top: list[tuple[str, float]]) -> str:
    found = [{"char": char, "prob": round(prob, 6)} for char, prob in top]
    return json.dumps({"path": path, "top": found}, ensure_ascii=False)


def _row(path: str, top: list[tuple[str, float]], column: int) -> str:
    cells = [f"{char}{' ' * (2 - _width(char))} {prob:6.1%}" for char, prob in top]
    return "   ".join([path + " " * (column - _width(path)), *cells])


def _width(text: str) -> int:
    """Count terminal columns: East Asian wide characters take two, combining marks none."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)
