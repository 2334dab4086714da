"""Degradations: what each does, and that it is a function of pictures, seed and step."""

import pytest
import torch

from hcr.feed.degrade import _EFFECTS, SHARES, Chances, degrade
from hcr.synth import Generator

CHARACTERS = "永国鼎道龟"


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    places = torch.arange(200)
    return Generator(CHARACTERS).draw(places % 5, places, places * 0, seed=0, size=64)


def test_degraded_pictures_are_pictures(pictures: torch.Tensor) -> None:
    poor = degrade(pictures, seed=0, step=0)
    assert poor.dtype == torch.uint8 and poor.shape == pictures.shape
    changed = (poor != pictures).flatten(1).any(1).float().mean()
    assert 0.5 < changed < 0.95
    assert (poor.flatten(1).amin(1).int() < poor.flatten(1).amax(1).int() - 25).all(), "something is still to be read"


def test_same_seed_and_step_give_the_same_pictures(pictures: torch.Tensor) -> None:
    state = torch.get_rng_state()
    once = degrade(pictures, seed=1, step=2)
    assert torch.equal(once, degrade(pictures, seed=1, step=2))
    assert torch.equal(state, torch.get_rng_state())
    for seed, step in ((1, 3), (2, 2)):
        assert not torch.equal(once, degrade(pictures, seed=seed, step=step))


@pytest.mark.parametrize("size", [32, 44, 64])
def test_any_size_and_small_batches(size: int) -> None:
    empty = torch.full((40, 1, size, size), 255, dtype=torch.uint8)
    assert degrade(empty, seed=0, step=0).shape == empty.shape
    assert degrade(empty[:1], seed=0, step=0).shape == (1, 1, size, size)
    assert degrade(empty[:0], seed=0, step=0).shape == (0, 1, size, size)


def test_effects_do_what_they_are_named_after(pictures: torch.Tensor) -> None:
    ink = (255 - pictures[:40].float()) / 255
    chances = Chances.draw(torch.arange(40) + 12345)
    amount = {name: effect(ink.clone(), chances) for name, effect in _EFFECTS.items()}
    mean = {name: values.mean() / ink.mean() for name, values in amount.items()}
    assert mean["bolder"] > 1.2 and mean["thinner"] < 0.95 and mean["lose"] < 0.9 and mean["faint"] < 0.8
    assert mean["move"] < 0.95 and mean["tint"] > 1.1 and mean["specks"] > 1.002 and mean["lines"] > 1.02
    assert mean["blur"] == pytest.approx(1, abs=0.02) and mean["coarse"] == pytest.approx(1, abs=0.05)
    assert mean["compress"] == pytest.approx(1, abs=0.1) and mean["noise"] == pytest.approx(1, abs=0.05)
    assert amount["thinner"].sum((1, 2, 3)).div(ink.sum((1, 2, 3))).min() < 0.45, "lines of 3 pixels lose 2 of them"
    grey = ((ink > 0.2) & (ink < 0.8)).float().mean()
    hard = amount["harden"]
    assert ((hard > 0.2) & (hard < 0.8)).float().mean() < 0.7 * grey and (hard[ink == 0] == 0).all()
    for name in ("blur", "coarse"):
        assert amount[name].std() < ink.std()
    rim = ink[:, :, :4].sum() + ink[:, :, -4:].sum() + ink[:, :, :, :4].sum() + ink[:, :, :, -4:].sum()
    cut = amount["crop"]
    assert cut[:, :, :4].sum() + cut[:, :, -4:].sum() + cut[:, :, :, :4].sum() + cut[:, :, :, -4:].sum() > rim
    assert set(_EFFECTS) == set(SHARES)
