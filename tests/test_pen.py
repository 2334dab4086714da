"""The stroke table, the drawn hands and the renderer."""

import importlib.util
import io
import itertools
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from hcr.charset import Charset
from hcr.errors import DataError
from hcr.pen import BOX, StrokeTable, draw, hand_of
from hcr.pen.hand import write
from hcr.pen.render import render
from hcr.pen.skeleton import skeleton_of

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "pipelines" / "build_strokes.py"
TABLE = ROOT / "hcr" / "pen" / "strokes.bin"
CHARACTERS = "一丁永国鼎道龟"


def test_table_has_strokes_for_all_of_gb2312() -> None:
    table = StrokeTable.load()
    assert len(table.characters) == 9574
    assert list(table.characters) == sorted(set(table.characters))
    assert [char for char in Charset.gb2312().characters if char not in table] == []
    assert TABLE.stat().st_size <= 1_000_000


def test_medians_are_in_writing_order_in_the_unit_box() -> None:
    strokes = StrokeTable.load().medians("十")
    across, down = strokes
    assert across.dtype == np.float32 and across.shape[1] == 2
    assert across[-1, 0] - across[0, 0] > 0.5 > abs(across[-1, 1] - across[0, 1])
    assert down[-1, 1] - down[0, 1] > 0.5 > abs(down[-1, 0] - down[0, 0])
    assert [len(StrokeTable.load().medians(char)) for char in "一人口国龟"] == [1, 2, 3, 8, 7]
    for char in Charset.level1().characters[::50]:
        line = np.concatenate(StrokeTable.load().medians(char))
        assert line.min() >= 0 and line.max() <= 1


def test_character_without_strokes_is_refused() -> None:
    with pytest.raises(DataError, match=r"no strokes for 'A' \(U\+0041\).*leave it out"):
        StrokeTable.load().medians("A")
    with pytest.raises(DataError, match="no strokes for 'ア'"):
        draw("一ア", seed=0, writer=0, size=32)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: b"PK" + raw[2:], "byte 0: expected b'HCRSTROK', found b'PKRSTROK'"),
        (lambda raw: raw[:5], "byte 0: expected b'HCRSTROK'"),
        (lambda raw: raw[:8] + b"\x09\x00" + raw[10:], "byte 8: expected version 1, found 9"),
        (lambda raw: raw[:10] + b"\x01" + raw[11:], "bytes of strokes, found"),
        (lambda raw: raw[:22] + bytes([raw[22] ^ 1]) + raw[23:], "expected CRC32"),
        (lambda raw: raw[:-1000], "do not decompress"),
        (lambda raw: raw[:5000] + bytes([raw[5000] ^ 16]) + raw[5001:], "do not decompress"),
    ],
)
def test_damaged_table_is_refused(tmp_path: Path, damage, message: str) -> None:
    path = tmp_path / "strokes.bin"
    path.write_bytes(damage(TABLE.read_bytes()))
    with pytest.raises(DataError) as caught:
        StrokeTable(path)
    assert message in str(caught.value) and str(path) in str(caught.value)
    assert "build_strokes.py" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the stroke table"):
        StrokeTable(tmp_path / "none.bin")


