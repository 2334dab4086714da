"""Fine-tuning: other weights as they are, shared characters keep their rows, new ones begin afresh."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from hcr.charset import Charset
from hcr.errors import DataError, UsageError
from hcr.models import Recognizer, load_recognizer
from hcr.models.fine_tuning import Transfer, transfer
from hcr.preprocess.fit import PREPROCESSING

needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
OLD = Charset("一丁七万丈")
# In code-point order the shared 一 七 丈 lie at 0 1 4 here, at 0 2 4 there; 上 下 are new, 丁 万 are dropped.
NEW = Charset("丈七一上下")
SHARED = {char: (NEW.label(char), OLD.label(char)) for char in "一七丈"}


def pictures(size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (3, 1, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def checkpoint(path: Path, arch: str = "compact", size: int = 32, **other: object) -> Recognizer:
    """Write a checkpoint whose averaged weights are all random, and differ from those in training."""
    torch.manual_seed(1)
    model = Recognizer(arch, OLD, size).eval()
    generator = torch.Generator().manual_seed(2)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand(value.shape, generator=generator), alpha=0.01)
    content = {
        "format": "hcr-checkpoint",
        "version": 1,
        "arch": arch,
        "size": size,
        "characters": OLD.characters,
        "preprocessing": PREPROCESSING,
        "model": {key: torch.zeros_like(value) for key, value in model.state_dict().items()},
        "ema": model.state_dict(),
    }
    torch.save(content | other, path)
    return model


@pytest.mark.parametrize(
    ("arch", "heads"),
    [
        ("compact", ["head.2"]),
        ("efficientnet_v2_s", ["classifier.1"]),
        ("vgg19_bn", ["head.7"]),
        pytest.param("timm:mobilenetv3_small_050", ["classifier"], marks=needs_timm),
        # Two classifiers, whose mean is the answer.
        pytest.param("timm:levit_128s", ["head.linear", "head_dist.linear"], marks=needs_timm),
    ],
)
def test_shared_characters_keep_their_rows(arch: str, heads: list[str], tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "a.pt", arch)
    torch.manual_seed(5)
    model = Recognizer(arch, NEW, 32).eval()
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    assert transfer(model, tmp_path / "a.pt") == Transfer(shared=3, new=2, dropped=2)
    assert torch.equal(torch.get_rng_state(), random)

    own, theirs = model.state_dict(), source.state_dict()
    rows = {f"backbone.{head}.{kind}" for head in heads for kind in ("weight", "bias")}
    assert rows < own.keys()
    for key in own.keys() - rows:
        assert torch.equal(own[key], theirs[key]), key
    for key in rows:
        for here, there in SHARED.values():
            assert torch.equal(own[key][here], theirs[key][there]), key
        for new in "上下":
            assert torch.equal(own[key][NEW.label(new)], fresh[key][NEW.label(new)]), key
            assert not any(torch.equal(own[key][NEW.label(new)], row) for row in theirs[key]), key

    here, there = (list(labels) for labels in zip(*SHARED.values(), strict=True))
    with torch.inference_mode():
        torch.testing.assert_close(model(pictures())[:, here], source(pictures())[:, there], rtol=1e-5, atol=1e-5)


def test_more_and_fewer_characters_and_the_same_ones(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "a.pt")
    for characters, expected in (
        ("丁丈", Transfer(2, 0, 3)),
        ("一丁七万丈三上下", Transfer(5, 3, 0)),
        (OLD.characters, Transfer(5, 0, 0)),
    ):
        model = Recognizer("compact", Charset(characters), 32)
        assert transfer(model, tmp_path / "a.pt") == expected
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())
    assert model.training


def test_what_was_transferred_becomes_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    checkpoint(tmp_path / "a.pt")
    model = Recognizer("compact", NEW, 32).eval()
    transfer(model, tmp_path / "a.pt")
    checkpoint(tmp_path / "b.pt", characters=NEW.characters, ema=model.state_dict())
    with torch.inference_mode():
        assert torch.equal(load_recognizer(tmp_path / "b.pt")(pictures()), model(pictures()))


def test_another_size_where_no_weight_depends_on_it(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "a.pt", size=64)
    model = Recognizer("compact", OLD, 48).eval()
    transfer(model, tmp_path / "a.pt")
    with torch.inference_mode():
        assert torch.equal(model(pictures(48)), source(pictures(48)))
    checkpoint(tmp_path / "b.pt", "vgg19_bn", 64)
    with pytest.raises(DataError, match=r"vgg19_bn is bound to the size it was trained on: take pictures of 64 px"):
        transfer(Recognizer("vgg19_bn", NEW, 32), tmp_path / "b.pt")


def test_weights_that_do_not_belong_are_refused_and_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    model = Recognizer("compact", NEW, 32)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    checkpoint(path, "efficientnet_v2_s")
    with pytest.raises(UsageError, match=r"a\.pt: weights of efficientnet_v2_s, expected compact"):
        transfer(model, path)
    ema = checkpoint(path).state_dict()
    with pytest.raises(DataError, match="none of its 5 characters is among the model's 2"):
        transfer(Recognizer("compact", Charset("上下"), 32), path)
    checkpoint(path, preprocessing={"version": 0})
    with pytest.raises(DataError, match="this program prepares by"):
        transfer(model, path)
    # As many rows as the model's characters, but not as many as the checkpoint's own.
    checkpoint(path, characters="一丁七万丈三")
    with pytest.raises(DataError, match=r"head\.2\.\w+ is \[5.*\], expected \[6"):
        transfer(model, path)
    for key in ("backbone.head.2.bias", "backbone.features.1.0.weight"):
        checkpoint(path, ema={name: value for name, value in ema.items() if name != key})
        with pytest.raises(DataError, match=f"{key} is only in the model"):
            transfer(model, path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
