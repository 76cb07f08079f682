"""The front door in Python: from a frame to a constitution, as people have their frames."""

import doctest

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

import aggregation as ag
from aggregation.report import deliberation as module

FAST = ag.Settings(starts=2, max_starts=2, moves=False)
COLUMNS = {"user": "who", "guideline": "what", "rating": "vote"}


@pytest.fixture(scope="module")
def votes():
    return ag.example()


@pytest.fixture(scope="module")
def found(votes):
    return ag.deliberate(votes, **COLUMNS, settings=FAST)


def verdicts(found):
    table = found.to_frame().sort_values("guideline_id")
    return dict(zip(table["text"], table["verdict"], strict=True))


def test_what_bridges_is_accepted_and_what_divides_is_not(found):
    accepted = {text for text, verdict in verdicts(found).items() if verdict == "accepted"}
    assert accepted == {f"guideline {k}" for k in range(8)}
    table = found.to_frame()
    assert list(table["verdict"][:8]) == ["accepted"] * 8
    assert table.loc[table["verdict"] == "rejected", "reasons"].str.contains("needs").all()


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.assign(vote=v["vote"].map({"yes": 1, "no": 0, "pass": None})),
        lambda v: v.assign(vote=v["vote"].map({"yes": 1, "no": -1, "pass": 0})),
        lambda v: v.assign(vote=v["vote"].map({"yes": True, "no": False}).astype("boolean")),
        lambda v: v.assign(vote=v["vote"].str.upper()),
        lambda v: v.assign(who=v["who"].astype(float)),
        lambda v: v.assign(who=v["who"].map("person {}".format).astype("category")),
        lambda v: v.sample(frac=1, random_state=1).set_index("who").reset_index(),
    ],
    ids=["numbers", "signs", "booleans", "capitals", "float ids", "categories", "order"],
)
def test_other_ways_to_write_the_same_give_the_same(votes, found, change):
    other = ag.deliberate(change(votes), **COLUMNS, settings=FAST)
    assert verdicts(other) == verdicts(found)


def test_texts_come_from_a_dictionary_or_a_frame(votes):
    numbered = votes.assign(what=votes["what"].str.split().str[1].astype(int))
    texts = {k: f"Text of number {k}" for k in range(24)}
    frame = pd.DataFrame({"id": list(texts), "statement": list(texts.values()), "topic": "One"})
    one, other = (
        ag.deliberate(numbered, **COLUMNS, texts=given, settings=FAST) for given in (texts, frame)
    )
    assert set(one.to_frame()["text"]) == set(texts.values()) == set(other.to_frame()["text"])
    assert set(other.to_frame()["topic"]) == {"One"}


def test_a_threshold_makes_ratings_of_stars(votes, found):
    stars = votes.assign(vote=votes["vote"].map({"yes": 4, "no": 2, "pass": None}))
    stars.loc[stars["vote"].eq(4) & (stars["who"] % 3 == 0), "vote"] = 5
    assert verdicts(ag.deliberate(stars, **COLUMNS, threshold=4, settings=FAST)) == verdicts(found)
    with pytest.raises(ag.InputError, match=r"'2', '4', '5'.*such as threshold=4"):
        ag.deliberate(stars, **COLUMNS)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rating": "vot"}, "no column 'vot'.*perhaps 'vote'"),
        ({"texts": {"x": "y"}}, "no column holds ids of rated guidelines, such as 'guideline 0'"),
        ({"rule": "robst"}, "'robst': there is only aligned-2023, robust"),
        ({"values": {"yes": 1}}, "do not say what these values mean"),
    ],
)
def test_what_cannot_be_right_is_an_error_that_says_what_is(votes, changes, says):
    with pytest.raises(ag.InputError, match=says):
        ag.deliberate(votes, **COLUMNS | changes, settings=FAST)


def test_a_missing_id_is_left_out_and_counted(votes):
    holes = votes.assign(who=votes["who"].where(votes.index % 10 != 0))
    got = ag.deliberate(holes, **COLUMNS, settings=FAST)
    counts = got.dataset.counts_table()
    assert counts.loc[counts["reason"] == "no user_id", "n"].item() == len(votes) / 10
    assert "ratings were left out" in repr(got)


def test_the_report_is_written_and_figures_are_axes(found, tmp_path):
    path = found.report(tmp_path / "r.html", title="What we want", question="Which rules?")
    page = path.read_text(encoding="utf-8")
    assert '<h1 dir="auto">What we want</h1>' in page
    assert "guideline 3" in page
    for axes in (found.plot.map(), found.plot.bridging()):
        assert isinstance(axes, Axes)
        assert axes.get_ylabel()


def test_users_stand_on_the_side_that_they_were_planted_on(found):
    users = found.users().assign(who=lambda t: t["user_id"].astype(int))
    sign = np.sign(users["axis_1"])
    assert abs(sign[users["who"] < 20].mean() - sign[users["who"] >= 20].mean()) > 1.8


def test_the_example_in_the_docstring_runs():
    tests = doctest.DocTestFinder().find(module.deliberate, globs={})
    assert sum(len(test.examples) for test in tests) >= 3
    for test in tests:
        assert doctest.DocTestRunner().run(test).failed == 0
