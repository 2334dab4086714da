"""Drawn pages: pictures that are functions of seed and sample, papers, crops, and fitting as the preprocessing fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from hcr.cli.data import main
from hcr.feed import synthetic as feed
from hcr.feed.sampler import EndlessBatches
from hcr.feed.synthetic import TRAINING_WRITERS, SyntheticBatches
from hcr.preprocess.fit import fit_square, to_paper
from hcr.synth import Generator
from hcr.synth.fitting import Crops, fit_crops, fit_ink, inside
from hcr.synth.pages import (
    CAPTURES,
    COMMON,
    LEVEL,
    RIM,
    are_pages,
    capture_pages,
    common_labels,
    draw_crops,
    papers_of,
)
from hcr.synth.ruling import PAPERS
from hcr.synth.running import forms
from hcr.synth.style import Manner

CHARACTERS = "一二十永国鼎的是我口"
COUNT = 240


@pytest.fixture(scope="module")
def pen() -> Generator:
    return Generator(CHARACTERS)


def who(count: int = COUNT) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return labels, writers, numbers and samples."""
    place = torch.arange(count)
    return place % len(CHARACTERS), place + (1 << 30), place * 0, place


@pytest.fixture(scope="module")
def pictures(pen: Generator) -> Tensor:
    return draw_crops(pen, *who(), seed=3, size=64)


def test_pictures_have_the_shape_of_a_batch_and_ink(pictures: Tensor) -> None:
    assert pictures.shape == (COUNT, 1, 64, 64) and pictures.dtype == torch.uint8
    darkest = pictures.flatten(1).amin(1)
    assert (darkest < 128).float().mean() > 0.95, "where the preprocessing finds nothing, nothing is left"
    white = (pictures == 255).flatten(1).float().mean(1)
    assert white.median() > 0.6


@pytest.mark.parametrize("size", [32, 48, 64])
def test_any_size(pen: Generator, size: int) -> None:
    assert draw_crops(pen, *who(9), seed=0, size=size).shape == (9, 1, size, size)
    assert draw_crops(pen, *(each[:0] for each in who(9)), seed=0, size=size).shape == (0, 1, size, size)


def test_a_picture_does_not_depend_on_its_batch(pen: Generator, pictures: Tensor) -> None:
    state = torch.get_rng_state()
    some = torch.tensor([7, 200, 31, 118, 5])
    alone = torch.cat([draw_crops(pen, *(each[i : i + 1] for each in who()), seed=3, size=64) for i in some.tolist()])
    assert torch.equal(alone, pictures[some])
    together = draw_crops(pen, *(each[some] for each in who()), seed=3, size=64)
    assert torch.equal(together, pictures[some])
    assert torch.equal(state, torch.get_rng_state())


def test_seed_and_sample_make_the_picture(pen: Generator, pictures: Tensor) -> None:
    labels, writers, numbers, samples = (each[:40] for each in who())
    for seed, shift in ((4, 0), (3, 1)):
        other = draw_crops(pen, labels, writers, numbers, samples + shift, seed=seed, size=64)
        assert (other != pictures[:40]).flatten(1).any(1).all()


def test_every_kind_of_paper_occurs_as_often_as_said() -> None:
    kinds = papers_of(torch.arange(4000), seed=0)
    counts = torch.bincount(kinds, minlength=len(PAPERS)) / len(kinds)
    for name, count in zip(PAPERS, counts.tolist(), strict=True):
        assert abs(count - PAPERS[name]) < 0.03, name
    assert sum(PAPERS.values()) == pytest.approx(1)


def test_crops_hold_the_ink_of_the_character_and_few_to_many_pixels(pen: Generator) -> None:
    sides, seen = [], 0
    for chosen, crops, _, _ in capture_pages(pen, *who(), seed=3):
        longest = (crops.box[:, 2:] - crops.box[:, :2]).amax(1)
        side = crops.grey.shape[-1]
        assert side in dict(CAPTURES) and (longest <= side - RIM + 2).all()
        assert crops.grey.min() >= 0 and crops.grey.max() <= 1
        assert ((crops.grey * 255).round() - crops.grey * 255).abs().max() < 0.001, "cameras give bytes"
        within = torch.where(inside(crops.box, side), crops.grey, torch.nan).flatten(1)
        low, high = (within.nanquantile(share, 1) for share in (0.02, 0.8))
        seen += int((low < 0.92 * high).sum())
        sides += longest.tolist()
        assert len(chosen) == len(longest)
    assert len(sides) == COUNT and seen > 0.97 * COUNT, "ink is darker than its paper"
    assert min(sides) < 20 and max(sides) > 65


