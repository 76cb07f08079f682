"""Charts of the public page, drawn as inline SVG.

Places across are in percent and sizes in pixels, so that text and marks keep their size from 320
pixels to a wide screen. Colours and shapes are classes of templates/style.css.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import east_asian_width

import numpy as np
from markupsafe import Markup, escape

from aggregation.decisions.rules import ACCEPTED, REJECTED, UNDECIDED

NARROW, WIDE = 288, 736
"""Pixels of the narrowest and the widest chart."""

LETTER, LINE = 6.6, 15
"""Pixels of a letter (on average) and of a line of text in a chart."""

MARGIN = 2.5
"""Percent left free on either side, so that no mark is cut."""


Dots = Sequence[Mapping[str, Any]]
"""Guidelines in a chart: number, brief (a text) and verdict of each."""


@dataclass(frozen=True)
class Segment:
    """A part of the bar of all guidelines."""

    name: str
    """A class of the style sheet: clear, close, thin, undecided or rejected."""
    label: str
    n: int
    link: str


def _svg(height: float, label: str, parts: Iterable[str]) -> Markup:
    """`label`: the ids of the elements that name and describe the chart."""
    body = "".join(parts)
    return Markup(  # noqa: S704  # of numbers and escaped texts
        f'<svg class="chart" width="100%" height="{height:g}" role="group" '
        f'aria-labelledby="{label}">{body}</svg>'
    )


def _place(share: Any) -> Any:
    """Percent across, for a share in [0, 1]."""
    return MARGIN + (100 - 2 * MARGIN) * share


def _at(share: float) -> str:
    """A place across, for a share in [0, 1]."""
    return f"{_place(share):.2f}%"


def segment_bar(segments: Sequence[Segment]) -> Markup:
    """One bar of all guidelines; its parts are as long as they are many."""
    total, x, parts = max(sum(s.n for s in segments), 1), 0.0, []
    for s in segments:
        width = 100 * s.n / total
        parts.append(
            f'<a href="{escape(s.link)}" tabindex="-1"><title>{escape(s.label)}: {s.n}</title>'
            f'<rect class="{s.name}" x="{x:.3f}%" y="1" width="{width:.3f}%" height="26"/></a>'
        )
        x += width
    return _svg(28, "answer", parts)


def rate_bar(kind: str, rate: float, low: float, high: float, tick: float | None) -> Markup:
    """A rate in [0, 1] as a bar, its interval as a whisker, the rule's bound as a tick."""
    parts = ['<rect class="track" y="3" width="100%" height="10"/>']
    if not np.isnan(rate):
        parts.append(f'<rect class="{kind}" y="3" width="{100 * rate:.1f}%" height="10"/>')
        for style in ("halo", "whisker"):  # a light line around the dark one: seen on both
            x1, x2 = f"{100 * low:.1f}%", f"{100 * high:.1f}%"
            parts += [
                f'<line class="{style}" x1="{x1}" x2="{x2}" y1="8" y2="8"/>',
                *(f'<line class="{style}" x1="{x}" x2="{x}" y1="5" y2="11"/>' for x in (x1, x2)),
            ]
    if tick is not None:
        parts.append(
            f'<line class="tick" x1="{100 * tick:g}%" x2="{100 * tick:g}%" y1="0" y2="16"/>'
        )
    return Markup(  # noqa: S704  # numbers only
        f'<svg class="rate" width="100%" height="16" aria-hidden="true">{"".join(parts)}</svg>'
    )


def perspective_paths(helpful: np.ndarray, given: np.ndarray) -> tuple[str, str]:
    """Paths of helpful and of not helpful ratings by bucket, in a box of 10 by 44 a bucket.

    Both are drawn from the ground up, the first over the second.
    """
    highest = max(float(given.max()), 1e-9)

    def path(heights: np.ndarray) -> str:
        bars = (
            f"M{10 * k + 1} 44v-{44 * h / highest:.1f}h8V44z"
            for k, h in enumerate(heights)
            if h > 0
        )
        return "".join(bars)

    return path(helpful), path(given)


