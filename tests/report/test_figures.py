"""Figures: real pictures with words, labels that do not overlap, the same bytes every time."""

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from matplotlib import rc_context, rcParams
from matplotlib.figure import Figure
from matplotlib.image import imread

from aggregation.decisions.constitution import select
from aggregation.decisions.rules import ALIGNED_2023, Rule
from aggregation.evidence.sides import perspectives
from aggregation.model.parameters import Parameters
from aggregation.model.ratings import Ratings
from aggregation.report import figures


def scores(accepted, others, seed=0):
    random = np.random.default_rng(seed)
    n = accepted + others
    table = pd.DataFrame(
        {
            "guideline_id": [f"g{k:03d}" for k in range(n)],
            "n_ratings": 20,
            "helpful_rate": np.r_[np.full(accepted, 0.9), random.random(others) * 0.79],
            "intercept": np.r_[0.4 + 0.1 * random.random(accepted), random.random(others) * 0.3],
            "embedding": [[x] for x in random.normal(0, 0.3, n)],
        }
    )
    rate = table["helpful_rate"]
    return select(
        table.assign(consensus_score=(1.1 - rate) * table["intercept"] + rate - 0.1), ALIGNED_2023
    )


def users(n=50):
    random = np.random.default_rng(1)
    none = np.zeros((0, 1))
    return Parameters(0.0, random.normal(size=n), random.normal(size=(n, 1)), none[:, 0], none)


@pytest.mark.parametrize(("accepted", "others"), [(0, 5), (1, 0), (30, 60)])
def test_figures_are_pictures_with_alt_text(accepted, others):
    constitution = scores(accepted, others)
    for picture in (
        figures.embedding(constitution.scores, users()),
        figures.bridging(constitution.scores, ALIGNED_2023),
    ):
        pixels = imread(io.BytesIO(picture.png))
        assert pixels.shape[1] == round(figures.WIDTH * figures.DPI)
        assert pixels[..., :3].std() > 0.01  # not blank
        assert f"{accepted}" in picture.alt
        data, metadata = picture._repr_mimebundle_()
        assert metadata["image/png"]["alt"] == picture.alt
        assert data["text/plain"] == picture.alt


def test_settings_of_a_user_change_no_figure_and_are_left_alone():
    plain = figures.embedding(scores(9, 9).scores, users()).png
    theirs = {"axes.facecolor": "red", "scatter.edgecolors": "black", "font.size": 30}
    with rc_context(theirs):
        assert figures.embedding(scores(9, 9).scores, users()).png == plain
        assert all(rcParams[name] == value for name, value in theirs.items())


def test_numbers_that_differ_in_rounding_only_are_shown_as_the_same():
    axes = Figure().subplots()
    axes.plot([0, 1], [0.3174603174603175, 0.3174603174604175])
    figures._spread(axes)
    low, high = axes.get_ylim()
    assert high - low == pytest.approx(0.1)
    assert low < 0.3174603174603175 < high
    axes.set_ylim(0, 0.001)
    figures._spread(axes)
    assert axes.get_ylim() == (0, 0.001)


def test_the_same_figure_has_the_same_bytes():
    one, same = (figures.embedding(scores(9, 9).scores, users()).png for _ in range(2))
    assert one == same


def test_the_loss_curve_tells_where_the_starts_ended():
    history = np.array([[0.5, 0.6], [0.2, 0.3]])
    alt = figures.loss_curve(history).alt
    assert "2 starts over 2 sweeps" in alt
    assert "lowest ends at 0.200000" in alt
    assert "1 of 2 starts" in alt
    figures.loss_curve(history[:, :1])  # a single start has no others


def test_bounds_of_the_rule_are_drawn_where_it_has_them():
    """A vertical line for each bound on the helpful rate, a horizontal one on the intercept."""
    ratings, intercept, rate = ALIGNED_2023.conditions
    table = scores(9, 9).scores
    for conditions, bounds in (
        ((ratings, rate), "helpful rate at least 0.8"),
        ((intercept,), "intercept more than 0.375"),
        ((ratings,), "none"),
    ):
        judged = select(table, Rule("other", conditions)).scores
        accepted = (judged["verdict"] == "accepted").sum()
        alt = figures.bridging(judged, Rule("other", conditions)).alt
        assert f"Bounds of the rule: {bounds}. {accepted} guidelines are accepted" in alt
        assert ("by helpful rate alone" in alt) == (rate in conditions)


def test_activity_tells_the_medians():
    zero = np.zeros(4, np.int32)
    alt = figures.activity(Ratings(np.arange(4, dtype=np.int32), zero, np.ones(4), 4, 1)).alt
    assert "ratings per user: 1 to 1, median 1" in alt
    assert "ratings per guideline: 4 to 4, median 4" in alt


def test_perspectives_are_drawn_for_each_guideline_or_for_none(values):
    found = perspectives(values["ratings"], values["fit"].parameters.user_embedding)
    table = values["constitution"].accepted.assign(number=range(1, 9))
    for guidelines in (table, table.iloc[:0]):
        picture = figures.range_of_perspectives(found, values["ids"], guidelines)
        assert f"{len(guidelines)} histograms" in picture.alt
        assert imread(io.BytesIO(picture.png))[..., :3].std() > 0.01


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_labels_never_overlap(seed, n):
    random = np.random.default_rng(seed)
    points = random.normal(500, 10 ** random.uniform(-1, 2), (n, 2))
    centres = figures.place_labels(points, height=10, gap=30, bounds=(0, 1000))
    assert np.isfinite(centres).all()
    for k in range(n):
        for j in range(k):
            apart = np.abs(centres[k] - centres[j])
            assert apart[0] >= 30 or apart[1] >= 10 - 1e-9
    assert (np.abs(centres[:, 0] - points[:, 0]) >= 30 - 1e-9).all()
    if n <= 40:
        assert centres[:, 1].min() >= 5 - 10
        assert centres[:, 1].max() <= 1000


def test_calibration_tells_how_far_off_predictions_are():
    table = pd.DataFrame(
        {"bin": [0.2, 0.8], "predicted": [0.25, 0.85], "observed": [0.35, 0.85], "n": [30, 10]}
    )
    assert "off by 7.5 percentage points on average" in figures.calibration(table).alt
    assert figures.calibration(table[:0]) is None
