"""Recognizers: scaling inside, any size, and weights that fit or are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hcr.charset import Charset
from hcr.errors import DataError, UsageError
from hcr.glyph import PREPROCESSING
from hcr.models import BACKBONES, Recognizer, load_recognizer, read_checkpoint

SOME = Charset("一丁七万丈")


def pictures(count: int = 2, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("arch", sorted(BACKBONES))
@pytest.mark.parametrize("size", [32, 48, 64, 96])
def test_every_backbone_names_pictures_of_every_size(arch: str, size: int) -> None:
    model = Recognizer(arch, SOME, size).eval()
    with torch.inference_mode():
        logits = model(pictures(2, size))
    assert logits.shape == (2, 5) and logits.dtype == torch.float32 and logits.isfinite().all()


def test_efficientnet_is_torchvisions_with_a_grey_stem() -> None:
    from torchvision.models import efficientnet_v2_s

    ours = Recognizer("efficientnet_v2_s", Charset.level1(), 64)
    theirs = efficientnet_v2_s(num_classes=3755)
    count = [sum(p.numel() for p in model.parameters()) for model in (ours, theirs)]
    assert count[1] - count[0] == 2 * 24 * 3 * 3


def test_faint_ink_reads_like_dark_ink_and_paper_stays_paper() -> None:
    seen = []
    model = Recognizer("compact", SOME, 32).eval()
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.full((1, 1, 32, 32), 255, dtype=torch.uint8)
    image[..., 8:24, 15:17] = 0
    faint = image.clone()
    faint[faint == 0] = 195
    blank = torch.full_like(image, 254)
    model(torch.cat([image, faint, blank]))
    assert torch.allclose(seen[0][0], seen[0][1]) and seen[0][0].max() == 1 and seen[0][0].min() == 0
    assert seen[0][2].max() < 0.05


def test_an_unknown_arch_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown arch 'efficientnet_v2': did you mean efficientnet_v2_s\?"):
        Recognizer("efficientnet_v2", SOME, 32)


def content(model: Recognizer) -> dict[str, object]:
    return {
        "format": "hcr-checkpoint",
        "version": 1,
        "arch": model.arch,
        "size": model.size,
        "characters": model.charset.characters,
        "preprocessing": PREPROCESSING,
        "ema": model.state_dict(),
    }


def test_a_loaded_model_gives_the_same_logits(tmp_path: Path) -> None:
    model = Recognizer("compact", SOME, 32).eval()
    torch.save(content(model), tmp_path / "a.pt")
    loaded = load_recognizer(tmp_path / "a.pt")
    assert not loaded.training and loaded.charset == SOME and loaded.size == 32
    with torch.inference_mode():
        assert torch.equal(loaded(pictures()), model(pictures()))


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(DataError, match="no such checkpoint"):
        read_checkpoint(path)
    for raw in (b"", b"not a checkpoint", b"PK\x03\x04" + bytes(100)):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=r"a\.pt: not a readable checkpoint"):
            read_checkpoint(path)
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(DataError, match="not a checkpoint of hcr-train"):
        read_checkpoint(path)
    torch.save(content(Recognizer("compact", SOME, 32)) | {"version": 99}, path)
    with pytest.raises(DataError, match="checkpoint version 99, expected 1"):
        read_checkpoint(path)
    torch.save({"format": "hcr-checkpoint", "version": 1, "arch": "compact", "size": 32}, path)
    with pytest.raises(DataError, match="the keys characters, preprocessing, ema are missing"):
        read_checkpoint(path)


class Harmful:
    """What an unpickler would run: it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_checkpoint_is_never_unpickled(tmp_path: Path) -> None:
    torch.save({"format": Harmful(tmp_path / "ran")}, tmp_path / "a.pt")
    with pytest.raises(DataError, match="not a readable checkpoint"):
        read_checkpoint(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


def test_flipped_bits_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(content(Recognizer("compact", SOME, 32)), path)
    raw = path.read_bytes()
    for place in range(1, 20):
        flipped = bytearray(raw)
        # The file's end is a directory of its parts, some of whose bytes (times, attributes) nobody reads.
        flipped[place * (len(raw) - 20_000) // 20] ^= 4
        path.write_bytes(flipped)
        with pytest.raises(DataError, match=r"a\.pt: "):
            read_checkpoint(path)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    good = content(Recognizer("compact", SOME, 32))
    torch.save(good | {"characters": "一丁七"}, path)
    with pytest.raises(DataError, match=r"head\.2\.weight is \[5, 384\], expected \[3, 384\]"):
        load_recognizer(path)
    torch.save(good | {"ema": {}}, path)
    with pytest.raises(DataError, match="is only in the model"):
        load_recognizer(path)
    torch.save(good | {"preprocessing": {"version": 0}}, path)
    with pytest.raises(DataError, match="this program prepares by"):
        load_recognizer(path)
