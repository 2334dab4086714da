"""Signals set a flag first, and have their ordinary effect the second time."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from hcr.stop import StopFlag


@pytest.fixture
def interrupts() -> Iterator[None]:
    """SIGINT raises, also where a shell started all of this in the background, which ignores it and is inherited."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_the_first_signal_sets_the_flag_and_the_second_interrupts() -> None:
    with StopFlag() as stop:
        assert stop.name == ""
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("interrupts")
def test_what_comes_twice_at_once_can_count_as_one() -> None:
    with StopFlag(merged=0.3) as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.name == "SIGINT"
        time.sleep(0.4)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_handlers_before_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopFlag():
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_in_another_thread_it_stays_unset() -> None:
    names = []

    def work() -> None:
        with StopFlag() as stop:
            names.append(stop.name)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert names == [""]
