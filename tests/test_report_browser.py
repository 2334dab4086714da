"""report.html in a real browser: sorting, searching, opening, without a request or an error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hcr.evaluation.analysis import Evaluation
from tests.browser import Browser, find_browser
from tests.reports import ABSENT, CHARACTERS


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium on this machine: the page's behaviour is not tested (apt-get install chromium)")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def at(browser: Browser, report: Path) -> Iterator[Browser]:
    """The report, opened afresh; no test may leave an error or a request behind."""
    browser.open(report.as_uri())
    yield browser
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [report.as_uri()]


def column(browser: Browser, number: int) -> list[str]:
    cells: list[str] = browser.run(
        f"[...document.querySelectorAll('#classes-table tbody tr')].map(r => r.cells[{number}].innerText)"
    )
    return cells


def shown(browser: Browser) -> str:
    """The characters in the table, as many as are rendered."""
    return "".join(cell[0] for cell in column(browser, 0))


def opened(browser: Browser) -> str | None:
    """The character whose card is open."""
    char: str | None = browser.run("document.querySelector('dialog[open] .title .han')?.innerText ?? null")
    return char


def search(browser: Browser, text: str) -> None:
    browser.run("document.getElementById('search').value = ''; document.getElementById('search').focus()")
    browser.type(text)


def test_every_column_sorts_both_ways(at: Browser, evaluation: Evaluation) -> None:
    heads = at.run("[...document.querySelectorAll('#classes-table th')].map(h => h.dataset.key)")
    assert len(heads) == 10
    summary = evaluation.summary
    for number, key in enumerate(heads):
        select = f"#classes-table th:nth-child({number + 1})"
        # The table stands sorted by its first column.
        turns = ("descending", "ascending") if number == 0 else ("ascending", "descending")
        for turn in turns:
            at.click(f"{select} button")
            sorted_by = "[...document.querySelectorAll('th[aria-sort]')].map(h => [h.dataset.key, h.ariaSort])"
            assert at.run(sorted_by) == [[key, turn]]
            if key in ("n", "correct", "recall", "precision", "f1", "confidence"):
                name = {"n": "count", "confidence": "mean_confidence"}.get(key, key)
                figures = [float(getattr(summary, name)[CHARACTERS.label(char)]) for char in shown(at)]
                known = [figure for figure in figures if figure == figure]
                assert known == pytest.approx(sorted(known, reverse=turn == "descending"), abs=2e-4)
    at.click("#classes-table th:nth-child(5) button")
    at.click("#show-more")
    at.click("#show-more")
    assert shown(at)[-1] == ABSENT, "an undefined recall comes last"
    at.click("#classes-table th:nth-child(5) button")
    at.click("#show-more")
    at.click("#show-more")
    assert shown(at)[-1] == ABSENT and column(at, 4)[-1] == "" and len(shown(at)) == len(CHARACTERS)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("已", "已"),
        ("巳已", "已巳"),
        ("U+5DF2", "已"),
        ("u+5df2", "已"),
        ("5DF2", "已"),
        ("<", "<"),
        ("5df", "己已巳"),
        ("龘", ""),
    ],
)
def test_search(at: Browser, asked: str, expected: str) -> None:
    search(at, asked)
    found = "".join(char for char in shown(at) if len(asked) > 3 or char in expected or expected in ("", asked))
    assert found == expected
    assert at.run("document.getElementById('found').innerText") == f"{len(shown(at))} of {len(CHARACTERS)} classes"


def test_search_and_sort_go_over_all_classes_not_only_those_shown(at: Browser) -> None:
    last = CHARACTERS[len(CHARACTERS) - 1]
    assert last not in shown(at) and len(shown(at)) == 50
    search(at, last)
    assert shown(at) == last
    assert not at.run("document.getElementById('show-more').checkVisibility()")
    search(at, "")
    at.run("document.getElementById('only').value = 'empty'")
    at.run("document.getElementById('only').dispatchEvent(new Event('change'))")
    assert shown(at) == ABSENT


def test_a_class_opens_by_mouse(at: Browser, evaluation: Evaluation) -> None:
    search(at, "<")
    at.click("#classes-table tbody td:nth-child(6)")
    assert opened(at) == "<"
    label = CHARACTERS.label("<")
    wrong = int(evaluation.summary.count[label] - evaluation.summary.correct[label])
    text = at.run("document.querySelector('dialog').innerText")
    assert "U+003C" in text and f"{evaluation.summary.recall[label]:.2%}" in text
    assert at.run("document.querySelectorAll('dialog .pic.miss').length") == wrong
    assert at.run("location.hash") == "#U+003C"
    at.click("dialog .close")
    assert opened(at) is None and at.run("location.hash") == ""
    at.click("#pairs .han")
    assert opened(at) == at.run("document.querySelector('#pairs .han').innerText")


def test_a_class_opens_by_keyboard(at: Browser) -> None:
    search(at, "己已巳")
    at.press("Tab", 3)  # past the choice beside it and the scrolling table, to the first heading
    assert at.run("document.activeElement.parentElement.dataset.key") == "point"
    assert at.run("document.activeElement.matches(':focus-visible')")
    at.press("Enter")
    assert shown(at) == "巳已己"
    at.press("Tab", 10)
    assert at.run("document.activeElement.innerText") == "巳"
    at.press("ArrowDown")
    assert at.run("document.activeElement.innerText") == "已"
    at.press("Enter")
    assert opened(at) == "已"
    at.press("ArrowRight")
    assert opened(at) == "己"
    at.press("ArrowLeft", 2)
    assert opened(at) == "巳"
    at.press("Escape")
    assert opened(at) is None
    assert at.run("document.activeElement.innerText") == "已", "the focus returns to where it was"


def test_an_address_names_a_class(browser: Browser, report: Path) -> None:
    browser.open(report.as_uri() + "#U+5DF2")
    assert opened(browser) == "已"


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_never_scrolls_sideways(browser: Browser, report: Path, width: int) -> None:
    browser.open(report.as_uri(), width=width, height=800)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    browser.run("document.querySelectorAll('.card').forEach(c => c.style.contentVisibility = 'visible')")
    seen = browser.run("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert seen[0] <= seen[1] <= width
    browser.run("document.querySelector('#classes-table tbody button').click()")
    bars = browser.run("[...document.querySelectorAll('#robustness .meter i')].map(i => i.clientWidth)")
    assert bars[1] > 10 and bars == pytest.approx([2 * bars[1], bars[1], 0], abs=1)
    box = browser.run("(d => [d.left, d.right])(document.querySelector('dialog').getBoundingClientRect())")
    assert box[0] >= 0 and box[1] <= width
    inner = browser.run("(b => [b.scrollWidth, b.clientWidth])(document.querySelector('dialog .body'))")
    assert inner[0] <= inner[1]


def test_dark_mode_has_colours_of_its_own(browser: Browser, report: Path) -> None:
    colours = []
    for scheme in ("light", "dark"):
        browser.open(report.as_uri(), scheme=scheme)
        colours.append(browser.run("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))"))
    (paper, ink), (dark_paper, dark_ink) = colours
    assert paper != dark_paper and ink != dark_ink
    assert sum(map(int, re.findall(r"\d+", paper))) > 600 > 150 > sum(map(int, re.findall(r"\d+", dark_paper)))


def test_without_javascript_the_figures_can_be_read(browser: Browser, report: Path) -> None:
    browser.open(report.as_uri(), script=False)
    text = browser.call("Runtime.evaluate", expression="document.body.innerText")["result"]["value"]
    assert "top-1 accuracy" in text and "The table needs JavaScript" in text and "Most confused pairs" in text
    assert "Commonest wrong answers" not in text
