"""What a person looks at in a run folder: the first batch, the table and curves of the metrics, TensorBoard's events.

All follow from metrics.jsonl, and are written anew from it after each epoch: so they cannot disagree with it after a
crash, at the price of writing a few kilobytes more than a line.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from hcr.charset import Charset
from hcr.errors import UsageError
from hcr.files import atomic_write
from hcr.training.curves import curves_svg

# Pictures a side of the contact sheet, and the grey between them.
SIDE, GREY = 8, 160


class Views:
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
