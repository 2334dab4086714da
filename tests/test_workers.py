"""Worker processes: the same answers, what they raise, deaths, signals, and when there are none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hcr import workers
from hcr.charset import Charset
from hcr.errors import DataError, HcrError
from hcr.synth.copybook import make_copybook
from hcr.synth.fonts import glyphs
from hcr.synth.fonts.glyphs import make_forms, processes_for, read_font
from hcr.workers import usual_processes, worker_pool
from tests.test_fonts import build_font


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glyphs, "_WORTH_POOL", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


def test_several_processes_read_the_same_from_fonts(
    two_cores: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    level1 = Charset.level1().characters
    characters = "一十口" + level1[100:140]
    boxes = build_font(tmp_path / "boxes.ttf", characters[:30], outline="口")
    fonts = [boxes, build_font(tmp_path / "crosses.ttf", characters[:2] + characters[20:], outline="十")]
    # Several tasks of each kind.
    for module, name, size in (("glyphs", "_TASK", 16), ("registration", "_BATCH", 8), ("registration", "_TASK", 16)):
        monkeypatch.setattr(f"hcr.synth.fonts.{module}.{name}", size)
    made = []
    for processes in (2, 1):
        assert processes_for(1) == processes
        forms = make_forms(fonts, characters)
        made.append((forms, make_copybook(characters, forms)))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for one, other in zip(*made, strict=True):
        for field, values, others in zip(one._fields, one, other, strict=True):
            assert values.dtype == others.dtype and torch.equal(values, others), field
    assert made[0][1].manners.any((1, 2)).all()


def test_what_a_worker_raises_comes_here(tmp_path: Path) -> None:
    font = build_font(tmp_path / "font.ttf")
    with worker_pool(2) as mapped, pytest.raises(DataError, match=r"none\.ttf: cannot read this font") as caught:
        answers = mapped(read_font, [(font, "一"), (tmp_path / "none.ttf", "一"), (font, "十")])
        assert next(answers)[0].tolist()[0] > 1
        next(answers)
    assert "in read_font" in caught.value.__notes__[0], "the worker's own traceback comes along"


def test_a_worker_that_is_gone_is_one_line() -> None:
    with worker_pool(2) as mapped:
        message = r"^a worker process was killed by SIGKILL; if memory ran out, allow fewer cores \(taskset\)$"
        with pytest.raises(HcrError, match=message):
            list(mapped(signal.raise_signal, [(signal.SIGKILL,)]))
        assert list(mapped(divmod, [(7, 2)])) == [(3, 1)]  # the other one
    with worker_pool(2) as mapped, pytest.raises(HcrError, match=r"^a worker process ended with code 3$"):
        list(mapped(os._exit, [(3,)]))


@pytest.mark.usefixtures("two_cores")
def test_little_work_and_one_of_several_processes_start_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glyphs, "_WORTH_POOL", 100)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    assert [processes_for(number) for number in (0, 99, 100)] == [1, 1, 16]
    for local, processes in (("4", 4), ("16", 1), ("32", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
        assert usual_processes() == processes
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    with worker_pool(2) as mapped:
        assert list(mapped(usual_processes, [()])) == [1], "a worker starts no workers"
    monkeypatch.setattr("multiprocessing.parent_process", lambda: object())
    assert usual_processes() == 1


def test_a_worker_has_one_thread() -> None:
    with worker_pool(2) as mapped:
        assert list(mapped(torch.get_num_threads, [()])) == [1]


SCRIPT = """
import signal, time
from hcr.workers import worker_pool
# Who runs the tests in the background has them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
with worker_pool(2) as mapped:
    print(*mapped(divmod, [(7, 2)] * 4), flush=True)
    list(mapped(time.sleep, [(60,)] * 4))
"""


@pytest.mark.parametrize(("number", "group"), [("SIGINT", True), ("SIGTERM", True), ("SIGKILL", False)])
def test_an_unguarded_script_ends_with_its_workers(tmp_path: Path, number: str, group: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, "utf-8")
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout and process.stdout.readline() == "(3, 1) (3, 1) (3, 1) (3, 1)\n"
    # As a terminal's Ctrl-C or a service's stop does: every process gets it.
    (os.killpg if group else os.kill)(process.pid, signal.Signals[number])
    said, errors = process.communicate(timeout=30)
    assert not said and process.returncode == -signal.Signals[number]
    if number == "SIGINT":
        assert errors.endswith("KeyboardInterrupt\n") and errors.count("Traceback") == 1, errors
    else:
        assert not errors
    # The workers sleep for a minute more, were they not told.
    until = time.monotonic() + 10
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < until:
            os.killpg(process.pid, 0)
            time.sleep(0.01)


def test_how_a_process_ended_is_said() -> None:
    assert workers.how_it_ended(-9) == "was killed by SIGKILL" and workers.how_it_ended(1) == "ended with code 1"
