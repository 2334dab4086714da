"""Processes that take part in making a pen with fonts, each of which has some milliseconds of work for every character.

Below the forms (`glyphs.py`) and the proportions (`proportions.py`). Threads would not do: most of the work holds the
interpreter. The answers are the same to the bit as those of this process alone, at the price of a second in which the
processes start.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import repeat, starmap
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from hcr.errors import HcrError

_WORTH_PROCESSES = 6000  # glyphs; with fewer, two processes take as long to start as they save
_MOST = 32  # by then what cannot be shared takes longer
# Signals for the whole process group, as Ctrl-C is, are for the one that makes the pen: it ends the others.
_SIGNALS = {signal.SIGINT, signal.SIGTERM}

Answer = TypeVar("Answer")


class Each(Protocol):
    """Gives `function(*task)` for each task, in their order, as `starmap` does."""

    def __call__(self, function: Callable[..., Answer], tasks: Iterable[tuple[Any, ...]], /) -> Iterator[Answer]: ...


@contextmanager
def crew(glyphs: int) -> Iterator[Each]:
    """Return what works off tasks, on all cores this process may use where there are many `glyphs`.

    It begins with the tasks when it is called, or, where this process works alone, as the answers are asked for.
    Functions are named in a module; tasks and answers are of numpy and Python, not of torch. What a function raises,
    asking for its answer raises; HcrError where a process is gone.
    """
    count = _processes(glyphs)
    if count < 2:
        yield starmap
        return
    workers: list[_Worker] = []
    idle: SimpleQueue[_Worker] = SimpleQueue()
    # A thread a process: it waits for the answer while others work.
    threads = ThreadPoolExecutor(count)

    def ask(function: Callable[..., Answer], task: tuple[Any, ...]) -> Answer:
        worker = idle.get()
        try:
            return worker.ask(function, task)
        finally:
            idle.put(worker)

    def each(function: Callable[..., Answer], tasks: Iterable[tuple[Any, ...]], /) -> Iterator[Answer]:
        return threads.map(ask, repeat(function), tasks)

    try:
        for _ in range(count):
            workers.append(_Worker())
            idle.put(workers[-1])
        yield each
    finally:
        for worker in workers:
            worker.kill()
        threads.shutdown(cancel_futures=True)
        for worker in workers:
            worker.close()


def _processes(glyphs: int) -> int:
    """Return the number of processes: 1, this one, for little work and where this one is itself one of several."""
    if glyphs < _WORTH_PROCESSES or multiprocessing.parent_process() or not hasattr(os, "sched_getaffinity"):
        return 1
    # torchrun starts so many that each make a pen.
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(_MOST, len(os.sched_getaffinity(0)) // beside))


class _Worker:
    """A process that does one task after the other.

    A new interpreter, not a fork, which would inherit CUDA and other threads' locks; and not multiprocessing's spawn,
    which would run an unguarded script anew.
    """

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        code = f"import sys; sys.path[:] = {sys.path!r}; from hcr import workers; workers.serve({theirs.fileno()})"
        # Each process is one core's; libraries that start threads of their own would crowd each other out.
        single = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=os.environ | single,
            )
        finally:
            # The process inherits the mask and keeps it.
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def ask(self, function: Callable[..., Answer], task: tuple[Any, ...]) -> Answer:
        """Have it do a task."""
        try:
            self._connection.send((function, task))
            good, answer = self._connection.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            hint = "; if memory ran out, allow fewer cores (taskset)" if code == -signal.SIGKILL else ""
            raise HcrError(f"a process that takes in fonts {how}{hint}") from None
        if not good:
            raise answer
        result: Answer = answer
        return result

    def kill(self) -> None:
        """End the process; it only computes, so at any moment."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Close the connection, when no thread waits on it any more."""
        self._connection.close()


def serve(descriptor: int) -> None:
    """Be such a process, and end with the connection."""
    connection = Connection(descriptor)
    with suppress(EOFError, ConnectionError):
        while True:
            function, task = connection.recv()
            try:
                answer = True, function(*task)
            except Exception as error:
                error.add_note(traceback.format_exc())
                answer = False, error
            connection.send(answer)
