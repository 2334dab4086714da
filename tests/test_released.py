"""Released weights: written from a run, checked before they are believed, and answering wherever a checkpoint does."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from hcr.charset import Charset
from hcr.cli.predict import main as hcr_predict
from hcr.cli.train import main as hcr_train
from hcr.errors import DataError, UsageError
from hcr.evaluation import evaluate_checkpoint
from hcr.glyph import PREPROCESSING
from hcr.layout import RELEASED
from hcr.models import Recognizer, load_recognizer, read_checkpoint, read_model
from hcr.models.fine_tuning import Transfer, transfer
from hcr.models.released import halved, is_released, read_released, weights_digest, write_released
from hcr.pen import Pen
from hcr.training import Execution, train
from tests.runs import GIVEN, Watcher
from tests.test_docs import described

ROOT = Path(__file__).parents[1]
KEYS = ("arch", "characters", "licence", "size", "preprocessing", "training", "figures", "sha256")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that releases, as a module."""
    sys.path.insert(0, str(ROOT / "pipelines"))
    try:
        return importlib.import_module("release")
    finally:
        sys.path.pop(0)


@pytest.fixture
def released(whole: Path, tmp_path: Path) -> Path:
    """The best weights of a small run, released."""
    path = tmp_path / "small.safetensors"
    content = read_checkpoint(whole / "checkpoints/best.pt")
    write_released(path, content, "Apache-2.0", {"pack": content["pack"], "steps": 12}, {"top1": 0.5})
    return path


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, corpus_folder: Path) -> Path:
    """A folder with a run that learnt from drawings of the corpus's characters."""
    folder = tmp_path_factory.mktemp("here")
    characters = json.loads((corpus_folder / "drawn.json").read_text())["characters"]
    (folder / "chars.txt").write_text("\n".join(characters), "utf-8")
    given = GIVEN | {"draw": 80, "size": 32, "epochs": 1, "charset": str(folder / "chars.txt")}
    train(given, None, folder / "artifacts/drawn", Execution(), Watcher(), resume=False)
    return folder


def drawn(charset: Charset, count: int = 200, size: int = 32) -> Tensor:
    """Pictures by the pen, uint8[count, 1, size, size]."""
    number = torch.arange(count)
    return Pen(charset.characters).draw(number % len(charset), number, number * 0, seed=3, size=size)


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def rewritten(path: Path, to: Path, **changed: str | None) -> Path:
    """Write a released file anew with some metadata changed, or dropped, and nothing done about its checksum."""
    metadata = {key: value for key, value in (metadata_of(path) | changed).items() if value is not None}
    save_file(load_file(path), to, metadata)
    return to


# --- the file ---------------------------------------------------------------------------------------------------------


def test_it_holds_the_averaged_weights_in_half_precision_and_gives_them_in_single(whole: Path, released: Path) -> None:
    content = read_checkpoint(whole / "checkpoints/best.pt")
    stored, given = load_file(released), read_released(released)
    assert stored.keys() == content["ema"].keys() == given["ema"].keys()
    for name, value in content["ema"].items():
        if value.is_floating_point():
            assert stored[name].dtype == torch.float16 and given["ema"][name].dtype == torch.float32
            assert torch.equal(given["ema"][name], value.half().float())
        else:
            assert stored[name].dtype == value.dtype and torch.equal(given["ema"][name], value)
    assert {key: given[key] for key in ("arch", "size", "characters", "preprocessing", "pack")} == {
        key: content[key] for key in ("arch", "size", "characters", "preprocessing", "pack")
    }
    assert given["training"] == {"pack": content["pack"], "steps": 12} and given["figures"] == {"top1": 0.5}
    assert given["licence"] == "Apache-2.0"
    assert metadata_of(released)["charset_digest"] == content["charset_digest"]
    best = whole / "checkpoints/best.pt"
    assert released.stat().st_size < 0.2 * best.stat().st_size


def test_the_same_weights_give_the_same_bytes(whole: Path, released: Path, tmp_path: Path) -> None:
    content = read_checkpoint(whole / "checkpoints/best.pt")
    again = tmp_path / "again.safetensors"
    write_released(again, content, "Apache-2.0", {"pack": content["pack"], "steps": 12}, {"top1": 0.5})
    assert again.read_bytes() == released.read_bytes()


