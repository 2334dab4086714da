"""How much memory a step takes: what is counted, and which batch size follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hcr.errors import UsageError
from hcr.training import Execution, TrainConfig
from hcr.training.distributed import Processes
from hcr.training.memory import Memory, _waiting, batch_that_fits, estimate, find_batch, fitting, line_through
from hcr.training.setup import RunSetup, set_up_run
from tests.runs import GIVEN, Watcher, end_of

Planned = Callable[..., RunSetup]


@pytest.fixture
def planned(small_pack: Path, tmp_path: Path) -> Planned:
    def setup(**given: Any) -> RunSetup:
        return set_up_run(
            TrainConfig(**GIVEN | given), small_pack, tmp_path / "run", Execution("cpu"), Processes(), Watcher()
        )[0]

    return setup


def test_what_waits_for_the_backward_pass_is_counted_once() -> None:
    inputs, first, second = torch.rand(10, 100), nn.Linear(100, 50), nn.Linear(50, 50)

    def step() -> None:
        hidden = first(inputs).sigmoid()
        # The same 10 × 50 floats wait for sigmoid, for both layers and for the product; the weights are ours anyway.
        (second(hidden) + second(hidden) + hidden * hidden).sum().backward()

    own = [*first.parameters(), *second.parameters()]
    assert _waiting(step, own) == (10 * 100 + 10 * 50) * 4
    assert _waiting(step, []) == (10 * 100 + 10 * 50 + 50 * 50) * 4


def test_the_estimate_counts_what_a_checkpoint_holds(planned: Planned, whole: Path) -> None:
    memory, (content, _) = estimate(planned()), end_of(whole)
    trained = sum(tensor.nbytes for kept in content["optimizer"]["state"].values() for tensor in kept.values())
    average = sum(tensor.nbytes for tensor in content["ema"].values())
    # A gradient is as large as a moment, and of those there are two; and each weight's count of steps.
    assert memory.upkeep == pytest.approx(average + trained * 1.5, rel=1e-3)
    assert memory.weights == pytest.approx(average, rel=1e-3)
    assert memory.pictures == GIVEN["batch_size"]
    assert memory.total == memory.weights + memory.upkeep + memory.step + 20 * memory.picture


def test_the_estimate_follows_the_settings(planned: Planned, tmp_path: Path) -> None:
    plain = estimate(planned())
    # Maps of 16 × 16 at 12 channels and 32 after the first convolution are the least that can wait.
    assert plain.picture > 16 * 16 * (12 + 32) * 4
    half = estimate(planned(precision="bf16"))
    assert half.weights == plain.weights and 0.4 * plain.picture < half.picture < 0.8 * plain.picture
    # Copies of the weights at that precision wait too, whatever the batch.
    assert half.step > plain.step + plain.weights // 3
    parts = estimate(planned(accumulate=3))
    assert parts.pictures == 7 and replace(parts, pictures=20) == plain
    assert not (tmp_path / "run").exists()


def test_the_estimate_counts_a_teachers_weights(planned: Planned, whole: Path) -> None:
    alone, taught = estimate(planned()), estimate(planned(teacher=str(whole / "checkpoints/best.pt")))
    # It is as large as the network that it teaches; its maps do not wait, only its answers do.
    assert taught.weights == pytest.approx(2 * alone.weights, rel=1e-3)
    assert taught.upkeep == alone.upkeep and alone.picture < taught.picture < 1.01 * alone.picture


def test_an_estimate_is_what_more_pictures_take(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    few = estimate(planned())
    monkeypatch.setattr("hcr.training.memory.FEW", 10)
    monkeypatch.setattr("hcr.training.memory.MORE", 20)
    many = estimate(planned())
    assert few.step + few.picture * 20 == pytest.approx(many.step + many.picture * 20, rel=0.02)


def test_the_batch_that_fits_uses_nine_tenths_in_eights() -> None:
    memory = Memory(weights=1000, upkeep=4000, step=400, picture=10, pictures=64)
    assert fitting(memory, 1, 10_000) == 360
    assert fitting(memory, 1, 9_990) == 352
    assert fitting(memory, 4, 10_000) == 1440
    assert fitting(memory, 1, 6_000) == 0 and fitting(memory, 1, 100) == 0


def test_a_line_goes_through_two_points_and_never_falls() -> None:
    assert line_through((2, 120), (4, 220)) == (20, 50)
    assert line_through((2, 100), (4, 240)) == (0, 70)
    assert line_through((2, 100), (4, 60)) == (98, 1)


def test_memory_that_ran_out_is_free_again_when_a_batch_is_looked_for(planned: Planned) -> None:
    setup = planned()
    freed: list[bool] = []

    class Held:
        def __del__(self) -> None:
            freed.append(True)

    def step() -> None:
        held = Held()
        raise torch.OutOfMemoryError(f"out of memory beside {held}")

    try:
        step()
    except torch.OutOfMemoryError:
        assert not freed
        capacity = estimate(setup).total * 4
        assert not freed
        fits = batch_that_fits(setup, capacity)
        assert freed
    assert fits and fits % 8 == 0
    memory = replace(estimate(setup), pictures=fits)
    assert memory.total <= 0.9 * capacity < memory.total + 8 * memory.picture
    assert batch_that_fits(setup, 1000) is None


def test_batches_are_tried_on_a_gpu_only(planned: Planned) -> None:
    watcher = Watcher()
    with pytest.raises(
        UsageError, match=r"^--find-batch: measures a GPU's memory, and this is a CPU; use --device cuda"
    ):
        find_batch(planned(), watcher)
    assert not watcher.notes
