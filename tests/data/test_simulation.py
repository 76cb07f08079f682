"""A planted deliberation: its shape, its truth, and that the package finds the truth."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from aggregation import (
    ALIGNED_2023,
    InputError,
    encode,
    fit,
    read,
    score,
    sections,
    select,
    simulate,
)
from aggregation.data.simulation import planted


def test_same_seed_same_bytes_other_seed_other_ratings():
    one, same, other = (json.dumps(simulate(s, 90).export) for s in (4, 4, 5))
    assert one == same
    assert one != other


def test_fewer_guidelines_and_ratings_can_be_planted():
    whole, some = simulate(2, 80), simulate(2, 80, n_guidelines=40, median_ratings=6)
    assert len(some.guidelines) == len(some.export["guidelines"]) == 40
    kinds = (world.guidelines["kind"].value_counts(normalize=True) for world in (whole, some))
    np.testing.assert_allclose(*(kind.sort_index() for kind in kinds), atol=0.05)
    texts = [{g["value"] for g in world.export["guidelines"]} for world in (some, whole)]
    assert texts[0] < texts[1]
    each = pd.DataFrame(some.export["ratings"]).groupby("authorId").size()
    assert 4 <= each.median() <= 8
    with pytest.raises(InputError, match="n_guidelines is 500: there are 121 texts"):
        simulate(n_guidelines=500)


def test_the_export_has_the_shape_of_the_platform():
    export = simulate(1, 50).export
    assert set(export) == {"topics", "guidelines", "ratings", "users", "mu"}
    assert export["mu"] is None
    assert {r["rating"] for r in export["ratings"]} == {"helpful", "not_helpful"}
    assert all(g["embeddings"] == [] and g["intercept"] is None for g in export["guidelines"])
    ids = {g["id"] for g in export["guidelines"]}
    assert {r["guidelineId"] for r in export["ratings"]} <= ids
    pairs = [(r["authorId"], r["guidelineId"]) for r in export["ratings"]]
    assert len(pairs) == len(set(pairs))


def test_the_deliberation_is_as_large_and_as_uneven_as_described():
    world = simulate(20231013)
    per_user = pd.DataFrame(world.export["ratings"])["authorId"].value_counts()
    assert 115 <= len(world.guidelines) <= 125
    assert 15 <= per_user.median() <= 25
    assert per_user.max() > 5 * per_user.median() / 2
    shares = world.users["camp"].value_counts(normalize=True)
    np.testing.assert_allclose(shares[["large", "middle", "small"]], [0.55, 0.30, 0.15], atol=0.06)
    topics = planted("topics")
    assert 8 <= len(topics) <= 10
    assert set(topics["parent_id"].eq("")) == {True, False}
    assert planted("texts")["text"].is_unique


@pytest.fixture(scope="module")
def world():
    """What was planted, and what the package says of it."""
    truth = simulate(1)
    s = sections(source={"kind": "simulated"}, ratings={})
    dataset = read(s.source, s.ratings, 1)
    ratings, ids = encode(dataset.ratings)
    found = fit(ratings).parameters
    scores = select(score(ratings, ids, found), ALIGNED_2023).scores
    return SimpleNamespace(
        scores=scores.merge(truth.guidelines, on="guideline_id"),
        dataset=dataset,
        camp=truth.users.set_index("user_id")["camp"][ids.users],
        axis=pd.Series(found.user_embedding[:, 0], index=ids.users),
    )


def test_shared_guidelines_are_accepted_and_others_are_not(world):
    scores = world.scores
    accepted = scores[scores["verdict"] == "accepted"]
    shared = scores[scores["kind"] == "shared"]
    assert set(accepted["kind"]) == {"shared"}
    assert len(accepted) >= 0.85 * len(shared)


def test_divisive_guidelines_with_a_high_majority_rate_are_not_accepted(world):
    scores = world.scores
    fooled = scores[(scores["kind"] == "divisive") & (scores["helpful_rate"] >= 0.8)]
    assert len(fooled) >= 8  # a majority vote would take them
    assert not (fooled["verdict"] == "accepted").any()


def test_shared_guidelines_rank_above_divisive_ones(world):
    scores = world.scores
    shared = scores.loc[scores["kind"] == "shared", "intercept"]
    divisive = scores.loc[scores["kind"] == "divisive", "intercept"]
    wins = (shared.to_numpy()[:, None] > divisive.to_numpy()).mean()
    assert wins > 0.98


def test_one_topic_has_nothing_that_is_accepted(world):
    scores = world.scores
    topics = world.dataset.guidelines.set_index("guideline_id")["topic_id"]
    accepted = scores.loc[scores["verdict"] == "accepted", "guideline_id"].map(topics)
    assert set(topics) - set(accepted) == {"character"}


def test_the_axis_tells_the_camps_apart(world):
    large, middle = (world.axis[world.camp == camp] for camp in ("large", "middle"))
    assert (large > 0).mean() > 0.9
    assert (middle < 0).mean() > 0.85


def test_the_dataset_says_that_it_is_simulated(world):
    assert world.dataset.about.simulated
