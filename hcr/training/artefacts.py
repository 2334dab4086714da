"""curves.svg: how a run learns, from the rows of its metrics.jsonl alone.

Both axes of values are linear from 0: what a loss at the end still gains is told by the figures beside the curves.
"""

from __future__ import annotations

import csv
import json
import math
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

import hcr
from hcr.charset import Charset
from hcr.errors import UsageError
from hcr.files import atomic_write, read_json, write_json
from hcr.svg import dot, drawing, line, polyline, text
from hcr.training.setup import RunSetup

# What a person looks at in a run folder: the first batch, the table and curves of the metrics, TensorBoard's events.
#
# All follow from metrics.jsonl, and are written anew from it after each epoch: so they cannot disagree with it after a
# crash, at the price of writing a few kilobytes more than a line.
#
# Pictures a side of the contact sheet, and the grey between them.
SIDE, GREY = 8, 160


class RunArtefacts:
    """Writes the views of the run in the folder `run`.

    Every method raises OSError where it cannot write. Raises: UsageError for `tensorboard` where it is not installed.
    """

    def __init__(self, run: Path, charset: Charset, *, tensorboard: bool) -> None:
        self.run, self.charset = run, charset
        self._events = _Events(run / "tensorboard") if tensorboard else None

    def first_batch(self, images: Tensor, labels: Tensor) -> None:
        """Write first-batch.png: up to 64 of images uint8[B, 1, S, S], whose labels are int64[B], row by row.

        What the pictures should show stands in the file's text `characters`, a line a row.
        """
        pictures = images[: SIDE * SIDE, 0].cpu().numpy()
        rows, size = -(-len(pictures) // SIDE), pictures.shape[-1]
        framed = np.full((rows * SIDE, size + 1, size + 1), GREY, np.uint8)
        framed[: len(pictures), :size, :size] = pictures
        sheet = framed.reshape(rows, SIDE, size + 1, size + 1).swapaxes(1, 2).reshape(rows * (size + 1), -1)
        named = "".join(self.charset.characters[label] for label in labels[: SIDE * SIDE].tolist())
        text = PngInfo()
        text.add_itxt("characters", "\n".join(named[at : at + SIDE] for at in range(0, len(named), SIDE)))
        with atomic_write(self.run / "first-batch.png") as file:
            Image.fromarray(np.ascontiguousarray(sheet[:-1, :-1])).save(file, "PNG", pnginfo=text)

    def epoch(self, row: dict[str, Any]) -> None:
        """Bring metrics.csv, curves.svg and TensorBoard up to metrics.jsonl, whose last line is `row`."""
        lines = (self.run / "metrics.jsonl").read_text("utf-8").splitlines()
        rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
        columns = list(dict.fromkeys(key for known in rows for key in known))
        with atomic_write(self.run / "metrics.csv", "w") as file:
            table = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        with atomic_write(self.run / "curves.svg", "w") as file:
            file.write(curves_svg(rows, self.run.name))
        if self._events:
            self._events.add(rows)


class _Events:
    """TensorBoard's events in `folder`, over steps: a file a start of the run, each from the first epoch on.

    Raises: UsageError where TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError:
            raise UsageError("--tensorboard needs the package tensorboard; pip install 'hcr[tensorboard]'") from None
        self.folder, self._open = str(folder), SummaryWriter
        self._writer: Any = None

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Add what is new in the rows of the whole run."""
        new = rows[-1:]
        if self._writer is None:
            # An earlier start may have written epochs that were lost, or none: TensorBoard is to forget its files. They
            # are not deleted, since a TensorBoard that is reading one would never go on to the next.
            self._writer, new = self._open(self.folder, purge_step=rows[0]["step"]), rows
        for row in new:
            for key, value in row.items():
                if key != "step":
                    # TensorBoard shows loss/train and loss/val together.
                    part, _, figure = key.partition("_")
                    tag = f"{figure}/{part}" if part in ("train", "val") else key
                    self._writer.add_scalar(tag, value, row["step"])
        self._writer.flush()


_WIDE, _HIGH = 320, 240
_LEFT, _TOP, _GAP, _RIGHT, _BOTTOM = 60, 100, 150, 110, 56
# More epochs than this are drawn without a dot each.
_DOTTED = 40

Row = dict[str, Any]


def best_of(rows: Sequence[Row]) -> Row | None:
    """Return the first row with the highest val_top1; None without validation."""
    return max((row for row in rows if "val_top1" in row), key=lambda row: row["val_top1"], default=None)


def curves_svg(rows: Sequence[Row], name: str) -> str:
    """Draw loss and top-1 of training and validation over the epochs `rows`, at least one, of the run `name`."""
    best = best_of(rows)
    title = f"{name}: epoch {rows[-1]['epoch']}"
    if best:
        title += f", best epoch {best['epoch']} with val top-1 {best['val_top1']:.2%} of {best['val_n']:,}"
    width = _LEFT + _WIDE + _GAP + _WIDE + _RIGHT
    train = "train: while learning, on pictures as they were distorted"
    dashed = f"dashed: learning rate, at most {max(row['lr'] for row in rows):.3g}"
    if best:
        train += "; val: averaged weights, no label smoothing"
        dashed += "; the best epoch"
    parts = [text(16, 28, title), text(16, 48, train, "soft"), text(16, 66, dashed, "soft")]
    for number, figure in enumerate(("loss", "top1")):
        parts += _Panel(rows, figure, _LEFT + number * (_WIDE + _GAP)).parts(best)
    return drawing(width, _TOP + _HIGH + _BOTTOM, title, parts)


class _Panel:
    """One figure over the epochs, its left edge at x = `left`."""

    def __init__(self, rows: Sequence[Row], figure: str, left: float) -> None:
        self.rows, self.figure, self.left = rows, figure, left
        self.first, self.last = rows[0]["epoch"], rows[-1]["epoch"]
        values = [row[key] for row in rows for key in self._keys() if key in row and math.isfinite(row[key])]
        self.ticks = _ticks(max([*values, 0.01]))

    def parts(self, best: Row | None) -> list[str]:
        shares = self.figure == "top1"
        parts = [text(self.left, _TOP - 4, "top-1" if shares else "loss (nats)")]
        for value in self.ticks:
            y = self._y(value)
            parts.append(line(self.left, y, self.left + _WIDE, y, "grid"))
            parts.append(
                text(self.left - 8, y + 5, f"{value * 100:.3g} %" if shares else f"{value:.3g}", "soft", "end")
            )
        parts += self._epochs()
        parts += self._rate()
        if best:
            x = self._x(best["epoch"])
            parts.append(line(x, self._y(0), x, _TOP, "faint"))
        ends = []
        for key, kind, label in zip(self._keys(), ("two", "one"), ("train", "val"), strict=True):
            runs = _unbroken([(row["epoch"], row.get(key, math.nan)) for row in self.rows])
            for points in [[(self._x(epoch), self._y(value)) for epoch, value in run] for run in runs]:
                parts.append(polyline(points, kind))
                # A single point is no line.
                parts += [dot(*point, kind) for point in points if len(self.rows) <= _DOTTED or len(points) == 1]
            if runs:
                value = runs[-1][-1][1]
                ends.append((self._y(value), f"{label} {f'{value:.2%}' if shares else f'{value:.3f}'}", kind))
        return parts + self._labels(ends)

    def _keys(self) -> tuple[str, str]:
        return f"train_{self.figure}", f"val_{self.figure}"

    def _x(self, epoch: int) -> float:
        return self.left + _WIDE * (epoch - self.first + 0.5) / (self.last - self.first + 1)

    def _y(self, value: float) -> float:
        return _TOP + 8 + (_HIGH - 8) * (1 - value / self.ticks[-1])

    def _epochs(self) -> list[str]:
        step = max(1, round(_ticks(self.last - self.first + 1)[1]))
        shown = [epoch for epoch in range(self.first, self.last + 1) if epoch % step == 0 or step == 1]
        parts = [text(self._x(epoch), _TOP + _HIGH + 20, str(epoch), "soft", "middle") for epoch in shown]
        return [*parts, text(self.left + _WIDE / 2, _TOP + _HIGH + 42, "epoch", "soft", "middle")]

    def _rate(self) -> list[str]:
        """The learning rate, in the loss's panel: as high as the panel where it is highest."""
        if self.figure == "top1":
            return []
        highest = max(row["lr"] for row in self.rows)
        points = [(self._x(row["epoch"]), self._y(self.ticks[-1] * row["lr"] / highest)) for row in self.rows]
        return [polyline(points, "faint")]

    def _labels(self, ends: list[tuple[float, str, str]]) -> list[str]:
        """Name the curves at their ends, moved apart where they would lie on each other."""
        parts, free = [], 0.0
        for y, words, kind in sorted(ends):
            free = max(y + 5, free)
            parts.append(text(self.left + _WIDE + 10, free, words, kind))
            free += 18
        return parts


def _unbroken(points: list[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """Cut a curve where values are missing or not finite."""
    runs: list[list[tuple[int, float]]] = [[]]
    for epoch, value in points:
        if math.isfinite(value):
            runs[-1].append((epoch, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _ticks(highest: float) -> list[float]:
    """Return four to ten even, round values from 0 up to one that is not below `highest`."""
    power = 10.0 ** math.floor(math.log10(highest))
    step = next(power * part for part in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0) if highest <= 8 * power * part)
    return [number * step for number in range(math.ceil(highest / step - 1e-9) + 1)]


# run.json: what a run was made from, so that its figures can be repeated and its pack found again.
def write_record(plan: RunSetup, start: dict[str, Any]) -> None:
    """Write run.json; `start` (device, workers, step) is added to the starts that it already lists."""
    path = plan.run / "run.json"
    starts = read_json(path)["starts"] if start["step"] and path.is_file() else []
    write_json(
        path,
        {
            "config": asdict(plan.config),
            "pack": {
                "path": plan.pack and str(plan.pack),
                "digests": plan.digests,
                "sources": {name: split.sources for name, split in plan.splits.items()},
            },
            "charset": {"count": len(plan.charset), "digest": plan.charset.digest},
            "versions": {
                "hcr": hcr.__version__,
                "python": platform.python_version(),
                **{name: version(name) for name in ("torch", "torchvision", "numpy", "lmdb", "pillow")},
            },
            "git": _commit(),
            "starts": [
                *starts,
                start | {"when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": _machine()},
            ],
        },
    )


def _commit() -> str | None:
    """The commit of the checkout that this program runs from, or None."""
    try:
        asked = subprocess.run(
            ["git", "-C", str(Path(hcr.__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return asked.stdout.strip() or None


def _machine() -> str:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return f"{platform.system()} {name}, {torch.get_num_threads()} threads"


def _processor() -> str:
    """Name the processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()} {names[0]}" if names else platform.machine()
