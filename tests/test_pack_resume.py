"""Packs that were killed, stopped, locked out or left without disk: the same command makes the same pack."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from hcr.charset import Charset
from hcr.corpus.find import find_corpus
from hcr.corpus.gnt import encode_record
from hcr.errors import DataError
from hcr.pack import chunks, resume, writer
from hcr.pack.config import PackConfig
from hcr.pack.inspect import verify
from hcr.pack.packer import PackSummary, pack, pack_sizes
from hcr.pack.store import close_packs
from hcr.preprocess.fit import PREPROCESSING, fit_squares
from tests.layouts import change_a_pixel

PACK = [str(Path(sys.executable).with_name("hcr-data")), "pack"]
CHARS = "一丁七万丈三上下不与!A"
SIZES = (32, 160)  # the larger fills a commit's 32 MB every 1,250 samples


def pictures(count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, rng.integers(40, 100, 2)).astype(np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def gnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of 9 training and 2 test writers, 300 records each, some of other characters, one file cut short."""
    folder = tmp_path_factory.mktemp("raw") / "files"
    ink = pictures(40, 0)
    for number in range(11):
        path = folder / ("test" if number > 8 else "train") / f"{number:02}.gnt"
        path.parent.mkdir(parents=True, exist_ok=True)
        records = [encode_record(CHARS[k * 7 % 12], ink[(k + number) % 40]) for k in range(300)]
        path.write_bytes(b"".join(records)[: -50 if number == 4 else None])
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 3 characters, 900 pictures each, one damaged; no writers, so validation is stratified."""
    folder = tmp_path_factory.mktemp("raw") / "folders"
    encoded = []
    for picture in pictures(20, 1):
        buffer = io.BytesIO()
        Image.fromarray(np.pad(picture[:20, :30], 20, constant_values=255)).save(buffer, "png")
        encoded.append(buffer.getvalue())
    for place, char in enumerate("一丁七"):
        (folder / char).mkdir(parents=True)
        for k in range(900):
            (folder / char / f"{k:04}.png").write_bytes(encoded[(k + place) % 20])
    (folder / "丁" / "0400.png").write_bytes(encoded[0][:100])
    return folder


def command(source: Path, workers: int, sizes: tuple[int, ...] = SIZES) -> list[str]:
    return [*PACK, str(source), "--skip-damaged", "--workers", str(workers), *(f"--size={size}" for size in sizes)]


def start(here: Path, arguments: list[str], largest_file: int = resource.RLIM_INFINITY) -> subprocess.Popen[str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    here.mkdir(exist_ok=True)
    return subprocess.Popen(
        arguments, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limit
    )


def run(here: Path, arguments: list[str]) -> str:
    """Run to the end; give what it said."""
    process = start(here, arguments)
    said = "".join(process.communicate(timeout=120))
    assert process.returncode == 0, said
    return said


def refused(here: Path, arguments: list[str], largest_file: int = resource.RLIM_INFINITY) -> str:
    """The one line of an error."""
    process = start(here, arguments, largest_file)
    _, errors = process.communicate(timeout=60)
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert process.returncode == 1 and len(lines) == 1 and "Traceback" not in errors
    return lines[0]


def packed(here: Path) -> dict[str, str]:
    """Every key of every split of every pack, with a digest of its value."""
    found = {}
    for path in sorted(here.glob("data/packed/*/*.lmdb")):
        found |= {f"{path.relative_to(here)} {key}": digest for key, digest in values(path).items()}
    assert not list(here.glob("data/packed/.*"))
    return found


def values(path: Path) -> dict[str, str]:
    close_packs()
    env = lmdb.open(str(path), subdir=False, readonly=True, lock=False)
    with env.begin() as transaction:
        found = {key.decode(): hashlib.sha256(value).hexdigest() for key, value in transaction.cursor()}
    env.close()
    return found


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not what():
        assert process.poll() is None and time.monotonic() < until, "it ended before"
        time.sleep(0.005)


def committed(here: Path) -> bool:
    """Say whether a transaction with pictures has been written."""
    return any(path.stat().st_size > 1 << 20 for path in here.glob("data/packed/.*.tmp/pack/train.lmdb"))


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture(scope="module")
def whole(gnt: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The GNT files packed without interruption."""
    here = tmp_path_factory.mktemp("whole")
    said = run(here, command(gnt, 2))
    assert "files-32: 10 characters" in said and "files-160: 10 characters" in said
    assert "samples a second" in said and "1 damaged" in said
    assert all(verify(here / f"data/packed/files-{size}") == [] for size in SIZES)
    found = packed(here)
    shutil.rmtree(here)
    return found


