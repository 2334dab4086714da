"""report.html: what stands in it; what it does in a browser is tests/test_report_browser.py's."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hcr.evaluation.analysis import Evaluation, analyse
from hcr.evaluation.metrics import summarise
from hcr.evaluation.page import gallery, html
from hcr.pack.store import open_reader
from hcr.svg import ticks
from tests.reports import ABSENT, CHARACTERS, CURVES, HOSTILE, compared


def write(evaluation: Evaluation, path: Path, curves: list[dict[str, Any]] = CURVES) -> str:
    html.write_html(path, evaluation, analyse(evaluation), curves)
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def page(report: Path) -> str:
    return report.read_text("utf-8")


def data_of(page: str) -> dict[str, Any]:
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert block
    found: dict[str, Any] = json.loads(block[1])
    return found


def words(page: str) -> str:
    """What stands between the tags of the main part."""
    return unescape(re.sub("<[^>]+>", "", page[page.index("<main") : page.index("</main>")]))


def with_predictions(evaluation: Evaluation, **changed: Any) -> Evaluation:
    predictions = replace(evaluation.predictions, **changed)
    return replace(evaluation, predictions=predictions, summary=summarise(predictions, len(evaluation.charset)))


class Checker(HTMLParser):
    """Notes tags that do not close, ids, and the attributes that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in ("meta", "input", "br", "path", "circle", "rect"):
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"an event handler in the page: {name}"
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "srcset", "action", "data"):
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "circle", "rect"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


@pytest.fixture(scope="module")
def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    return checker


def test_the_page_is_well_formed(page: str, checked: Checker) -> None:
    assert checked.open == []
    assert len(checked.ids) == len(set(checked.ids))
    for target in re.findall(r'(?:aria-labelledby|for)="([^"]+)"', page):
        assert set(target.split()) <= set(checked.ids)


def test_the_page_loads_nothing(page: str, checked: Checker) -> None:
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|\bimport\b|@font-face", page)
    assert all(url.startswith("data:image/png;base64,") for url in re.findall(r"url\(([^)]*)\)", page))
    points = {f"#U+{ord(char):04X}" for char in CHARACTERS.characters}
    assert set(checked.links) <= points | {f"#{name}" for name in checked.ids}
    assert not checked.tags & {"img", "link", "iframe", "object"}


def test_everything_from_data_is_escaped(page: str, checked: Checker) -> None:
    assert "<script>alert" not in page
    assert HOSTILE in "".join(checked.text)
    assert f"test/{HOSTILE}.gnt:" in "".join(checked.text)
    assert "first & <best> on odd-32, test" in "".join(checked.text)
    assert '<a class="han" lang="zh" href="#U+003C">&lt;</a>' in page
    assert data_of(page)["characters"] == CHARACTERS.characters


def test_headline_and_sections(page: str, evaluation: Evaluation) -> None:
    summary, text = evaluation.summary, words(page)
    low, high = summary.top1_interval
    assert f"{100 * summary.top1:.2f} %" in text
    assert f"95% interval {100 * low:.2f}–{100 * high:.2f}%" in text
    assert f"{summary.correct.sum()} of {summary.n} pictures read correctly" in text
    names = re.findall(r'<section id="(\w+)"', page)
    assert names == [
        *("learning", "confidence", "characters", "comparison", "robustness", "pairs", "groups", "worst", "writers"),
        *("confident", "classes", "about"),
    ]
    assert re.findall(r'class="mark"[^>]*>(\w+)<', page)[-3:] == ["十", "十一", "十二"]
    assert re.findall(r'<li><a href="#(\w+)"', page) == names
    assert "Validation was best after epoch 1: 90.00% top-1." in text


def test_all_hundred_confused_pairs_are_there_with_pictures(page: str, evaluation: Evaluation) -> None:
    part = page[page.index('<section id="pairs"') : page.index('<section id="groups"')]
    shown = re.findall(r'<article class="card"><header>.*?</article>', part)
    assert len(shown) == 100 and "Show 88 more pairs" in part
    both: dict[frozenset[str], int] = {}
    for pair in analyse(evaluation).confusions:
        names = frozenset((evaluation.charset[pair.target], evaluation.charset[pair.predicted]))
        both[names] = both.get(names, 0) + pair.count
    found = {}
    for card in shown:
        one, other = (unescape(char) for char in re.findall(r'class="han"[^>]*>([^<]+)<', card))
        count = re.search(r"<b>(\d+)</b>", card)
        assert count and f"{one}" != other
        found[frozenset((one, other))] = int(count[1])
        assert card.count('class="pic s') >= int(count[1]) > 0
    assert all(both[names] == count for names, count in found.items())
    assert min(found.values()) >= sorted(both.values())[-100]


def test_class_data_agrees_with_the_summary(page: str, evaluation: Evaluation) -> None:
    data, summary = data_of(page), evaluation.summary
    assert data["n"] == summary.count.tolist() and data["correct"] == summary.correct.tolist()
    for label, errors in enumerate(data["errors"]):
        wrong = sum(count for _, count in data["answers"][label])
        assert wrong == summary.count[label] - summary.correct[label] == len(errors)
        assert [score for *_, score in errors] == sorted((score for *_, score in errors), reverse=True)
    absent = CHARACTERS.label(ABSENT)
    assert data["n"][absent] == 0 and data["confidence"][absent] is None and data["right"][absent] is None


