"""A run is stopped at any moment, by whatever means, and ends like one that was not."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from hcr.errors import HcrError, Stopped
from hcr.layout import checkpoints
from hcr.models import read_checkpoint
from hcr.training import Execution, TrainConfig, state, train
from tests.runs import GIVEN, Watcher, end_of, require_equal, run_to_end

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("step", [1, 3, 4, 7, 11])
def test_a_stopped_run_ends_like_one_that_was_not(whole: Path, small_pack: Path, tmp_path: Path, step: int) -> None:
    run = tmp_path / "run"
    watcher = Watcher(step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped, match=f"stopped by SIGTERM at step {step} of 12; all is saved") as stopped:
        train(TrainConfig(**GIVEN), small_pack, run, Execution("cpu"), watcher, resume=False)
    assert stopped.value.exit_code == 75
    # Other ways of execution on the way: more workers, other checkpoint times, the settings left out.
    second = Watcher(step + 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    try:
        train(TrainConfig(), small_pack, run, Execution("cpu", workers=1, checkpoint_every=2), second, resume=True)
    except Stopped:
        run_to_end(small_pack, run, resume=True, workers=0)
    assert second.notes[0] == f"resuming {run} at step {step}" and second.steps[0] == step + 1
    require_equal(end_of(run), end_of(whole))


def test_resume_skips_damaged_checkpoints_and_says_why(whole: Path, small_pack: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    newest = checkpoints(run)[0]
    newest.write_bytes(newest.read_bytes()[:-1000])
    watcher = run_to_end(small_pack, run, resume=True)
    assert "skipped a checkpoint: " in watcher.notes[0] and newest.name in watcher.notes[0]
    assert watcher.notes[1] == f"resuming {run} at step 11" and watcher.steps == [12]
    require_equal(end_of(run), end_of(whole))


def test_what_a_killed_save_left_is_tidied_up(whole: Path, small_pack: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    left = run / "checkpoints/.step-00000012.pt.4711.tmp"
    checkpoints(run)[0].rename(left)
    run_to_end(small_pack, run, resume=True)
    assert not left.exists()
    require_equal(end_of(run), end_of(whole))


def test_damaged_checkpoints_never_push_out_good_ones(whole: Path, small_pack: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    for step in (900, 901, 902):
        (run / f"checkpoints/step-{step:08d}.pt").write_bytes(b"damaged")
    newest = run / "checkpoints/step-00000012.pt"
    newest.unlink()
    run_to_end(small_pack, run, resume=True)
    require_equal(read_checkpoint(newest), end_of(whole)[0])


def test_resume_of_nothing_starts_and_of_a_finished_run_ends(whole: Path, small_pack: Path, tmp_path: Path) -> None:
    assert run_to_end(small_pack, tmp_path / "new", resume=True).steps[0] == 1
    before = end_of(whole)
    assert run_to_end(small_pack, whole, resume=True).steps == []
    require_equal(end_of(whole), before)


@pytest.mark.campaign
def test_kill_9_at_random_moments_changes_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/kills.py", "--kills", "25"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("25 kills (") and ", 0 differences, " in done.stdout


def test_killed_workers_are_replaced_and_nothing_changes(whole: Path, small_pack: Path, tmp_path: Path) -> None:
    others = set(multiprocessing.active_children())

    def kill() -> None:
        (worker,) = set(multiprocessing.active_children()) - others
        os.kill(worker.pid or 0, signal.SIGKILL)

    watcher = Watcher(2, kill)
    train(
        TrainConfig(**GIVEN),
        small_pack,
        tmp_path / "run",
        Execution("cpu", workers=1, checkpoint_every=1),
        watcher,
        resume=False,
    )
    (note,) = [note for note in watcher.notes if "worker" in note]
    assert note.startswith("reading batches: worker process ") and "was killed by SIGKILL (" in note
    assert " bytes free in /" in note and note.endswith("follows as it would have")
    require_equal(end_of(tmp_path / "run"), end_of(whole))


def test_a_full_disk_leaves_the_older_checkpoint(whole: Path, small_pack: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Stopped):
        stopping = Watcher(5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        train(TrainConfig(**GIVEN), small_pack, run, Execution("cpu"), stopping, resume=False)
    kept, older = checkpoints(run)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kept.stat().st_size // 2, before[1]))
    try:
        with pytest.raises(
            HcrError, match=r"the checkpoint of step 6 cannot be written \(.+, [\d,]+ bytes free\)"
        ) as full:
            run_to_end(small_pack, run, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"{kept} is kept: make room, then resume with --resume" in str(full.value)
    assert checkpoints(run) == [kept, older] and read_checkpoint(kept)["step"] == 5
    assert not list(run.rglob("*.tmp"))
    run_to_end(small_pack, run, resume=True)
    require_equal(end_of(run), end_of(whole))


def test_a_full_disk_is_called_so_while_tensors_are_written() -> None:
    # Torch meets it in the middle, and complains of something else.
    message = "No space left on device"
    with suppress(OSError), open("/dev/full", "wb") as file, pytest.raises(OSError, match=message):
        state._write({"weights": torch.zeros(1_000_000)}, file)


def command(pack: Path, run: str, *more: str) -> list[str]:
    given = [f"--{name.replace('_', '-')}={value}" for name, value in GIVEN.items() if name != "epochs"]
    main = "from hcr.cli.train import main; main()"
    return [sys.executable, "-c", main, "--data", str(pack), "--run", run, *given, "--epochs=500", "--resume", *more]


@pytest.fixture
def running(small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A run by the command that has a checkpoint."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    line = command(small_pack, "run", "--checkpoint-every", "1")
    process = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not checkpoints(tmp_path / "artifacts/run"):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    with process:
        yield process
        process.kill()


def test_a_signal_saves_and_exits_75_soon(running: subprocess.Popen[str], tmp_path: Path) -> None:
    began = time.monotonic()
    running.send_signal(signal.SIGTERM)
    _, errors = running.communicate(timeout=60)
    assert time.monotonic() - began < 30  # of the many minutes that 2,000 steps take; other tests share the cores
    assert running.returncode == 75 and "stopped by SIGTERM at step" in errors
    assert f"at step {read_checkpoint(checkpoints(tmp_path / 'artifacts/run')[0])['step']} of 2000" in errors


TWICE = """
import os, signal, sys
from pathlib import Path
from hcr.training import Execution, TrainConfig, state, train
from tests.runs import GIVEN, Watcher
watcher = Watcher(2, lambda: [os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)])
train(TrainConfig(**GIVEN), Path(sys.argv[1]), Path("run"), Execution("cpu", workers=0), watcher, resume=False)
"""


def test_a_second_signal_exits_at_once(small_pack: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-c", TWICE, str(small_pack)]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert not checkpoints(tmp_path / "run")


def test_one_process_at_a_time_trains_a_run(running: subprocess.Popen[str], small_pack: Path, tmp_path: Path) -> None:
    second = subprocess.run(command(small_pack, "run"), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert f"process {running.pid} on " in second.stderr and "is training artifacts/run" in second.stderr
