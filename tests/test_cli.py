"""The commands as people run them: one after the other in an empty folder, their defaults, and their errors."""

from __future__ import annotations

import csv
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from hcr.charset import KNOWN
from hcr.corpus.gnt import read_gnt
from hcr.corpus.sample import Sample
from hcr.pack.store import close_packs, open_reader
from tests.layouts import change_a_pixel


def hcr(command: str, *arguments: object) -> Result:
    """Run a command in this process, in the current folder."""
    main = importlib.import_module(f"hcr.cli.{command}").main
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result: Result, code: int) -> str:
    """The one line of an error."""
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in result.output
    return lines[0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_nothing_to_a_named_character_without_naming_anything(here: Path) -> None:
    assert "data/raw: no corpus here; run `make dataset`" in refused(hcr("data", "pack"), 2)
    drawn = ok(hcr("data", "draw", "--charset", 10, "--writers", 15, "--seed", 3))
    assert "10 characters by 12 training and 3 test writers, 15 files drawn now" in drawn
    assert "all drawn before" in ok(hcr("data", "draw", "--characters", 10, "--writers", 15, "--seed", 3))
    assert "10 characters, 110 train + 10 val + 30 test samples of 32 px" in ok(hcr("data", "pack", "--size", 32))
    assert "already packed" in ok(hcr("data", "pack", "--size", 32))
    assert "no damage found in train, val, test" in ok(hcr("data", "verify", "data/packed/drawn-32"))
    info = ok(hcr("data", "info", "data/packed/drawn-32"))
    assert "110 samples of 32 px, 10 of 10 characters, 11 writers" in info and "by writer: 1 of 12" in info
    assert json.loads(ok(hcr("data", "info", "data/packed/drawn-32", "--json")))["test"]["samples"] == 30
    ok(hcr("data", "show", "data/packed/drawn-32", "--count", 20))
    with Image.open("sheet.png") as sheet:
        assert sheet.size == (16 * 34 + 2, 2 * 34 + 2)

    trained = hcr("train", "--resume", "--arch", "compact", "--epochs", 12, "--batch-size", 10, "--lr", 0.003)
    assert "best epoch" in ok(trained) and (here / "artifacts/drawn-32-compact/checkpoints/best.pt").is_file()
    assert "done after 132 steps" in ok(hcr("train", "--resume", "--arch", "compact"))
    assert "--lr 0.5: the run was started with 0.003" in refused(
        hcr("train", "--resume", "--arch", "compact", "--lr", 0.5), 2
    )
    assert "resume it with --resume" in refused(hcr("train", "--arch", "compact"), 2)

    evaluated = ok(hcr("eval", "--per-class", "report.csv"))
    folder = here / "artifacts/drawn-32-compact/eval/test"
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    assert "n 30," in evaluated and summary["n"] == 30 and summary["top1"] > 0.6
    assert Path("report.csv").read_bytes() == (folder / "per_class.csv").read_bytes()
    rows = list(csv.DictReader(Path("report.csv").read_text("utf-8-sig").splitlines()))
    assert sum(int(row["correct"]) for row in rows) == round(summary["top1"] * 30)

    right = 0
    for path in sorted((here / "data/raw/drawn/test").glob("*.gnt")):
        for sample in read_gnt(path.read_bytes(), writer="", name=""):
            assert isinstance(sample, Sample)
            Image.fromarray(sample.picture).save(here / "one.png")
            line = json.loads(ok(hcr("predict", "one.png", "--run", "drawn-32-compact", "--json", "--top", 3)))
            assert line["path"] == "one.png" and len(line["top"]) == 3
            right += line["top"][0]["char"] == sample.char
    # A picture taken out of the corpus is read exactly as the packed one was.
    assert right == round(summary["top1"] * 30)


def test_ambiguous_defaults_list_the_choices(here: Path, small_pack: Path) -> None:
    for name in ("a-32", "b-32"):
        shutil.copytree(small_pack, here / "data/packed" / name)
    line = refused(hcr("train"), 2)
    assert "data/packed/a-32, data/packed/b-32; choose one with --data" in line
    for name in ("one", "two"):
        arguments = ("--data", "data/packed/a-32", "--run", name, "--arch", "compact", "--epochs", 1)
        ok(hcr("train", *arguments, "--batch-size", 40))
    assert "one, two; choose one with --run" in refused(hcr("eval"), 2)
    assert "n 24" in ok(hcr("eval", "--run", "two"))


def test_a_run_on_another_pack_steps_aside(here: Path, small_pack: Path) -> None:
    shutil.copytree(small_pack, here / "data/packed/a-32")
    shutil.copytree(small_pack, here / "data/demo/packed/demo-32")
    short = ("--arch", "compact", "--epochs", 1, "--batch-size", 40)
    ok(hcr("train", "--data", "data/demo/packed/demo-32", "--run", "demo", *short))
    assert "artifacts/demo on data/demo" in ok(hcr("eval"))
    ok(hcr("train", *short))
    assert "artifacts/a-32-compact on data/packed/a-32" in ok(hcr("eval"))


def test_what_is_missing_is_said(here: Path, small_pack: Path) -> None:
    assert "no pack here; run `make dataset`" in refused(hcr("train"), 3)
    assert "no run with a checkpoint" in refused(hcr("eval"), 3)
    assert "artifacts/x: no checkpoint here" in refused(hcr("eval", "--run", "x"), 3)
    assert not Path("artifacts/x").exists()
    assert "no such pack; make it with" in refused(hcr("data", "info", "nowhere"), 3)
    assert "no such file or folder" in refused(hcr("data", "pack", "nowhere"), 3)
    assert "unknown arch 'resnet'" in refused(hcr("train", "--data", small_pack, "--arch", "resnet"), 2)
    assert "pictures of 32 px, expected 64" in refused(hcr("train", "--data", small_pack, "--size", 64), 3)
    assert hcr("data", "draw", "--writers", 0).exit_code == 2
    assert hcr("train", "--device", "tpu").exit_code == 2
    (here / "artifacts/bad/checkpoints").mkdir(parents=True)
    (here / "artifacts/bad/checkpoints/step-00000001.pt").write_bytes(b"no checkpoint")
    assert "not a readable checkpoint" in refused(hcr("eval", "--run", "bad", "--data", small_pack), 3)


def test_damage_is_one_line_with_file_and_offset(here: Path, corpus_folder: Path) -> None:
    shutil.copytree(corpus_folder, here / "raw")
    victim = here / "raw/train/0003.gnt"
    victim.write_bytes(victim.read_bytes()[:-7])
    assert "train/0003.gnt" in refused(hcr("data", "pack", "raw"), 3)
    assert not (here / "data/packed/raw-64").exists()
    result = hcr("data", "pack", "raw", "--skip-damaged", "--seed", 1)
    assert "left out: 1 damaged" in ok(result) and "train/0003.gnt" in result.stderr
    reason = "data/packed/.raw-64.tmp: packed with --seed 0, now --seed 1"
    line = f"starting over: the unfinished pack cannot be used ({reason})"
    assert line in result.stderr.splitlines()


def test_a_changed_source_is_one_line(here: Path, corpus_folder: Path) -> None:
    shutil.copytree(corpus_folder, here / "raw")
    ok(hcr("data", "pack", "raw"))
    change_a_pixel(here / "raw/train/0003.gnt")
    assert refused(hcr("data", "pack", "raw"), 2) == (
        "error: data/packed/raw-64: train/0003.gnt has changed since it was packed; "
        "delete the pack, or choose another --out"
    )


def test_charsets_have_one_vocabulary(here: Path) -> None:
    for command in ("draw", "pack"):
        shown = " ".join(ok(hcr("data", command, "--help")).split())
        assert f"{', '.join(KNOWN)}, or a FILE of characters. [default: level1]" in shown
        # The older spelling of draw works (the first test here uses it) but is not shown.
        assert "--characters" not in shown


def test_a_damaged_pack_is_found_by_verify(here: Path, small_pack: Path) -> None:
    pack = shutil.copytree(small_pack, here / "pack")
    raw = bytearray((pack / "train.lmdb").read_bytes())
    block = open_reader(pack / "train.lmdb").block(0).tobytes()
    close_packs()
    raw[raw.index(block[:4096]) + 1000] ^= 1
    (pack / "train.lmdb").write_bytes(raw)
    result = hcr("data", "verify", pack)
    assert "pack: 1 problem;" in refused(result, 3) and "CRC32" in result.stderr


def test_debug_shows_the_traceback(here: Path) -> None:
    result = hcr("data", "info", "nowhere", "--debug")
    assert result.exit_code == 1 and type(result.exception).__name__ == "DataError"


def script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def test_a_reader_that_goes_away_is_no_error(here: Path, small_pack: Path) -> None:
    process = subprocess.Popen(
        [script("hcr-data"), "info", small_pack], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 1, "not a success: the reader may have wanted more"


def test_ctrl_c_saves_and_resumes(here: Path, small_pack: Path) -> None:
    command = [script("hcr-train"), "--data", str(small_pack), "--run", "r", "--arch", "compact", "--epochs", "5000"]
    command += ["--batch-size", "40", "--resume"]
    checkpoints = here / "artifacts/r/checkpoints"
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not list(checkpoints.glob("step-*.pt")) and time.monotonic() < deadline:
            time.sleep(0.05)
        # As a terminal does: to every process of the group, so that the loader's workers get it too.
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 75, errors
    assert "stopped by SIGINT" in errors and "--resume" in errors and "Traceback" not in errors
    stopped_at = max(int(path.stem.removeprefix("step-")) for path in checkpoints.glob("step-*.pt"))
    again = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert again.stderr is not None
    for line in again.stderr:
        if line.startswith("resuming"):
            assert line == f"resuming artifacts/r at step {stopped_at}\n"
            break
    else:
        pytest.fail("it did not resume")
    again.send_signal(signal.SIGTERM)
    assert again.wait(timeout=60) == 75
    again.stderr.close()


@pytest.mark.parametrize("name", ["hcr-data", "hcr-train", "hcr-eval", "hcr-predict"])
def test_help_is_quick_and_imports_nothing_heavy(name: str) -> None:
    heavy = "'torch', 'numpy', 'PIL', 'lmdb', 'tqdm'"
    code = f"import sys; import hcr.cli.{name[4:]}; print(*(module for module in ({heavy}) if module in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "Usage:" in subprocess.run([script(name), "--help"], capture_output=True, text=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of a core, so that other work on the machine does not count.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


def test_real_handwriting_by_the_commands(real: Path, here: Path) -> None:
    packed = ok(hcr("data", "pack", real, "--size", 64))
    assert packed.startswith("data/packed/real-64: 68 characters, 8,160 train + 2,448 val samples of 64 px")
    assert "left out: nothing" in packed
    line = refused(hcr("eval", "--data", "data/packed/real-64"), 3)
    assert "no run with a checkpoint" in line


def test_show_takes_one_character(small_pack: Path, tmp_path: Path) -> None:
    result = hcr("data", "show", small_pack, "--char", "ab", "--out", tmp_path / "sheet.png")
    assert refused(result, 2) == "error: --char 'ab': expected one character" and not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize("name", ["main", "data", "train", "eval", "predict"])
def test_every_script_shows_its_version(name: str) -> None:
    assert ok(hcr(name, "--version")) == f"hcr {metadata.version('hcr')}\n"


def test_help_counts_the_conditions() -> None:
    from hcr.evaluation.robustness import CONDITIONS

    assert f"under {len(CONDITIONS)} distortions" in " ".join(ok(hcr("eval", "--help")).split())


def test_a_pack_of_one_writer_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = ok(hcr("data", "draw", "--charset", 4, "--writers", 1, "--out", "one"))
    assert "4 characters by 1 training and 0 test writers, 1 file drawn now" in drawn
    ok(hcr("data", "pack", "one", "--size", 32, "--out", "pack"))
    info = ok(hcr("data", "info", "pack"))
    assert "train.lmdb: 4 samples of 32 px, 4 of 4 characters, 1 writer, " in info
    assert "validation: stratified, too few writers to hold one out: 1 of 10 samples" in info


def test_a_pack_of_other_characters_is_named_in_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ok(hcr("data", "draw", "--charset", 4, "--writers", 1, "--out", "one"))

    def differs(first: str, second: str) -> str:
        asked = ("data", "pack", "one", "--size", 32, "--out", "pack", "--charset")
        ok(hcr(*asked, first))
        line = refused(hcr(*asked, second), 2)
        shutil.rmtree("pack")
        return line.removeprefix("error: pack: holds another pack (").split(" requested")[0]

    assert differs("level1", "gb2312") == "packed with 3,755 characters, now 6,763"
    assert differs("gb2312", "all") == "packed with 6,763 characters, now all"
    assert differs("all", "level1") == "packed with all characters, now 3,755"
    Path("five").write_text("\n".join("一丁七万丈"), "utf-8")
    Path("others").write_text("\n".join("一丁七万丈"[::-1].replace("丈", "三")), "utf-8")
    assert differs("five", "level1") == "packed with 5 characters, now 3,755"
    assert differs("five", "others") == "packed with 5 characters, now 5 others"


def test_a_number_of_characters_to_draw_is_one_that_there_are(here: Path) -> None:
    for number in (0, 3756):
        line = refused(hcr("data", "draw", "--charset", number), 2)
        assert line == f"error: --charset {number}: expected 1 to 3,755"
    line = refused(hcr("data", "draw", "--charset", "levl1"), 3)
    assert line == "error: charset 'levl1': no such name or file; name level1, gb2312, or a file of characters"