def test_it_answers_as_its_checkpoint(whole: Path, released: Path) -> None:
    ours, theirs = load_recognizer(released), load_recognizer(whole / "checkpoints/best.pt")
    assert not ours.training and (ours.arch, ours.charset, ours.size) == (theirs.arch, theirs.charset, theirs.size)
    assert {value.dtype for value in ours.parameters()} == {torch.float32}
    with torch.inference_mode():
        pictures = drawn(ours.charset)
        a, b = ours(pictures), theirs(pictures)
    assert torch.equal(a.argmax(1), b.argmax(1)) and not torch.equal(a, b)
    torch.testing.assert_close(a, b, rtol=0.01, atol=0.01)


def test_which_kind_a_file_is_shows_its_content_not_its_name(whole: Path, released: Path, tmp_path: Path) -> None:
    swapped = tmp_path / "released.pt", tmp_path / "checkpoint.safetensors"
    shutil.copy(released, swapped[0])
    shutil.copy(whole / "checkpoints/best.pt", swapped[1])
    assert is_released(swapped[0]) and not is_released(swapped[1])
    assert "figures" in read_model(swapped[0]) and "optimizer" in read_model(swapped[1])
    with torch.inference_mode():
        a, b = (load_recognizer(path)(drawn(Charset("一"), 5)).argmax(1) for path in swapped)
    assert torch.equal(a, b)
    assert not is_released(tmp_path / "absent") and not is_released(tmp_path)


def test_every_flipped_bit_is_found(released: Path, tmp_path: Path) -> None:
    raw = released.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    path = tmp_path / "flipped.safetensors"
    in_names = raw.index(metadata_of(released)["characters"].encode())
    random = np.random.default_rng(0)
    places = [0, 7, 8, in_names, end - 1, end, len(raw) - 1]
    places += [*random.integers(8, end, 60).tolist(), *random.integers(end, len(raw), 20).tolist()]
    for place in places:
        flipped = bytearray(raw)
        flipped[place] ^= 1 << int(random.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(DataError) as error:
            load_recognizer(path)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value), place
    flipped = bytearray(raw)
    flipped[in_names + 2] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(DataError, match=r"damaged released weights .*; install them again"):
        load_recognizer(path)


def test_cut_files_are_refused(released: Path, tmp_path: Path) -> None:
    raw = released.read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in (0, 5, 8, 9, 500, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:length])
        with pytest.raises(DataError, match=r"cut\.safetensors: not (a readable checkpoint|readable as released)"):
            load_recognizer(path)
    path.write_bytes(raw + b"\0")
    with pytest.raises(DataError, match="not readable as released weights"):
        load_recognizer(path)