def _package(path: Path, files: dict[str, object]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, value in files.items():
            raw = json.dumps(value).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return path


@pytest.fixture(scope="module")
def build_strokes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_strokes", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_build_strokes_keeps_what_the_package_says(tmp_path: Path, build_strokes: ModuleType) -> None:
    files = {
        "all.json": {"十": 1},
        "package.json": {"name": "hanzi-writer-data"},
        "十.json": {"medians": [[[0, 900], [512, 902], [1020, 900]], [[512, 900], [512, -124]]]},
        "丶.json": {"medians": [[[100, 100], [101, 101]]]},
    }
    package = _package(tmp_path / "package.tgz", files)
    out = tmp_path / "strokes.bin"
    script = [sys.executable, str(SCRIPT), str(package), "--out", str(out)]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == build_strokes.encode(build_strokes.read_package(package))
    assert b"Arphic" in out.read_bytes()
    table = StrokeTable(out)
    assert table.characters == "丶十"
    across, down = table.medians("十")
    np.testing.assert_array_equal(across * 256, [[0, 0], [255, 0]])
    np.testing.assert_array_equal(down * 256, [[128, 0], [128, 255]])
    assert len(table.medians("丶")[0]) == 2


def test_build_strokes_refuses_another_package(tmp_path: Path, build_strokes: ModuleType) -> None:
    (tmp_path / "text.tgz").write_text("no archive")
    with pytest.raises(DataError, match=r"text\.tgz: not the package hanzi-writer-data@2\.0\.1"):
        build_strokes.read_package(tmp_path / "text.tgz")
    with pytest.raises(DataError, match=r"other\.tgz: no file of a single character"):
        build_strokes.read_package(_package(tmp_path / "other.tgz", {"package.json": {}}))


def test_simplified_line_stays_within_the_tolerance(build_strokes: ModuleType) -> None:
    angle = np.linspace(0, np.pi, 60)
    arc = np.stack([512 + 300 * np.cos(angle), 300 * np.sin(angle)], 1)
    simple = build_strokes.simplify(arc, 6.0)
    assert 4 < len(simple) < 20 and (simple[[0, -1]] == arc[[0, -1]]).all()
    dense = np.concatenate([np.linspace(a, b, 200) for a, b in itertools.pairwise(simple)])
    assert np.linalg.norm(arc[:, None] - dense[None], axis=2).min(axis=1).max() <= 6.1


def test_parts_follow_the_structure() -> None:
    assert skeleton_of("汉").part.tolist() == [0, 0, 0, 1, 1]
    assert skeleton_of("官").part.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert skeleton_of("十").part.tolist() == [0, 0]


def test_picture_does_not_depend_on_its_batch_mates() -> None:
    together = draw(CHARACTERS, seed=3, writer=5, size=80)
    for index, char in enumerate(CHARACTERS):
        assert torch.equal(draw(char, seed=3, writer=5, size=80)[0], together[index]), char
    mixed = draw("国" * 3, seed=3, writer=[1, 5, 5], n=[0, 0, 1], size=80)
    assert torch.equal(mixed[1], together[CHARACTERS.index("国")])
    # More than one run of the renderer's batches.
    many = draw("永" * 300, seed=3, writer=5, n=range(300), size=64)
    assert torch.equal(many[299], draw("永", seed=3, writer=5, n=299, size=64)[0])


def test_seed_writer_and_number_each_change_the_picture() -> None:
    pictures = [
        draw("永", seed=seed, writer=writer, n=n, size=64)
        for seed, writer, n in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            assert (one != other).float().mean() > 0.02


def test_pictures_look_like_pen_on_paper() -> None:
    characters = Charset.level1().characters[::40]
    pictures = draw(characters, seed=0, writer=range(len(characters)), size=80)
    assert pictures.dtype == torch.uint8 and pictures.shape == (len(characters), 80, 80)
    assert (pictures[:, [0, -1], :] == 255).all() and (pictures[:, :, [0, -1]] == 255).all(), "ink on the rim"
    ink = (pictures < 255).float().mean(dim=(1, 2))
    assert ink.min() > 0.01 and ink.max() < 0.55 and 0.08 < ink.mean() < 0.25
    darkest = pictures.flatten(1).min(dim=1).values
    assert darkest.max() < 200 and darkest.float().mean() < 60


def test_character_keeps_its_shape() -> None:
    """The ink lies where the strokes say: an average over writers comes close to the centre lines."""
    mean = (255 - draw("十" * 64, seed=0, writer=range(64), size=64).float()).mean(0)
    rows, columns = mean.sum(1), mean.sum(0)
    assert 20 < int(rows.argmax()) < 44 and 20 < int(columns.argmax()) < 44
    assert mean[32, 32] > 4 * mean[14, 14]


def test_hands_stay_in_their_bounds() -> None:
    hands = [hand_of(0, writer) for writer in range(300)]
    assert len({hand.slant for hand in hands}) == 300
    for hand in hands:
        assert 0.01 < hand.width < 0.1 and 0 <= hand.join < 1 and 0.3 < hand.ink <= 1 and 0 < hand.smooth <= 0.05
        assert 60 / BOX <= hand.height / BOX <= 170


def test_fast_writers_join_strokes() -> None:
    by_speed = sorted(range(60), key=lambda writer: hand_of(0, writer).join)
    characters = Charset.level1().characters[::100]
    paths = [len(set(write(characters, seed=0, writers=[w] * 38, numbers=[0] * 38).path)) for w in by_speed]
    strokes = sum(len(StrokeTable.load().medians(char)) for char in characters)
    assert paths[0] > 0.9 * strokes and paths[-1] < 0.7 * strokes


def test_line_covers_the_area_it_should() -> None:
    """A level line 4 pixels wide: one layer of ink inside, none outside, and the amount right to a few per cent."""
    line = render(
        torch.tensor([[8.0, 16.0], [24.0, 16.0]]),
        torch.full((2,), 4.0),
        torch.ones(2),
        torch.zeros(2, dtype=torch.int64),
        torch.zeros(2, dtype=torch.int64),
        torch.zeros(1),
        torch.zeros(1, dtype=torch.int64),
        size=32,
    )[0]
    assert ((line[15:17, 10:22] > 30) & (line[15:17, 10:22] < 60)).all()
    assert (line[:12] == 255).all() and (line[20:] == 255).all() and (line[:, :6] == 255).all()
    layers = -(line / 255).log() / 1.7
    assert float(layers.sum()) == pytest.approx(16 * 4, rel=0.03)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_draws_the_same_pictures() -> None:
    here = draw(CHARACTERS, seed=1, writer=2, size=64).int()
    there = draw(CHARACTERS, seed=1, writer=2, size=64, device="cuda").cpu().int()
    assert (here - there).abs().max() <= 2
    assert torch.equal(there, draw(CHARACTERS, seed=1, writer=2, size=64, device="cuda").cpu().int())
