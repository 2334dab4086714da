"""hcr-predict: pictures in, a table or JSON lines out."""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path

import click

from hcr.cli.common import Command, device_option, meter, note, version_option
from hcr.errors import DataError, UsageError
from hcr.layout import NAMED_WEIGHTS, RELEASED
from hcr.text import counted

# Longer paths push their row to the right instead of all rows.
WIDEST_PATH = 60


@click.command(cls=Command)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--weights",
    metavar="RUN|FILE|NAME",
    help=f"What answers: {NAMED_WEIGHTS}. level1 names 3,755 characters, gb2312 6,763, a little less surely.  "
    "[default: level1]",
)
# Spelled out in older docs.
@click.option("--run", "run", hidden=True)
@click.option("--charset", type=click.Choice(list(RELEASED)), hidden=True)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Characters a picture.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout instead of a table.")
@device_option
@version_option
@click.pass_context
def main(
    ctx: click.Context,
    paths: tuple[Path, ...],
    weights: str | None,
    run: str | None,
    charset: str | None,
    top: int,
    as_json: bool,
    device: str,
) -> None:
    """Name the handwritten character on each picture.

    PATH is a picture of one character, or a folder of them. Any format, mode and size will do, dark ink or light. A
    file that cannot be read gets one line on stderr; the others are answered, and the exit code is then 3.

    \b
    hcr-predict photo.jpg
    hcr-predict photo.jpg --weights gb2312
    hcr-predict photo.jpg --weights my-run
    hcr-predict scans/ --top 3 --json > readings.jsonl
    """
    if sum(choice is not None for choice in (run, weights, charset)) > 1:
        raise UsageError("--run, --weights and --charset exclude each other; --weights takes what the others take")
    from hcr.inference.predictor import find_pictures, load, shown_path
    from hcr.layout import Weights, find_checkpoint, identify_weights

    if run is not None:
        found = Weights(find_checkpoint(run))
    elif weights is not None:
        found = identify_weights(weights)
    else:
        # The released ones, whatever else has their name.
        released = charset or next(iter(RELEASED))
        found = Weights(RELEASED[released], released)
    model = load(found.file, device=device)
    shown = f"released weights, {found.released}" if found.released else shown_path(found.file)
    note(f"model: {shown}, {model.recognizer.arch}, {counted(len(model.characters), 'character')}, {model.size} px")
    files = list(find_pictures(paths))
    column = min(WIDEST_PATH, max(map(_width, map(shown_path, files))))
    failed = False
    with meter("predict", " pictures") as progress:
        for path, answer in zip(files, model.read_many(files, top), strict=True):
            if isinstance(answer, DataError):
                failed = True
                note(f"error: {answer}")
            else:
                shown = shown_path(path)
                click.echo(_json_line(shown, answer) if as_json else _row(shown, answer, column))
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


if __name__ == "__main__":
    main()
