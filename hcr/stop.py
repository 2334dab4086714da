"""Long work: how it is asked to stop, and how it tells how far it is.

A signal only sets a flag, which the work reads where it can save itself. So nothing is cut in two, at the price of
waiting for the next such place. The library never prints: a function that takes longer than a second takes a
`Progress`, and the command line owns the bar.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)

# progress(advance, total): `advance` more units are done of `total`.
Progress = Callable[[int, int], None]


class StopFlag:
    """While open, the first SIGINT or SIGTERM sets `name`, as "SIGINT"; the next one has its ordinary effect, at once.

    merged: seconds in which further signals count as the first, for a process whose parent passes on what it gets, too.
    Outside the main thread, where Python allows no handlers, `name` stays "".
    """

    def __init__(self, *, merged: float = 0.0) -> None:
        self.name, self._merged, self._since = "", merged, 0.0
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._set) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _set(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.name:
            self.name, self._since = signal.Signals(number).name, now
            if not self._merged:
                # Not by this handler: Python would call it only when the present operation is done.
                self._restore()
        elif now - self._since > self._merged:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


def silent(advance: int, total: int) -> None:
    """Show nothing: the default of every function that takes a `Progress`."""
