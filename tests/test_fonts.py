"""Fonts as styles: forms, drawn pictures, the commands, exact resumes, refusals, the script that fetches."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from fontTools.fontBuilder import FontBuilder
from fontTools.misc.timeTools import epoch_diff
from fontTools.pens.t2CharStringPen import T2CharStringPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont

from hcr.charset import Charset
from hcr.cli import data
from hcr.cli.train import main
from hcr.corpus.synthetic import draw_corpus
from hcr.errors import DataError, Stopped, UsageError
from hcr.feed.synthetic import generator_digest
from hcr.synth import Generator, ragged
from hcr.synth.fonts.glyphs import font_digest, make_forms, read_font
from hcr.synth.generator import SHARE
from hcr.training import Execution, TrainConfig, train
from hcr.training.config import DRAWN_PAGES
from tests.runs import GIVEN, Watcher, end_of, load_script, require_equal

SCRIPT = Path(__file__).parents[1] / "pipelines" / "fetch_fonts.py"
CHARACTERS = Charset("一十口永国").characters

Box = tuple[int, int, int, int]
GLYPHS: dict[str, list[tuple[Box, bool]]] = {
    ".notdef": [((300, 0, 700, 400), False)],
    "一": [((100, 350, 900, 430), False)],
    "十": [((100, 350, 900, 430), False), ((460, 0, 540, 800), False)],
    "口": [((150, 50, 850, 700), False), ((230, 130, 770, 620), True)],
}
"""Boxes of left, bottom, right, top in an em of 1,000, and which are holes."""


def build_font(path: Path, characters: Iterable[str] = "一十口", *, outline: str | None = None) -> Path:
    """Make a font; characters without a glyph of their own, or all of them, get that of `outline`."""
    cubic = path.suffix == ".otf"
    names = list(GLYPHS)
    builder = FontBuilder(1000, isTTF=not cubic)
    builder.font.recalcTimestamp = False
    builder.setupGlyphOrder([f"g{place}" if place else ".notdef" for place in range(len(names))])
    builder.setupCharacterMap({ord(char): f"g{names.index(outline or char)}" for char in characters})
    glyphs = {}
    for place, boxes in enumerate(GLYPHS.values()):
        pen = T2CharStringPen(1000, None) if cubic else TTGlyphPen(None)
        for (left, bottom, right, top), hole in boxes:
            corners = [(left, bottom), (left, top), (right, top), (right, bottom)]
            pen.moveTo(corners[0])
            for corner in corners[:0:-1] if hole else corners[1:]:
                pen.lineTo(corner)
            pen.closePath()
        glyphs[f"g{place}" if place else ".notdef"] = pen.getCharString() if cubic else pen.glyph()
    if cubic:
        builder.setupCFF("Test", {}, glyphs, {})
    else:
        builder.setupGlyf(glyphs)
    lefts = [min(box[0] for box, _ in boxes) for boxes in GLYPHS.values()]
    builder.setupHorizontalMetrics({name: (1000, left) for name, left in zip(glyphs, lefts, strict=True)})
    builder.setupHorizontalHeader(ascent=880, descent=-120)
    builder.setupNameTable({"familyName": "Test", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=880, usWinAscent=880, usWinDescent=120)
    builder.setupPost()
    builder.font["head"].created = builder.font["head"].modified = -epoch_diff
    builder.font.flavor = path.suffix[1:] if path.suffix.startswith(".woff") else None
    builder.font.save(path)
    return path


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_font(tmp_path_factory.mktemp("fonts") / "plain.ttf")


@pytest.mark.parametrize("suffix", ["ttf", "otf", "woff", "woff2"])
def test_any_kind_of_font_gives_the_same_lines(font: Path, tmp_path: Path, suffix: str) -> None:
    count, columns = read_font(build_font(tmp_path / f"font.{suffix}"), CHARACTERS)
    assert [bool(number) for number in count] == [char in "一十口" for char in CHARACTERS]
    if suffix != "otf":  # the others hold the very same outlines
        for one, other in zip(columns, read_font(font, CHARACTERS)[1], strict=True):
            assert np.array_equal(one, other)
    bar = columns[0][: count[0]]
    assert np.ptp(bar[:, 1]) < 0.02 < 0.6 < np.ptp(bar[:, 0]) < 0.9 and abs(bar[:, 0].mean() - 0.5) < 0.02


def drawn(generator: Generator, labels: list[int], writers: list[int], number: int = 0, size: int = 64) -> torch.Tensor:
    label, writer = torch.tensor(labels), torch.tensor(writers)
    return generator.draw(label, writer, torch.full_like(label, number), seed=0, size=size)


@pytest.fixture(scope="module")
def generators(font: Path) -> tuple[Generator, Generator]:
    """Without the font, and with it."""
    return Generator(CHARACTERS), Generator(CHARACTERS, fonts=[font])


def test_a_fixed_share_of_the_writers_writes_in_the_forms_of_the_font(generators: tuple[Generator, Generator]) -> None:
    writers = list(range(400))
    one, other = (drawn(generator, [CHARACTERS.index("十")] * 400, writers) for generator in generators)
    follow = following(generators[1], "十", 400)
    # A writer does so for every character, or for none.
    assert follow == following(generators[1], "口", 400)
    assert abs(len(follow) / 400 - SHARE) < 0.06
    # The others take its proportions, more or less, and a few hardly at all.
    changed = (one != other).flatten(1).any(1)
    assert changed[follow].all() and changed.float().mean() > 0.8


def test_a_character_that_the_font_lacks_is_drawn_from_strokes(generators: tuple[Generator, Generator]) -> None:
    for char in "永国":
        label = CHARACTERS.index(char)
        one, other = (drawn(generator, [label] * 60, list(range(60))) for generator in generators)
        assert torch.equal(one, other)


def test_a_picture_depends_on_nothing_beside_it(generators: tuple[Generator, Generator], font: Path) -> None:
    labels, writers = [place % 5 for place in range(300)], list(range(300))
    together = drawn(generators[1], labels, writers)
    for place in range(0, 300, 23):
        assert torch.equal(together[place : place + 1], drawn(generators[1], [labels[place]], [writers[place]]))
    others = "十丁口"
    again = drawn(Generator(others, fonts=[font]), [others.index("十")] * 60, writers[:60])
    assert torch.equal(again, drawn(generators[1], [CHARACTERS.index("十")] * 60, writers[:60]))


def following(generator: Generator, char: str, count: int) -> list[int]:
    """The writers among the first `count` who write a character in the forms of a font."""
    labels = torch.full((count,), CHARACTERS.index(char))
    return (generator._glyphs(labels, torch.arange(count), 0) >= 0).nonzero().squeeze(1).tolist()


def test_pictures_vary_by_writer_and_by_number_and_fill_the_square(generators: tuple[Generator, Generator]) -> None:
    writers = following(generators[1], "十", 400)[:40]
    label = CHARACTERS.index("十")
    for size in (48, 64):
        first, second = (drawn(generators[1], [label] * 40, writers, number, size) for number in (0, 1))
        assert len({picture.numpy().tobytes() for picture in torch.cat([first, second])}) == 80
        away = []
        for ink in first[:, 0] < 255:
            rows, columns = ink.any(1).nonzero(), ink.any(0).nonzero()
            longest = max(int(axis[-1] - axis[0]) + 1 for axis in (rows, columns))
            away.append(abs(longest - (size - 2 * round(size / 16))))
        assert max(away) <= 5 and np.mean(away) <= 1.5


def test_the_brush_of_the_font_is_taken_off(generators: tuple[Generator, Generator], tmp_path: Path) -> None:
    # The same lines with a brush of twice the width: the writers' own pens write both about as wide.
    wide = {"一": [((60, 310, 940, 470), False)]}
    plain = GLYPHS["一"]
    try:
        GLYPHS.update(wide)
        bold = Generator(CHARACTERS, fonts=[build_font(tmp_path / "bold.ttf", "一")])
    finally:
        GLYPHS["一"] = plain
    writers = following(generators[1], "一", 400)[:40]
    ink = [(255 - drawn(generator, [0] * 40, writers).float()).mean() for generator in (generators[1], bold)]
    assert ink[1] / ink[0] == pytest.approx(1, abs=0.15)


def test_more_fonts_share_the_writers(font: Path, generators: tuple[Generator, Generator], tmp_path: Path) -> None:
    other = build_font(tmp_path / "other.ttf", "一", outline="口")
    both, alone = (
        Generator(CHARACTERS, fonts=[font, other]),
        [Generator(CHARACTERS, fonts=[path]) for path in (font, other)],
    )
    follow = following(both, "一", 400)
    assert follow == following(alone[0], "一", 400)
    pictures = drawn(both, [0] * len(follow), follow)
    like = [(pictures == drawn(generator, [0] * len(follow), follow)).flatten(1).all(1) for generator in alone]
    assert (like[0] ^ like[1]).all() and 0.3 < like[0].float().mean() < 0.7


def test_the_way_of_a_gpu_draws_the_same(
    generators: tuple[Generator, Generator], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where strokes leave something over, what is written after a font comes behind it."""
    labels, writers = [place % 5 for place in range(300)], list(range(300))
    counted = drawn(generators[1], labels, writers)
    monkeypatch.setattr(ragged, "_counts_at_once", lambda tensor: False)
    assert torch.equal(drawn(generators[1], labels, writers), counted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_draws_the_same(font: Path, generators: tuple[Generator, Generator]) -> None:
    labels, writers = [place % 5 for place in range(300)], list(range(300))
    there = drawn(Generator(CHARACTERS, "cuda", [font]), labels, writers).cpu()
    assert (there.int() - drawn(generators[1], labels, writers).int()).abs().max() <= 2


def refused(call: Callable[[], object], kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_font_of_these_characters_is_refused(font: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.ttf"
    text.write_text("no font", "utf-8")
    cut = tmp_path / "cut.ttf"
    cut.write_bytes(font.read_bytes()[:200])
    for path in (text, cut):
        message = refused(lambda path=path: make_forms([path], CHARACTERS))  # type: ignore[misc]
        assert message.startswith(f"{path}: not a font (") and message.endswith("; name a TTF, OTF or WOFF2 file")
    assert refused(lambda: Generator(CHARACTERS, fonts=[tmp_path / "none.ttf"])) == (
        f"{tmp_path}/none.ttf: cannot read this font (No such file or directory); name a TTF, OTF or WOFF2 file"
    )
    # Were it looked for among the system's fonts, it might be found.
    assert "cannot read this font" in refused(lambda: font_digest(Path("DejaVuSans.ttf")))
    assert refused(lambda: Generator("永国", fonts=[font])) == (
        f"{font}: this font has none of the 2 characters; name one that has"
    )


def test_a_drawn_corpus_remembers_its_fonts(font: Path, tmp_path: Path) -> None:
    charset = Charset(CHARACTERS)
    plain, made = tmp_path / "plain", tmp_path / "made"
    draw_corpus(plain, charset, writers=24, seed=1)
    arguments = ["draw", "--characters", str(tmp_path / "five.txt"), "--writers", "24", "--seed", "1"]
    (tmp_path / "five.txt").write_text("\n".join(CHARACTERS), "utf-8")

    def draw(*more: object) -> Result:
        return CliRunner().invoke(data.main, [*arguments, "--out", str(made), *map(str, more)])

    # Refused before anything is written.
    assert "not a font" in draw("--font", tmp_path / "five.txt").stderr and not made.exists()
    done = draw("--font", font)
    assert done.exit_code == 0 and "24 files drawn now" in done.stdout
    assert json.loads((made / "drawn.json").read_text())["fonts"] == [font_digest(font)]
    files = sorted(path.relative_to(plain) for path in plain.rglob("*.gnt"))
    changed = [name for name in files if (plain / name).read_bytes() != (made / name).read_bytes()]
    assert len(files) == 24 and len(changed) >= 18
    # What is missing is drawn as it was.
    before = (made / changed[0]).read_bytes()
    (made / changed[0]).unlink()
    assert "1 file drawn now" in draw("--font", font).stdout and (made / changed[0]).read_bytes() == before
    other = build_font(tmp_path / "other.ttf", "一")
    for more, wanted in (
        ((), "0 requested"),
        (("--font", font, "--font", other), "2 requested"),
        (("--font", other), "1 others requested"),
    ):
        failed = draw(*more)
        assert failed.exit_code == 2
        assert f"1 font there, {wanted}; choose another --out" in failed.stderr


@pytest.fixture(scope="module")
def charset(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("charset") / "five.txt"
    path.write_text("\n".join(CHARACTERS), "utf-8")
    return str(path)


def run_drawn(run: Path, charset: str, fonts: list[Path], watcher: Watcher | None = None, **given: object) -> None:
    resume = bool(given.pop("resume", False))
    settings = GIVEN | {"draw": 80, "size": 32, "charset": charset, "font": tuple(map(str, fonts))} | given
    train(
        TrainConfig(**settings),
        None,
        run,
        Execution("cpu", workers=0, checkpoint_every=1),
        watcher or Watcher(),
        resume=resume,
    )


@pytest.fixture(scope="module")
def uncut(charset: str, font: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 3 epochs of 4 steps that was never stopped. Do not change it."""
    run = tmp_path_factory.mktemp("uncut") / "run"
    run_drawn(run, charset, [font])
    return run


@pytest.mark.parametrize("step", [1, 6])
def test_a_stopped_run_with_fonts_ends_like_one_that_was_not(
    uncut: Path, charset: str, font: Path, tmp_path: Path, step: int
) -> None:
    run = tmp_path / "run"
    watcher = Watcher(step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        run_drawn(run, charset, [font], watcher)
    train(TrainConfig(), None, run, Execution("cpu", workers=0), Watcher(), resume=True)
    require_equal(end_of(run), end_of(uncut))
    assert end_of(run)[0]["pack"] == dict.fromkeys(("train", "val"), generator_digest([font], DRAWN_PAGES))
    assert generator_digest([font]) == f"{generator_digest()}, fonts {font_digest(font)}"


def test_a_run_goes_on_with_its_fonts_alone(uncut: Path, charset: str, font: Path, tmp_path: Path) -> None:
    other = build_font(tmp_path / "other.ttf", "一")
    with pytest.raises(UsageError, match=f"--font {other}: the run was started with {font}; leave the flag out"):
        run_drawn(uncut, charset, [other], resume=True)
    # Another font under the same name.
    mine = tmp_path / "mine.ttf"
    shutil.copy(font, mine)
    run = tmp_path / "run"
    with pytest.raises(Stopped):
        run_drawn(run, charset, [mine], Watcher(1, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    shutil.copy(other, mine)
    message = refused(lambda: train(TrainConfig(), None, run, Execution("cpu", workers=0), Watcher(), resume=True))
    assert message.startswith(
        f"{run}: drawn by {generator_digest([font], DRAWN_PAGES)}, but this program draws by "
        f"{generator_digest([other], DRAWN_PAGES)}; resume"
    )
    mine.unlink()
    assert f"{mine}: cannot read this font" in refused(
        lambda: train(TrainConfig(), None, run, Execution("cpu", workers=0), Watcher(), resume=True)
    )


def test_fonts_change_what_is_learnt_and_judged(uncut: Path, charset: str, font: Path, tmp_path: Path) -> None:
    run_drawn(tmp_path / "run", charset, [])
    plain, with_font = (end_of(run)[1].splitlines()[0] for run in (tmp_path / "run", uncut))
    one, other = (json.loads(row) for row in (plain, with_font))
    assert one["train_loss"] != other["train_loss"] and one["val_loss"] != other["val_loss"]


def test_the_command_takes_fonts_from_flags_and_recipes(
    charset: str, font: Path, small_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def hcr_train(*arguments: object) -> Result:
        always = ("--device", "cpu", "--arch", "compact", "--size", 32)
        return CliRunner().invoke(main, [str(each) for each in (*arguments, *always)])

    Path("recipe.toml").write_text(f'draw = 80\ncharset = {json.dumps(charset)}\nfont = ["{font}"]\n', "utf-8")
    for asked in (("--draw", 80, "--charset", charset, "--font", font), ("--recipe", "recipe.toml")):
        shown = hcr_train(*asked, "--dry-run")
        assert shown.exit_code == 0, shown.output
        assert f"pictures    drawn as they are needed, some after {font}: 80 train + 20 val" in shown.stdout
        assert f'font = ["{font}"]' in shown.stdout
    Path("recipe.toml").write_text('draw = 80\nfont = "one.ttf"\n', "utf-8")
    failed = hcr_train("--recipe", "recipe.toml", "--dry-run")
    assert (
        failed.exit_code == 2 and 'font = \'one.ttf\': expected a list of texts like ["one", "other"]' in failed.stderr
    )
    failed = hcr_train("--data", small_pack, "--font", font)
    assert failed.exit_code == 2 and f"--font {font}: names what --draw draws with" in failed.stderr
    failed = hcr_train("--draw", 80, "--charset", charset, "--font", charset)
    assert failed.exit_code == 3 and f"error: {charset}: not a font" in failed.stderr
    assert not list(Path().glob("artifacts/*"))


@pytest.fixture(scope="module")
def fetch_fonts() -> ModuleType:
    return load_script("pipelines/fetch_fonts.py")


def test_the_files_of_a_package_become_one_font(fetch_fonts: ModuleType, tmp_path: Path) -> None:
    package, source = tmp_path / "package", fetch_fonts.Source("hand", "1.0.0")
    (package / "files").mkdir(parents=True)
    (package / "LICENSE").write_text("SIL Open Font License", "utf-8")
    level1 = Charset.level1().characters
    build_font(package / "files/hand-1-400-normal.woff", level1[:1900], outline="十")
    build_font(package / "files/hand-3-700-normal.woff", level1, outline="口")
    out = tmp_path / "out"
    message = refused(lambda: fetch_fonts.join(package, source, "hand", out))
    assert message == "hand: has 1,900 characters of GB2312 level 1, expected 2,000 at least" and not out.exists()
    build_font(package / "files/hand-2-400-normal.woff", level1[1800:-1], outline="口")
    build_font(package / "files/hand-4-400-normal.woff", level1[-1] + "A", outline="一")
    fetch_fonts.join(package, source, "hand", out)
    assert sorted(path.name for path in out.iterdir()) == ["hand-OFL.txt", "hand.ttf"]
    assert set(TTFont(out / "hand.ttf").getBestCmap()) >= set(map(ord, level1))
    count = read_font(out / "hand.ttf", level1[0] + level1[1799] + level1[1900] + level1[-1])[0]
    assert count[0] == count[1] != count[2] and count[3] < count[0]
    assert TTFont(out / "hand.ttf")["head"].modified == -epoch_diff, "no time: the same bytes whenever it is done"
    first = (out / "hand.ttf").read_bytes()
    fetch_fonts.join(package, source, "hand", out)
    assert (out / "hand.ttf").read_bytes() == first


def test_without_npm_the_script_says_so(tmp_path: Path) -> None:
    script = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "fonts")]
    done = subprocess.run(script, capture_output=True, text=True, env={**os.environ, "PATH": str(tmp_path)})
    assert done.returncode == 1 and done.stderr == "error: npm: not found; install Node.js, which brings it\n"
    assert not (tmp_path / "fonts").exists()
