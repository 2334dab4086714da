"""Recipes: settings that exist, a network that builds, commands as printed; and the benchmark that compares them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hcr.charset import Charset
from hcr.cli import data, eval, predict, train
from hcr.config import read_recipe
from hcr.corpus.names import corpus_name
from hcr.layout import PACKED
from hcr.models.backbones import build_backbone
from hcr.training import TrainConfig

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "pipelines").glob("*.toml"))
COMMANDS = {"hcr-data": data.main, "hcr-train": train.main, "hcr-eval": eval.main}


def comment(recipe: Path) -> str:
    """The comment that a recipe opens with, without its marks; lines that a backslash continues are one."""
    lines = re.match(r"(?:#.*\n)*", recipe.read_text("utf-8"))
    assert lines
    return re.sub(r"^# ?", "", lines[0], flags=re.M).replace("\\\n", "")


def commands(recipe: Path) -> dict[str, click.Context]:
    """Parse the comment's commands as they parse themselves: an unknown flag or a bad value raises."""
    found = {}
    for line in comment(recipe).splitlines():
        name, *words = shlex.split(line) if line.startswith("  ") else [""]
        if name.startswith("hcr-"):
            command = COMMANDS[name]
            if isinstance(command, click.Group):
                name, command = f"{name} {words[0]}", command.commands[words.pop(0)]
            found[name] = command.make_context(name, words)
    return found


def test_there_is_a_recipe_for_each_purpose() -> None:
    purposes = [
        "compact",
        "demo",
        "hwdb10+11",
        "hwdb11",
        "pages",
        "student",
        "teacher",
        "tutorial-effnet32",
        "tutorial-vgg19",
    ]
    assert [path.stem for path in RECIPES] == purposes


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_config_whose_network_builds(path: Path) -> None:
    config = TrainConfig(**read_recipe(path, TrainConfig))
    parameters = sum(p.numel() for p in build_backbone(config.arch, 10, config.size).parameters())
    assert parameters > 1e6


def test_the_demo_names_its_run_as_help_does() -> None:
    """By options that the commands show, since a reader copies them; its closing lines stand in one column."""
    text = (ROOT / "pipelines/demo.py").read_text("utf-8")
    hidden = {option for p in predict.main.params if getattr(p, "hidden", False) for option in p.opts}
    assert "--run" in hidden
    printed = re.findall(r"hcr-predict.*", text)
    assert printed and not any(option in line for line in printed for option in hidden)
    closing = re.findall(r"^  (\w[\w -]*?  +)\S", text[text.index("\ndone in") :], re.M)
    assert len(closing) == 7 and len(set(map(len, closing))) == 1


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_opens_with_what_to_expect_and_commands_that_fit_together(path: Path) -> None:
    text = comment(path)
    head = re.match(r"Expected: .*\nHardware: .*\bTime: .*\nCommands", text, re.S)
    assert head and re.search(r"not yet measured|\d %", " ".join(head[0].split("Hardware")[0].split())), text
    found = commands(path)
    run = found["hcr-train"].params
    assert run["recipe"] == path.relative_to(ROOT)
    config = TrainConfig(**read_recipe(path, TrainConfig))
    if config.draw:
        for script in re.findall(r"python (\S+\.py)", text):
            assert (ROOT / script).is_file()
        assert list(found) == ["hcr-train"]
        taught = TrainConfig(**read_recipe(ROOT / "pipelines/student.toml", TrainConfig)).teacher
        assert run["name"] == taught or f"pipelines/release.py {run['name']}" in text
        return
    assert list(found)[-3:] == ["hcr-data pack", "hcr-train", "hcr-eval"]
    pack, judge = (found[name].params for name in ("hcr-data pack", "hcr-eval"))
    assert pack["sizes"] == (config.size,)
    source = Path(str(pack["source"][0]).replace("*", "TrainPart1"))
    assert run["data"] == (pack["out"] or PACKED / f"{corpus_name(source)}-{config.size}")
    assert judge["name"] == run["name"] and judge["split"] == "test"


def test_the_first_thousand_characters_are_named_as_the_recipe_says(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (line,) = re.findall(r"^ +python -c .*", comment(ROOT / "pipelines/tutorial-vgg19.toml"), re.M)
    code = shlex.split(line)[2]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    written = Charset.read(
        tmp_path / commands(ROOT / "pipelines/tutorial-vgg19.toml")["hcr-data pack"].params["charset"]
    )
    assert len(written) == 1000 and written.characters == Charset.level1().characters[:1000]


def test_the_tutorial_recipes_are_the_tutorial() -> None:
    for name in ("tutorial-effnet32", "tutorial-vgg19"):
        config = TrainConfig(**read_recipe(ROOT / f"pipelines/{name}.toml", TrainConfig))
        as_it_was = {
            "lr": 1e-4,
            "batch_size": 512,
            "epochs": 50,
            "schedule": "plateau",
            "size": 32,
            "precision": "fp32",
        }
        as_it_was |= {"weight_decay": 0.0, "clip": 0.0, "label_smoothing": 0.0, "ema_decay": 0.0, "augmentation": False}
        assert {key: getattr(config, key) for key in as_it_was} == as_it_was


def benchmark(corpus: Path, work: Path, *arguments: str) -> tuple[list[list[str]], str]:
    """Run benchmarks/lab/recipes.py for an epoch with one seed; return its table's rows and what it said meanwhile."""
    command = [sys.executable, str(ROOT / "benchmarks/lab/recipes.py"), str(corpus), "--work", str(work)]
    done = subprocess.run(
        [*command, "--epochs", "1", "--seeds", "1", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "84 pictures to train on, 12 to validate on, 12 characters at 32 px; 1 epochs" in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]], done.stderr


@pytest.mark.campaign
def test_the_benchmark_compares_and_does_not_repeat_itself(corpus_folder: Path, tmp_path: Path) -> None:
    variants = ["--variants", "without augmentation", "the recipe", "--jobs", "2"]
    rows, said = benchmark(corpus_folder, tmp_path, *variants)
    assert "0 of 2 runs are done" in said
    assert [row[0] for row in rows] == ["the recipe", "without augmentation"]
    for row in rows:
        assert re.fullmatch(r"[\d.]+ \([\d.]+ to [\d.]+\)", row[1]) and row[4] == "60" and float(row[5]) > 0
    assert rows[0][3] == "–" and rows[1][3].startswith(("+", "-"))
    again, said = benchmark(corpus_folder, tmp_path, *variants)
    assert again == rows and "2 of 2 runs are done" in said
    # The tutorial's loop sees every picture of an epoch, in steps of up to 512.
    ((name, averaged, last, _, seen, _),), _ = benchmark(
        corpus_folder, tmp_path, "--effnet", "--variants", "the tutorial's own way"
    )
    assert (name, averaged, seen) == ("the tutorial's own way", "–", "84")
    assert 0 <= float(last.split()[0]) <= 100