def test_neighbours_reach_into_some_crops(pen: Generator) -> None:
    """The same character by the same hand, with 国 or with 一 all around: what differs is the neighbours' ink."""
    labels, writers, numbers, samples = who(120)
    given = labels * 0, writers, numbers, samples
    crops = [draw_crops(Generator(pair), *given, seed=0, size=64) for pair in ("永国", "永一")]
    changed = (crops[0] != crops[1]).flatten(1).any(1).float().mean()
    assert 0.2 < changed < 0.9


def test_share_of_pages_and_of_common_characters() -> None:
    samples = torch.arange(20_000)
    assert abs(are_pages(samples, 5, 0.3).float().mean() - 0.3) < 0.02
    assert not are_pages(samples, 5, 0.0).any() and are_pages(samples, 5, 1.0).all()
    characters = "丁" + COMMON + "鼎"
    labels = common_labels(torch.full_like(samples, len(characters) - 1), samples, 5, characters)
    drawn = np.bincount(labels.numpy(), minlength=len(characters)) / len(samples)
    assert 0.73 < drawn[-1] < 0.77
    assert drawn[characters.index("的")] > 0
    assert drawn[characters.index("一")] > 3 * drawn[characters.index("爱")] > 0
    assert set(LEVEL) & set(COMMON) and len(set(COMMON)) == len(COMMON)


def test_charset_without_common_characters_keeps_its_labels() -> None:
    samples = torch.arange(100)
    assert torch.equal(common_labels(samples % 2, samples, 0, "鼎龟"), samples % 2)


def test_running_forms_are_lines_in_the_box() -> None:
    assert len(forms()) > 35 and set(forms()) <= set(COMMON) | set("书平")
    for char, found in forms().items():
        for stroke in [stroke for form in found for stroke in form]:
            assert stroke.shape[1] == 2 and len(stroke) > 1 and stroke.min() >= 0 and stroke.max() <= 1, char


def test_running_forms_are_written_by_pages_alone(pen: Generator) -> None:
    labels = torch.full((60,), CHARACTERS.index("是"))
    _, writers, numbers, _ = who(60)
    none = torch.zeros(60)
    usual = Manner(none, none, none)
    plain, _ = pen.write(labels, writers, numbers, seed=0, manner=usual, quick=none > 0)
    quick, _ = pen.write(labels, writers, numbers, seed=0, manner=usual, quick=none == 0)
    assert not torch.equal(plain.points, quick.points)
    without = torch.full((60,), CHARACTERS.index("鼎"))
    masks = none > 0, none == 0
    one, two = (pen.write(without, writers, numbers, seed=0, manner=usual, quick=mask)[0] for mask in masks)
    assert torch.equal(one.points, two.points), "鼎 has no form of its own"


def test_quick_hands_join_more_and_leave_tails(pen: Generator) -> None:
    labels, writers, numbers, _ = who(200)
    none = torch.zeros(200)

    def written(hurry: float, tail: float) -> tuple[int, int]:
        manner = Manner(none + hurry, none, none + tail)
        path, _ = pen.write(labels, writers, numbers, seed=0, manner=manner, quick=none > 0)
        return len(path.path.unique()), len(path.path)

    usual, hurried, tailed = written(0, 0), written(0.5, 0), written(0, 1)
    assert hurried[0] < 0.8 * usual[0], "fewer strokes, as more are joined"
    assert tailed[0] == usual[0] and tailed[1] > usual[1], "as many strokes, and longer"


def test_ink_is_fitted_as_the_preprocessing_fits_it(pen: Generator) -> None:
    labels, writers, numbers, _ = who(60)
    for size in (24, 72):
        page = pen.draw_page(labels, writers, numbers, seed=0, size=size)
        box = torch.tensor([[0, 0, size, size]]).expand(60, 4)
        fitted = fit_ink(255 - page.float(), box, 64)
        for picture, square in zip(page.numpy(), fitted.numpy(), strict=True):
            expected = fit_square(picture, 64).astype(int)
            assert np.abs(square - expected).mean() < 0.5
            assert (np.abs(square - expected) > 8).mean() < 0.01


def test_paper_is_taken_off_as_the_preprocessing_takes_it_off(pen: Generator) -> None:
    """Shaded, noisy paper: the two agree on what is ink, but for its soft edge."""
    labels, writers, numbers, _ = who(40)
    page = pen.draw_page(labels, writers, numbers, seed=0, size=64).float() / 255
    shade = torch.linspace(0.6, 0.9, 64)
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.01, (40, 64, 64))).float()
    grey = ((0.25 + 0.75 * page) * shade + noise).clamp(0, 1).mul(255).round() / 255
    box = torch.tensor([[0, 0, 64, 64]]).expand(40, 4)
    squares = fit_crops(Crops(grey, box), 64, torch.zeros(40, dtype=torch.bool), torch.ones(40)).numpy()
    agreed = []
    for picture, square in zip(grey.numpy(), squares, strict=True):
        expected = fit_square(to_paper(Image.fromarray((picture * 255).astype(np.uint8))), 64)
        dark = square < 128, expected < 128
        agreed.append((dark[0] & dark[1]).sum() / max(1, (dark[0] | dark[1]).sum()))
    assert np.median(agreed) > 0.8