@pytest.mark.parametrize(("kind", "times"), [("gnt", 6), ("folders", 4)])
def test_killed_at_any_moment_it_resumes_to_the_same_pack(
    kind: str, times: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source = request.getfixturevalue(kind)
    began = time.monotonic()
    run(tmp_path / "whole", command(source, 2))
    duration = time.monotonic() - began
    expected = packed(tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole")
    chance = random.Random(kind)
    here, kills, said = tmp_path / "killed", 0, ""
    while kills < times:
        # The last one starts over, so that what is resumed at the end does not depend on chance.
        if kills == times - 1:
            shutil.rmtree(here, ignore_errors=True)
        process = start(here, command(source, chance.choice([1, 2, 3])))
        if kills in (0, times - 1):
            wait_for(lambda: committed(here), process)
            # A commit is one a file: what the first holds alone is not resumed.
            time.sleep(0.1 * duration)
        else:
            time.sleep(chance.uniform(0.1, 0.9) * duration)
        readers = children(process.pid) if process.poll() is None else []
        process.kill()
        said += "".join(process.communicate())
        if process.returncode == 0:
            assert packed(here) == expected
            shutil.rmtree(here)
        else:
            kills += 1
            until = time.monotonic() + 10
            while not all(map(is_gone, readers)):
                assert time.monotonic() < until, "its reading processes live on"
                time.sleep(0.01)
    said += run(here, command(source, chance.choice([1, 2, 3])))
    assert "packed by an earlier run: " in said and "Traceback" not in said
    assert packed(here) == expected


def test_a_signal_saves_and_says_how_to_resume(gnt: Path, whole: dict[str, str], tmp_path: Path) -> None:
    process = start(tmp_path, command(gnt, 2))
    wait_for(lambda: committed(tmp_path), process)
    for pid in (process.pid, *children(process.pid)):
        # As a terminal's Ctrl-C or a service's stop does: every process gets it.
        os.kill(pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75 and "Traceback" not in errors
    assert "stopped by SIGTERM" in errors and "samples kept in data/packed/.files-32.tmp" in errors
    assert "run the same command again to resume" in errors
    assert "packed by an earlier run: " in run(tmp_path, command(gnt, 1))
    assert packed(tmp_path) == whole


def test_a_killed_reader_is_one_line_and_loses_nothing(gnt: Path, whole: dict[str, str], tmp_path: Path) -> None:
    process = start(tmp_path, command(gnt, 2))
    wait_for(lambda: committed(tmp_path), process)
    os.kill(children(process.pid)[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in errors
    assert "a reading process was killed by SIGKILL at t" in errors and "fewer --workers" in errors
    assert "samples kept in" in errors
    assert "packed by an earlier run: " in run(tmp_path, command(gnt, 3))
    assert packed(tmp_path) == whole


def test_two_packs_into_one_folder(gnt: Path, whole: dict[str, str], tmp_path: Path) -> None:
    first = start(tmp_path, command(gnt, 2))
    lock = tmp_path / "data/packed/.files-160.lock"
    wait_for(lambda: lock.exists() and lock.read_bytes() != b"", first)
    # It is stopped, so it cannot come to its end before the second is refused.
    first.send_signal(signal.SIGSTOP)
    line = refused(tmp_path, command(gnt, 2, (160,)))
    assert f"process {first.pid} on {os.uname().nodename} is packing into data/packed/files-160; wait for it" in line
    first.kill()
    first.communicate()
    assert lock.exists()
    run(tmp_path, command(gnt, 2))
    assert packed(tmp_path) == whole


def test_a_full_disk_is_named_and_resumed(gnt: Path, whole: dict[str, str], tmp_path: Path) -> None:
    # A limit on the size of files is refused by the system as a full disk is.
    line = refused(tmp_path, command(gnt, 1), largest_file=48 << 20)
    assert "disk full, or a limit on file sizes reached: about" in line and "bytes more needed" in line
    assert "samples kept in data/packed/.files-160.tmp; run the same command again" in line
    assert "packed by an earlier run: " in run(tmp_path, command(gnt, 1))
    assert packed(tmp_path) == whole


def test_a_really_full_disk(gnt: Path, whole: dict[str, str], tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=60m none "$1" && cd "$1" && shift && "$@"; echo "code $?"; '
    script += 'mount -o remount,size=400m . && "$@" && cp -r data "$OUT"'
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "disk").mkdir()
    inside = ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path / "disk")]
    done = subprocess.run(
        [*inside, *command(gnt, 2)], env=os.environ | {"OUT": str(out)}, capture_output=True, text=True, timeout=120
    )
    if "code" not in done.stdout:
        pytest.skip(f"no mounting here: {done.stderr.strip()}")
    assert "code 1" in done.stdout and done.returncode == 0, done.stderr
    assert "disk full, or a limit on file sizes reached" in done.stderr
    assert "packed by an earlier run: " in done.stderr
    assert packed(out) == whole


def packed_by(source: Path, out: Path, **settings: object) -> PackSummary:
    config = PackConfig(**{"size": 16, "skip_damaged": True, **settings})  # type: ignore[arg-type]
    return pack(find_corpus([source], allowed=None, numbering=Charset.level1()), out, config)


def test_damage_keeps_what_is_packed_and_skipping_it_resumes(gnt: Path, tmp_path: Path) -> None:
    expected = packed_by(gnt, tmp_path / "whole")
    with pytest.raises(DataError, match=r"04\.gnt: byte .*; 1,800 samples kept in .*\.p\.tmp; run the same") as hit:
        packed_by(gnt, tmp_path / "p", skip_damaged=False)
    assert "\n" not in str(hit.value)
    summary = packed_by(gnt, tmp_path / "p")
    assert summary.resumed == 1800 and summary.unusable == ""
    assert (summary.counts, summary.left_out) == (expected.counts, expected.left_out)
    assert len(summary.damaged) == 1


def test_an_unfinished_pack_of_other_settings_starts_over(gnt: Path, tmp_path: Path) -> None:
    for change, line in (
        ({"seed": 5}, "packed with --seed 5, now --seed 0"),
        ({"size": 24}, "packed with --size 24, now --size 16"),
    ):
        with pytest.raises(DataError):
            packed_by(gnt, tmp_path / "p", skip_damaged=False, **change)
        assert list(tmp_path.iterdir()) == [tmp_path / ".p.tmp"]
        summary = packed_by(gnt, tmp_path / "p")
        assert summary.resumed == 0 and summary.unusable.endswith(line)
        shutil.rmtree(tmp_path / "p")


def require_started_over(summary: PackSummary, source: Path, line: str, **settings: object) -> None:
    """Require that the pack of `summary` is what one run would have made, and that `line` was said."""
    assert summary.resumed == 0 and line in summary.unusable
    close_packs()
    alone = summary.path.with_name("alone")
    expected = packed_by(source, alone, **settings)
    assert summary.counts == expected.counts
    for split in expected.counts:
        assert values(summary.path / f"{split}.lmdb") == values(alone / f"{split}.lmdb")
    assert verify(summary.path) == []


def test_another_preprocessing_starts_over(gnt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="1,800 samples kept"):
        packed_by(gnt, tmp_path / "p", skip_damaged=False)

    def darker(originals: list[np.ndarray], squares: list[np.ndarray]) -> None:
        fit_squares(originals, squares)
        for square in squares:
            square //= 2

    monkeypatch.setitem(PREPROCESSING, "version", 4)
    monkeypatch.setattr(chunks, "fit_squares", darker)
    summary = packed_by(gnt, tmp_path / "p")
    require_started_over(summary, gnt, "pictures prepared by {'version': 3, 'paper': 255,")


def test_another_block_size_starts_over(gnt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="1,800 samples kept"):
        packed_by(gnt, tmp_path / "p", skip_damaged=False)
    for module in (writer, resume):
        monkeypatch.setattr(module, "BLOCK", 32)
    require_started_over(packed_by(gnt, tmp_path / "p"), gnt, "packed in blocks of 64 pictures, now 32")


def test_an_unfinished_pack_of_an_older_version_starts_over(gnt: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1,800 samples kept"):
        packed_by(gnt, tmp_path / "p", skip_damaged=False)
    for path in (tmp_path / ".p.tmp/pack").glob("*.lmdb"):
        with lmdb.open(str(path), subdir=False, lock=False) as env, env.begin(write=True) as transaction:
            if raw := transaction.get(b"state"):
                # As version 0.1 wrote it.
                record = json.loads(raw)
                for key in ("preprocessing", "block"):
                    del record["settings"][key]
                for key in ("sha256", "verified"):
                    del record["state"][key]
                transaction.put(b"state", json.dumps(record).encode())
    line = "an older version of hcr made it, without recording its preprocessing"
    require_started_over(packed_by(gnt, tmp_path / "p"), gnt, line)


def test_an_unfinished_pack_of_other_pixels_starts_over(gnt: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(gnt, tmp_path / "raw"))
    with pytest.raises(DataError, match="1,800 samples kept"):
        packed_by(source, tmp_path / "p", skip_damaged=False)
    change_a_pixel(source / "train/02.gnt")
    summary = packed_by(source, tmp_path / "p")
    require_started_over(summary, source, "train/02.gnt has changed since it was packed")


def test_a_touched_source_does_not_keep_from_resuming(gnt: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(gnt, tmp_path / "raw"))
    with pytest.raises(DataError, match="1,800 samples kept"):
        packed_by(source, tmp_path / "p", skip_damaged=False)
    for path in source.glob("*/*.gnt"):
        os.utime(path)
    summary = packed_by(source, tmp_path / "p")
    assert (summary.resumed, summary.unusable) == (1800, "")


def long_file(folder: Path) -> Path:
    """Write one GNT file of 1,200 records, the last of them cut short: two chunks of 512 come before it."""
    folder.mkdir()
    ink = pictures(40, 0)
    records = [encode_record(CHARS[k % 10], ink[k % 40]) for k in range(1200)]
    (folder / "w.gnt").write_bytes(b"".join(records)[:-50])
    return folder


def test_a_file_that_changed_after_a_part_of_it_was_packed_starts_over(tmp_path: Path) -> None:
    source = long_file(tmp_path / "raw")
    with pytest.raises(DataError, match="1,024 samples kept"):
        packed_by(source, tmp_path / "p", skip_damaged=False)
    change_a_pixel(source / "w.gnt")
    summary = packed_by(source, tmp_path / "p")
    require_started_over(summary, source, "w.gnt has changed since it was packed")


def test_a_file_that_was_packed_in_part_and_touched_is_resumed(tmp_path: Path) -> None:
    source = long_file(tmp_path / "raw")
    with pytest.raises(DataError, match="1,024 samples kept"):
        packed_by(source, tmp_path / "p", skip_damaged=False)
    os.utime(source / "w.gnt")
    assert packed_by(source, tmp_path / "p").resumed == 1024


def test_a_source_that_changes_while_it_is_packed_is_refused(gnt: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(gnt, tmp_path / "raw"))
    corpus = find_corpus([source], allowed=None, numbering=Charset.level1())
    calls = 0

    def meddle(advance: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            # Files of 300 records are a chunk each, so 00.gnt is packed by now.
            change_a_pixel(source / "test/09.gnt")

    with pytest.raises(DataError, match=r"test/09\.gnt changed while it was packed") as hit:
        pack(corpus, tmp_path / "p", PackConfig(16, skip_damaged=True), workers=1, progress=meddle)
    assert "\n" not in str(hit.value) and not (tmp_path / "p").exists()
    summary = packed_by(source, tmp_path / "p")
    require_started_over(summary, source, "test/09.gnt has changed since it was packed")


def test_a_damaged_unfinished_pack_starts_over(gnt: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        packed_by(gnt, tmp_path / "p", skip_damaged=False)
    left = tmp_path / ".p.tmp/pack/train.lmdb"
    os.truncate(left, left.stat().st_size // 2)
    summary = packed_by(gnt, tmp_path / "p")
    assert "cut short" in summary.unusable and sum(summary.counts.values()) == 3299


def test_several_sizes_are_read_once_and_those_there_left_alone(gnt: Path, tmp_path: Path) -> None:
    single = packed_by(gnt, tmp_path / "a", size=32)
    corpus = find_corpus([gnt], allowed=None, numbering=Charset.level1())
    configs = {tmp_path / name: PackConfig(size, skip_damaged=True) for name, size in (("a", 32), ("b", 16), ("c", 48))}
    taken = 0

    def count(advance: int, total: int) -> None:
        nonlocal taken
        taken += advance

    summaries = pack_sizes(corpus, configs, workers=2, progress=count)
    assert taken == sum(partition.size for partition in corpus.partitions)
    assert [summary.already_packed for summary in summaries] == [True, False, False]
    assert [summary.counts for summary in summaries] == [single.counts] * 3
    packed_by(gnt, tmp_path / "alone", size=48)
    for split in single.counts:
        assert values(tmp_path / f"alone/{split}.lmdb") == values(tmp_path / f"c/{split}.lmdb")


def test_a_size_that_is_further_waits_for_the_others(gnt: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        packed_by(gnt, tmp_path / "a", skip_damaged=False)
    corpus = find_corpus([gnt], allowed=None, numbering=Charset.level1())
    configs = {tmp_path / name: PackConfig(size, skip_damaged=True) for name, size in (("a", 16), ("b", 32))}
    summaries = pack_sizes(corpus, configs)
    assert [summary.resumed for summary in summaries] == [1800, 0]
    packed_by(gnt, tmp_path / "alone")
    for split in summaries[0].counts:
        assert values(tmp_path / f"alone/{split}.lmdb") == values(tmp_path / f"a/{split}.lmdb")
