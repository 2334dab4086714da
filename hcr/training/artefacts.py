"""What a run leaves for people in its folder: first-batch.png, metrics.csv, curves.svg, TensorBoard's events, run.json.

Table, curves and events follow from metrics.jsonl and are written again after each epoch. So they cannot disagree with
it after a crash; the price is a few kilobytes more than a line.
"""

from __future__ import annotations

import csv
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
from hcr.files import atomic_write, write_json
from hcr.records import MetricsRow, RunRecord, StartRecord, read_metrics, read_run_record
from hcr.svg import Box, best_epoch, drawing, learning_chart, text
from hcr.text import counted
from hcr.training.setup import RunSetup

# Of the contact sheet: pictures a side, and the grey between them.
SIDE, GREY = 8, 160
# Pixels of curves.svg: the two charts, and what is around and between them.
_WIDE, _HIGH = 320, 240
_LEFT, _TOP, _GAP, _RIGHT, _BOTTOM = 60, 100, 150, 110, 56


class RunArtefacts:
    """Writes what follows from the batches and metrics of the run in the folder `run`.

    Every method raises OSError where it cannot write. Raises: UsageError for `tensorboard` where it is not installed.
    """

    def __init__(self, run: Path, charset: Charset, *, tensorboard: bool) -> None:
        self.run, self.charset = run, charset
        self._events = _Events(run / "tensorboard") if tensorboard else None

    def first_batch(self, images: Tensor, labels: Tensor) -> None:
        """Write first-batch.png: up to 64 of images uint8[B, 1, S, S], whose labels are int64[B], row by row.

        The file's text `characters` says what the pictures should show, a line for each row.
        """
        pictures = images[: SIDE * SIDE, 0].cpu().numpy()
        rows, size = -(-len(pictures) // SIDE), pictures.shape[-1]
        framed = np.full((rows * SIDE, size + 1, size + 1), GREY, np.uint8)
        framed[: len(pictures), :size, :size] = pictures
        sheet = framed.reshape(rows, SIDE, size + 1, size + 1).swapaxes(1, 2).reshape(rows * (size + 1), -1)
        characters = "".join(self.charset.characters[label] for label in labels[: SIDE * SIDE].tolist())
        lines = [characters[start : start + SIDE] for start in range(0, len(characters), SIDE)]
        info = PngInfo()
        info.add_itxt("characters", "\n".join(lines))
        with atomic_write(self.run / "first-batch.png") as file:
            Image.fromarray(np.ascontiguousarray(sheet[:-1, :-1])).save(file, "PNG", pnginfo=info)

    def epoch(self) -> None:
        """Bring metrics.csv, curves.svg and TensorBoard up to metrics.jsonl, which has just got a line."""
        rows = read_metrics(self.run / "metrics.jsonl")
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with atomic_write(self.run / "metrics.csv", "w") as file:
            table = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        with atomic_write(self.run / "curves.svg", "w") as file:
            file.write(curves_svg(rows, self.run.name))
        if self._events:
            self._events.add(rows)


def curves_svg(rows: Sequence[MetricsRow], name: str) -> str:
    """Return curves.svg: loss and top-1 of training and validation over the epochs `rows`, at least one, of a run."""
    best = best_epoch(rows)
    title = f"{name}: epoch {rows[-1]['epoch']}"
    if best:
        title += f", best epoch {best['epoch']} with val top-1 {best['val_top1']:.2%} of {best['val_n']:,}"
    train = "train: while learning, on distorted pictures"
    dashed = f"dashed: learning rate, at most {max(row['lr'] for row in rows):.3g}"
    if best:
        train += "; val: averaged weights, no label smoothing"
        dashed += "; the best epoch"
    parts = [text(16, 28, title), text(16, 48, train, "soft"), text(16, 66, dashed, "soft")]
    parts += learning_chart(rows, "loss", Box(_LEFT, _TOP, _WIDE, _HIGH)).parts
    parts += learning_chart(rows, "top1", Box(_LEFT + _WIDE + _GAP, _TOP, _WIDE, _HIGH)).parts
    return drawing(_LEFT + 2 * _WIDE + _GAP + _RIGHT, _TOP + _HIGH + _BOTTOM, title, parts)


class _Events:
    """TensorBoard's events in `folder`, over steps: one file for each start of the run, with all epochs.

    Raises: UsageError where TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError:
            raise UsageError("--tensorboard needs the package tensorboard; pip install 'hcr[tensorboard]'") from None
        self.folder, self._open = str(folder), SummaryWriter
        self._writer: Any = None

    def add(self, rows: Sequence[MetricsRow]) -> None:
        """Add the last of a run's rows; the first time add all."""
        new = rows[-1:]
        if self._writer is None:
            # An earlier start may have written epochs that were lost, or none: TensorBoard is to forget its files. They
            # are not deleted, since a TensorBoard that is reading one would never open the next.
            self._writer, new = self._open(self.folder, purge_step=rows[0]["step"]), rows
        for row in new:
            for key, value in row.items():
                if key != "step":
                    # TensorBoard shows loss/train and loss/val together.
                    part, _, figure = key.partition("_")
                    tag = f"{figure}/{part}" if part in ("train", "val") else key
                    self._writer.add_scalar(tag, value, row["step"])
        self._writer.flush()


def write_record(setup: RunSetup, step: int) -> None:
    """Write run.json with this start at `step`; a resumed run keeps the starts that it already lists."""
    execution, earlier = setup.execution, read_run_record(setup.run) if step else None
    start: StartRecord = {
        "step": step,
        "processes": setup.processes.world,
        "init": str(setup.init) if setup.init else None,
        "device": execution.device,
        "workers": execution.readers,
        "cache": execution.cache,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
    }
    record: RunRecord = {
        "config": asdict(setup.config),
        "pack": {
            "path": str(setup.pack) if setup.pack else None,
            "digests": setup.digests,
            "sources": {name: split.sources for name, split in setup.splits.items()},
        },
        "charset": {"count": len(setup.charset), "digest": setup.charset.digest},
        "versions": {
            "hcr": hcr.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "torchvision", "numpy", "lmdb", "pillow")},
        },
        "git": _commit(),
        "starts": [*(earlier["starts"] if earlier else []), start],
    }
    write_json(setup.run / "run.json", record)


def _commit() -> str | None:
    """Return the commit of the checkout that this program runs from, or None."""
    command = ["git", "-C", str(Path(hcr.__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _machine() -> str:
    """Return system, GPU or processor, and torch's number of threads."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return f"{platform.system()} {name}, {counted(torch.get_num_threads(), 'thread')}"


def _processor() -> str:
    """Return the processor's name, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()} {names[0]}" if names else platform.machine()
