"""The corpus in its order, read in this process or by several that each take every so-manieth unit.

A reading process runs ahead of the packer by some 4,096 samples, about a writer's file, so all of them work although
the packer takes one unit after the other; that many squares a process are kept in memory. They are fitted into memory
that both processes share, which costs half of what a pipe does. Of a unit with more samples than that, one process
reads the excess alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from mmap import mmap
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import NamedTuple

from hcr.errors import DataError, HcrError
from hcr.pack.chunks import Chunk, Plan, Squares, chunks_of, cut, fit

_AHEAD, _AHEAD_BYTES = 4096, 64 << 20
# 25,000 samples of GNT: with fewer, the processes take as long to start as they save.
_WORTH_PROCESSES = 128 << 20
# Signals for the whole process group, as Ctrl-C is, are the packer's to answer: it ends its readers.
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


def read(plan: Plan, workers: int) -> Generator[tuple[Chunk, Squares], None, None]:
    """Read the units in order; with each chunk come its squares uint8[n, S, S] by size, valid until the next.

    workers: processes that read; 1 reads in this one.
    Raises: HcrError where a process is killed or fails.
    """
    first, _ = min(plan.starts.values())
    plan = replace(plan, units={number: unit for number, unit in plan.units.items() if number >= first})
    workers = min(workers, len(plan.units))
    if workers < 2:
        squares = cut(bytearray(plan.capacity * plan.sample_bytes), plan)
        for chunk, pictures in chunks_of(plan):
            yield chunk, fit(chunk, pictures, squares)
        return
    numbers = list(plan.units)
    crew: list[_Worker] = []
    try:
        for share in range(workers):
            units = {number: plan.units[number] for number in numbers[share::workers]}
            crew.append(_Worker(replace(plan, units=units)))
        for worker in crew:
            worker.begin()
        for place, number in enumerate(numbers):
            yield from crew[place % workers].read(number)
    finally:
        for worker in crew:
            worker.end()


def usual_workers(size: int) -> int:
    """Return the number of processes for `size` bytes of source: one a core, or this one alone for little work."""
    return len(os.sched_getaffinity(0)) if size >= _WORTH_PROCESSES else 1


def _slots(plan: Plan) -> int:
    """How many chunks a process may be ahead."""
    return max(2, min(_AHEAD, _AHEAD_BYTES // plan.sample_bytes) // plan.capacity)


class _Worker:
    """A process that reads its units ahead, seen from the packer.

    A new interpreter, not a fork: a fork would inherit open LMDB environments, other threads' locks and the lock on the
    pack, and multiprocessing's own spawn would run an unguarded script anew. It starts in 0.2 s.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan, size = plan, _slots(plan) * plan.capacity * plan.sample_bytes
        self._connection, theirs = Pipe()
        memory = os.memfd_create("hcr-pack")
        os.ftruncate(memory, size)
        code = f"import sys; sys.path[:] = {sys.path!r}; from hcr.pack import workers; "
        code += f"workers.serve({theirs.fileno()}, {memory})"
        # Each process is one core's; libraries that start threads of their own would crowd each other out.
        single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), memory),
                env=os.environ | single,
            )
        finally:
            # The process inherits the mask and keeps it.
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        mapped = mmap(memory, size)
        os.close(memory)
        self._slots = [cut(mapped, plan, slot) for slot in range(_slots(plan))]

    def begin(self) -> None:
        """Tell it what to read."""
        with self._watched(next(iter(self._plan.units))):
            self._connection.send(self._plan)

    def read(self, number: int) -> Iterator[tuple[Chunk, Squares]]:
        """Take the chunks of unit `number`, which is the next that this process has not given yet."""
        last = False
        while not last:
            with self._watched(number):
                message = self._connection.recv()
            if isinstance(message, _Failure):
                name = self._plan.units[number].name
                text = message.text if message.foreseen else f"{name}: reading failed: {message.text}"
                error = (DataError if message.foreseen else HcrError)(text)
                error.add_note(message.trace)
                raise error
            slot, chunk = message
            yield chunk, {size: self._slots[slot][size][: len(chunk.chars)] for size in chunk.sizes}
            with self._watched(number):
                self._connection.send(slot)
            last = chunk.last

    @contextmanager
    def _watched(self, number: int) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError):
            code = self._process.wait()
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            hint = "; if memory ran out, ask for fewer --workers" if code == -signal.SIGKILL else ""
            raise HcrError(f"a reading process {how} at {self._plan.units[number].name}{hint}") from None

    def end(self) -> None:
        """End the process; it only reads, so at any moment."""
        self._connection.close()
        self._process.kill()
        self._process.wait()


class _Failure(NamedTuple):
    text: str
    foreseen: bool
    trace: str


def serve(descriptor: int, memory: int) -> None:
    """Be a reading process: take a `Plan`, send chunks as slots come free, and end with the connection."""
    connection = Connection(descriptor)
    try:
        plan: Plan = connection.recv()
        mapped = mmap(memory, _slots(plan) * plan.capacity * plan.sample_bytes)
        slots = [cut(mapped, plan, slot) for slot in range(_slots(plan))]
        free = list(range(len(slots)))
        try:
            for chunk, pictures in chunks_of(plan):
                while not free or connection.poll():
                    free.append(connection.recv())
                slot = free.pop()
                fit(chunk, pictures, slots[slot])
                connection.send((slot, chunk))
        except (EOFError, ConnectionError):
            raise
        except Exception as error:
            foreseen = isinstance(error, DataError)
            text = str(error) if foreseen else f"{type(error).__name__}: {error}"
            connection.send(_Failure(text, foreseen, traceback.format_exc()))
        while True:
            connection.recv()
    except (EOFError, ConnectionError):
        # The packer is done, or is no more.
        return
