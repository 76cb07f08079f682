"""A fit in shards: the same minimum as without them, and the same bits on any number of devices."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

import aggregation as ag
from aggregation.errors import InputError
from aggregation.model.multistart import SHARDS, search
from aggregation.model.parameters import COMMUNITY_NOTES, Penalty, loss
from aggregation.model.sharding import ShardedSweeper, cuts, in_order


def world(users=203, guidelines=40):
    """Two camps, and users that rate as little as one guideline or as much as all."""
    random = np.random.default_rng(3)
    camp = np.where(np.arange(users) % 2 == 0, 1, -1)
    shown = random.random((users, guidelines)) < random.random((users, 1)) ** 2
    shown[np.arange(users), random.integers(0, guidelines, users)] = True
    p = 1 / (1 + np.exp(-1.5 * camp[:, None] * random.normal(size=guidelines)))
    user, guideline = np.nonzero(shown)
    helpful = (random.random(len(user)) < p[user, guideline]).astype(float)
    arrays = user.astype(np.int32), guideline.astype(np.int32), helpful
    return ag.Ratings(*arrays, users, guidelines)


def one(**changes):
    """Settings of a single descent."""
    return ag.Settings(starts=1, max_starts=1, moves=False, **changes)


def digest():
    """Hash of where forty sweeps lead; a process of its own prints it."""
    fit = ag.fit(world(), COMMUNITY_NOTES, one(shards=8, max_sweeps=40))
    bits = (*fit.parameters.arrays(), fit.history, fit.objective, fit.kkt_residual)
    return hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in bits)).hexdigest()


def test_eight_devices_give_the_bits_of_one():
    code = "import jax, test_sharding as t; print(len(jax.devices()), t.digest())"
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.path.dirname(__file__),  # noqa: PTH120
    }
    told = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout
    assert told.split() == ["8", digest()]


@pytest.mark.parametrize(("shards", "penalty"), [(60, Penalty()), (7, COMMUNITY_NOTES)])
def test_shards_end_in_the_minimum_that_is_found_without_them(shards, penalty):
    ratings = world()
    whole = ag.fit(ratings, penalty, one(tolerance=1e-9))
    found = ag.fit(ratings, penalty, one(tolerance=1e-9, shards=shards))
    assert found.objective == pytest.approx(whole.objective, rel=1e-12)
    for x, y in zip(found.parameters.arrays(), whole.parameters.arrays(), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)
    assert found.objective == pytest.approx(
        float(loss(found.parameters, ratings, penalty)), rel=1e-12
    )


def test_ratings_other_than_0_and_1_pass_through_shards():
    ratings = world()
    ratings = replace(ratings, helpful=np.where(ratings.guideline % 3 == 0, 0.5, ratings.helpful))
    whole, found = (ag.fit(ratings, settings=one(shards=shards)) for shards in (1, 4))
    assert found.objective == pytest.approx(whole.objective, rel=1e-9)


def test_several_starts_are_swept_side_by_side_in_shards():
    from aggregation.model.alternating import Sweeper
    from aggregation.model.processes import ALONE

    ratings, random = world(), np.random.default_rng(0)
    start = ag.Parameters(
        np.zeros(3),
        np.zeros((203, 3)),
        np.zeros((203, 1, 3)),
        random.random((40, 3)),
        random.normal(size=(40, 1, 3)),
    )
    plain = Sweeper(ratings, Penalty()).sweep(start, 1e-9, 2000)
    sharded = ShardedSweeper(ratings, Penalty(), 4, ALONE).sweep(start, 1e-9, 2000)
    np.testing.assert_allclose(sharded.objective, plain.objective, rtol=1e-12)
    assert (sharded.residual <= 1e-9).all()


def test_a_sample_is_searched_and_followed_in_shards(monkeypatch):
    ratings = world()
    for name in ("multistart", "ratings"):
        monkeypatch.setattr(f"aggregation.model.{name}.SAMPLE", 700)
    found = search(ratings, Penalty(), ag.Settings(shards=4, starts=4, max_starts=4))
    assert 700 <= found.sample < len(ratings)
    assert found.minima[0].converged
    whole = ag.fit(ratings, settings=ag.Settings())
    assert found.minima[0].objective == pytest.approx(whole.objective, rel=1e-4)


def test_many_ratings_are_cut_into_shards_and_threads_change_no_bit(monkeypatch):
    ratings = world()
    for name in ("multistart", "ratings"):
        monkeypatch.setattr(f"aggregation.model.{name}.SAMPLE", 700)
    settings = ag.Settings(starts=2, max_starts=2, moves=False)
    alone = search(ratings, Penalty(), settings)
    asked = search(ratings, Penalty(), replace(settings, shards=SHARDS))
    assert not same_bits(alone, asked)
    monkeypatch.setattr("aggregation.model.multistart.RATINGS_TO_SHARD", len(ratings))
    monkeypatch.setattr("aggregation.model.sharding.cores", lambda: 3)
    assert same_bits(search(ratings, Penalty(), settings), asked)
    weighted = replace(ratings, weight=np.ones(len(ratings)))
    assert search(weighted, Penalty(), settings).minima[0].converged  # shards take no weights


def same_bits(one, other):
    pairs = zip(one.minima[0].parameters.arrays(), other.minima[0].parameters.arrays(), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


@given(
    per_user=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    local=st.integers(1, 6),
    count=st.sampled_from([1, 2, 3]),
)
def test_processes_cut_their_users_where_one_process_would(per_user, local, count):
    def ratings(numbers):
        user = np.repeat(np.arange(len(numbers), dtype=np.int32), numbers)
        return ag.Ratings(user, user, user.astype(float), len(numbers), len(numbers))

    n, shards = sum(per_user), local * count
    whole = cuts(ratings(per_user), shards, n, 0, range(shards))
    assert whole[0] == 0
    assert whole[-1] == len(per_user)
    for k in range(count):
        mine = range(k * local, (k + 1) * local)
        a, b = whole[mine.start], whole[mine.stop]
        if a < b:
            own = cuts(ratings(per_user[a:b]), shards, n, sum(per_user[:a]), mine)
            assert (own + a).tolist() == whole[mine.start : mine.stop + 1].tolist()


def test_sums_are_added_in_the_order_of_the_shards():
    assert in_order(np.array([[1e16], [1.0], [-1e16]])).tolist() == [0.0]
    assert in_order(np.array([[1e16], [-1e16], [1.0]])).tolist() == [1.0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"settings": ag.Settings(shards=2, method="gradient-descent")}, "gradient descent needs"),
        ({"settings": ag.Settings(shards=2), "hold": "users"}, "hold needs shards: 1"),
    ],
)
def test_what_cannot_be_cut_into_shards_is_refused(changes, told):
    with pytest.raises(InputError, match=told):
        ag.fit(world(), **changes)
    weighted = replace(world(), weight=np.ones(len(world())))
    with pytest.raises(InputError, match="weights needs shards: 1"):
        ag.fit(weighted, settings=ag.Settings(shards=2))


def test_shards_that_devices_cannot_share_out_are_an_error(monkeypatch):
    import jax

    monkeypatch.setattr(jax, "local_device_count", lambda: 3)
    with pytest.raises(InputError, match=r"shards is 4, but there are 3 devices.*such as 6"):
        ag.fit(world(), settings=one(shards=4))
