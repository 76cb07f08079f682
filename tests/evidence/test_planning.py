"""Planning: more people and more ratings decide more."""

from aggregation import World
from aggregation.evidence.planning import plan


def test_more_people_and_ratings_decide_more():
    said = []
    found = plan([60, 300], [8, 30], World(n_guidelines=30), worlds=2, callback=said.append)
    assert list(found[["users", "ratings_each"]].itertuples(index=False, name=None)) == [
        (60, 8),
        (60, 30),
        (300, 8),
        (300, 30),
    ]
    decided = found["decided"].to_list()
    assert decided[0] < decided[1] < decided[3]
    assert decided[2] < decided[3]
    assert found["per_guideline"].is_monotonic_increasing or decided[1] > decided[2]
    assert found["shared_accepted"].iloc[3] > 0.9
    assert found["divisive_accepted"].iloc[3] == 0
    assert said[0] == "60 users with 8 ratings each"


def test_the_same_seed_plans_the_same():
    one, other = (plan([50], [10], World(n_guidelines=20), worlds=1, seed=4) for _ in range(2))
    assert one.equals(other)
    assert not one.equals(plan([50], [10], World(n_guidelines=20), worlds=1, seed=5))
