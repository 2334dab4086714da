"""What a person looks at in a run folder: the contact sheet, the table, the curves, TensorBoard's events."""

from __future__ import annotations

import csv
import errno
import json
import math
import resource
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hcr.charset import Charset
from hcr.feed.augment import augment
from hcr.feed.sampler import epoch_order
from hcr.pack.store import open_reader
from hcr.training import Execution, TrainConfig, train
from hcr.training.artefacts import RunArtefacts, curves_svg
from tests.runs import GIVEN, Watcher

SVG = "{http://www.w3.org/2000/svg}"


def row_of(epoch: int, **others: Any) -> dict[str, Any]:
    row = {"epoch": epoch, "step": 4 * epoch, "lr": 1e-3 / epoch, "train_loss": 8 / epoch, "train_top1": epoch / 10}
    return {**row, "val_loss": 7 / epoch, "val_top1": 0.5 - abs(epoch - 3) / 10, "val_n": 12, **others}


def record(run: Path, rows: list[dict[str, Any]]) -> None:
    run.mkdir(exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_the_contact_sheet_is_the_first_batch_as_the_network_sees_it(whole: Path, small_pack: Path) -> None:
    reader = open_reader(small_pack / "train.lmdb")
    indices = epoch_order(len(reader), GIVEN["seed"], 0)[: GIVEN["batch_size"]]
    pictures = np.empty((len(indices), 32, 32), np.uint8)
    reader.pictures(indices, pictures)
    seen = augment(torch.from_numpy(pictures)[:, None], GIVEN["seed"], 0)[:, 0].numpy()
    with Image.open(whole / "first-batch.png") as sheet:
        pixels, named = np.asarray(sheet), sheet.text["characters"].split("\n")  # type: ignore[attr-defined]
    assert pixels.shape == (3 * 33 - 1, 8 * 33 - 1)
    for place, (picture, index) in enumerate(zip(seen, indices, strict=True)):
        row, column = divmod(place, 8)
        assert (pixels[row * 33 : row * 33 + 32, column * 33 : column * 33 + 32] == picture).all()
        assert named[row][column] == reader.charset.characters[reader.labels[index]]
    assert not (seen == pictures).all() and [len(line) for line in named] == [8, 8, 4]
    assert len(np.unique(pixels[32])) == 1 and pixels[32, 0] not in (0, 255)


def test_the_contact_sheet_shows_64_pictures_at_most(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (100, 1, 40, 40), dtype=torch.uint8)
    RunArtefacts(tmp_path, Charset("一丁七"), tensorboard=False).first_batch(images, torch.arange(100) % 3)
    with Image.open(tmp_path / "first-batch.png") as sheet:
        assert sheet.size == (8 * 41 - 1, 8 * 41 - 1)
        assert sheet.text["characters"].replace("\n", "") == ("一丁七" * 22)[:64]  # type: ignore[attr-defined]


def test_the_table_has_every_epoch_and_every_column(tmp_path: Path) -> None:
    rows = [row_of(1), {"epoch": 2, "step": 8, "lr": 0.0005, "later": 1}]
    record(tmp_path, rows)
    RunArtefacts(tmp_path, Charset("一丁"), tensorboard=False).epoch()
    lines = (tmp_path / "metrics.csv").read_bytes().decode("utf-8").split("\n")
    assert lines[0] == "epoch,step,lr,train_loss,train_top1,val_loss,val_top1,val_n,later" and lines[-1] == ""
    first, second = csv.DictReader(lines)
    assert [float(first[key]) for key in rows[0]] == list(rows[0].values()) and first["later"] == ""
    assert second["val_top1"] == "" and second["later"] == "1"


def test_a_run_leaves_table_and_curves_of_all_its_epochs(whole: Path) -> None:
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    table = list(csv.DictReader((whole / "metrics.csv").read_text("utf-8").splitlines()))
    assert [{key: float(value) for key, value in line.items()} for line in table] == rows
    best = max(rows, key=lambda row: row["val_top1"])
    title = texts((whole / "curves.svg").read_text("utf-8"))[0]
    assert title == f"run: epoch 3, best epoch {best['epoch']} with val top-1 {best['val_top1']:.2%} of 12"
    assert not (whole / "tensorboard").exists()


def test_curves_have_a_point_an_epoch_where_its_value_belongs() -> None:
    rows = [row_of(epoch) for epoch in range(1, 6)]
    svg = curves_svg(rows, "a <run>")
    assert texts(svg)[0] == "a <run>: epoch 5, best epoch 3 with val top-1 50.00% of 12"
    assert {
        "train 1.600",
        "val 1.400",
        "train 50.00%",
        "val 30.00%",
        "dashed: learning rate, at most 0.001; the best epoch",
    } <= set(texts(svg))
    assert "prefers-color-scheme: dark" in svg
    drawn = list(ElementTree.fromstring(svg).iter(f"{SVG}polyline"))
    assert [element.get("class") for element in drawn] == ["faint", "two", "one", "two", "one"]
    curves = [[tuple(map(float, at.split(","))) for at in (line.get("points") or "").split()] for line in drawn]
    assert all(len(curve) == 5 for curve in curves)
    # Heights are as far apart as the values: val_top1 rises by 0.2 to epoch 3, and falls by 0.2.
    heights = [y for _, y in curves[4]]
    assert heights[0] == heights[4] and heights[0] - heights[2] == pytest.approx(2 * (heights[0] - heights[1]), abs=0.2)
    # A dashed line stands where the best epoch is, in both panels.
    places = {line.get("x1") for line in ElementTree.fromstring(svg).iter(f"{SVG}line") if line.get("class") == "faint"}
    assert places == {f"{curve[2][0]:.1f}" for curve in (curves[1], curves[3])}


def test_curves_of_few_many_and_broken_epochs() -> None:
    single = curves_svg([row_of(1)], "run")
    assert single.count("<circle") == 4
    bare = {key: value for key, value in row_of(1).items() if not key.startswith("val")}
    assert texts(curves_svg([bare], "run"))[0] == "run: epoch 1"
    assert not any(text.startswith("val") for text in texts(curves_svg([bare], "run")))
    many = curves_svg([row_of(epoch, val_top1=0.5) for epoch in range(1, 501)], "run")
    assert "<circle" not in many and 4 <= len([text for text in texts(many) if text.endswith("00")]) // 2 <= 10
    # A loss that is not finite is a gap, and no file that cannot be read.
    gap = curves_svg([row_of(epoch, val_loss=math.nan if epoch == 3 else 1.0) for epoch in range(1, 6)], "run")
    lengths = [len((line.get("points") or "").split()) for line in ElementTree.fromstring(gap).iter(f"{SVG}polyline")]
    assert lengths == [5, 5, 2, 2, 5, 5] and "nan" not in gap
    everything = row_of(1, train_loss=math.inf, val_loss=math.nan, val_top1=0.0, train_top1=0.0)
    assert "inf" not in curves_svg([everything], "run") and "nan" not in curves_svg([everything], "run")


def scalars(run: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_tensorboard_shows_every_epoch_once_however_often_the_run_was_started(small_pack: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for resume, epochs in ((False, 2), (True, 3)):

        def stop(steps: int = 4 * epochs - 1) -> None:
            raise KeyboardInterrupt(steps)

        execution = Execution("cpu", workers=0, checkpoint_every=100, tensorboard=True)
        with pytest.raises(KeyboardInterrupt):
            train(TrainConfig(**GIVEN), small_pack, run, execution, Watcher(4 * epochs - 1, stop), resume=resume)
    # Epoch 1 was written by the first start, 2 by the second, which the third one goes on from.
    train(TrainConfig(**GIVEN), small_pack, run, execution, Watcher(), resume=True)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for tag, key in (("loss/train", "train_loss"), ("top1/val", "val_top1"), ("lr", "lr"), ("epoch", "epoch")):
        assert scalars(run, tag) == [(row["step"], pytest.approx(row[key], rel=1e-6)) for row in rows]
    assert [step for step, _ in scalars(run, "lr")] == [4, 8, 12]
    assert len(list((run / "tensorboard").iterdir())) == 3


def test_a_tensorboard_that_looks_on_forgets_what_an_earlier_start_wrote(tmp_path: Path) -> None:
    record(tmp_path, [row_of(1), row_of(2)])
    charset = Charset("一丁")
    RunArtefacts(tmp_path, charset, tensorboard=True).epoch()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("lr")] == [4, 8]
    record(tmp_path, [row_of(1, lr=0.5)])
    RunArtefacts(tmp_path, charset, tensorboard=True).epoch()
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("lr")] == [(4, 0.5)]


def test_without_tensorboard_its_flag_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['tensorboard'] = None\n"
        "from pathlib import Path\nfrom hcr.charset import Charset\nfrom hcr.training.artefacts import RunArtefacts\n"
        f"RunArtefacts(Path({str(tmp_path)!r}), Charset('一丁'), tensorboard=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        "hcr.errors.UsageError: --tensorboard needs the package tensorboard; pip install 'hcr[tensorboard]'"
    )


def test_a_view_that_cannot_be_written_leaves_the_older_one(tmp_path: Path) -> None:
    record(tmp_path, [row_of(1)])
    artefacts = RunArtefacts(tmp_path, Charset("一丁"), tensorboard=False)
    artefacts.epoch()
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    record(tmp_path, [row_of(1), row_of(2)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
    try:
        with pytest.raises(OSError) as full:
            artefacts.epoch()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert full.value.errno == errno.EFBIG
    (tmp_path / "metrics.jsonl").write_bytes(kept["metrics.jsonl"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