def stacked(x: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Columns [G] (shares in [0, 1]) and levels [G] of dots at `x` [G] in [0, 1]; none overlap.

    A dot plot (Wilkinson 1999): columns as wide as a dot on the narrowest screen, one of them in
    the middle; in each dots on top of each other, in the order given. Where a column is full, a
    dot goes to the nearest one with room, inwards first.
    """
    half = max(int(NARROW * (1 - MARGIN / 50) / (2 * radius + 1) / 2), 1)
    most = max(10, -(-3 * len(x) // (2 * half + 1)))
    ideal = np.round(np.clip(x, 0, 1) * 2 * half).astype(int)
    columns, levels = np.zeros(len(x), int), np.zeros(len(x), int)
    height = np.zeros(2 * half + 1, int)
    places = np.arange(2 * half + 1)
    for k, want in enumerate(ideal):
        far = np.where(height < most, np.abs(places - want), len(places))
        columns[k] = c = min(np.flatnonzero(far == far.min()), key=lambda c: abs(c - half))
        levels[k] = height[c]
        height[c] += 1
    return columns / (2 * half), levels


def radius_of(n: int) -> float:
    """Pixels of a dot, smaller the more there are."""
    return next(
        r for most, r in ((60, 5), (150, 4), (500, 3), (1000, 2), (10**9, 1.5)) if n <= most
    )


def _mark(dot: Mapping[str, Any], x: str, y: float, r: float) -> str:
    """A dot with its title and a link to its card: the shape tells the verdict."""
    shape = {
        ACCEPTED: f'<rect class="accepted" x="{x}" y="{y - r:g}" width="{2 * r:g}" '
        f'height="{2 * r:g}" transform="translate({-r:g})"/>',
        UNDECIDED: f'<circle class="undecided" cx="{x}" cy="{y:g}" r="{max(r / 2.5, 0.8):g}"/>',
        REJECTED: f'<circle class="rejected" cx="{x}" cy="{y:g}" r="{r - 0.5:g}"/>',
    }[dot["verdict"]]
    return (
        f'<a href="#guideline-{dot["number"]}" tabindex="-1">'
        f"<title>{dot['number']}. {escape(dot['brief'])}</title>{shape}</a>"
    )


def position_map(
    dots: Dots,
    guidelines: np.ndarray,
    users: np.ndarray,
    ends: tuple[str, str],
    label: str,
    *,
    sides: bool,
) -> Markup:
    """Where guidelines [G] (above the line) and users [U] (a histogram below) stand on an axis.

    Each has a scale of its own, 0 in the middle; those beyond the middle 98 % stand at the ends.
    `ends`: what is written at the left and the right end. `sides`: whether these are the two sides,
    and users are coloured by them.
    """
    r = radius_of(len(dots))
    columns, levels = stacked(_centred(guidelines, _widest(guidelines)), r)
    tall = 2 * r + 1
    base = LINE + (levels.max(initial=0) + 1) * tall + 2 * LINE
    placed = [(c, base - r - 1 - tall * level) for c, level in zip(columns, levels, strict=True)]
    parts = [_mark(d, _at(x), y, r) for d, (x, y) in zip(dots, placed, strict=True)]
    counts = histogram(users)
    deep, width = 64, (100 - 2 * MARGIN) / len(counts)
    for k, n in enumerate(counts):
        if n:
            side = int(np.sign(k - len(counts) // 2))
            half = {-1: "smaller", 0: "people", 1: "larger"}[side] if sides else "people"
            parts.append(
                f'<rect class="{half}" x="{MARGIN + k * width + 0.15:.2f}%" y="{base + 2:g}" '
                f'width="{width - 0.3:.2f}%" height="{max(deep * n / counts.max(), 1):.1f}">'
                f"<title>{n}</title></rect>"
            )
    bottom = base + deep + LINE + 4
    middle = f'<line class="zero" x1="50%" x2="50%" y1="{LINE:g}" y2="{base + deep:g}"/>'
    line = f'<line class="axis" x1="0" x2="100%" y1="{base:g}" y2="{base:g}"/>'
    texts = [
        f'<text x="0" y="{bottom - 2:g}">{escape(ends[0])}</text>',
        f'<text x="100%" y="{bottom - 2:g}" text-anchor="end">{escape(ends[1])}</text>',
        *_labels(dots, placed, r),
    ]
    return _svg(bottom + 2, label, [middle, *parts, line, *texts])


BUCKETS = 31
"""Of the histogram of users: an odd number, so that 0 is in the middle of one."""


def histogram(users: np.ndarray) -> np.ndarray:
    """How many users [BUCKETS] stand where, from one end of the axis to the other."""
    where = _centred(users, _widest(users))
    bucket = np.minimum((where * BUCKETS).astype(int), BUCKETS - 1)
    return np.bincount(bucket, minlength=BUCKETS)


def _widest(x: np.ndarray) -> float:
    """Where an axis ends: the few beyond it would squeeze all others together."""
    return float(np.quantile(np.abs(x), 0.98)) if len(x) else 0.0


def _centred(x: np.ndarray, widest: float) -> np.ndarray:
    """Shares in [0, 1] of an axis from -widest to widest."""
    return np.clip(0.5 + 0.5 * np.asarray(x, float) / (widest or 1.0), 0, 1)


MOST_LABELS, LABEL_LENGTHS = 6, (28, 18, 12)

LABELLED = 500
"""Pixels of the narrowest chart with labels: the style sheet leaves them out on narrower ones."""


SCREENS = (LABELLED, WIDE)


def _labels(dots: Dots, placed: Sequence[tuple[float, float]], r: float) -> list[str]:
    """The first words of a handful of guidelines, above their dots, where nothing is in the way.

    Those far out come first: they tell what the ends stand for. What fits at `LABELLED` and on the
    widest screen fits between them, as places move along a line.
    """
    x, y = np.array(placed, float).reshape(-1, 2).T
    tops = {c: k for k, c in enumerate(x)}  # the last of a column is its highest
    boxes: list[tuple[np.ndarray, float]] = []
    found = []
    for k in sorted(tops.values(), key=lambda k: (-abs(x[k] - 0.5), k)):
        left, top = x[k] > 0.5, y[k] - r - LINE
        others = x[(y > top - r - 1) & (y < y[k] + r) & (np.arange(len(x)) != k) & (x != x[k])]
        for longest in LABEL_LENGTHS:
            text = f"{dots[k]['number']} {dots[k]['brief']}"
            text = text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
            box = np.array([_spans(x[k], _letters(text), w, left=left) for w in SCREENS])
            if all(_apart(box, top, *other) for other in boxes) and _free(box, others, r):
                boxes.append((box, top))
                anchor = ' text-anchor="end"' if left else ""
                found.append(
                    f'<text class="label" x="{_at(x[k])}" y="{top + LINE - 4:g}"{anchor}>'
                    f"{escape(text)}</text>"
                )
                break
        if len(found) == MOST_LABELS:
            break
    return found


def _free(box: np.ndarray, others: np.ndarray, r: float) -> bool:
    """Whether no dot at `others` [n] is under the label on either screen, or crosses it between."""
    at = _place(others) / 100
    narrow, wide = (
        np.select([at * w + r < span[0], at * w - r > span[1]], [-1, 1], 0)
        for w, span in zip(SCREENS, box, strict=True)
    )
    return bool(((narrow == wide) & (narrow != 0)).all())


def _letters(text: str) -> int:
    """The width of a text in Latin letters: Chinese ones are twice as wide."""
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)


def _spans(x: float, letters: int, width: int, *, left: bool) -> tuple[float, float]:
    """Pixels that a label takes from its dot at `x` (a share) to the left or the right."""
    at, long = _place(x) / 100 * width, LETTER * letters
    return (at - long, at + 4) if left else (at - 4, at + long)


def _apart(box: np.ndarray, top: float, other: np.ndarray, other_top: float) -> bool:
    """Whether two labels are apart on both screens, or in height."""
    sides = (box[:, 1] < other[:, 0]) | (other[:, 1] < box[:, 0])
    return abs(top - other_top) >= LINE or bool(sides.all())


def both_sides(
    dots: Dots,
    larger: np.ndarray,
    smaller: np.ndarray,
    tick: float | None,
    words: dict[str, str],
    label: str,
) -> Markup:
    """Helpful rates [G] of the larger side (across) against those of the smaller one (up).

    `words`: of the corners (both, larger, smaller, neither) and of the two axes (across, up).
    """
    high, top, r = 340, LINE + 6, min(radius_of(len(dots)), 4)

    def down(share: float) -> float:  # room for the words of the corners is left free
        return top + LINE + 10 + (high - 2 * LINE - 20) * (1 - share)

    left, right, up, low = _at(0), _at(1), down(1), down(0)
    parts = [f'<rect class="frame" x="0" y="{top}" width="100%" height="{high}"/>']
    parts.append(f'<line class="zero" x1="{left}" y1="{low:g}" x2="{right}" y2="{up:g}"/>')
    if tick is not None:
        parts += [
            f'<line class="bound" x1="{_at(tick)}" x2="{_at(tick)}" y1="{top}" y2="{top + high}"/>',
            f'<line class="bound" x1="0" x2="100%" y1="{down(tick):g}" y2="{down(tick):g}"/>',
        ]
    corners: dict[str, tuple[str, float, str]] = {
        "smaller": ("1%", top + LINE, "start"),
        "both": ("99%", top + LINE, "end"),
        "neither": ("1%", top + high - 6, "start"),
        "larger": ("99%", top + high - 6, "end"),
    }
    parts += [
        _mark(d, _at(x), round(down(y), 1), r)
        for d, x, y in zip(dots, larger, smaller, strict=True)
    ]
    parts += [
        f'<text class="corner" x="{x}" y="{y:g}" text-anchor="{anchor}">'
        f"{escape(words[name])}</text>"
        for name, (x, y, anchor) in corners.items()
    ]
    bottom = top + high + LINE
    parts += [
        f'<text x="0" y="{LINE - 2}">↑ {escape(words["up"])}</text>',
        f'<text x="100%" y="{bottom}" text-anchor="end">{escape(words["across"])} →</text>',
    ]
    return _svg(bottom + 6, label, parts)
