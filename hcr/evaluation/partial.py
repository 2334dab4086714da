"""What is predicted so far, on disk: a long evaluation that is stopped goes on where it was.

Nothing but whole batches is kept, so the result has the same bits as an uninterrupted one, as long as the batches are
of one size.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np

from hcr.errors import DataError, Stopped
from hcr.evaluation.metrics import Predictions
from hcr.evaluation.saved import read_predictions, write_predictions
from hcr.stop import StopFlag

# A folder within the evaluation's, a file a condition; `forget` removes it when all files of the result are written.
PARTIAL = "partial"
SAVE_SECONDS = 60.0


def forget(folder: Path) -> None:
    """Drop what was kept in `folder` of an evaluation whose files are all written now."""
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)


class Partial:
    """The predictions of one evaluation so far, kept in a file while `stop` is open.

    key: says what is predicted by what; a file of another key is not taken up.
    seconds: spent on predicting, in all sittings. done: samples that were predicted in earlier ones.
    """

    def __init__(self, path: Path, key: str, total: int, stop: StopFlag) -> None:
        self.path, self.key, self.total, self.stop = path, key, total, stop
        self._parts: list[Predictions] = []
        self._before = 0.0
        if path.is_file():
            self._take_up()
        self.done = sum(len(part.index) for part in self._parts)
        self._began = self._saved = time.monotonic()

    def _take_up(self) -> None:
        try:
            predictions, facts = read_predictions(self.path)
        except DataError:
            return  # another program's file, or a damaged one: it is written anew
        if facts.get("key") == self.key:
            self._parts.append(predictions)
            self._before = float(facts["seconds"])

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def add(self, part: Predictions) -> None:
        """Keep the next batch; save all once a minute. Raises: Stopped after a signal, with all saved."""
        self._parts.append(part)
        if self.stop.name or time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()
        if self.stop.name:
            done = sum(len(part.index) for part in self._parts)
            raise Stopped(
                f"stopped by {self.stop.name} after {done:,} of {self.total:,} pictures; they are saved in "
                f"{self.path}: run the same command again to go on"
            )

    def save(self) -> None:
        """Write all predictions so far."""
        facts = {"key": self.key, "seconds": str(self.seconds)}
        write_predictions(self.path, self.predictions(), facts)
        self._saved = time.monotonic()

    def predictions(self) -> Predictions:
        """Give all predictions so far."""
        columns = zip(*(vars(part).values() for part in self._parts), strict=True)
        self._parts = [Predictions(*(np.concatenate(arrays) for arrays in columns))]
        return self._parts[0]
