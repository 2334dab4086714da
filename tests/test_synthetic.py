"""The drawn corpus: layout, resumption, refusals."""

import hashlib
import json
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hcr.charset import Charset
from hcr.corpus import synthetic
from hcr.corpus.synthetic import draw_corpus, spread
from hcr.errors import DataError, UsageError

CHARSET = spread(Charset.level1(), 40)


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _records(path: Path) -> list[tuple[str, np.ndarray]]:
    raw, at, records = path.read_bytes(), 0, []
    while at < len(raw):
        size, tag, width, height = struct.unpack_from("<I2sHH", raw, at)
        assert size == 10 + width * height
        records.append(
            (tag.decode("gbk"), np.frombuffer(raw, np.uint8, width * height, at + 10).reshape(height, width))
        )
        at += size
    return records


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "drawn"
    made = draw_corpus(folder, CHARSET, writers=6, seed=1)
    assert (made.characters, made.train_writers, made.test_writers, made.drawn_files) == (40, 5, 1, 6)
    return folder


def test_layout_is_a_file_a_writer(corpus: Path) -> None:
    train = [f"train/{writer:04d}.gnt" for writer in range(1, 6)]
    assert sorted(_digests(corpus)) == ["drawn.json", "test/0006.gnt", *train]
    for path in corpus.rglob("*.gnt"):
        assert "".join(char for char, _ in _records(path)) == CHARSET.characters


def test_pictures_are_cropped_to_the_ink(corpus: Path) -> None:
    sides = []
    for path in corpus.rglob("*.gnt"):
        for char, picture in _records(path):
            ink = picture < 255
            assert ink[0].any() and ink[-1].any() and ink[:, 0].any() and ink[:, -1].any(), char
            assert ink.mean() > 0.05
            sides.append(max(picture.shape))
        assert (np.concatenate([picture.ravel() for _, picture in _records(path)]) == 255).mean() > 0.4
    assert 60 < np.median(sides) < 110


def test_run_again_draws_only_what_is_missing(corpus: Path) -> None:
    before = _digests(corpus)
    kept = corpus / "train" / "0001.gnt"
    time = kept.stat().st_mtime_ns
    (corpus / "train" / "0003.gnt").unlink()
    (corpus / "test" / "0006.gnt").unlink()
    (corpus / "train" / ".0003.gnt.77.tmp").write_bytes(b"cut short")
    seen: list[tuple[int, int | None]] = []
    made = draw_corpus(corpus, CHARSET, writers=6, seed=1, progress=lambda *step: seen.append(step))
    assert made.drawn_files == 2
    assert _digests(corpus) == before
    assert kept.stat().st_mtime_ns == time
    assert seen == [(160, 240), (40, 240), (40, 240)]


def test_processes_draw_the_same_bytes(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_WORTH_POOL", 0)
    monkeypatch.setattr(synthetic, "usual_processes", lambda: 2)
    draw_corpus(tmp_path / "drawn", CHARSET, writers=6, seed=1)
    assert _digests(tmp_path / "drawn") == _digests(corpus)


def test_another_seed_draws_other_pictures(corpus: Path, tmp_path: Path) -> None:
    draw_corpus(tmp_path, CHARSET, writers=1, seed=2)
    assert not (tmp_path / "test").exists()
    ours, theirs = _digests(tmp_path), _digests(corpus)
    assert ours["train/0001.gnt"] not in theirs.values()
    assert len(set(theirs.values())) == len(theirs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 9}, "drawn with --seed 1, now --seed 9;"),
        ({"writers": 7}, "6 writers there, 7 requested;"),
        ({"charset": spread(CHARSET, 39)}, f"{len(CHARSET)} characters there, 39 requested;"),
        (
            {"charset": Charset(["龟", *CHARSET.characters[1:]])},
            f"{len(CHARSET)} characters there, 40 others requested;",
        ),
    ],
)
def test_other_settings_are_refused(corpus: Path, change: dict[str, object], message: str) -> None:
    before = _digests(corpus)
    settings = {"charset": CHARSET, "writers": 6, "seed": 1} | change
    with pytest.raises(UsageError) as caught:
        draw_corpus(corpus, **settings)
    assert message in str(caught.value) and "choose another --out" in str(caught.value)
    assert _digests(corpus) == before


def test_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1001-c.gnt").write_bytes(b"")
    with pytest.raises(UsageError, match="holds files but no drawn"):
        draw_corpus(tmp_path, CHARSET, writers=2, seed=1)
    assert list(tmp_path.iterdir()) == [tmp_path / "1001-c.gnt"]


def test_damaged_settings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "drawn.json").write_text("{")
    with pytest.raises(DataError, match=r"drawn\.json: not readable as JSON"):
        draw_corpus(tmp_path, CHARSET, writers=2, seed=1)


def test_settings_are_written_first(tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def stop(advance: int, total: int) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        draw_corpus(tmp_path, CHARSET, writers=2, seed=1, progress=stop)
    found = json.loads((tmp_path / "drawn.json").read_text("utf-8"))
    assert found["characters"] == CHARSET.characters and found["writers"] == 2 and found["seed"] == 1


@pytest.mark.parametrize(
    ("characters", "message"),
    [
        ("一AB", "no strokes for 'AB'; leave them out"),
        ("一⺈", "no GBK code for '⺈'; leave it out"),
    ],
)
def test_characters_that_cannot_be_drawn_are_named(tmp_path: Path, characters: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw_corpus(tmp_path / "drawn", Charset(characters), writers=1, seed=0)
    assert not (tmp_path / "drawn").exists()


def test_number_of_writers_is_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected at least 1 writer"):
        draw_corpus(tmp_path, CHARSET, writers=0, seed=0)


def test_spread_picks_evenly() -> None:
    charset = Charset.level1()
    chosen = spread(charset, 200)
    labels = [charset.label(char) for char in chosen.characters]
    assert len(chosen) == 200 and labels[0] == 0
    assert {b - a for a, b in pairwise(labels)} <= {18, 19}
    assert spread(charset, len(charset)) == charset
    with pytest.raises(UsageError, match="--charset 3756: expected 1 to 3,755"):
        spread(charset, 3756)
