"""Recognizers: scaling inside, any size, and weights that fit or are refused."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hcr.charset import Charset
from hcr.errors import DataError, UsageError
from hcr.models import BACKBONES, Recognizer, load_recognizer, read_checkpoint, require_arch
from hcr.preprocess.fit import PREPROCESSING

SOME = Charset("一丁七万丈")
needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
# A convolutional network, one bound to its size, and one whose answer is the mean of two classifiers.
OF_TIMM = ("timm:test_efficientnet", "timm:test_vit", "timm:levit_128s")
ARCHS = [*sorted(BACKBONES), *(pytest.param(arch, marks=needs_timm) for arch in OF_TIMM)]


def pictures(count: int = 2, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("arch", sorted(BACKBONES))
@pytest.mark.parametrize("size", [48, 96])
def test_every_backbone_names_pictures_of_other_sizes(arch: str, size: int) -> None:
    model = Recognizer(arch, SOME, size).eval()
    with torch.inference_mode():
        logits = model(pictures(2, size))
    assert logits.shape == (2, 5) and logits.dtype == torch.float32 and logits.isfinite().all()


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("size", [32, 64])
def test_every_network_learns_from_pictures_up_to_its_stem(arch: str, size: int) -> None:
    torch.manual_seed(0)
    model = Recognizer(arch, SOME, size)
    assert model.training
    logits = model(pictures(2, size))
    assert logits.shape == (2, 5) and logits.dtype == torch.float32
    torch.nn.functional.cross_entropy(logits, torch.tensor([1, 3])).backward()
    stem = next(parameter for parameter in model.parameters() if parameter.ndim == 4)
    assert stem.grad is not None and stem.grad.isfinite().all() and stem.grad.abs().max() > 0


@pytest.mark.parametrize("arch", ARCHS)
def test_every_network_comes_back_from_its_checkpoint(arch: str, tmp_path: Path) -> None:
    model = Recognizer(arch, SOME, 32).eval()
    torch.save(content(model), tmp_path / "a.pt")
    loaded = load_recognizer(tmp_path / "a.pt")
    assert not loaded.training and (loaded.arch, loaded.charset, loaded.size) == (arch, SOME, 32)
    with torch.inference_mode():
        assert torch.equal(loaded(pictures()), model(pictures()))


def test_efficientnet_is_torchvisions_with_a_grey_stem() -> None:
    from torchvision.models import efficientnet_v2_s

    ours = Recognizer("efficientnet_v2_s", Charset.level1(), 64)
    theirs = efficientnet_v2_s(num_classes=3755)
    count = [sum(p.numel() for p in model.parameters()) for model in (ours, theirs)]
    assert count[1] - count[0] == 2 * 24 * 3 * 3


def test_a_stem_of_stride_1_keeps_maps_twice_as_large() -> None:
    sides = []
    for arch in ("efficientnet_v2_s", "efficientnet_v2_s_stride1"):
        model = Recognizer(arch, SOME, 32).eval()
        with torch.inference_mode():
            sides.append(model.backbone.features(torch.rand(1, 1, 32, 32)).shape[-1])
    assert sides == [1, 2]


def test_vgg19_is_torchvisions_with_a_grey_stem_and_a_head_of_the_pictures_size() -> None:
    from torchvision.models import vgg19_bn

    with torch.device("meta"):
        theirs = sum(p.numel() for p in vgg19_bn().features.parameters())
        ours = [Recognizer("vgg19_bn", SOME, size).backbone for size in (32, 64)]
    assert sum(p.numel() for p in ours[0].features.parameters()) == theirs - 2 * 64 * 3 * 3
    heads = [[layer.in_features for layer in network.head if isinstance(layer, torch.nn.Linear)] for network in ours]
    assert heads == [[512, 4096, 4096], [2048, 4096, 4096]]


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


def bars(*columns: int) -> torch.Tensor:
    """Upright bars of 2 px from these columns on: float[1, 1, 48, 48]."""
    ink = torch.zeros(1, 1, 48, 48)
    for column in columns:
        ink[..., column : column + 2] = 1
    return ink


def middles(ink: torch.Tensor) -> list[float]:
    """Where the bars of a picture are, from the left."""
    row = ink[0, 0, 24]
    (edges,) = (torch.diff((row > 0.3).int(), prepend=torch.zeros(1, dtype=torch.int32)) != 0).nonzero(as_tuple=True)
    spans = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return [float((row[a:b] * torch.arange(a, b)).sum() / row[a:b].sum()) for a, b in spans]


def test_the_compact_network_sees_hands_of_other_proportions_alike() -> None:
    equalise = Recognizer("compact", SOME, 48).backbone.evened
    narrow, wide = bars(4, 9, 14, 42), bars(4, 16, 28, 42)
    assert middles(narrow) == [4.5, 9.5, 14.5, 42.5] and middles(wide) == [4.5, 16.5, 28.5, 42.5]
    apart = [
        sum(abs(a - b) for a, b in zip(middles(one), middles(other), strict=True))
        for one, other in ((narrow, wide), (equalise(narrow), equalise(wide)))
    ]
    assert apart[1] < 0.7 * apart[0], apart
    # Crowded strokes get room from those that stand alone.
    first, second, third, last = middles(equalise(narrow))
    assert second - first > 7 and third - second > 7 and last - third < 24
    # Level strokes are spread as upright ones are.
    assert torch.allclose(equalise(narrow.transpose(2, 3)), equalise(narrow).transpose(2, 3), atol=1e-5)


def test_equalisation_keeps_paper_and_full_ink_and_computes_in_full_precision() -> None:
    equalise = Recognizer("compact", SOME, 48).backbone.evened
    assert equalise(torch.zeros(2, 1, 48, 48)).abs().max() == 0
    for size in (32, 33, 64):
        full = equalise(torch.ones(1, 1, size, size))
        assert full.shape == (1, 1, size, size) and (full - 1).abs().max() < 1e-4
    ink = bars(4, 9, 14, 42)
    exact = equalise(ink)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(equalise(ink), exact)


def line(*, lean: float = 0.0, rise: float = 0.0) -> torch.Tensor:
    """A line of 2 px through the middle: upright, its foot `lean` of its height to the right, or level, its end
    `rise` of its length higher: float[1, 1, 48, 48]."""
    y, x = torch.meshgrid(torch.arange(48) - 23.5, torch.arange(48) - 23.5, indexing="ij")
    off, along = (y + rise * x, x) if rise else (x - lean * y, y)
    return (1.5 - off.abs()).clamp(0, 1).where(along.abs() < 18, torch.zeros(()))[None, None]


def spread(ink: torch.Tensor, axis: int) -> float:
    """How far ink lies from the middle of the picture, in pixels on the mean: above and below (1) or aside (2)."""
    row = ink[0].sum((0, 3 - axis))
    return float((row * (torch.arange(48) - 23.5).abs()).sum() / row.sum())


def test_one_view_takes_off_a_slant_and_the_other_a_rise() -> None:
    views = Recognizer("compact_wide", SOME, 48).backbone.views
    upright, level = views(line(lean=-0.2)), views(line(rise=0.15))
    assert upright.shape == level.shape == (2, 1, 48, 48)
    assert spread(upright[:1], 2) < 1 < 1.5 < spread(upright[1:], 2)
    assert spread(level[1:], 1) < 1 < 1.2 < spread(level[:1], 1)
    both = views(torch.cat([line(lean=-0.2), line(rise=0.15)]))
    assert torch.equal(both[::2], upright) and torch.equal(both[1::2], level)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(views(line(lean=-0.2)), upright)


def test_the_compact_network_makes_thin_lines_bolder_and_no_others() -> None:
    def line(size: int, width: int, darkest: float) -> torch.Tensor:
        ink = torch.zeros(1, 1, size, size)
        ink[:, :, size // 8 : -size // 8, size // 2 : size // 2 + width] = darkest
        return ink

    thicken = Recognizer("compact", SOME, 64).backbone.thickening
    for darkest in (0.3, 1.0):
        thin, broad = line(64, 1, darkest), line(64, 3, darkest)
        assert torch.equal(thicken(broad), broad)
        bold = thicken(thin)
        assert (bold >= thin).all() and bold.amax() == thin.amax()
        assert bold.sum() / thin.sum() == pytest.approx(1 + 2 * 0.6, abs=0.1), "six tenths on both sides"
    assert not torch.equal(thicken(line(128, 3, 1.0)), line(128, 3, 1.0)), "thin is of the picture's size"
    assert (thicken(torch.zeros(2, 1, 64, 64)) == 0).all()


def test_the_wide_network_answers_with_the_mean_of_two_views_and_learns_from_pictures_as_they_are() -> None:
    network = Recognizer("compact_wide", SOME, 48).backbone.eval()
    seen = []
    network.evened.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ink = torch.rand(3, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        answers = network(ink)
        logits = network.head(network.features(network.evened(network.views(network.thickening(ink))))).view(2, 3, 5)
        assert torch.allclose(answers, logits.mean(0), atol=1e-6) and not torch.equal(logits[0], logits[1])
        assert torch.equal(seen[0], network.views(network.thickening(ink)))
        network.train()(ink)
    assert torch.equal(seen[-1], ink)


def test_the_compact_network_takes_one_view() -> None:
    network = Recognizer("compact", SOME, 48).backbone.eval()
    ink = torch.rand(3, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        once = network.head(network.features(network.evened(network.thickening(ink))))
        assert torch.allclose(network(ink), once, atol=1e-6)


def test_the_small_network_does_half_the_arithmetic_of_the_compact_one() -> None:
    def products(arch: str) -> int:
        model = Recognizer(arch, SOME, 64).eval()
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            model(pictures(1, 64))
        return counter.get_total_flops()

    assert products("compact_small") == pytest.approx(products("compact") / 2, rel=0.05)


def test_the_compact_network_exports_for_batches_of_any_size() -> None:
    model = Recognizer("compact", SOME, 32).eval()
    batch = {"images": {0: torch.export.Dim("batch")}}
    exported = torch.export.export(model, (pictures(2),), dynamic_shapes=batch).module()
    with torch.inference_mode():
        for count in (1, 5):
            assert torch.allclose(exported(pictures(count)), model(pictures(count)), atol=1e-6)


def test_compact_weights_that_learnt_without_equalisation_are_refused(tmp_path: Path) -> None:
    model = Recognizer("compact", SOME, 32)
    older = content(model)
    older["ema"] = {name: value for name, value in model.state_dict().items() if name != "backbone.evened.strength"}
    torch.save(older, tmp_path / "older.pt")
    with pytest.raises(DataError, match=r"evened\.strength"):
        load_recognizer(tmp_path / "older.pt")


def test_an_unknown_arch_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown arch 'efficientnet_v2': did you mean efficientnet_v2_s\?"):
        Recognizer("efficientnet_v2", SOME, 32)


def test_checking_a_name_loads_no_torch() -> None:
    code = "import sys; from hcr.models import require_arch; require_arch('vgg19_bn'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@needs_timm
def test_timm_names_are_checked_before_anything_is_built() -> None:
    require_arch("timm:resnet18")
    with pytest.raises(UsageError, match=r"'timm:resnet_18': timm has no such model; did you mean timm:resnet18"):
        require_arch("timm:resnet_18")
    # Nothing may be fetched: neither a repository nor released weights can be named.
    for name in ("timm:hf-hub:timm/resnet18.a1_in1k", "timm:resnet18.a1_in1k", "timm:"):
        with pytest.raises(UsageError, match="timm has no such model"):
            require_arch(name)


def test_without_timm_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # Python's own way to say that a package is not there
    with pytest.raises(UsageError, match=r"pip install 'hcr\[timm\]'"):
        require_arch("timm:resnet18")


@needs_timm
def test_a_network_that_needs_larger_pictures_says_so_when_it_is_built() -> None:
    with pytest.raises(UsageError, match=r"timm:inception_v3 does not take pictures of 32 px \(.*[kK]ernel size"):
        Recognizer("timm:inception_v3", SOME, 32)


@needs_timm
def test_trying_a_timm_network_leaves_no_trace() -> None:
    import timm

    torch.manual_seed(3)
    ours = Recognizer("timm:test_efficientnet", SOME, 32).backbone.state_dict()
    after = torch.rand(1)
    torch.manual_seed(3)
    theirs = timm.create_model("test_efficientnet", in_chans=1, num_classes=5).state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs) and torch.equal(after, torch.rand(1))


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
    with pytest.raises(DataError, match=r"head\.2\.weight is \[5, 368\], expected \[3, 368\]"):
        load_recognizer(path)
    torch.save(good | {"ema": {}}, path)
    with pytest.raises(DataError, match="is only in the model"):
        load_recognizer(path)
    torch.save(good | {"preprocessing": {"version": 0}}, path)
    with pytest.raises(DataError, match="this program prepares by"):
        load_recognizer(path)
    torch.save(good | {"arch": "compacter"}, path)
    with pytest.raises(UsageError, match=r"a\.pt: unknown arch 'compacter': did you mean compact\?"):
        load_recognizer(path)
