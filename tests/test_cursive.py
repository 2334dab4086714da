"""Skeletons and running forms: corners, kinds, parts, and which components the rules find."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from hcr.charset import Charset
from hcr.synth import Generator, StrokeTable, style
from hcr.synth.copybook import NUMBERS, STEPS, make_copybook
from hcr.synth.cursive import sites
from hcr.synth.cursive.lines import Found, New, knots
from hcr.synth.cursive.rules import RULES
from hcr.synth.cursive.sites import around, knots_of, sheltered, sites_of, tie, with_running_forms
from hcr.synth.skeleton import BENT, DOT, HENG, NA, PIE, SHU, Stroke, parts_of, strokes_of, without_false_hooks
from hcr.synth.style import WriterStyles


def written(char: str) -> list[Stroke]:
    return without_false_hooks(strokes_of(StrokeTable.load().medians(char)))


def test_kinds_and_corners_are_those_of_the_strokes() -> None:
    assert [stroke.kind for stroke in written("木")] == [HENG, SHU, PIE, NA]
    assert [stroke.kind for stroke in written("口")] == [SHU, BENT, HENG]
    assert [stroke.pieces for stroke in written("马")] == [2, 4, 1]
    assert [stroke.hooked for stroke in written("门")] == [False, False, True]
    assert [stroke.hooked for stroke in written("口")] == [False, False, False]
    assert written("江")[0].kind == DOT


def test_side_of_a_low_box_is_no_hook() -> None:
    printed = strokes_of(StrokeTable.load().medians("独"))
    assert printed[4].hooked and not without_false_hooks(printed)[4].hooked
    assert without_false_hooks(printed)[1].hooked, "犭 keeps its hook"
    assert [stroke.hooked for stroke in written("宁")] == [False, False, True, False, True]


def test_serifs_are_cut_off() -> None:
    left = StrokeTable.load().medians("口")[0]
    assert left[1, 0] - left[0, 0] > 0.04, "the median sets in from the left"
    stroke = written("口")[0]
    assert abs(stroke.direction(0) - 80) < 8


def test_parts_follow_the_structure() -> None:
    assert [part for _, part in parts_of(written("汉"))] == [0, 0, 0, 1, 1]
    assert [half for half, _ in parts_of(written("汉"))] == [0, 0, 0, 1, 1]
    assert [part for _, part in parts_of(written("官"))] == [0, 0, 0, 1, 1, 1, 1, 1]
    assert [part for _, part in parts_of(written("十"))] == [0, 0]


def test_what_goes_around_is_a_half_of_its_own() -> None:
    counts = {char: around(written(char), sites_of(written(char))) for char in "过建之江"}
    assert counts == {"过": 3, "建": 2, "之": 0, "江": 0}
    assert [half for half, _ in parts_of(written("过"), 3)] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("rule", "having", "lacking"),
    [
        ("box", "口日目田国唱听知", "十木山匠"),
        ("water", "江河海汉冷冲", "木快小"),
        ("dots_in_row", "热点照杰学", "木江六"),
        ("walk", "道这过远建", "木不是又殳"),
        ("speech", "说话语许", "木江"),
        ("grass", "草花英苦", "木江"),
        ("bamboo", "笔答等筒", "木江容空"),
        ("roof", "写军冠", "木江虫主"),
        ("thread", "红经给丝", "木江"),
        ("heart", "想忘急", "快江"),
        ("ear", "院都阳那即", "子孩存江"),
        ("frame", "门月贝同用", "口江宁"),
        ("levels", "月钱用", "木江工"),
        ("tick", "打地特孩", "木十才"),
        ("side_tree", "想和秋", "木江未"),
        ("pair_of_dots", "快羊头", "木口"),
        ("legs", "木林只共", "口江"),
        ("lid", "主言广高宝文安宁字容空", "木江小型写"),
        ("foot", "是走定题", "木江生止"),
        ("step", "得往行", "你江"),
        ("base", "土坐生江", "木河十打"),
        ("again", "又对各取冬峰", "木口文"),
        ("strike", "放收教改", "欠欢木久"),
        ("woman", "女好姓安要", "木子母"),
        ("beast", "犯独猫狗", "木才打"),
        ("robe", "礼神衫被", "木之良"),
        ("inch", "寸对守村", "示余木打"),
        ("small", "小京示素少", "木求水"),
        ("knife", "刑到别前", "木川竹"),
        ("mountain", "山岭峰出", "木止口"),
        ("person", "你什件偏", "不千得午"),
        ("cart", "车轻连军", "木七东"),
    ],
)
def test_rules_find_their_components(rule: str, having: str, lacking: str) -> None:
    found = {char: {RULES[site.rule].__name__ for site in sites_of(written(char))} for char in having + lacking}
    assert [char for char in having if rule not in found[char]] == [], found
    assert [char for char in lacking if rule in found[char]] == []


def test_a_further_rule_has_a_liking_and_changes_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def cross(strokes: Sequence[Stroke], first: int) -> Found | None:
        """十, which no other rule takes: always without its upright."""
        if len(strokes) != 2 or [stroke.kind for stroke in strokes] != [HENG, SHU]:
            return None
        return 2, [(1.0, [New(knots(strokes[0]))])]

    def likings() -> torch.Tensor:
        return WriterStyles(0, writers, zero + ord("十"), zero).liking

    def drawn(char: str) -> torch.Tensor:
        return Generator(char).draw(zero, writers, zero, seed=0, size=32)

    writers = torch.arange(40)
    zero = torch.zeros_like(writers)
    before, pictures = likings(), {char: drawn(char) for char in "十口"}
    assert before.shape == (40, len(RULES))
    for module in (sites, style):
        monkeypatch.setattr(module, "RULES", (*RULES, cross))
    after = likings()
    assert after.shape == (40, len(RULES) + 1) and torch.equal(after[:, : len(RULES)], before)
    assert torch.equal(drawn("口"), pictures["口"])
    # Fast writers leave the upright out, as the last rule says; the others write it.
    before, after = ((picture[:, 0] < 255).any(2).sum(1) for picture in (pictures["十"], drawn("十")))
    assert (before > 14).all() and 5 < (after > 14).sum() < 35


def test_a_fast_hand_lets_the_dot_above_a_level_stroke_reach_it() -> None:
    strokes = written("主")
    (site,) = [site for site in sites_of(strokes) if RULES[site.rule].__name__ == "lid"]
    level = strokes[1].line[:, 1].mean()
    lowest = [max(point[1] for point in lines[0].knots) for _, lines in site.alternatives]
    assert min(lowest) < level - 0.03, "a dash stays above it"
    assert max(lowest) > level + 0.03, "a few go through it"
    roofed = next(site for site in sites_of(written("宝")) if RULES[site.rule].__name__ == "lid")
    assert roofed.strokes == 3, "the dot and the roof are one component"


def test_sites_share_no_stroke_and_their_lines_stay_near_the_box() -> None:
    for char in Charset.level1().characters[::40]:
        strokes = written(char)
        end = 0
        for site in sites_of(strokes):
            assert site.first >= end and site.strokes > 0
            end = site.first + site.strokes
            assert 0 < sum(share for share, _ in site.alternatives) < 1
        assert end <= len(strokes)
        for line in knots_of(sites_of(strokes)):
            assert len(line) >= 2 and line.min() > -0.1 and line.max() < 1.1, char


def test_what_is_below_a_roof_is_drawn_into_it() -> None:
    def moves(char: str) -> np.ndarray:
        strokes = written(char)
        return sheltered(strokes, with_running_forms(strokes, [], iter(())))

    moved = moves("宁")
    assert (moved[0] == 0).all(), "the dot above the roof stays"
    assert moved[1, -1, 1] > 0.1 and abs(moved[1, 0, 1]) < 0.01, "the left side grows downwards"
    assert moved[3, :, 1].max() < -0.05, "the level stroke below rises"
    assert abs(moved[4, -10:, 1]).max() < 0.05, "the foot stays"
    assert [char for char in "宝江口虫" if moves(char).any()] == ["宝"]


def test_repeated_levels_like_to_be_joined() -> None:
    assert tie(written("三"), 0) > 0 and tie(written("十"), 0) < tie(written("三"), 0)
    assert tie(written("三"), 2) == 0


def test_copybook_has_every_stroke_and_every_alternative_once() -> None:
    book = make_copybook("口木")
    assert book.host_rows.tolist() == book.rows.tolist() and int(book.rows.sum()) == len(book.shape)
    columns = dict(zip(NUMBERS, book.numbers.T, strict=True))
    assert (columns["opens"].sum() == columns["ends"].sum()).item()
    first = slice(0, int(book.rows[0]))
    site = columns["site"][first] == 1
    assert site.all(), "all of 口 is a box"
    # For every liking exactly one alternative is written.
    low, high = book.chosen[first, 0], book.chosen[first, 1]
    starts = columns["opens"][first] == 1
    for liking in np.linspace(0.005, 0.995, 34):
        lines = starts & (low <= liking) & (liking < high)
        assert 1 <= int(lines.sum()) <= 3
        assert len(set(low[lines].tolist())) == 1
    points, goes_on = book.shape[:, : 2 * (STEPS + 1)].unflatten(1, (-1, 2)), columns["ends"][:-1] == 0
    torch.testing.assert_close(points[:-1, -1][goes_on], points[1:, 0][goes_on])
