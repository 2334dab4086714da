"""Worker processes: the one place that starts, watches and ends them, but for the DataLoader's in `feed/stream.py`.

Threads would not do: most of the work holds Python's interpreter lock. Three packages use these processes. Reading
fonts and drawing a corpus map a function over tasks (`worker_pool`); packing streams chunks through shared memory
(`Worker`, in `pack/workers.py`).

A worker is a new interpreter, started with `python -c`. A fork would inherit CUDA, open LMDB environments and locks
that other threads hold. The spawn of multiprocessing would run a script without a main guard once more. The price is
the start: 0.2 s, or 2 s where torch is imported.

A worker uses one thread for arithmetic, since there is one worker a core. It blocks SIGINT and SIGTERM, which Ctrl-C
and services send to the whole process group: the parent answers them. Its standard input is a pipe from the parent.
The pipe closes when the parent ends, however that happens, and the worker then exits at once, in the middle of its
work. So what a worker writes has to be written atomically.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import repeat, starmap
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from hcr.errors import HcrError

_PARENTS_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}

_in_worker = False

Answer = TypeVar("Answer")


class Map(Protocol):
    """Yields `function(*task)` for each task, in their order, as `itertools.starmap` does."""

    def __call__(self, function: Callable[..., Answer], tasks: Iterable[tuple[Any, ...]], /) -> Iterator[Answer]: ...


def usual_processes() -> int:
    """Return how many processes may work at the same time here: one a core that this process may use.

    The processes that torchrun starts on one machine share the cores. A worker, and a child of multiprocessing, works
    alone: its parent has given the other cores to its siblings.
    """
    if _in_worker or multiprocessing.parent_process() or os.name != "posix":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@contextmanager
def worker_pool(processes: int) -> Iterator[Map]:
    """Yield a map over `processes` workers; with fewer than two, this process does the tasks as answers are asked for.

    The pool starts with the tasks as soon as the map is called. Functions are those of a module, and tasks and answers
    can be pickled; torch tensors do not belong among them. On leaving, the workers are killed, whatever they do.

    Raises, where an answer is asked for: what the function raised; HcrError where its worker is gone.
    """
    if processes < 2:
        yield starmap
        return
    workers: list[Worker] = []
    idle: SimpleQueue[Worker] = SimpleQueue()
    # A thread a worker waits for its answer.
    threads = ThreadPoolExecutor(processes)

    def ask(function: Callable[..., Answer], task: tuple[Any, ...]) -> Answer:
        worker = idle.get()
        try:
            worker.send((function, task))
            done, answer = worker.receive()
        finally:
            idle.put(worker)
        if not done:
            raise answer
        result: Answer = answer
        return result

    def mapped(function: Callable[..., Answer], tasks: Iterable[tuple[Any, ...]], /) -> Iterator[Answer]:
        return threads.map(ask, repeat(function), tasks)

    try:
        for _ in range(processes):
            workers.append(Worker(_answer_tasks))
            idle.put(workers[-1])
        yield mapped
    finally:
        for worker in workers:
            worker.kill()
        threads.shutdown(cancel_futures=True)
        for worker in workers:
            worker.close()


class Worker:
    """One worker process, seen from its parent: messages go both ways, pickled, through a pipe."""

    def __init__(
        self,
        serve: Callable[..., None],
        *descriptors: int,
        role: str = "a worker process",
        remedy: str = "allow fewer cores (taskset)",
    ) -> None:
        """Start a process that calls `serve(connection, *descriptors)`, a function of a module, and ends after it.

        descriptors: open files that the process inherits under the same numbers.
        role, remedy: what the error names the process, and what it advises where memory may have run out.
        """
        self._role, self._remedy = role, remedy
        self._connection, theirs = Pipe()
        inherited = (theirs.fileno(), *descriptors)
        arguments = f"{serve.__module__!r}, {serve.__name__!r}, {inherited}"
        code = f"import sys; sys.path[:] = {sys.path!r}; from hcr import workers; workers.run_worker({arguments})"
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _PARENTS_SIGNALS)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                pass_fds=inherited,
                env=os.environ | _ONE_THREAD,
            )
        finally:
            # The process inherits the mask and keeps it.
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def send(self, message: object, at: str = "") -> None:
        """Send a message. Raises: HcrError where the process is gone; `at`: what it was working on, for the error."""
        with self._watched(at):
            self._connection.send(message)

    def receive(self, at: str = "") -> Any:
        """Wait for a message and return it. Raises: as `send`."""
        with self._watched(at):
            return self._connection.recv()

    @contextmanager
    def _watched(self, at: str) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError):
            code = self._process.wait()
            where = f" at {at}" if at else ""
            hint = f"; if memory ran out, {self._remedy}" if code == -signal.SIGKILL else ""
            raise HcrError(f"{self._role} {how_it_ended(code)}{where}{hint}") from None

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Close the pipes, when the process is gone and no thread waits for a message."""
        self._connection.close()
        assert self._process.stdin
        self._process.stdin.close()


def how_it_ended(code: int) -> str:
    """Say how a process ended, for messages. code: as `Popen.returncode` has it, negative for a signal."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def run_worker(module: str, name: str, descriptors: tuple[int, ...]) -> None:
    """Be a worker process: call the function `name` of `module`, and end with it, or with the parent."""
    global _in_worker
    _in_worker = True
    threading.Thread(target=_end_with_parent, daemon=True).start()
    connection, *others = descriptors
    # The pipe of messages is closed, too, when the parent ends.
    with suppress(EOFError, ConnectionError):
        getattr(import_module(module), name)(Connection(connection), *others)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _answer_tasks(connection: Connection) -> None:
    """Do one task after the other."""
    while True:
        function, task = connection.recv()
        try:
            answer = True, function(*task)
        except Exception as error:
            error.add_note(traceback.format_exc())
            answer = False, error
        connection.send(answer)
