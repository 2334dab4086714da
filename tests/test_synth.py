"""The stroke table, the styles of writers, the generator and its pictures."""

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
from hcr.preprocess.fit import fit_square
from hcr.synth import GENERATOR_VERSION, Generator, StrokeTable, ragged
from hcr.synth.render import render
from hcr.synth.rng import decay, growth, keyed, normal, normals, turning, uniform, uniforms
from hcr.synth.style import WriterStyles
from hcr.synth.trajectory import reaching, write
from tests.runs import load_script

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "pipelines" / "build_strokes.py"
TABLE = ROOT / "hcr" / "synth" / "strokes.bin"
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
        Generator("一ア")


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
    return load_script("pipelines/build_strokes.py")


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


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(CHARACTERS)


def picture_of(
    generator: Generator,
    labels: list[int],
    writers: list[int],
    numbers: list[int] | None = None,
    seed: int = 3,
    size: int = 64,
) -> torch.Tensor:
    numbers = numbers or [0] * len(labels)
    return generator.draw(torch.tensor(labels), torch.tensor(writers), torch.tensor(numbers), seed=seed, size=size)


def many(generator: Generator, count: int, size: int = 64) -> torch.Tensor:
    places = torch.arange(count)
    return generator.draw(places % len(CHARACTERS), places, places * 0, seed=0, size=size)


def test_picture_does_not_depend_on_batch_order_or_threads(generator: Generator) -> None:
    count = 300  # more than one run of the generator
    together = many(generator, count)
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        pictures = generator.draw(shuffled % len(CHARACTERS), shuffled, shuffled * 0, seed=0, size=64)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(pictures, together[shuffled])
    for place in (0, 151, 299):
        alone = generator.draw(
            *(torch.tensor([value]) for value in (place % len(CHARACTERS), place, 0)), seed=0, size=64
        )
        assert torch.equal(alone[0], together[place])


def test_picture_does_not_depend_on_the_charset(generator: Generator) -> None:
    other = Generator("永" + CHARACTERS[:2])
    ours = picture_of(generator, [CHARACTERS.index("永")] * 4, [0, 1, 2, 3])
    assert torch.equal(ours, picture_of(other, [0] * 4, [0, 1, 2, 3]))


