"""The report's pictures of what went wrong: pairs, groups, characters, writers, and errors that may be wrong labels.

The most telling parts ask for pictures first, since a page has room for a limited number of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from html import escape

import numpy as np

from hcr.evaluation.analysis import Analysis, Evaluation
from hcr.evaluation.groups import Row
from hcr.evaluation.metrics import Confusion, wilson
from hcr.evaluation.page.gallery import Gallery
from hcr.evaluation.page.markup import (
    Section,
    between,
    character,
    code_point,
    folded,
    inline,
    line,
    percent,
    shot,
    table,
)
from hcr.pack.store import PackReader
from hcr.text import counted

# How many of each are shown, and how many pictures for a direction of a pair, for a class, and for a writer.
_PAIRS, _GROUPS, _CLASSES, _WRITERS = 100, 60, 36, 12
_PICTURES, _ERRORS, _HAND = 4, 8, 12


class Lists:
    """Makes the sections that show pictures of `evaluation`, whose split `reader` holds.

    errors: for each label its misread samples as places in the predictions' arrays, highest score first.
    """

    def __init__(self, evaluation: Evaluation, analysis: Analysis, reader: PackReader, gallery: Gallery) -> None:
        self._evaluation, self._analysis, self._reader, self._gallery = evaluation, analysis, reader, gallery
        self._charset, self._predictions = evaluation.charset, evaluation.predictions
        wrong = np.flatnonzero(~self._predictions.hit)
        score = np.nan_to_num(self._predictions.score[wrong, 0], nan=-1.0)
        self.errors: dict[int, list[int]] = defaultdict(list)
        self._by_pair: dict[tuple[int, int], list[int]] = defaultdict(list)
        for place in wrong[np.argsort(-score, kind="stable")].tolist():
            target = int(self._predictions.target[place])
            self.errors[target].append(place)
            self._by_pair[target, int(self._predictions.first[place])].append(place)

    def name(self, label: int) -> str:
        """Return the character of a label, "–" for no answer."""
        return self._charset[label] if label >= 0 else "–"

    def picture(self, place: int) -> str:
        """Return the picture at a place in the predictions' arrays; misread ones are framed."""
        target, first = int(self._predictions.target[place]), int(self._predictions.first[place])
        miss = target != first
        said = (
            f"{self._charset[target]}, read as {self.name(first)}"
            if miss
            else f"{self._charset[target]}, read correctly"
        )
        return self._gallery.picture(int(self._predictions.index[place]), said, miss)

    def pairs(self) -> Section | None:
        """Show the pairs that are confused most, both ways together; None where nothing was misread."""
        found = _both_ways(self._analysis.confusions)
        if not found:
            return None
        cards = [self._pair(*pair) for pair in found[:_PAIRS]]
        which = f"The {_PAIRS} most frequent of {len(found):,}" if found[_PAIRS:] else f"All {len(found)}"
        intro = f"{which} pairs, both directions counted. Underlined: misread."
        body = folded(cards, 12, '<div class="cards">', "</div>", "pairs")
        return Section("pairs", "Pairs", "Most confused pairs", intro, body)

    def _pair(self, a: int, b: int, count: int, back: int) -> str:
        head = (
            f'<header>{character(self._charset[a])}<span class="versus" aria-hidden="true">⇄</span>'
            f'{character(self._charset[b])}<span class="end"><b>{count + back:,}</b><br>'
            f'<span class="soft small">{_times(count + back)}</span></span></header>'
        )
        return f'<article class="card">{head}{self._direction(a, b, count)}{self._direction(b, a, back)}</article>'

    def _direction(self, target: int, predicted: int, count: int) -> str:
        if count:
            said = f"{inline(self.name(target))} read as {inline(self.name(predicted))}, {count:,} ×"
            places = self._by_pair[target, predicted][:_PICTURES]
        else:
            said = f"{inline(self.name(target))} read correctly"
            hits = self._predictions.hit & (self._predictions.target == target)
            places = np.flatnonzero(hits)[:_PICTURES].tolist()
            if not places:
                return f'<p class="soft small">{inline(self.name(target))} never read correctly</p>'
        return f'<p class="soft small">{said}</p>{line([self.picture(place) for place in places])}'

    def groups(self) -> Section | None:
        """Show the groups of characters that are confused among themselves; None where there are none."""
        groups = self._analysis.groups[:_GROUPS]
        if not groups:
            return None
        group_of = {label: number for number, group in enumerate(groups) for label in group.labels}
        edges: dict[int, list[Confusion]] = defaultdict(list)
        for pair in self._analysis.confusions:
            number = group_of.get(pair.target)
            if number is not None and group_of.get(pair.predicted) == number:
                edges[number].append(pair)
        cards = []
        for number, group in enumerate(groups):
            shots = [
                shot(
                    self.picture(self._by_pair[pair.target, pair.predicted][0]),
                    f"{inline(self.name(pair.target))}→{inline(self.name(pair.predicted))} <small>{pair.count}</small>",
                )
                for pair in edges[number][:_PICTURES]
            ]
            characters = "".join(character(self.name(label)) for label in group.labels)
            recall, errors = percent(group.correct / group.n), group.n - group.correct
            cards.append(
                f'<article class="card"><header><span class="group">{characters}</span></header>'
                f'<p class="soft small">{recall} recall; {group.inside:,} of {errors:,} errors '
                f"stay in the group</p>{line(shots)}</article>"
            )
        rest = next((row for row in self._analysis.by_group if not row.name), None)
        intro = "Characters that are taken for each other, found from the errors alone."
        if rest and rest.n:
            intro += f" The {counted(rest.classes, 'character')} in no group have a recall of {percent(rest.recall)}."
        body = folded(cards, 12, '<div class="cards">', "</div>", "groups")
        return Section("groups", "Groups", "Confused among themselves", intro, body)

    def worst_classes(self) -> Section | None:
        """Show the worst characters with their errors; None where nothing was misread."""
        summary = self._evaluation.summary
        high = [wilson(*both)[1] for both in zip(summary.correct.tolist(), summary.count.tolist(), strict=True)]
        order = np.lexsort((summary.recall, np.array(high)))
        worst = [label for label in order.tolist() if summary.correct[label] < summary.count[label]][:_CLASSES]
        if not worst:
            return None
        items = []
        for label in worst:
            char, n, correct = self._charset[label], int(summary.count[label]), int(summary.correct[label])
            shots = [self._answered(place) for place in self.errors[label][:_ERRORS]]
            items.append(
                f'<li><span class="name">{character(char)}<code class="soft">{code_point(char)}</code></span>'
                f'<span class="share">{percent(summary.recall[label], 1)}<small>{correct:,} of {n:,}</small></span>'
                f"{line(shots)}</li>"
            )
        intro = (
            "Sorted by the upper end of the 95% interval of their recall, so that none is here only for having few "
            "samples. Below each picture is what it was read as."
        )
        body = folded(items, 12, '<ul class="rows">', "</ul>", "characters")
        return Section("worst", "Worst characters", "The worst characters", intro, body)

    def _answered(self, place: int) -> str:
        return shot(self.picture(place), inline(self.name(int(self._predictions.first[place]))))

    def writers(self) -> Section | None:
        """Show the worst writers with a line of their hand; None where the pack names no writers."""
        rows = [row for row in self._analysis.writers if row.name and row.n]
        if not rows:
            return None
        writer_of = self._reader.writers[self._predictions.index]
        names: list[str] = self._reader.meta["writers"]
        items = [self._writer(row, np.flatnonzero(writer_of == names.index(row.name))) for row in rows[:_WRITERS]]
        body = f'<ul class="rows">{"".join(items)}</ul>'
        if len(rows) > _WRITERS:
            cells = [
                [row.name, f"{row.n:,}", percent(row.recall), between((row.low, row.high)), percent(row.confidence)]
                for row in rows
            ]
            every = table(("writer", "pictures", "recall", "95% interval", "mean confidence"), cells)
            body += f'<details class="more"><summary>Show all {counted(len(rows), "writer")}</summary>{every}</details>'
        intro = (
            f"{counted(len(rows), 'writer')}, from {percent(rows[0].recall)} to {percent(rows[-1].recall)} recall. "
            "Of each hand some pictures, up to half of them misread: underlined, with the answer below."
        )
        return Section("writers", "Writers", "The worst writers", intro, body)

    def _writer(self, row: Row, places: np.ndarray) -> str:
        hit = self._predictions.hit[places]
        wrong = _spread(places[~hit], _HAND // 2)
        right = _spread(places[hit], _HAND - len(wrong))
        shots = [
            self.picture(place) if self._predictions.hit[place] else self._answered(place)
            for place in sorted([*wrong.tolist(), *right.tolist()])
        ]
        return (
            f'<li><span class="name">{escape(row.name)}</span><span class="share">{percent(row.recall, 1)}'
            f"<small>{row.correct:,} of {row.n:,}</small></span>{line(shots)}</li>"
        )

    def confident_errors(self) -> Section | None:
        """Show the errors with the highest scores, and where each lies; None where nothing was misread."""
        places = self._analysis.confident_errors.tolist()
        if not places:
            return None
        origins = self._reader.origins(self._predictions.index[places].tolist())
        cards = []
        for place, origin in zip(places, origins, strict=True):
            target, first = int(self._predictions.target[place]), int(self._predictions.first[place])
            sure = _sure(float(self._predictions.score[place, 0]))
            cards.append(
                f'<article class="card noise">{self.picture(place)}<div><p>labelled {self._link(target)}, read as '
                f'{self._link(first)}{f" at {sure}" if sure else ""}</p><code class="soft">{escape(origin)}</code>'
                "</div></article>"
            )
        intro = (
            "The errors made with the greatest confidence; a wrong label is likeliest here. "
            "File and offset lead to the record in the source."
        )
        body = folded(cards, 12, '<div class="cards">', "</div>", "errors")
        return Section("confident", "Label noise", "Sure, and wrong", intro, body)

    def _link(self, label: int) -> str:
        if label < 0:
            return "nothing"
        char = self._charset[label]
        return f'<a lang="zh" href="#{code_point(char)}">{escape(char)}</a>'

    def sample_strip(self, n: int) -> str:
        """Return `n` pictures chosen at random, always the same ones; they are ornament, and not read out."""
        drawn = np.random.default_rng(0).permutation(self._evaluation.summary.n)[:n]
        miss = ~self._predictions.hit[drawn]
        pictures = zip(self._predictions.index[drawn].tolist(), miss.tolist(), strict=True)
        return line([self._gallery.picture(index, "", missed) for index, missed in pictures])


def _both_ways(confusions: Sequence[Confusion]) -> list[tuple[int, int, int, int]]:
    """Return each pair once, as (target, predicted, count, back) with count ≥ back, most errors first."""
    pairs = {}
    for pair in confusions:
        key = min(pair.target, pair.predicted), max(pair.target, pair.predicted)
        if key not in pairs:
            pairs[key] = pair.target, pair.predicted, pair.count, pair.back
    return sorted(pairs.values(), key=lambda found: (-found[2] - found[3], found))


def _spread(places: np.ndarray, n: int) -> np.ndarray:
    """Pick `n` of the places, evenly."""
    return places[np.unique(np.linspace(0, len(places) - 1, min(n, len(places))).astype(np.int64))]


def _sure(score: float) -> str:
    """Nothing is quite certain: a score of 1 is one that float32 has rounded."""
    return ">99.99%" if score > 0.9999 else percent(score)


def _times(count: int) -> str:
    return "time" if count == 1 else "times"
