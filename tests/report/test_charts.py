"""Charts of the public page: marks do not overlap, words do not collide, colours are told apart."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from aggregation.report import charts
from aggregation.report.charts import histogram, position_map, radius_of, segment_bar, stacked

STYLE = Path(charts.__file__).with_name("templates") / "style.css"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=300))
def test_dots_of_a_map_never_overlap_and_stay_near_where_they_belong(places):
    x = np.array(places)
    r = radius_of(len(x))
    columns, levels = stacked(x, r)
    assert len(set(zip(columns, levels, strict=True))) == len(x)
    step = np.diff(np.unique(columns)).min(initial=1.0)
    assert step * charts.NARROW * (1 - charts.MARGIN / 50) >= 2 * r
    if len(x) <= 10:  # nowhere is a column full
        half = round(1 / step) if step < 1 else 1
        assert np.abs(columns - x).max() <= 0.5 / half + 0.1


def test_a_dot_in_the_middle_stands_in_the_middle():
    columns, levels = stacked(np.array([0.5, 0.5]), 5)
    assert columns.tolist() == [0.5, 0.5]
    assert levels.tolist() == [0, 1]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=200))
def test_the_histogram_counts_everybody_once(places):
    users = np.array(places)
    counts = histogram(users)
    assert counts.sum() == len(users)
    # Turned round, it is the mirror image, but for those on the bound of two buckets.
    assert abs(counts[: charts.BUCKETS // 2].sum() - histogram(-users)[-15:].sum()) <= len(users)
    assert histogram(np.zeros(7))[charts.BUCKETS // 2] == 7


def boxes(svg, width):
    """Of each label and each mark: left, right, top and bottom in pixels on a screen."""
    labels, marks = [], []
    for x, y, end, text in re.findall(
        r'<text class="label" x="([\d.]+)%" y="([\d.]+)"( text-anchor="end")?>([^<]*)<', svg
    ):
        at, long = float(x) * width / 100, charts.LETTER * len(text)
        left, right = (at - long, at) if end else (at, at + long)
        labels.append((left, right, float(y) - 11, float(y) + 3))
    for x, y, r in re.findall(
        r'<circle class="\w+" cx="([\d.]+)%" cy="([\d.]+)" r="([\d.]+)"', svg
    ):
        at, y, r = float(x) * width / 100, float(y), float(r)
        marks.append((at - r, at + r, y - r, y + r))
    return labels, marks


def dot(number, brief, verdict):
    return {"number": number, "brief": brief, "verdict": verdict}


def overlap(one, other):
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


@pytest.mark.parametrize("n", [10, 60, 300])
@pytest.mark.parametrize("seed", range(4))
def test_labels_of_a_map_collide_with_nothing_on_any_screen(n, seed):
    random = np.random.default_rng(seed)
    places = random.standard_t(3, n)
    dots = [dot(k, f"guideline with words {k}", "rejected") for k in range(1, n + 1)]
    svg = str(position_map(dots, places, places, ("left", "right"), "a b", sides=True))
    found = 0
    for width in range(charts.LABELLED, charts.WIDE + 1, 13):
        labels, marks = boxes(svg, width)
        assert len(marks) == n
        found = max(found, len(labels))
        for k, label in enumerate(labels):
            assert min(label[0] + 1, width + 1 - label[1]) >= 0
            assert not any(overlap(label, other) for other in labels[:k])
            assert not any(overlap(label, mark) for mark in marks)
    assert found <= charts.MOST_LABELS
    assert found > 0 or n > 10


def test_words_of_strangers_are_escaped_in_a_chart():
    dots = [dot(1, '"><script>alert(1)</script>', "accepted")]
    svg = str(position_map(dots, np.zeros(1), np.zeros(3), ("<b>", "<i>"), "a b", sides=False))
    assert not re.search(r"<(?:script|b|i)>", svg)


def test_segments_are_as_long_as_they_are_many():
    segments = [charts.Segment(n, n, k, "#x") for n, k in (("clear", 1), ("thin", 3), ("close", 4))]
    svg = str(segment_bar(segments))
    assert re.findall(r'class="(\w+)" x="([\d.]+)%" y="1" width="([\d.]+)%"', svg) == [
        ("clear", "0.000", "12.500"),
        ("thin", "12.500", "37.500"),
        ("close", "50.000", "50.000"),
    ]


# colours


def colours(part):
    return {
        name: np.array([int(value[k : k + 2], 16) / 255 for k in (0, 2, 4)])
        for name, value in re.findall(r"--([\w-]+): #([0-9a-f]{6})", part)
    } | {
        name: np.array([int(c * 2, 16) / 255 for c in value])
        for name, value in re.findall(r"--([\w-]+): #([0-9a-f]{3})[;\s}]", part)
    }


def linear(colour):
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def contrast(one, other, seen=None):
    """WCAG 2.2; `seen`: what the eye makes of linear colours."""
    seen = np.eye(3) if seen is None else seen
    light = [np.clip(seen @ linear(c), 0, 1) @ [0.2126, 0.7152, 0.0722] for c in (one, other)]
    return (max(light) + 0.05) / (min(light) + 0.05)


EYES = {
    "all colours": np.eye(3),
    # Machado, Oliveira and Fernandes 2009, severity 1
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_the_two_sides_are_told_apart_by_everybody_and_in_grey(eyes, scheme):
    """Contrast is that of brightness, so what holds for it holds in greyscale."""
    style = STYLE.read_text("utf-8")
    start = {
        "light": ":root {",
        "dark": "prefers-color-scheme: dark",
        "print": ":root { --paper: #fff; --ink: #000",
    }
    part = style[style.index(start[scheme]) :]
    found = colours(part[: part.index("}")])
    seen = EYES[eyes]
    assert contrast(found["a"], found["b"], seen) >= 3
    for name in ("a", "b", "mark"):
        assert contrast(found[name], found["paper"], seen) >= 3, name
    assert contrast(found["ink"], found["paper"]) >= 7
    for name in ("soft", "link", "warn"):
        assert contrast(found[name], found["paper"]) >= 4.5, name
