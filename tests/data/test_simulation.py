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
from aggregation.data.simulation import World, planted


def test_same_seed_same_bytes_other_seed_other_ratings():
    one, same, other = (json.dumps(simulate(s, World(90)).export) for s in (4, 4, 5))
    assert one == same
    assert one != other


def test_fewer_guidelines_and_ratings_can_be_planted():
    whole, some = simulate(2, World(80)), simulate(2, World(80, 40, 6))
    assert len(some.guidelines) == len(some.export["guidelines"]) == 40
    kinds = (world.guidelines["kind"].value_counts(normalize=True) for world in (whole, some))
    np.testing.assert_allclose(*(kind.sort_index() for kind in kinds), atol=0.05)
    texts = [{g["value"] for g in world.export["guidelines"]} for world in (some, whole)]
    assert texts[0] < texts[1]
    each = pd.DataFrame(some.export["ratings"]).groupby("authorId").size()
    assert 4 <= each.median() <= 8
    with pytest.raises(InputError, match="n_guidelines is 0"):
        simulate(1, World(n_guidelines=0))


def test_more_guidelines_than_texts_are_numbered():
    made = simulate(1, World(20, 300))
    texts = [g["value"] for g in made.export["guidelines"]]
    assert len(set(texts)) == len(made.guidelines) == 300
    assert texts[121] == f"{texts[0]} (2)"


def rates(made, by):
    """Helpful rate of each kind of guideline, by a column of the users."""
    told = pd.DataFrame(made.export["ratings"]).assign(helpful=lambda t: t["rating"] == "helpful")
    told = told.merge(made.guidelines, left_on="guidelineId", right_on="guideline_id")
    told = told.merge(made.users, left_on="authorId", right_on="user_id")
    return told.groupby(["kind", by])["helpful"].mean().unstack()


def test_camps_and_axes_divide_as_many_as_they_say():
    assert set(simulate(1, World(camps=2)).users["camp"]) == {"large", "middle"}
    divisive = [
        (simulate(1, World(axes=k)).guidelines["kind"] == "divisive").sum() for k in range(4)
    ]
    assert divisive[0] == 0 < divisive[1] < divisive[2] == divisive[3]
    alike = simulate(1, World(2000, axes=0))
    assert set(alike.guidelines["kind"]) == {"shared", "disliked"}
    apart = rates(simulate(1, World(2000, camps=2)), "camp").loc["divisive"]
    assert abs(apart["large"] - apart["middle"]) > 0.2
    together = rates(alike, "camp")
    assert (together.max(axis=1) - together.min(axis=1) < 0.08).all()


def test_odd_users_do_as_they_are_called_and_change_nobody_else():
    plain = simulate(3, World(400))
    odd = simulate(3, World(400, coin_tossers=0.1, straight_liners=0.1, attackers=15))
    assert odd.users["behaviour"].value_counts().to_dict() == {
        "sincere": 320,
        "coin_tosser": 40,
        "straight_liner": 40,
        "attacker": 15,
    }
    told = pd.DataFrame(odd.export["ratings"])
    of = odd.users.set_index("user_id")["behaviour"]
    by = told.groupby(told["authorId"].map(of))
    assert by.get_group("coin_tosser")["rating"].eq("helpful").mean() == pytest.approx(
        0.5, abs=0.05
    )
    assert by.get_group("straight_liner").groupby("authorId")["rating"].nunique().max() == 1
    attacks = by.get_group("attacker")
    (target,) = odd.guidelines.loc[odd.guidelines["attacked"], "guideline_id"]
    wanted = attacks[attacks["guidelineId"] == target]
    assert wanted["rating"].eq("helpful").sum() == 15
    assert attacks.groupby("authorId").size().eq(11).all()
    assert odd.guidelines.set_index("guideline_id").loc[target, "kind"] == "disliked"
    sincere = set(of[of == "sincere"].index)
    keys = ["authorId", "guidelineId", "rating"]
    one, other = (
        {tuple(r[k] for k in keys) for r in made.export["ratings"] if r["authorId"] in sincere}
        for made in (plain, odd)
    )
    assert one == other


def test_exposure_decides_who_meets_what():
    seen = []
    for exposure in (0.0, 2.0):
        made = simulate(4, World(1500, exposure=exposure))
        told = pd.DataFrame(made.export["ratings"])
        mark = told["guidelineId"].map(made.guidelines.set_index("guideline_id")["mark"])
        large = told["authorId"].map(made.users.set_index("user_id")["camp"]) == "large"
        seen.append((mark[large] == ">").mean() / (mark[~large] == ">").mean())
    assert seen[0] == pytest.approx(1, abs=0.1)
    assert seen[1] > 2


def test_the_export_has_the_shape_of_the_platform():
    export = simulate(1, World(50)).export
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
