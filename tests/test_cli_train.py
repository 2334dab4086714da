"""hcr-train as people run it: what its flags set, what it shows, what it refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from hcr.cli.train import main
from hcr.config import settings_of
from hcr.layout import checkpoints
from hcr.models import read_checkpoint
from hcr.training import Execution, TrainConfig

CPU = ("--device", "cpu", "--workers", 0)
SHORT = (*CPU, "--arch", "compact", "--epochs", 1, "--batch-size", 20, "--precision", "fp32")


def hcr_train(*arguments: object, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(main, [str(argument) for argument in arguments])


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result: Result, code: int) -> str:
    """The one line of an error."""
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if line.lower().startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in result.output
    return lines[0]


def record(name: str) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(Path(f"artifacts/{name}/run.json").read_text("utf-8"))
    return found


@pytest.fixture
def here(small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with one pack."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_pack, "data/packed/small-32")
    return tmp_path


def test_every_setting_has_an_option_with_its_default_and_help() -> None:
    flags = {option.name: option for option in main.params}
    defaults = main.make_context("hcr-train", []).params
    fields = [*dataclasses.fields(TrainConfig), *dataclasses.fields(Execution)]
    declared = settings_of(TrainConfig) | settings_of(Execution)
    for field in fields:
        option = flags[field.name]
        assert isinstance(option, click.Option) and option.help
        assert option.help.startswith(declared[field.name].help)
        assert defaults[field.name] == field.default and type(defaults[field.name]) is type(field.default)
        assert "[default: " in option.help or field.default is False
    assert flags["epochs"].help == "Passes over the training split.  [default: 20; 1 to 10,000]"  # type: ignore[attr-defined]


def test_help_has_sections_with_every_flag_in_one() -> None:
    text = ok(hcr_train("--help"))
    titles = [line for line in text.splitlines() if re.match(r"[A-Z].*:$", line)]
    starts = ["What to train", "Settings", "How to run", "Before training", "Other"]
    assert len(titles) == len(starts) and all(map(str.startswith, titles, starts))
    for option in main.params:
        assert len(re.findall(rf"^  {option.opts[0]}\b", text, re.M)) == 1
    assert text.index(titles[1]) < text.index("--label-smoothing") < text.index(titles[2]) < text.index("--compile")


def test_default_then_recipe_then_flag(here: Path) -> None:
    Path("mine.toml").write_text(
        'arch = "compact"\nepochs = 2\nlr = 0.004\nlabel-smoothing = 0.2\naugmentation = true\n'
    )
    flags = (
        "--epochs",
        1,
        "--batch-size",
        20,
        "--accumulate",
        2,
        "--schedule",
        "plateau",
        "--warmup",
        0.3,
        "--clip",
        2,
        "--dropout",
        0.5,
    )
    more = ("--weight-decay", 0.01, "--ema-decay", 0.9, "--no-augmentation", "--precision", "bf16", "--seed", 4)
    result = hcr_train("--recipe", "mine.toml", "--workers", 0, "--device", "cpu", *flags, *more)
    out = ok(result)
    assert out.startswith("artifacts/small-32-compact: done after 4 steps; best epoch 1: val top-1 ")
    assert record("small-32-compact")["config"] == {
        "draw": 0, "charset": "", "font": [], "pages": 0.0, "teacher": "", "arch": "compact", "size": 32,
        "epochs": 1, "batch_size": 20, "accumulate": 2, "lr": 0.004,
        "schedule": "plateau", "warmup": 0.3, "weight_decay": 0.01, "clip": 2.0, "label_smoothing": 0.2,
        "dropout": 0.5,
        "ema_decay": 0.9, "augmentation": False, "precision": "bf16", "sync_bn": False, "seed": 4,
    }  # fmt: skip
    # Which of the two this tests depends on the machine.
    assert ("this CPU has no such arithmetic" in result.stderr) == (not Execution("cpu").multiplies_bf16)
    assert Execution("cpu").usual()["precision"] == ("bf16" if Execution("cpu").multiplies_bf16 else "fp32")
    assert {"first-batch.png", "metrics.csv", "curves.svg"} <= {path.name for path in Path(out.split(":")[0]).iterdir()}


def test_a_processor_kept_to_avx2_trains_in_fp32() -> None:
    code = "from hcr.training import Execution; print(Execution('cpu').usual()['precision'])"
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "avx2"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "fp32\n"


def test_checkpoints_are_written_as_often_as_asked(here: Path) -> None:
    ok(hcr_train("--run", "often", *SHORT, "--checkpoint-every", "3steps"))
    ok(hcr_train("--run", "seldom", *SHORT))
    assert [path.name for path in checkpoints(Path("artifacts/often"))] == ["step-00000004.pt", "step-00000003.pt"]
    assert [path.name for path in checkpoints(Path("artifacts/seldom"))] == ["step-00000004.pt"]


def test_weights_to_begin_with_come_from_a_run_or_a_file(here: Path) -> None:
    ok(hcr_train("--run", "base", *SHORT))
    best = Path("artifacts/base/checkpoints/best.pt")
    by_name = hcr_train("--run", "tuned", "--init", "base", *SHORT, "--lr", 1e-8, "--no-augmentation")
    ok(by_name)
    assert f"weights of {best}: 12 characters keep their rows, 0 are new, 0 are not in the pack" in by_name.stderr
    ok(hcr_train("--run", "again", "--init", best, *SHORT, "--lr", 1e-8, "--no-augmentation"))
    tuned, again, fresh = (
        read_checkpoint(checkpoints(Path("artifacts", name))[0])["model"] for name in ("tuned", "again", "base")
    )
    key = next(key for key, value in tuned.items() if value.ndim == 4)
    average = read_checkpoint(best)["ema"][key]
    assert (tuned[key] == again[key]).all()
    assert (tuned[key] - average).abs().max() < 1e-6 < (fresh[key] - average).abs().max()
    assert record("tuned")["starts"][0]["init"] == str(best)  # type: ignore[index]
    assert "nobody: no such weights" in refused(hcr_train("--run", "x", "--init", "nobody", *SHORT), 3)
    assert "gone.pt: no such weights" in refused(hcr_train("--run", "x", "--init", "gone.pt", *SHORT), 3)
    assert "efficientnet_v2_s" in refused(hcr_train("--run", "x", "--init", "base", "--device", "cpu"), 2)
    assert not Path("artifacts/x").exists()


def test_a_file_of_weights_may_have_any_name_but_a_runs(here: Path) -> None:
    ok(hcr_train("--run", "base", *SHORT))
    shutil.copy("artifacts/base/checkpoints/best.pt", "base")
    line = refused(hcr_train("--run", "x", "--init", "base", *SHORT), 2)
    assert line == (
        f"error: base: means a file ({here / 'base'}) and a run (artifacts/base/checkpoints/best.pt); give the path of "
        "the one"
    )
    for name in ("x.pth", "plain"):
        shutil.copy("artifacts/base/checkpoints/best.pt", name)
        done = hcr_train("--run", f"of-{name}", "--init", name, *SHORT)
        ok(done)
        assert f"weights of {name}: 12 characters keep their rows" in done.stderr
    Path("x.pth").write_bytes(b"other")
    for flag in ("--init", "--teacher"):
        assert "error: x.pth: not a readable checkpoint" in refused(hcr_train("--run", "y", flag, "x.pth", *SHORT), 3)
        line = refused(hcr_train("--run", "y", flag, "y.pth", *SHORT), 3)
        assert line == (
            "error: y.pth: no such weights; name a file, released weights (level1, gb2312), or a run (those with a "
            "checkpoint: base, of-plain, of-x.pth)"
        )
    assert not Path("artifacts/y").exists()


def test_released_weights_are_named_like_any_others(here: Path) -> None:
    done = hcr_train("--run", "began", "--init", "level1", *SHORT)
    ok(done)
    assert "hcr/models/released/compact.safetensors: 12 characters keep their rows, 0 are new" in done.stderr
    # They read pictures of 64 px, and the pack has 32.
    line = refused(hcr_train("--run", "taught", "--teacher", "gb2312", *SHORT), 2)
    assert "compact-gb2312.safetensors: reads pictures of 64 px, expected 32" in line


def test_a_new_run_has_no_name_of_released_weights(here: Path) -> None:
    for name in ("level1", "gb2312"):
        line = refused(hcr_train("--run", name, *SHORT), 2)
        assert line == f"error: --run {name}: is the name of released weights; choose another name"
        assert not Path("artifacts", name).exists()
    # One that is there already is resumed.
    ok(hcr_train("--run", "base", *SHORT))
    shutil.move("artifacts/base", "artifacts/level1")
    ok(hcr_train("--run", "level1", "--resume", *SHORT))


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", "/abs/x"])
def test_a_run_outside_of_artifacts_is_refused(here: Path, name: str) -> None:
    line = refused(hcr_train("--run", name, *SHORT), 2)
    assert line == f"error: run {name!r}: expected one plain name, which is a folder in artifacts"
    assert not Path("artifacts").exists() and sorted(path.name for path in here.parent.glob("x*")) == []


def settings_shown(out: str) -> dict[str, object]:
    return tomllib.loads(out.split("settings, as a recipe\n")[1])


def test_a_dry_run_shows_the_run_and_writes_nothing(here: Path) -> None:
    Path("mine.toml").write_text("lr = 0.004\n")
    before = sorted(here.rglob("*"))
    flags = ("--arch", "compact", "--epochs", 3, "--batch-size", 20)
    out = ok(hcr_train("--dry-run", "--recipe", "mine.toml", *CPU, *flags))
    assert sorted(here.rglob("*")) == before
    shown = dict(re.findall(r"^(\w+) +(.*)$", out.split("\n\n")[0], re.M))
    assert shown["run"] == "artifacts/small-32-compact, new"
    assert shown["pack"] == "data/packed/small-32: 84 train + 12 val samples of 32 px, 12 characters"
    assert shown["device"] == "cpu, 0 reading, cache none, saving every 600 seconds"
    assert shown["steps"] == "12: 3 epochs of 4, of 20 pictures"
    memory = re.fullmatch(
        r"about (\d+) MB: weights (\d+) MB, gradients, optimizer and average (\d+) MB, 20 pictures at a time (\d+) MB",
        shown["memory"],
    )
    assert memory
    whole, weights, upkeep, pictures = map(int, memory.groups())
    assert abs(whole - weights - upkeep - pictures) <= 2 and abs(upkeep - 4 * weights) <= 2 and pictures > 1
    assert abs(int(shown["parameters"].replace(",", "")) * 4 / 1e6 - weights) <= 1
    assert "# recipe" in next(line for line in out.splitlines() if line.startswith("lr = 0.004"))
    assert "# flag" in next(line for line in out.splitlines() if line.startswith("epochs = 3"))
    assert "# the pack" in next(line for line in out.splitlines() if line.startswith("size = 32"))
    assert "# the device" in next(line for line in out.splitlines() if line.startswith("precision = "))
    assert "# default" in next(line for line in out.splitlines() if line.startswith("clip = 1.0"))


def test_what_a_dry_run_shows_is_what_a_run_does(here: Path) -> None:
    flags = ("--data", "data/packed/small-32", "--run", "first", *SHORT, "--seed", 3)
    out = ok(hcr_train("--dry-run", *flags))
    Path("shown.toml").write_text(out.split("settings, as a recipe\n")[1])
    ok(hcr_train(*flags))
    assert record("first")["config"] == settings_shown(out)
    # It is a recipe, too, and a run that goes on shows its own settings.
    repeated = ok(hcr_train("--dry-run", *CPU, "--recipe", "shown.toml"))
    assert settings_shown(repeated) == settings_shown(out)
    again = ok(hcr_train("--dry-run", "--run", "first", "--resume", "--device", "cpu"))
    assert "artifacts/first, resumes at step 4" in again and settings_shown(again) == settings_shown(out)
    assert "# the run" in again and "# default" not in again


def test_a_dry_run_refuses_what_the_run_would(here: Path) -> None:
    ok(hcr_train("--run", "first", *SHORT))
    assert "artifacts/first: has checkpoints; resume it with --resume" in refused(
        hcr_train("--dry-run", "--run", "first", *SHORT), 2
    )
    assert "--lr 0.5: the run was started with 0.002" in refused(
        hcr_train("--dry-run", "--run", "first", "--resume", "--lr", 0.5, "--device", "cpu"), 2
    )
    assert "training samples; use --batch-size 84 or fewer" in refused(
        hcr_train("--dry-run", *SHORT, "--batch-size", 500), 2
    )
    assert "--lr 11.0: expected 1e-08 to 10" in refused(hcr_train("--dry-run", *SHORT, "--lr", 11), 2)


def test_batches_are_looked_for_on_a_gpu_only(here: Path) -> None:
    line = refused(hcr_train("--find-batch", *SHORT), 2)
    assert line.startswith("error: --find-batch: measures a GPU's memory, and this is a CPU; use --device cuda")
    assert not Path("artifacts").exists()


def test_only_the_first_process_speaks(here: Path) -> None:
    first = hcr_train("--dry-run", *SHORT, RANK="0")
    assert ok(first).startswith("run ")
    second = hcr_train("--dry-run", *SHORT, RANK="1")
    assert (second.exit_code, second.output) == (0, "")
    assert refused(hcr_train("--data", "nowhere", *SHORT, RANK="1"), 3).startswith("error: nowhere")


def test_two_processes_train_one_run(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "hcr.cli.train",
         "--run", "two", *map(str, SHORT), "--tensorboard"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("artifacts/two: done after 4 steps; best epoch 1") == 1
    assert done.stdout.count("next: hcr-eval --run two --data data/packed/small-32") == 1
    assert done.stderr.count("training artifacts/two on") == 1 and done.stderr.count("epoch 1: step 4") == 1
    assert record("two")["starts"][0]["processes"] == 2  # type: ignore[index]
    assert len(list(Path("artifacts/two/tensorboard").iterdir())) == 1


def test_deterministic_kernels_are_chosen_before_cuda_starts(here: Path) -> None:
    code = (
        "import os, sys\nfrom hcr.cli.train import main\n"
        "try:\n    main(['--dry-run', '--deterministic', '--data', 'nowhere'])\n"
        "except SystemExit:\n    print(os.environ.get('CUBLAS_WORKSPACE_CONFIG'))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "CUBLAS_WORKSPACE_CONFIG"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == ":4096:8\n", done.stderr


def test_without_a_terminal_a_line_tells_how_it_goes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hcr.cli.common.LINE_SECONDS", 0.0)
    shown = hcr_train("--run", "told", *SHORT)
    ok(shown)
    lines = [line for line in shown.stderr.splitlines() if line.startswith("train: ")]
    start = r"train: +\d+% \d\S*/4\S* \[\d\d:\d\d<\S+, +\S+ ?steps/s, epoch 1, loss \d\.\d{3}, top-1 \d+\.\d%"
    speed, end = r", \d[\d,]* pictures/s", r", \d+\.\d% waiting for data\]"
    assert len(lines) == 4
    assert re.fullmatch(start + end, lines[0]), lines[0]
    for line in lines[1:]:
        assert re.fullmatch(start + speed + end, line), line
