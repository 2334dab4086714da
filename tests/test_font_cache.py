"""What fonts were read into, kept on disk: the same bits, damage, the size of it all, and places that refuse."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hcr.charset import Charset
from hcr.corpus import synthetic
from hcr.errors import HcrError
from hcr.layout import cache_folder
from hcr.synth import Generator, generator
from hcr.synth.fonts import cache
from tests.test_fonts import build_font

CHARACTERS = Charset("一十口永国").characters


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("HCR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fonts"


@pytest.fixture
def font(tmp_path: Path) -> Path:
    return build_font(tmp_path / "font.ttf")


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows whenever fonts are read."""
    seen: list[str] = []
    make_forms = generator.make_forms

    def counted(fonts: Any, characters: str) -> Any:
        seen.append(characters)
        return make_forms(fonts, characters)

    monkeypatch.setattr(generator, "make_forms", counted)
    return seen


def require_equal(one: Generator, other: Generator) -> None:
    for made, kept in ((one._forms, other._forms), (one._book, other._book)):
        assert made is not None and kept is not None
        for field, values, others in zip(made._fields, made, kept, strict=True):
            assert values.dtype == others.dtype and torch.equal(values, others), field
    places = torch.arange(100)
    drawn = [pen.draw(places % 5, places, places * 0, seed=0, size=32) for pen in (one, other)]
    assert torch.equal(*drawn)


def test_the_second_start_reads_no_font_and_draws_the_same(folder: Path, font: Path, readings: list[str]) -> None:
    made = Generator(CHARACTERS, fonts=[font])
    (file,) = folder.iterdir()
    require_equal(made, Generator(CHARACTERS, fonts=[font]))
    assert readings == [CHARACTERS] and list(folder.iterdir()) == [file]
    # By its bytes, not by its name.
    moved = font.rename(font.with_name("moved.ttf"))
    require_equal(made, Generator(CHARACTERS, fonts=[moved]))
    assert len(readings) == 1
    # It is an ordinary .npz.
    with np.load(file, allow_pickle=False) as arrays:
        assert arrays["copybook.codes"].tolist() == [ord(char) for char in CHARACTERS]


def test_other_fonts_characters_and_programs_are_read_anew(
    folder: Path, font: Path, readings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = build_font(font.with_name("other.ttf"), "一", outline="口")
    for characters, fonts in (
        (CHARACTERS, [font]),
        (CHARACTERS[:3], [font]),
        (CHARACTERS, [other]),
        (CHARACTERS, [font, other]),
        (CHARACTERS, [other, font]),
    ):
        Generator(characters, fonts=fonts)
    assert len(readings) == 5 == len(list(folder.iterdir()))
    monkeypatch.setattr(cache, "_program", lambda: b"another program")
    Generator(CHARACTERS, fonts=[font])
    assert len(readings) == 6


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-1],
        lambda raw: b"",
        lambda raw: b"PK",
        lambda raw: raw[:3000] + bytes([raw[3000] ^ 1]) + raw[3001:],
        lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
        lambda raw: raw + b"more",
    ],
)
def test_a_damaged_file_is_made_anew(
    folder: Path, font: Path, readings: list[str], damage: Callable[[bytes], bytes]
) -> None:
    made = Generator(CHARACTERS, fonts=[font])
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    require_equal(made, Generator(CHARACTERS, fonts=[font]))
    require_equal(made, Generator(CHARACTERS, fonts=[font]))
    assert len(readings) == 2


def test_a_file_of_other_fonts_is_not_believed(folder: Path, font: Path, readings: list[str]) -> None:
    made = Generator(CHARACTERS, fonts=[font])
    (file,) = folder.iterdir()
    Generator(CHARACTERS, fonts=[build_font(font.with_name("other.ttf"), "一", outline="口")])
    (other,) = set(folder.iterdir()) - {file}
    other.replace(file)
    require_equal(made, Generator(CHARACTERS, fonts=[font]))
    assert len(readings) == 3


