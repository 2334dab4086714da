"""Processes that take part in making a pen: the same pen, refusals, deaths, Ctrl-C, and when there are none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hcr import workers as crews
from hcr.charset import Charset
from hcr.errors import DataError, HcrError
from hcr.synth.copybook import make_copybook
from hcr.synth.fonts.glyphs import make_forms, read_font
from hcr.workers import crew
from tests.test_fonts import build_font


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "_WORTH_PROCESSES", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


def test_several_processes_make_the_same_pen(two_cores: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    level1 = Charset.level1().characters
    characters = "一十口" + level1[100:140]
    boxes = build_font(tmp_path / "boxes.ttf", characters[:30], outline="口")
    fonts = [boxes, build_font(tmp_path / "crosses.ttf", characters[:2] + characters[20:], outline="十")]
    # Several tasks of each kind.
    for module, name, size in (("glyphs", "_TASK", 16), ("fitting", "_BATCH", 8), ("proportions", "_TASK", 16)):
        monkeypatch.setattr(f"hcr.synth.fonts.{module}.{name}", size)
    made = []
    for processes in (2, 1):
        assert crews._processes(1) == processes
        forms = make_forms(fonts, characters)
        made.append((forms, make_copybook(characters, forms=forms)))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for one, other in zip(*made, strict=True):
        for field, values, others in zip(one._fields, one, other, strict=True):
            assert values.dtype == others.dtype and torch.equal(values, others), field
    assert made[0][1].manners.any((1, 2)).all()


def test_what_a_process_raises_comes_here(two_cores: None, tmp_path: Path) -> None:
    font = build_font(tmp_path / "font.ttf")
    with crew(1) as each, pytest.raises(DataError, match=r"none\.ttf: cannot read this font"):
        answers = each(read_font, [(font, "一"), (tmp_path / "none.ttf", "一"), (font, "十")])
        assert next(answers)[0].tolist()[0] > 1
        next(answers)


def test_a_process_that_is_gone_is_one_line(two_cores: None) -> None:
    with crew(1) as each:
        with pytest.raises(HcrError, match=r"^a process that takes in fonts was killed by SIGKILL; if"):
            list(each(signal.raise_signal, [(signal.SIGKILL,)]))
        assert list(each(divmod, [(7, 2)])) == [(3, 1)]  # the other one


@pytest.mark.usefixtures("two_cores")
def test_few_glyphs_and_one_of_several_processes_start_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "_WORTH_PROCESSES", 100)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    assert [crews._processes(glyphs) for glyphs in (0, 99, 100)] == [1, 1, 16]
    for beside, processes in (("4", 4), ("16", 1), ("32", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", beside)
        assert crews._processes(100) == processes
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.setattr("multiprocessing.parent_process", lambda: object())
    assert crews._processes(100) == 1


def test_ctrl_c_ends_an_unguarded_script_and_its_processes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, time\n"
        "from hcr import workers as crew\n"
        # Who runs the tests in the background has them ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "crew._WORTH_PROCESSES, os.sched_getaffinity = 1, lambda _: {0, 1}\n"
        "with crew.crew(1) as each:\n"
        "    print(*each(divmod, [(7, 2)] * 4), flush=True)\n"
        "    list(each(time.sleep, [(60,)] * 4))\n",
        "utf-8",
    )
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_WORLD_SIZE"}
    process = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout and process.stdout.readline() == "(3, 1) (3, 1) (3, 1) (3, 1)\n"
    os.killpg(process.pid, signal.SIGINT)
    said, errors = process.communicate(timeout=30)
    assert not said and errors.endswith("KeyboardInterrupt\n") and errors.count("Traceback") == 1, errors
    assert process.returncode == -signal.SIGINT
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