def test_seed_writer_and_number_each_change_the_picture(generator: Generator) -> None:
    label = [CHARACTERS.index("永")]
    pictures = [
        picture_of(generator, label, [writer], [n], seed=seed)
        for seed, writer, n in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            assert (one != other).float().mean() > 0.02


@pytest.mark.parametrize("size", [32, 48, 64, 80])
def test_pictures_are_fitted_as_fit_square_would(generator: Generator, size: int) -> None:
    def box(picture: np.ndarray) -> np.ndarray:
        rows, columns = (np.flatnonzero((picture < 255).any(axis)) for axis in (1, 0))
        return np.array([rows[0], rows[-1] + 1, columns[0], columns[-1] + 1])

    away = []
    for picture in many(generator, 70, size)[:, 0].numpy():
        away.append(np.abs(box(picture) - box(fit_square(picture, size))).max())
    assert max(away) <= 3 and np.mean(away) <= 1


def test_pictures_look_like_pen_on_paper(generator: Generator) -> None:
    pictures = many(generator, 210)
    assert pictures.dtype == torch.uint8 and pictures.shape == (210, 1, 64, 64)
    assert (pictures[:, :, [0, -1], :] == 255).all() and (pictures[:, :, :, [0, -1]] == 255).all(), "ink on the rim"
    ink = (pictures < 255).float().mean(dim=(1, 2, 3))
    assert ink.min() > 0.01 and ink.max() < 0.6 and 0.08 < ink.mean() < 0.3
    darkest = pictures.flatten(1).amin(1)
    assert darkest.max() < 200 and darkest.float().mean() < 60


def test_few_strokes_reach_farther_or_less_far_than_their_length() -> None:
    line = torch.linspace(0.2, 0.6, 9)
    stroke = torch.stack([line, line], 1).unfold(0, 5, 4).transpose(1, 2)  # two rows of five points
    ends = stroke[:1, 0].expand(2, 2), stroke[1:, -1].expand(2, 2)
    amount, start = torch.tensor([1.0, -2.0, 9.0]), torch.tensor([True, False, True])
    length = []
    for by, forward in zip(amount, start, strict=True):
        reached = reaching(stroke, ends, by.expand(2), forward.expand(2))
        torch.testing.assert_close(reached[0, -1], reached[1, 0], msg="the stroke stays in one piece")
        stays = (reached[0, 0], stroke[0, 0]) if forward else (reached[1, -1], stroke[1, -1])
        torch.testing.assert_close(*stays)
        length.append(float((reached[1, -1, 0] - reached[0, 0, 0]) / 0.4))
    assert 1 < length[0] < 1.05, "most are left alone"
    assert 0.6 < length[1] < 0.8
    assert 1.3 < length[2] < 1.6, "however much by, not twice as long"


def test_drawn_strokes_reach_and_fast_writers_leap_farther(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, writers = Generator("十"), torch.arange(40)
    zero = torch.zeros_like(writers)
    styles = WriterStyles(0, writers, zero + ord("十"), zero)
    order = styles.speed.argsort()
    assert (styles.leap[order].diff() >= 0).all() and styles.leap[order[-1]] > styles.leap[order[0]] + 0.1
    drawn = generator.draw(zero, writers, zero, seed=0, size=32)
    monkeypatch.setattr("hcr.synth.trajectory._REACH", 0.0)
    assert not torch.equal(drawn, generator.draw(zero, writers, zero, seed=0, size=32))


def test_character_keeps_its_shape() -> None:
    """The ink lies where the strokes say: an average over writers comes close to the centre lines."""
    mean = (255 - picture_of(Generator("十"), [0] * 64, list(range(64))).float()).mean((0, 1))
    rows, columns = mean.sum(1), mean.sum(0)
    assert 16 < int(rows.argmax()) < 44 and 20 < int(columns.argmax()) < 44
    assert mean[28:32, 30:34].mean() > 4 * mean[8:12, 8:12].mean()


def test_styles_stay_in_their_bounds() -> None:
    writers = torch.arange(500)
    styles = WriterStyles(0, writers, writers * 0 + ord("永"), writers * 0)
    assert len(set(styles.slant.tolist())) > 450
    for value, low, high in (
        (styles.width, 0.01, 0.11),
        (styles.join, 0, 0.9),
        (styles.ink, 0.25, 1.001),
        (styles.smooth, 0.1, 2),
        (styles.running, 0.02, 1),
        (styles.height, 72, 128),
    ):
        assert low <= value.min() and value.max() <= high


def test_habits_belong_to_the_writer_and_moods_to_the_picture() -> None:
    writers = torch.tensor([7, 7, 8])
    styles = WriterStyles(0, writers, torch.tensor([ord("永"), ord("国"), ord("永")]), writers * 0)
    assert torch.equal(styles.liking[0], styles.liking[1]) and not torch.equal(styles.liking[0], styles.liking[2])
    assert styles.height[0] == styles.height[1] != styles.height[2]
    assert abs(styles.slant[0] - styles.slant[1]) > 0


def test_fast_writers_join_strokes() -> None:
    characters = Charset.level1().characters[::100]
    generator = Generator(characters)
    labels = torch.arange(len(characters))
    strokes = sum(len(StrokeTable.load().medians(char)) for char in characters)
    paths = {}
    for writer in range(60):
        writers = labels * 0 + writer
        styles = WriterStyles(0, writers, generator._book.codes, labels * 0)
        paths[float(styles.speed.mean())] = int(
            write(generator._book, labels, int(generator._book.host_rows.sum()), styles).path[-1]
        )
    by_speed = [paths[speed] for speed in sorted(paths)]
    assert np.mean(by_speed[:10]) > 0.85 * strokes and np.mean(by_speed[-10:]) < 0.7 * strokes


def test_line_covers_the_area_it_should() -> None:
    """A level line 4 pixels wide: one layer of ink inside, none outside, and the amount right to a few per cent."""
    line = render(
        torch.tensor([8.0, 24.0]),
        torch.tensor([16.0, 16.0]),
        torch.full((2,), 4.0),
        torch.ones(2),
        torch.zeros(2, dtype=torch.int64),
        torch.zeros(2, dtype=torch.int64),
        torch.zeros(1),
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(1),
        size=32,
    )[0]
    assert ((line[15:17, 10:22] > 30) & (line[15:17, 10:22] < 60)).all()
    assert (line[:12] == 255).all() and (line[20:] == 255).all() and (line[:, :6] == 255).all()
    layers = -(line / 255).log() / 1.7
    assert float(layers.sum()) == pytest.approx(16 * 4, rel=0.03)


def test_random_numbers_are_even_normal_and_unrelated() -> None:
    keys = keyed(torch.arange(20_000), 5)
    even, bell = uniform(keys, 3), normal(keys, 3)
    assert even.min() >= 0 and even.max() < 1 and even.mean() == pytest.approx(0.5, abs=0.01)
    assert bell.mean() == pytest.approx(0, abs=0.02) and bell.std() == pytest.approx(1, abs=0.02)
    for table in (even, bell):
        assert (torch.corrcoef(table.T) - torch.eye(3)).abs().max() < 0.03
        assert abs(np.corrcoef(table[1:, 0], table[:-1, 0])[0, 1]) < 0.03
    assert len(keys.unique()) > 19_990
    largest = (1 << 32) - 1
    tensor = torch.tensor([largest])
    assert keyed(largest, tensor).tolist() == keyed(tensor, tensor).tolist() == [2_175_737_881]


def test_numbers_of_many_keys_at_once_are_those_of_each() -> None:
    keys, counts = keyed(torch.arange(50)[:, None], torch.tensor([3, 1, 7])), (4, 1, 9)
    for at_once, alone in ((uniforms, uniform), (normals, normal)):
        for column, (count, numbers) in enumerate(zip(counts, at_once(keys, counts), strict=True)):
            assert torch.equal(numbers, alone(keys[:, column], count))


def test_exact_arithmetic_is_near_what_it_is_named_after() -> None:
    x = torch.linspace(-1, 1, 101)
    torch.testing.assert_close(growth(x), x.exp(), rtol=0.01, atol=0)
    torch.testing.assert_close(decay(x.abs()), (-x.abs()).exp(), rtol=0.05, atol=0)
    cos, sin = turning(0.6 * x)
    torch.testing.assert_close(cos, (0.6 * x).cos(), rtol=0.03, atol=0)
    torch.testing.assert_close(cos * cos + sin * sin, torch.ones_like(x))


def test_the_generator_draws_what_its_version_says(generator: Generator) -> None:
    """Whoever changes what is drawn raises GENERATOR_VERSION and these sums: runs and corpora name the version."""
    places = torch.arange(14)
    pictures = generator.draw(places % 7, places + 3, places * 0, seed=0, size=64)
    ink = [28663, 60914, 79326, 102405, 112725, 125073, 80625, 38545, 74668, 102332, 178123, 152851, 162075, 81713]
    assert GENERATOR_VERSION == 6
    # Less than what two levels of grey on one pixel in fifty would be: another processor may round otherwise.
    assert ((255 - pictures.int()).sum((1, 2, 3)) - torch.tensor(ink)).abs().max() <= 2 * 64 * 64 // 50


def test_room_to_spare_changes_nothing(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a GPU, where nothing is counted, on this machine."""
    counted = many(generator, 140)
    monkeypatch.setattr(ragged, "_counts_at_once", lambda tensor: False)
    assert torch.equal(many(generator, 140), counted)


@pytest.mark.parametrize(("size", "count"), [(32, 1), (64, 1), (64, 300), (160, 40)])
def test_the_fullest_characters_have_room(size: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table = StrokeTable.load()
    fullest = Generator("".join(sorted(Charset.gb2312().characters, key=lambda char: -len(table.medians(char)))[:5]))
    turns = [torch.arange(start, start + count) for start in range(0, 60, min(60, count))]
    counted = [fullest.draw(turn % 5, turn, turn * 0, seed=8, size=size) for turn in turns]
    monkeypatch.setattr(ragged, "_counts_at_once", lambda tensor: False)
    for turn, pictures in zip(turns, counted, strict=True):
        assert torch.equal(fullest.draw(turn % 5, turn, turn * 0, seed=8, size=size), pictures)


def test_what_is_left_over_is_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    place, meant = torch.tensor([5, 2, 5, 5, 5, 5]), torch.tensor([True, True, True, False, False, False])
    assert torch.equal(ragged.spread(place, meant, 3), place), "a CPU has nothing left over"
    monkeypatch.setattr(ragged, "_counts_at_once", lambda tensor: False)
    assert ragged.spread(place, meant, 3).tolist() == [5, 2, 5, 0, 1, 2]
    values = ragged.spare(torch.ones(6, 2), meant, -1.0)
    assert values.tolist() == [[1, 1]] * 3 + [[-1, -1]] * 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_draws_the_same_pictures(generator: Generator) -> None:
    there = many(Generator(CHARACTERS, "cuda"), 2000)
    assert there.is_cuda
    assert (many(generator, 2000).int() - there.cpu().int()).abs().max() <= 2