def test_what_was_not_used_for_longest_goes_first(
    folder: Path, font: Path, readings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[Path] = []
    for count in (2, 3, 4):
        Generator(CHARACTERS[:count], fonts=[font])
        (new,) = set(folder.iterdir()) - set(files)
        files.append(new)
        os.utime(new, (count, count))
    Generator(CHARACTERS[:2], fonts=[font])  # used now
    monkeypatch.setattr(cache, "_MOST", sum(file.stat().st_size for file in files) + 100)
    Generator(CHARACTERS, fonts=[font])
    (new,) = set(folder.iterdir()) - set(files)
    assert files[0].exists() and not files[1].exists() and new.stat().st_size < cache._MOST
    # One that is larger than all that may be kept stays alone.
    monkeypatch.setattr(cache, "_MOST", 1)
    Generator(CHARACTERS[:3], fonts=[font])
    assert list(folder.iterdir()) == [files[1]] and len(readings) == 5


def test_where_nothing_can_be_kept_fonts_are_read(
    tmp_path: Path, font: Path, readings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("HCR_CACHE", str(tmp_path / "file" / "cache"))
    require_equal(Generator(CHARACTERS, fonts=[font]), Generator(CHARACTERS, fonts=[font]))
    assert len(readings) == 2


def test_a_cache_that_can_only_be_read_is_used(
    folder: Path, font: Path, readings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Generator(CHARACTERS, fonts=[font])

    def refused(path: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    # What the system answers of a file of somebody else, though not to root, whom tests may run as.
    monkeypatch.setattr(os, "utime", refused)
    require_equal(made, Generator(CHARACTERS, fonts=[font]))
    assert readings == [CHARACTERS]


draw_writer = synthetic._draw_writer


def draw_without_reading(*task: Any) -> int:
    """What a worker process does here: it draws one writer, and ends where it would read a font."""

    def refused(fonts: Any, characters: str) -> Any:
        raise HcrError("a worker reads the fonts")

    generator.make_forms = refused
    return draw_writer(*task)


@pytest.mark.parametrize("writable", [True, False])
def test_processes_that_draw_read_no_font(
    tmp_path: Path, font: Path, readings: list[str], monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("HCR_CACHE", str(tmp_path / ("cache" if writable else "file/cache")))
    charset = Charset(CHARACTERS)
    synthetic.draw_corpus(tmp_path / "one", charset, writers=4, seed=0, fonts=[font])
    readings.clear()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(synthetic, "_WORTH_POOL", 1)
    monkeypatch.setattr(synthetic, "usual_processes", lambda: 2)
    monkeypatch.setattr(synthetic, "_draw_writer", draw_without_reading)
    synthetic.draw_corpus(tmp_path / "two", charset, writers=4, seed=0, fonts=[font])
    assert readings == ([] if writable else [CHARACTERS]) and list(temporary.iterdir()) == []
    for file in sorted((tmp_path / "one").rglob("*.gnt")):
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()


def test_two_processes_at_once_make_the_same(folder: Path, font: Path, readings: list[str]) -> None:
    code = "import pathlib, sys, hcr.synth; hcr.synth.Generator(sys.argv[1], fonts=[pathlib.Path(sys.argv[2])])"
    processes = [subprocess.Popen([sys.executable, "-c", code, CHARACTERS, font]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert len(list(folder.iterdir())) == 1
    kept = Generator(CHARACTERS, fonts=[font])
    assert readings == []
    (file,) = folder.iterdir()
    file.unlink()
    require_equal(kept, Generator(CHARACTERS, fonts=[font]))


def test_integers_come_back_as_they_were(folder: Path) -> None:
    arrays = {
        str(number): np.array([number, 0]) for number in (1, -128, -129, 127, 128, 40_000, 1 << 31, 1 << 40, -(1 << 40))
    }
    arrays |= {"none": np.zeros((0, 3), np.int64), "half": np.array([0.5], np.float16)}
    cache.save("key", arrays)
    found = cache.load("key")
    assert found is not None and found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array), name
    assert cache.load("another key") is None


def test_the_folder_is_the_users_or_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HCR_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.setenv("HCR_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "hcr"
    monkeypatch.setenv("HOME", str(tmp_path))
    for relative in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", relative)
        assert cache_folder() == tmp_path / ".cache" / "hcr"
