"""The search finds the lowest minimum, compares what it found, and says how sure it is."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import aggregation as ag
from aggregation.model import multistart as module
from aggregation.model.initialization import starting_points
from aggregation.model.ratings import drawn
from aggregation.model.storage import values


@pytest.fixture(scope="module")
def trap():
    """Two camps that differ, a little, on one guideline in five: many shallow minima."""
    random = np.random.default_rng(4)
    u, g = 300, 100
    camp = np.where(np.arange(u) % 2 == 0, 1, -1)
    leaning = np.repeat([1, -1, 0], [g // 10, g // 10, g - g // 5])
    p = 1 / (1 + np.exp(-(0.8 + camp[:, None] * leaning)))
    user, guideline = np.nonzero(random.random((u, g)) < 0.5)
    helpful = (random.random(len(user)) < p[user, guideline]).astype(float)
    return ag.Ratings(user.astype(np.int32), guideline.astype(np.int32), helpful, u, g)


def at_zero(ratings):
    """The loss of the best model without embeddings, by ridge regression."""
    n = len(ratings)
    x = np.zeros((n, 1 + ratings.n_users + ratings.n_guidelines))
    x[:, 0] = 1
    x[np.arange(n), 1 + ratings.user] = 1
    x[np.arange(n), 1 + ratings.n_users + ratings.guideline] = 1
    weight = 0.15 * x.sum(axis=0)
    best = np.linalg.solve(x.T @ x + np.diag(weight), x.T @ ratings.helpful)
    return (((ratings.helpful - x @ best) ** 2).sum() + (weight * best**2).sum()) / n


def test_zero_embeddings_are_a_minimum(trap):
    random, one = np.random.default_rng(0), ag.Settings(starts=1, max_starts=1, moves=False)
    near = ag.Parameters(
        np.float64(0.2),
        np.zeros(300),
        np.zeros((300, 1)),
        np.zeros(100),
        1e-3 * random.normal(size=(100, 1)),
    )
    found = ag.fit(trap, settings=one, warm_start=near)
    assert not found.parameters.user_embedding.any()
    assert found.objective == pytest.approx(at_zero(trap), abs=1e-9)
    without_moves = ag.fit(trap, settings=ag.Settings(moves=False))
    assert without_moves.objective < found.objective - 0.001


def test_most_starts_by_continuation_end_lowest_and_most_others_do_not(trap):
    found = ag.fit(trap, settings=ag.Settings(starts=24, max_starts=24, moves=False))
    low = found.objective * (1 + module.LOSS_TOLERANCE)
    plain = [s.objective <= low for s in found.starts if s.kind == "uniform" and not s.continuation]
    continuation = [s.objective <= low for s in found.starts if s.continuation]
    assert np.mean(continuation) > 0.7
    assert np.mean(plain) < 0.4


def test_the_search_ends_when_three_starts_reach_the_lowest_loss(trap):
    found = ag.fit(trap, settings=ag.Settings(moves=False))
    lowest = min(s.objective for s in found.starts)
    reached = sum(s.objective <= lowest * (1 + module.LOSS_TOLERANCE) for s in found.starts)
    assert found.settled
    assert reached >= module.AGREEING_STARTS
    before = found.starts[: -module.STARTS_PER_BATCH]
    if before:
        lowest = min(s.objective for s in before)
        reached = sum(s.objective <= lowest * (1 + module.LOSS_TOLERANCE) for s in before)
        assert reached < module.AGREEING_STARTS


def test_the_minima_that_are_kept_are_solved_far_below_the_tolerance(trap):
    found = ag.fit(trap, settings=ag.Settings(moves=False, tolerance=1e-4))
    assert max(minimum.kkt_residual for minimum in found.minima) <= 1e-4 * module.POLISH


def test_a_search_that_runs_out_of_starts_says_so(trap):
    found = ag.fit(trap, settings=ag.Settings(starts=1, max_starts=1, moves=False))
    assert not found.settled
    assert len(found.starts) == 1
    assert "a lower one may exist" in found.doubts()[0]


def test_minima_are_minima_of_their_own_lowest_first(trap):
    found = ag.fit(trap, settings=ag.Settings(starts=24, max_starts=24))
    losses = [b.objective for b in found.minima]
    assert losses == sorted(losses)
    assert len(losses) > 1
    assert losses[0] == found.objective
    assert np.diff(losses).min() > module.LOSS_TOLERANCE * losses[0]
    for minimum in found.minima:
        assert minimum.kkt_residual <= 1e-6
        assert float(ag.loss(minimum.parameters, trap, ag.Penalty())) == pytest.approx(
            minimum.objective
        )
    ends = np.array([s.objective for s in found.starts])
    for minimum in found.minima:
        close = np.abs(ends - minimum.objective) <= module.LOSS_TOLERANCE * minimum.objective
        assert minimum.starts == close.sum()


@pytest.fixture(scope="module")
def loud():
    """A few loud users hold up an axis, so which of them do is a choice among many minima."""
    random = np.random.default_rng(11)
    u, g = 40, 30
    user, guideline = (x.ravel() for x in np.indices((u, g)))
    p = np.full((u, g), 0.93)
    p[:6] = 0.93 - 0.8 * (random.random((6, g)) < 0.5)
    helpful = (random.random(u * g) < p.ravel()).astype(float)
    return ag.Ratings(user.astype(np.int32), guideline.astype(np.int32), helpful, u, g)


def test_hops_find_the_lowest_minimum_that_one_descent_misses(loud):
    lowest = ag.fit(loud).objective
    one, told = ag.Settings(seed=2, starts=1, max_starts=1, moves=False), set()
    alone = ag.fit(loud, settings=one)
    hopped = ag.fit(loud, settings=replace(one, moves=True), callback=lambda *x: told.add(x[0]))
    assert (alone.moves, hopped.moves) == (0, module.HOPS)
    assert "hopping between minima" in told
    assert alone.objective > lowest + 1e-4
    assert hopped.objective == pytest.approx(lowest, rel=1e-9)


def test_no_hop_moves_a_row_that_is_held(loud):
    near = ag.fit(loud, settings=ag.Settings(seed=4, starts=1, max_starts=1, moves=False))
    one = ag.Settings(starts=1, max_starts=1)
    held = ag.fit(loud, settings=one, warm_start=near.parameters, hold="users")
    for minimum in held.minima:
        users = minimum.parameters.user_embedding
        np.testing.assert_array_equal(users, near.parameters.user_embedding)


def test_starts_are_the_seeds_and_the_earlier_ones_stay(trap):
    def starts(seed, n):
        endless = starting_points(trap, 1, seed, None)
        return [next(endless) for _ in range(n)]

    few, many, other = starts(1, 3), starts(1, 9), starts(2, 3)
    for one, same in zip(few, many):
        np.testing.assert_array_equal(
            one.parameters.guideline_embedding, same.parameters.guideline_embedding
        )
    uniform = few[0].parameters.guideline_embedding
    assert ((uniform >= 0) & (uniform < 1)).all()
    assert not np.array_equal(uniform, other[0].parameters.guideline_embedding)
    kinds = [point.kind for point in many]
    assert {"uniform", "ratings 1", "residuals 1", "residuals 2"} == set(kinds)


def test_singular_vectors_are_those_of_a_dense_decomposition(trap):
    endless = starting_points(trap, 1, 0, None)
    points = {point.kind: point.parameters for point in (next(endless) for _ in range(5))}
    dense = np.zeros((trap.n_users, trap.n_guidelines))
    dense[trap.user, trap.guideline] = trap.helpful
    first = np.linalg.svd(dense)[2][0]
    found = points["ratings 1"].guideline_embedding[:, 0]
    assert abs(found @ first) / np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
    assert (found >= 0).all()
    centred = points["residuals 1"]
    level = centred.mu + centred.guideline_intercept[trap.guideline]
    by_user = np.bincount(trap.user, trap.helpful - level) / np.bincount(trap.user)
    dense[trap.user, trap.guideline] = trap.helpful - level - by_user[trap.user]
    first = np.linalg.svd(dense)[2][0]
    found = centred.guideline_embedding[:, 0]
    assert abs(found @ first) / np.linalg.norm(found) == pytest.approx(1, abs=1e-3)


def test_the_callback_hears_of_every_phase(trap):
    told = []
    found = ag.fit(trap, callback=lambda *x: told.append(x))
    phases = list(dict.fromkeys(what for what, *_ in told))
    assert phases[0] == "starts 1 to 8"
    assert phases[-1] == "polishing"
    assert any("moving" in phase for phase in phases)
    sweeps = [sweeps for _, sweeps, _, _ in told]
    assert sweeps == sorted(sweeps)
    assert sweeps[-1] == found.sweeps


def test_a_bar_shows_after_a_second_and_leaves_nothing(capfd, monkeypatch):
    with ag.progress() as callback:
        callback("starts 1 to 8", 10, 0.25, 0.1)
    assert capfd.readouterr().err == ""
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr("tqdm.std.time", lambda: float(next(clock)))
    with ag.progress() as callback:
        for sweeps in (10, 20, 30):
            callback("starts 1 to 8", sweeps, 0.25, 0.1)
    shown = capfd.readouterr().err
    assert "starts 1 to 8" in shown
    assert "loss 0.2500000, residual 1.0e-01" in shown
    assert shown.rsplit("\r", maxsplit=1)[-1] == ""


def test_of_many_ratings_a_sample_is_searched_and_all_are_fitted(world, optimum, monkeypatch):
    ratings = world[0]
    monkeypatch.setattr(module, "SAMPLE", len(ratings) // 3)
    found = ag.fit(ratings)
    assert len(ratings) / 3 <= found.sample < len(ratings) / 2
    assert found.converged
    assert found.objective == pytest.approx(optimum.objective, rel=1e-9)
    difference = found.parameters.guideline_intercept - optimum.parameters.guideline_intercept
    assert np.abs(difference).max() < 1e-6
    assert min(s.objective for s in found.starts) == pytest.approx(found.objective, rel=1e-9)
    assert found.history[-1].min() == pytest.approx(found.objective, rel=1e-6)
    assert f"{found.sample:,} ratings" in repr(found._card())


def test_a_sample_is_where_ratings_lie_densest(world, optimum, monkeypatch):
    ratings = world[0]
    monkeypatch.setattr(module, "SAMPLE", len(ratings) // 8)
    monkeypatch.setattr(module, "RATINGS_OF_A_USER", 6)
    some, chosen, popular = module._sample(ratings, 0, module.ALONE)
    per_guideline, kept = ratings.per_guideline(), popular[ratings.guideline]
    assert 0 < popular.sum() < ratings.n_guidelines
    assert per_guideline[popular].min() >= per_guideline[~popular].max()
    assert len(ratings) / 8 <= len(some) < len(ratings) / 4
    at = kept & chosen[ratings.user]
    np.testing.assert_array_equal(some.helpful, ratings.helpful[at])
    np.testing.assert_array_equal(np.flatnonzero(popular)[some.guideline], ratings.guideline[at])
    np.testing.assert_array_equal(np.flatnonzero(chosen)[some.user], ratings.user[at])
    few = np.bincount(ratings.user[kept], minlength=ratings.n_users) < module.RATINGS_OF_A_USER
    assert few.any()
    assert not (chosen & few).any()
    found = ag.fit(ratings)
    assert found.sample == len(some)
    assert found.objective == pytest.approx(optimum.objective, rel=1e-9)


def test_an_earlier_model_is_the_first_start_on_a_sample_too(world, optimum, monkeypatch):
    ratings = world[0]
    monkeypatch.setattr(module, "SAMPLE", len(ratings) // 3)
    turned = replace(
        optimum.parameters,
        user_embedding=-optimum.parameters.user_embedding,
        guideline_embedding=-optimum.parameters.guideline_embedding,
    )
    found = ag.fit(ratings, warm_start=turned)
    assert found.warm_start
    assert found.sample
    near = np.abs(found.parameters.guideline_embedding - turned.guideline_embedding)
    assert near.max() < 1e-5


@pytest.fixture(scope="module")
def before(world):
    """The fit of `world` before its last ratings came, for the ids of all."""
    ratings, ids = world
    rows = pd.DataFrame({"user_id": ids.users[ratings.user], "helpful": ratings.helpful})
    rows["guideline_id"] = ids.guidelines[ratings.guideline]
    late = np.random.default_rng(0).random(len(rows)) < 0.03
    late |= (ratings.guideline == 3) | (ratings.user == 5)
    old, old_ids = ag.encode(rows[~late])
    added, more = ag.append(old, old_ids, rows[late])
    assert len(added) == len(ratings)
    return ag.reindex(ag.fit(old).parameters, old_ids, more)


@pytest.mark.parametrize("case", ["searched", "one descent"])
def test_new_ratings_are_fitted_from_the_earlier_model_as_if_from_scratch(
    world, optimum, before, monkeypatch, case
):
    ratings, one = world[0], ag.Settings(starts=1, max_starts=1, moves=False)
    monkeypatch.setattr(module, "SAMPLE", len(ratings) // 3)
    found = ag.fit(ratings, settings=one if case == "one descent" else None, warm_start=before)
    assert found.warm_start
    assert found.continued == (case == "searched")
    assert values(found, ratings)["continued"] == found.continued
    assert np.isnan(before.guideline_intercept).sum() == 1  # a new one
    assert found.objective == pytest.approx(optimum.objective, rel=1e-9)
    difference = found.parameters.guideline_embedding - optimum.parameters.guideline_embedding
    assert np.abs(difference).max() < 1e-4


def test_where_an_earlier_model_leads_higher_all_is_searched_and_that_is_said(
    world, optimum, monkeypatch
):
    ratings, nothing = world[0], np.zeros_like(optimum.parameters.guideline_embedding)
    monkeypatch.setattr(module, "SAMPLE", len(ratings) // 3)
    found = ag.fit(ratings, warm_start=replace(optimum.parameters, guideline_embedding=nothing))
    from_scratch = ag.fit(ratings)
    assert found.warm_start
    assert not found.continued
    assert len(found.minima) > 1
    assert found.objective == pytest.approx(from_scratch.objective, rel=1e-9)
    assert "one is lower than where the earlier model leads" in repr(found._card())
    assert values(found, ratings)["continued"] is False


@pytest.mark.parametrize("known", ["one of two blocks", "no embedding", "half, turned"])
def test_what_an_earlier_model_does_not_know_is_fitted_as_from_scratch(
    world, optimum, monkeypatch, known
):
    ratings, earlier = world[0], optimum.parameters
    u, g = ratings.n_users, ratings.n_guidelines
    nan = [np.full_like(x, np.nan) for x in earlier.arrays()[1:]]
    if known == "one of two blocks":  # nobody of the second rated anything of the first
        both = (np.append(row, row + n) for (row, n) in ratings.sides())
        ratings = ag.Ratings(*both, np.tile(ratings.helpful, 2), 2 * u, 2 * g)
        pairs = zip(earlier.arrays()[1:], nan, strict=True)
        earlier = ag.Parameters(earlier.mu, *(np.concatenate(x) for x in pairs))
    elif known == "no embedding":
        earlier = replace(earlier, user_embedding=nan[1], guideline_embedding=nan[3])
    else:
        half = np.arange(g) % 2 == 0
        for name in ("guideline_intercept", "guideline_embedding"):
            x = -getattr(earlier, name) if name.endswith("embedding") else getattr(earlier, name)
            earlier = replace(
                earlier, **{name: np.where(half.reshape(-1, *[1] * (x.ndim - 1)), x, np.nan)}
            )
        earlier = replace(earlier, user_embedding=-earlier.user_embedding)
    monkeypatch.setattr(module, "SAMPLE", len(ratings) // 3)
    found, from_scratch = ag.fit(ratings, warm_start=earlier), ag.fit(ratings)
    assert found.sample
    assert found.continued
    assert found.objective == pytest.approx(from_scratch.objective, rel=1e-9)


@pytest.mark.parametrize("case", ["one descent", "held rows"])
def test_one_descent_and_held_rows_look_at_all_ratings(world, optimum, monkeypatch, case):
    monkeypatch.setattr(module, "SAMPLE", len(world[0]) // 3)
    if case == "one descent":
        one = ag.Settings(starts=1, max_starts=1, moves=False)
        found = ag.fit(world[0], settings=one)
    else:
        found = ag.fit(world[0], warm_start=optimum.parameters, hold="users")
    assert found.sample == 0


def test_the_sample_is_whole_users_and_all_guidelines(world):
    ratings = world[0]
    chosen = drawn(ratings.per_user(), 500, 7)
    some = ratings.of_users(chosen)
    assert 500 <= len(some) < 600
    assert some.n_guidelines == ratings.n_guidelines
    np.testing.assert_array_equal(some.per_user(), ratings.per_user()[chosen])
    kept = chosen[ratings.user]
    np.testing.assert_array_equal(some.guideline, ratings.guideline[kept])
    np.testing.assert_array_equal(some.helpful, ratings.helpful[kept])
    assert not np.array_equal(chosen, drawn(ratings.per_user(), 500, 8))


def test_fewer_moves_are_tried_where_there_are_more_ratings(trap, monkeypatch):
    every = ag.fit(trap)
    monkeypatch.setattr(module, "RATINGS_MOVED", 20 * len(trap))
    assert 20 <= ag.fit(trap).moves < every.moves / 3