def test_nothing_outside_a_crop_is_seen(pen: Generator) -> None:
    labels, writers, numbers, _ = who(20)
    page = pen.draw_page(labels, writers, numbers, seed=0, size=64).float() / 255
    box = torch.tensor([[16, 12, 52, 50]]).expand(20, 4)
    other = torch.where(inside(box, 64), page, 0.3)
    squares = [fit_crops(Crops(each, box), 64, torch.arange(20) % 2 == 0, torch.ones(20)) for each in (page, other)]
    assert torch.equal(*squares)


def test_the_stream_mixes_pages_with_clean_crops() -> None:
    order = EndlessBatches(96, 32, seed=0)
    given = {"writers": TRAINING_WRITERS, "seed": 3, "size": 64}
    clean, mixed, again = (list(SyntheticBatches(CHARACTERS, order, pages=share, **given)) for share in (0.0, 0.5, 0.5))
    for one, two, three in zip(clean, mixed, again, strict=True):
        assert torch.equal(two.images, three.images) and torch.equal(two.labels, three.labels)
        paged = are_pages(two.index, 3, 0.5)
        assert torch.equal(one.images[~paged], two.images[~paged])
        assert torch.equal(one.labels[~paged], two.labels[~paged])
        assert (one.images[paged] != two.images[paged]).flatten(1).any(1).all()
    whole = list(SyntheticBatches(CHARACTERS, order, pages=1.0, **given))
    for one, two in zip(mixed, whole, strict=True):
        paged = are_pages(one.index, 3, 0.5)
        assert torch.equal(one.images[paged], two.images[paged]) and one.clean is None
    taught = list(SyntheticBatches(CHARACTERS, order, pages=1.0, taught=True, **given))
    for one, two in zip(whole, taught, strict=True):
        assert torch.equal(one.images, two.images) and two.clean is not None
    halves = EndlessBatches(96, 32, seed=0, rank=1, world=2)
    for one, half in zip(mixed, SyntheticBatches(CHARACTERS, halves, pages=0.5, **given), strict=True):
        assert torch.equal(one.images[1::2], half.images), "a rank draws what one process would"


def test_photographs_are_fitted_alike() -> None:
    """The photographs at hand: torch's fitting and the preprocessing agree on most of their ink."""
    folder = Path(__file__).parents[2] / "shared/photos"
    if not folder.is_dir():
        pytest.skip("no photographs here")
    agreed = []
    for path in sorted(folder.glob("*.png"))[:60]:
        image = Image.open(path).convert("L")
        side = 8 * (max(image.size) // 8 + 1)
        grey = torch.ones(1, side, side)
        values = torch.from_numpy(np.asarray(image).astype(np.float32) / 255)
        grey[0, : image.height, : image.width] = values
        box = torch.tensor([[0, 0, image.width, image.height]])
        square = fit_crops(Crops(grey, box), 64, torch.zeros(1, dtype=torch.bool), torch.ones(1))[0].numpy()
        dark = square < 128, fit_square(to_paper(image), 64) < 128
        agreed.append((dark[0] & dark[1]).sum() / max(1, (dark[0] | dark[1]).sum()))
    assert np.median(agreed) > 0.7


def test_a_sheet_shows_crops_above_what_a_network_sees(tmp_path: Path) -> None:
    file = tmp_path / "few.txt"
    file.write_text("\n".join(CHARACTERS), "utf-8")
    out = tmp_path / "sheet.png"
    done = CliRunner().invoke(main, ["pages", "--charset", str(file), "--count", "20", "--out", str(out)])
    assert done.exit_code == 0, done.output
    sheet = np.asarray(Image.open(out))
    side = max(side for side, _ in CAPTURES)
    assert sheet.shape == (2 * (side + 68) + 2, 16 * (side + 2) + 2)
    assert f"{sheet.shape[1]} × {sheet.shape[0]} pixels" in done.output
    labels = common_labels(torch.from_numpy(feed._labels(np.arange(20), 10, 0)), torch.arange(20), 0, CHARACTERS)
    place = torch.arange(20)
    drawn = draw_crops(Generator(CHARACTERS), labels, place + TRAINING_WRITERS.start, place * 0, place, seed=0, size=64)
    top, left = 2 + (side + 68) + side + 2, 2 + (side - 64) // 2
    assert np.array_equal(sheet[top : top + 64, left : left + 64], drawn[16, 0].numpy())
