"""Files are whole or absent: a write that fails leaves what was there. Locks end with their process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hcr.errors import DataError, HcrError
from hcr.files import atomic_write, free_bytes, locked, read_json, write_json


def test_a_file_appears_whole_in_folders_that_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"first half, ")
        assert not path.exists()
        file.write(b"second half")
    assert path.read_bytes() == b"first half, second half"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_a_write_that_fails_leaves_the_older_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"older")
    with pytest.raises(type(error)), atomic_write(path) as file:
        file.write(b"newer, but cut")
        raise error
    assert path.read_bytes() == b"older"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


def test_text_is_utf8_with_plain_line_ends(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "file.txt", "w") as file:
        file.write("一\n丁\n")
    assert (tmp_path / "file.txt").read_bytes() == "一\n丁\n".encode()


def test_json_is_readable_and_comes_back(tmp_path: Path) -> None:
    value = {"characters": "一丁", "counts": [1, 2.5, None]}
    write_json(tmp_path / "file.json", value)
    assert "一丁" in (tmp_path / "file.json").read_text("utf-8")
    assert read_json(tmp_path / "file.json") == value


def test_json_that_cannot_be_written_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"older": True})
    with pytest.raises(TypeError):
        write_json(path, {"newer": object()})
    assert json.loads(path.read_text("utf-8")) == {"older": True}


@pytest.mark.parametrize("raw", [b"{", b"\xff", b"[" * 100_000, b""], ids=["cut", "not UTF-8", "too deep", "empty"])
def test_what_is_no_json_is_named(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "file.json").write_bytes(raw)
    with pytest.raises(DataError, match=r"file\.json: not readable as JSON"):
        read_json(tmp_path / "file.json")


def test_a_missing_json_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: no such file"):
        read_json(tmp_path / "none.json")


HOLD = """
import sys
from pathlib import Path
from hcr.files import locked
with locked(Path(sys.argv[1]), "testing"):
    print(1, flush=True)
    input()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until it is told otherwise."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "1\n"
    return process


def test_a_lock_names_its_holder_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as process:
        began = time.monotonic()
        with (
            pytest.raises(HcrError, match=rf"lock: process {process.pid} on {os.uname().nodename} is packing; wait"),
            locked(path, "packing"),
        ):
            pass
        assert time.monotonic() - began < 1 and path.exists()
        process.communicate("\n")
    assert not path.exists()
    with locked(path, "packing"):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
    assert not path.exists()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as process:
        process.kill()
    assert path.read_text().startswith(f"process {process.pid} ")
    with locked(path, "packing"):
        assert path.read_text().startswith(f"process {os.getpid()} ")
    assert not path.exists()


FORKS = """
import os, sys, time
from pathlib import Path
from hcr.files import locked
with locked(Path(sys.argv[1]), "testing"):
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_dead_process_holds_nothing_through_its_children(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    line = [sys.executable, "-c", FORKS, str(path)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        process.kill()
        process.wait()
        with locked(path, "testing"):
            assert path.read_text().startswith(f"process {os.getpid()} ")
        os.killpg(process.pid, signal.SIGKILL)


def test_a_lock_is_freed_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), locked(tmp_path / "lock", "testing"):
        raise ValueError("inside")
    assert not (tmp_path / "lock").exists()


def test_free_bytes_are_those_that_can_be_written(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    assert abs(free_bytes(tmp_path) - status.f_bavail * status.f_frsize) < 1 << 30
