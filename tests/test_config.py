"""Settings: one check of type, range and choice for Python, recipes and commands; and the device that is chosen."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hcr
from hcr.charset import KNOWN, Charset
from hcr.config import flag_of, read_recipe, type_of
from hcr.errors import UsageError
from hcr.feed import CACHES
from hcr.layout import NAMED_WEIGHTS, RELEASED
from hcr.models import BACKBONES
from hcr.pack.config import PackConfig
from hcr.training import Execution, TrainConfig
from tests.test_cli import hcr as command
from tests.test_cli import ok, refused

FLOATS = [
    (settings, field.name)
    for settings in (TrainConfig, PackConfig)
    for field in dataclasses.fields(settings)
    if type_of(settings, field.name) is float
]


def test_there_are_settings_with_a_fraction_in_both() -> None:
    assert {settings for settings, _ in FLOATS} == {TrainConfig, PackConfig}
    assert ("lr" in dict.fromkeys(name for _, name in FLOATS)) and (PackConfig, "val") in FLOATS


@pytest.mark.parametrize(("settings", "name"), FLOATS)
def test_nan_is_out_of_every_range(
    settings: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus_folder: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=rf"^{flag_of(name)} nan: expected \S+ to \S+$"):
        settings(**{name: float("nan")})
    start = ("train",) if settings is TrainConfig else ("data", "pack", corpus_folder)
    line = refused(command(*start, flag_of(name), "nan"), 2)
    assert line.startswith(f"error: {flag_of(name)} nan: expected ")
    Path("mine.toml").write_text(f"{name} = nan\n", "utf-8")
    with pytest.raises(UsageError, match=rf"^mine\.toml: {name} = nan: expected \S+ to \S+$"):
        read_recipe(Path("mine.toml"), settings)


def test_nan_is_no_share_of_errors() -> None:
    assert refused(command("eval", "--target-error", "nan"), 2) == "error: --target-error nan: expected 0 to 1"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"font": "a.ttf"}, '--font \'a.ttf\': expected a list of texts like ["one", "other"]'),
        ({"font": ("a.ttf", 1)}, '--font (\'a.ttf\', 1): expected a list of texts like ["one", "other"]'),
        ({"epochs": 2.5}, "--epochs 2.5: expected a whole number"),
        ({"epochs": None}, "--epochs None: expected a whole number"),
        ({"epochs": True}, "--epochs True: expected a whole number"),
        ({"lr": "a"}, "--lr 'a': expected a number"),
        ({"lr": True}, "--lr True: expected a number"),
        ({"lr": 10**400}, f"--lr {10**400}: expected 1e-08 to 10"),
        ({"lr": float("inf")}, "--lr inf: expected 1e-08 to 10"),
        ({"size": "64"}, "--size '64': expected a whole number"),
        ({"augmentation": 1}, "--augmentation 1: expected true or false"),
        ({"arch": 5}, "--arch 5: expected text in quotes"),
        ({"draw": 1 << 32}, f"--draw {1 << 32}: expected 0 to 2,147,483,648"),
    ],
)
def test_python_gets_the_checks_of_a_recipe(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as found:
        TrainConfig(**given)
    assert str(found.value) == message


def test_what_fits_a_type_becomes_one_of_it() -> None:
    config = TrainConfig(arch="compact", lr=1, weight_decay=np.float64(0.25), font=["a.ttf"])  # type: ignore[arg-type]
    assert (config.lr, config.weight_decay, config.font) == (1.0, 0.25, ("a.ttf",))
    assert type(config.lr) is float and type(config.weight_decay) is float
    assert PackConfig(characters=Charset("一")).characters == Charset("一")
    with pytest.raises(UsageError, match=r"^--characters '一': expected a Charset$"):
        PackConfig(characters="一")  # type: ignore[arg-type]


def test_a_recipe_is_named_where_its_value_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line, message in (
        ("lr = 50", "lr = 50: expected 1e-08 to 10"),
        ("batch-size = 1", "batch-size = 1: expected 2 to 65,536"),
        ('schedule = "linear"', "schedule = 'linear': expected one of cosine, plateau"),
        ('font = "a.ttf"', 'font = \'a.ttf\': expected a list of texts like ["one", "other"]'),
        ("epochs = 2.5", "epochs = 2.5: expected a whole number"),
    ):
        Path("mine.toml").write_text(f"{line}\n", "utf-8")
        assert refused(command("train", "--recipe", "mine.toml"), 2) == f"error: mine.toml: {message}"


def test_nearly_all_writers_may_validate(corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert PackConfig(val=0.995).val == 0.995
    for share in (1, 1.0):
        with pytest.raises(UsageError, match=r"^--val 1\S*: expected 0 to 0\.99999$"):
            PackConfig(val=share)
    ok(command("data", "pack", corpus_folder, "--size", 32, "--val", 0.7))
    assert refused(command("data", "pack", corpus_folder, "--val", 1), 2) == "error: --val 1.0: expected 0 to 0.99999"


@pytest.mark.parametrize(
    ("given", "pause"),
    [
        (500, 500),
        (30.0, 30.0),
        ("500", 500),
        ("500steps", 500),
        ("1step", 1),
        ("30s", 30.0),
        ("1.5m", 90.0),
        ("10m", 600.0),
        ("2h", 7200.0),
    ],
)
def test_checkpoints_come_every_so_many_steps_or_seconds(given: float | str, pause: float) -> None:
    found = Execution("cpu", checkpoint_every=given).pause
    assert found == pause and type(found) is type(pause)


@pytest.mark.parametrize(
    "given", [0, 0.0, -5, float("nan"), float("inf"), "0", "0s", "-5", "ten", "5 m", "5d", "1.5steps", ""]
)
def test_other_pauses_between_checkpoints_are_refused(given: float | str) -> None:
    with pytest.raises(UsageError) as found:
        Execution("cpu", checkpoint_every=given)
    message = f"--checkpoint-every {given!r}: expected steps as 500, or a time as 30s, 10m or 2h"
    assert str(found.value) == message
    if isinstance(given, str):
        assert refused(command("train", "--checkpoint-every", given), 2) == f"error: {message}"


def test_a_pause_of_another_type_is_refused() -> None:
    for given in (None, True, [500]):
        with pytest.raises(UsageError, match=r"^--checkpoint-every .*: expected a whole number or a number or text"):
            Execution("cpu", checkpoint_every=given)  # type: ignore[arg-type]


def test_the_device_is_chosen_once_for_every_way_in() -> None:
    found = "cuda" if torch.cuda.is_available() else "cpu"
    assert Execution().device == Execution(workers=2).device == Execution("auto").device == found
    assert hcr.load().device.type == hcr.load(device="auto").device.type == found
    assert Execution("cpu").device == hcr.load(device="cpu").device.type == "cpu"


def test_other_devices_are_refused_with_the_choices() -> None:
    for make in (lambda name: Execution(name), lambda name: hcr.load(device=name)):
        with pytest.raises(UsageError, match=r"^--device 'gpu': expected one of auto, cpu, cuda$"):
            make("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_is_refused_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = "--device cuda: this machine has no CUDA device that torch can use; use --device cpu"
    for make in (lambda: Execution("cuda"), lambda: hcr.load(device="cuda")):
        with pytest.raises(UsageError) as found:
            make()
        assert str(found.value) == message
    for start in (("train",), ("predict", "photo.jpg"), ("predict", "photo.jpg", "--weights", "gb2312")):
        assert refused(command(*start, "--device", "cuda"), 2) == f"error: {message}"


def test_settings_of_a_cpu_need_no_torch() -> None:
    code = "import sys, hcr; hcr.TrainConfig(); hcr.Execution('cpu'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_help_names_what_there_is() -> None:
    text = " ".join(ok(command("train", "--help")).split())
    assert f"Network: {', '.join(BACKBONES)}, timm:NAME." in text
    assert f"Characters to draw: {', '.join(KNOWN)}, or a FILE" in text
    assert f"[{'|'.join(CACHES)}]" in text
    assert NAMED_WEIGHTS in text and NAMED_WEIGHTS.endswith(f"({', '.join(RELEASED)})")
    assert NAMED_WEIGHTS in " ".join(ok(command("eval", "--help")).split())