def test_other_safetensors_files_are_refused(released: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(DataError, match="not weights released by hcr"):
        load_recognizer(path)
    rewritten(released, path, version="2")
    with pytest.raises(DataError, match="released weights of version 2, expected 1; use the hcr that they came with"):
        load_recognizer(path)
    for key in KEYS:
        rewritten(released, path, **{key: None})
        with pytest.raises(DataError, match=f"incomplete released weights, the keys {key} are missing"):
            load_recognizer(path)
    rewritten(released, path, figures='{"top1": 0.99}')
    with pytest.raises(DataError, match="damaged released weights"):
        load_recognizer(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"preprocessing": {"version": 0}}, "this program prepares by"),
        ({"characters": "一丁七"}, r"head\.2\.\w+ is \[12, 384\], expected \[3, 384\]"),
        ({"arch": "vgg19_bn"}, "weights of another model"),
    ],
)
def test_what_does_not_fit_this_program_is_refused(
    whole: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    path = tmp_path / "other.safetensors"
    write_released(path, read_checkpoint(whole / "checkpoints/best.pt") | changed, "", {}, {})
    with pytest.raises(DataError, match=message):
        load_recognizer(path)


def test_an_unknown_network_is_named(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    write_released(path, read_checkpoint(whole / "checkpoints/best.pt") | {"arch": "compacter"}, "", {}, {})
    with pytest.raises(UsageError, match=r"other\.safetensors: unknown arch 'compacter': did you mean compact\?"):
        load_recognizer(path)


def test_weights_beyond_half_precision_cannot_be_released(whole: Path, tmp_path: Path) -> None:
    content = read_checkpoint(whole / "checkpoints/best.pt")
    content["ema"]["backbone.head.2.bias"][0] = 70_000.0
    with pytest.raises(DataError, match=r"backbone\.head\.2\.bias: not finite in half precision"):
        write_released(tmp_path / "a.safetensors", content, "", {}, {})
    assert not (tmp_path / "a.safetensors").exists()


def test_the_weights_have_a_digest(released: Path, whole: Path) -> None:
    state = load_recognizer(released).state_dict()
    ema = read_checkpoint(whole / "checkpoints/best.pt")["ema"]
    assert weights_digest(state) == weights_digest(halved(ema)) == weights_digest(load_file(released))
    assert weights_digest(state) != weights_digest(ema)
    state["backbone.head.2.bias"][0] += 1e-3
    assert weights_digest(state) != weights_digest(halved(ema))


def test_formats_md_describes_it(
    script: ModuleType, here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(here)
    script.release("drawn", tmp_path / "a.safetensors", None)
    metadata = metadata_of(tmp_path / "a.safetensors")
    assert set(metadata) | set(json.loads(metadata["training"])) <= described("Released weights")


# --- where checkpoints go ---------------------------------------------------------------------------------------------


def test_fine_tuning_begins_with_them(released: Path) -> None:
    theirs = load_recognizer(released)
    model = Recognizer("compact", Charset(theirs.charset.characters[2:] + "鑫"), 32)
    assert transfer(model, released) == Transfer(shared=10, new=1, dropped=2)
    char = theirs.charset[5]
    rows = [m.state_dict()["backbone.head.2.weight"][m.charset.label(char)] for m in (model, theirs)]
    assert torch.equal(*rows)


def test_train_takes_the_file_by_its_name(
    released: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--data", small_pack, "--run", "tuned", "--init", released.name, "--arch", "compact", "--epochs", 1]
    done = CliRunner().invoke(hcr_train, [*map(str, given), "--batch-size", "40", "--workers", "0", "--device", "cpu"])
    assert done.exit_code == 0, done.stderr
    assert f"weights of {released.name}: 12 characters keep their rows, 0 are new" in done.stderr


def test_evaluation_judges_them_as_their_checkpoint(released: Path, whole: Path, small_pack: Path) -> None:
    ours, theirs = (evaluate_checkpoint(path, small_pack, "test") for path in (released, whole / "checkpoints/best.pt"))
    assert np.array_equal(ours.predictions.first, theirs.predictions.first) and ours.summary.n == 24
    with pytest.raises(DataError, match=r"small\.safetensors: trained on this split"):
        evaluate_checkpoint(released, small_pack, "train")


# --- the released file ------------------------------------------------------------------------------------------------


def test_the_package_has_one_that_says_all_about_itself(script: ModuleType) -> None:
    assert RELEASED.stat().st_size <= 10_000_000
    content = read_released(RELEASED)
    model = load_recognizer(RELEASED)
    assert set(Charset.level1().characters) <= set(model.charset.characters)
    assert content["preprocessing"] == PREPROCESSING and content["licence"].startswith("Apache-2.0")
    training = content["training"]
    assert training["config"]["draw"] > 0 and training["pack"]["train"].startswith("pen ")
    assert training["pictures"] == training["steps"] * training["config"]["batch_size"] > 0
    assert training["seconds"] > 0 and training["machines"] and training["git"] and training["versions"]["torch"]
    if content["figures"]:
        assert content["figures"]["weights"] == weights_digest(model.state_dict())
        assert content["figures"]["classes"] == len(model.charset)


def test_the_model_card_says_what_the_file_says(script: ModuleType) -> None:
    card = (ROOT / "docs/model-card.md").read_text("utf-8")
    assert script.card_table(RELEASED) in card, "run python pipelines/release.py"
    assert f"| file | {RELEASED.stat().st_size / 1e6:.2f} MB" in card


def test_predict_answers_from_an_empty_folder(tmp_path: Path) -> None:
    model = load_recognizer(RELEASED)
    char = model.charset[0]
    picture = drawn(Charset(char), 1, 80)[0, 0].numpy()
    (tmp_path / "empty").mkdir()
    Image.fromarray(picture).save(tmp_path / "picture.png")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HTTPS_PROXY": "http://127.0.0.1:9", "HOME": str(tmp_path)}
    command = [sys.executable, "-c", "from hcr.cli.predict import main; main()", "../picture.png", "--json"]
    done = subprocess.run(
        [*command, "--device", "cpu"],
        cwd=tmp_path / "empty",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = done.stdout.splitlines()
    answer = json.loads(line)
    assert answer["path"] == "../picture.png" and len(answer["top"]) == 5
    assert all(entry["char"] in model.charset for entry in answer["top"])
    expected = f"model: released weights, {model.arch}, {len(model.charset):,} characters, {model.size} px"
    assert done.stderr.splitlines() == [expected]
    assert not list((tmp_path / "empty").iterdir())


def test_runs_do_not_answer_unless_they_are_named(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    Image.new("L", (40, 40), 255).save(tmp_path / "blank.png")
    said = []
    for choice in ([], ["--run", "drawn"]):
        done = CliRunner().invoke(hcr_predict, [str(tmp_path / "blank.png"), "--top", "1", *choice])
        assert done.exit_code == 0, done.stderr
        said.append(done.stderr.strip())
    assert said[0].startswith("model: released weights, ")
    assert said[1] == "model: artifacts/drawn/checkpoints/best.pt, compact, 12 characters, 32 px"


# --- releasing a run --------------------------------------------------------------------------------------------------


def test_a_run_is_released_with_its_recipe_and_figures(
    script: ModuleType, here: Path, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    out, figures = tmp_path / "out.safetensors", tmp_path / "figures.json"
    script.release("drawn", out, None)
    training = read_released(out)["training"]
    assert training["config"]["draw"] == 80 and training["before"] is None and training["steps"] == 4
    assert training["pictures"] == 80 and len(training["machines"]) == 1
    assert re.fullmatch(rf"Linux {os.uname().machine}.*, \d+ threads", training["machines"][0])
    assert training["validation"]["val_n"] == 20 and training["pack"]["train"].startswith("pen ")
    assert "not yet measured" in script.card_table(
        out
    ) and "| trained on | 80 drawn pictures in 1 runs, " in script.card_table(out)

    command = [sys.executable, str(ROOT / "benchmarks/real.py"), str(corpus_folder), "--weights", str(out)]
    done = subprocess.run([*command, "--json", str(figures), "--repeats", "5"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    script.release("drawn", out, figures)
    measured = json.loads(figures.read_text())
    assert read_released(out)["figures"] == measured
    assert set(measured) | set(measured["worst"][0]) <= described("Released weights")
    table = script.card_table(out)
    assert f"| top-1 | {measured['top1']:.2%} (" in table and f"| top-5 | {measured['top5']:.2%} |" in table
    assert "| measured on | 120 pictures of 12 characters in real handwriting, all 12 being possible" in table

    figures.write_text(json.dumps(measured | {"weights": "0123456789abcdef"}))
    with pytest.raises(DataError, match="figures of the weights 0123456789abcdef, expected "):
        script.release("drawn", out, figures)
    assert read_released(out)["figures"] == measured


def test_what_a_run_began_with_is_told(
    script: ModuleType, here: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    given = json.loads(Path("artifacts/drawn/run.json").read_text())["config"] | {"seed": 9}
    for name, init in {
        "second": Path("artifacts/drawn/checkpoints/best.pt"),
        "third": tmp_path / "second.safetensors",
        "tuned": whole / "checkpoints/best.pt",
        "unknown": shutil.copy("artifacts/drawn/checkpoints/best.pt", tmp_path),
    }.items():
        train(given, None, Path("artifacts", name), Execution(), Watcher(), resume=False, init=Path(init))
        if name == "second":
            script.release(name, tmp_path / "second.safetensors", None)
    script.release("third", tmp_path / "third.safetensors", None)
    runs = script.stages(read_released(tmp_path / "third.safetensors")["training"])
    assert [run["config"]["seed"] for run in runs] == [GIVEN["seed"], 9, 9]
    assert "| trained on | 240 drawn pictures in 3 runs, " in script.card_table(tmp_path / "third.safetensors")
    for name, message in {"tuned": "only what learnt from drawings", "unknown": "no run.json says what"}.items():
        with pytest.raises(UsageError, match=message):
            script.release(name, tmp_path / "out.safetensors", None)


def test_what_learnt_from_a_pack_is_not_released(
    script: ModuleType, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole, "artifacts/packed")
    with pytest.raises(UsageError, match="only what learnt from drawings can be released"):
        script.release("packed", tmp_path / "out.safetensors", None)
    assert not (tmp_path / "out.safetensors").exists()


def test_the_card_keeps_all_but_the_table(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = tmp_path / "card.md"
    shutil.copy(ROOT / "docs/model-card.md", card)
    monkeypatch.setattr(script, "CARD", card)
    before = card.read_text("utf-8")
    script.write_card(RELEASED)
    assert card.read_text("utf-8") == before
    card.write_text(before.replace("| file |", "| fiel |"), "utf-8")
    script.write_card(RELEASED)
    assert card.read_text("utf-8") == before
