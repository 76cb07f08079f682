"""Real deliberations: the fit is as low as any that is known, and seeds agree on what is accepted.

`make bench` does the same for all six deliberations, over 20 seeds.
"""

from worlds import reading

from aggregation import ALIGNED_2023, Settings, encode, fit, score, select
from aggregation.decisions.constitution import ACCEPTED


def ratings_of(data, name):
    found = reading("polis", data / "polis" / name, moderation="all", meta="keep")
    return encode(found.ratings)


def fitted(data, name, seed, max_starts=256):
    ratings, ids = ratings_of(data, name)
    return ratings, ids, fit(ratings, settings=Settings(seed=seed, max_starts=max_starts))


def accepted(ratings, ids, parameters):
    scores = select(score(ratings, ids, parameters), ALIGNED_2023).scores
    return set(scores.loc[scores["verdict"] == ACCEPTED, "guideline_id"])


# The lowest losses were found by an independent solver in float64 before this one was written.


def test_the_lowest_known_loss_is_reached_from_any_seed(data):
    """On this one it accepts nothing, and a minimum a little higher accepts 21."""
    for seed in (1, 2):
        ratings, ids, found = fitted(data, "scoop-hivemind.ubi", seed)
        assert found.objective <= 0.146675
        assert found.converged
        assert found.kkt_residual <= 1e-6
        assert accepted(ratings, ids, found.parameters) == set()
    (other,) = (m for m in found.minima if abs(m.objective - 0.147175) < 1e-6)
    assert other.starts > 0
    assert len(accepted(ratings, ids, other.parameters)) == 21


def test_moving_single_rows_lowers_what_the_starts_found(data):
    """No three starts agree here, so that all 256 would be tried; 8 are enough."""
    _, _, found = fitted(data, "bg2050-volunteers", 0, max_starts=8)
    assert found.objective <= 0.120184
    assert found.kkt_residual <= 1e-6
    assert found.moves > 0
    assert found.objective < min(start.objective for start in found.starts) - 1e-7
