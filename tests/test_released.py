"""Released weights: written from a run, checked before they are believed, and answering wherever a checkpoint does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from hcr.charset import Charset
from hcr.cli.train import main as hcr_train
from hcr.errors import DataError, UsageError
from hcr.evaluation import evaluate_checkpoint
from hcr.models import Recognizer, load_recognizer, read_checkpoint, read_model
from hcr.models.fine_tuning import Transfer, transfer
from hcr.models.released import halved, is_released, read_released, weights_digest, write_released
from hcr.synth import Generator

ROOT = Path(__file__).parents[1]
KEYS = ("arch", "characters", "licence", "size", "preprocessing", "training", "figures", "sha256")


@pytest.fixture
def released(whole: Path, tmp_path: Path) -> Path:
    """The best weights of a small run, released."""
    path = tmp_path / "small.safetensors"
    content = read_checkpoint(whole / "checkpoints/best.pt")
    write_released(path, content, "Apache-2.0", {"pack": content["pack"], "steps": 12}, {"top1": 0.5})
    return path


def drawn(charset: Charset, count: int = 200, size: int = 32) -> Tensor:
    """Pictures by the pen, uint8[count, 1, size, size]."""
    number = torch.arange(count)
    return Generator(charset.characters).draw(number % len(charset), number, number * 0, seed=3, size=size)


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
        ({"characters": "一丁七"}, r"head\.2\.\w+ is \[12, 368\], expected \[3, 368\]"),
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
