"""The corpus in its order, read in this process or by several, each of which takes every n-th partition.

A reading process works up to some 4,096 samples ahead of the packer, about a writer's file. So all of them work,
although the packer takes one partition after the other; the price is memory for that many squares a process. The
squares lie in memory that the process shares with the packer, which costs half of what a pipe does. Of a partition with
more samples than that, one process reads the excess alone.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Generator, Iterator
from dataclasses import replace
from mmap import mmap
from multiprocessing.connection import Connection

from hcr.errors import DataError, HcrError
from hcr.pack.chunks import Chunk, ReadJob, Squares, chunks_of, cut, fit
from hcr.workers import Worker, usual_processes

_AHEAD, _AHEAD_BYTES = 4096, 64 << 20
# 25,000 samples of GNT: with fewer, the processes take as long to start as they save.
_WORTH_WORKERS = 128 << 20


def read(job: ReadJob, workers: int) -> Generator[tuple[Chunk, Squares], None, None]:
    """Read the partitions in order; with each chunk come its squares uint8[n, S, S] by size, valid until the next.

    workers: processes that read; 1 reads in this one.
    Raises: HcrError where a process is killed or fails.
    """
    first, _ = min(job.starts.values())
    remaining = {number: partition for number, partition in job.partitions.items() if number >= first}
    job = replace(job, partitions=remaining)
    workers = min(workers, len(job.partitions))
    if workers < 2:
        squares = cut(bytearray(job.capacity * job.sample_bytes), job)
        for chunk, pictures in chunks_of(job):
            yield chunk, fit(chunk, pictures, squares)
        return
    numbers = list(job.partitions)
    readers: list[_Reader] = []
    try:
        for share in range(workers):
            partitions = {number: job.partitions[number] for number in numbers[share::workers]}
            readers.append(_Reader(replace(job, partitions=partitions)))
        for reader in readers:
            reader.begin()
        for place, number in enumerate(numbers):
            yield from readers[place % workers].read(number)
    finally:
        for reader in readers:
            reader.end()


def usual_workers(size: int) -> int:
    """Return the number of processes for `size` bytes of source: one a core, or this one alone for little work."""
    return usual_processes() if size >= _WORTH_WORKERS and hasattr(os, "memfd_create") else 1


def _slots(job: ReadJob) -> int:
    """Return how many chunks a process may be ahead."""
    return max(2, min(_AHEAD, _AHEAD_BYTES // job.sample_bytes) // job.capacity)


class _Reader:
    """A process that reads its partitions ahead, seen from the packer."""

    def __init__(self, job: ReadJob) -> None:
        self._job, size = job, _slots(job) * job.capacity * job.sample_bytes
        memory = os.memfd_create("hcr-pack")
        try:
            os.ftruncate(memory, size)
            mapped = mmap(memory, size)
            self._worker = Worker(serve, memory, role="a reading process", remedy="ask for fewer --workers")
        finally:
            os.close(memory)
        self._slots = [cut(mapped, job, slot) for slot in range(_slots(job))]

    def begin(self) -> None:
        """Tell it what to read."""
        self._worker.send(self._job, at=next(iter(self._job.partitions.values())).name)

    def read(self, number: int) -> Iterator[tuple[Chunk, Squares]]:
        """Take the chunks of partition `number`, which is the next that this process has not given yet."""
        name, last = self._job.partitions[number].name, False
        while not last:
            done, answer = self._worker.receive(at=name)
            if not done:
                if isinstance(answer, DataError):
                    raise answer
                raise HcrError(f"{name}: reading failed: {type(answer).__name__}: {answer}") from answer
            slot, chunk = answer
            yield chunk, {size: self._slots[slot][size][: len(chunk.chars)] for size in chunk.sizes}
            self._worker.send(slot, at=name)
            last = chunk.last

    def end(self) -> None:
        """End the process; it only reads, so at any moment."""
        self._worker.kill()
        self._worker.close()


def serve(connection: Connection, memory: int) -> None:
    """Be a reading process: take a `ReadJob`, send chunks as slots come free, and end with the packer.

    Messages are pairs, as a worker pool's: (True, (slot, chunk)), or (False, the exception).
    """
    job: ReadJob = connection.recv()
    mapped = mmap(memory, _slots(job) * job.capacity * job.sample_bytes)
    slots = [cut(mapped, job, slot) for slot in range(_slots(job))]
    free = list(range(len(slots)))
    try:
        for chunk, pictures in chunks_of(job):
            while not free or connection.poll():
                free.append(connection.recv())
            slot = free.pop()
            fit(chunk, pictures, slots[slot])
            connection.send((True, (slot, chunk)))
    except (EOFError, ConnectionError):
        raise
    except Exception as error:
        error.add_note(traceback.format_exc())
        connection.send((False, error))
    while True:
        connection.recv()