def test_pictures_are_those_of_the_pack(evaluation: Evaluation) -> None:
    reader = open_reader(evaluation.pack / "test.lmdb")
    shown = gallery.Gallery(reader)
    assert [shown.place(index) for index in (40, 7, 40)] == [0, 1, 0]
    assert 'style="--x:1;--y:0"' in shown.picture(7, "x") and shown.css().startswith(".s0{background-image:url(data:")
    from base64 import b64decode
    from io import BytesIO

    from PIL import Image

    sheet = Image.open(BytesIO(b64decode(shown.css().split("base64,")[1].removesuffix(")}"))))
    picture = np.empty((1, 32, 32), np.uint8)
    reader.pictures(np.array([7]), picture)
    expected = np.asarray(Image.fromarray(picture[0]).resize((48, 48), Image.Resampling.LANCZOS)).astype(int)
    assert sheet.size == (768, 768)
    assert np.abs(np.asarray(sheet.convert("L"))[:48, 48:96].astype(int) - expected).max() <= 9
    assert (np.asarray(sheet.convert("L"))[48:] == 255).all()


def test_pictures_are_limited_and_the_page_stays_small(
    evaluation: Evaluation, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = re.findall(r'class="pic s(\d+)', page)
    assert numbers and len(page) < 1_000_000
    monkeypatch.setattr(gallery, "LIMIT", 60)
    small = write(evaluation, tmp_path / "small.html")
    data = data_of(small)
    places = {place for errors in data["errors"] for place, *_ in errors}
    assert places <= set(range(60)) and small.count('class="card"') == page.count('class="card"')
    assert small.count("background-image:url") == 1


def test_banners(evaluation: Evaluation, page: str, tmp_path: Path) -> None:
    assert '<p class="banner"' not in page
    marked = replace(
        evaluation,
        seen="validated on this split",
        only_shared=True,
        left_out=1234,
        checkpoint=None,
        external=Path('their "<answers>".csv'),
        seconds=float("nan"),
    )
    text = words(write(marked, tmp_path / "r.html"))
    assert "Not a test. These figures are on data that the model has seen: validated on this split." in text
    assert "1,234 pictures of characters that the model does not know were left out" in text
    assert 'Another system\'s predictions. They were read from their "<answers>".csv.' in text
    assert "Time per picture" not in text and "nan" not in text


def test_predictions_without_scores_answers_or_curves(evaluation: Evaluation, tmp_path: Path) -> None:
    top = evaluation.predictions.top.copy()
    top[:9, 0] = -1
    bare = with_predictions(evaluation, top=top, score=np.full_like(evaluation.predictions.score, np.nan))
    page = write(bare, tmp_path / "r.html", [])
    # Letters of pictures may spell anything.
    assert not re.search("NaN|nan%", re.sub(r"base64,[^)\"]+", "", page))
    assert 'id="learning"' not in page and 'id="confidence"' not in page and 'id="confident"' in page
    assert "read as nothing" in words(page)
    assert [answer for _, answer, score in data_of(page)["errors"][int(bare.predictions.target[0])]].count(-1) == 1


def test_another_run_beside_it(page: str, evaluation: Evaluation) -> None:
    found = compared(evaluation)
    part = page[page.index('<section id="comparison"') : page.index('<section id="robustness"')]
    text = words(f"<main>{part}</main>")
    assert f"{100 * 40 / found.n:+.2f} points" in text and found.other in text and "p < 0.0001" in text
    assert "Only this one is right40of" in text and "Only the other is right0of" in text
    gained = re.findall(r'<li><a class="han" lang="zh" href="#U\+(\w+)">[^<]+</a>([+-]\d+)</li>', part)
    labels = [CHARACTERS.label(chr(int(code, 16))) for code, _ in gained]
    assert [int(net) for _, net in gained] == sorted(found.class_gained, reverse=True)[:12]
    assert found.class_gained[labels].tolist() == [int(net) for _, net in gained]
    assert "lost most" not in text, "no character did"


def test_conditions(page: str) -> None:
    text = words(page)
    assert (
        f"Worst: {HOSTILE}, 50.00%." in text
        and "−40.00 points" in text
        and "+5.00 points" in text
        and "36.00–55.00%" in text
    )


def test_nothing_misread(evaluation: Evaluation, tmp_path: Path) -> None:
    target = evaluation.predictions.target
    perfect = with_predictions(evaluation, top=(target[:, None] + np.arange(10)) % len(CHARACTERS))
    page = write(perfect, tmp_path / "r.html")
    assert re.findall(r'<section id="(\w+)"', page) == [
        *("learning", "confidence", "characters", "writers", "classes", "about")
    ]
    assert "100.00<small> %" in page


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 4, [0, 1, 2, 3, 4]), (0.873, 0.991, [0.88, 0.9, 0.92, 0.94, 0.96, 0.98])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)
    assert ticks(5, 5)


def test_colours_have_contrast_in_both_modes(page: str) -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    modes = [dict(re.findall(r"--([\w-]+): (#\w{6});", block)) for block in re.findall(r":root \{(.*?)\}", page, re.S)]
    assert len(modes) >= 2
    for mode in modes[:2]:
        pairs = [(text, ground) for text in ("ink", "soft", "seal") for ground in ("paper", "sheet", "wash")]
        for text, ground in [*pairs, ("on-seal", "seal")]:
            bright, dark = sorted((luminance(mode[text]), luminance(mode[ground])), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= 4.5, f"{text} on {ground}"
