"""A small planted deliberation that the tests of evidence share: one shape, compiled once."""

from types import SimpleNamespace

import pytest

from aggregation import Settings, World, encode, fit, score, simulate
from aggregation.data.choices import Choices
from aggregation.data.dataset import HELPFUL
from aggregation.evidence.two_sides import two_sides, with_two_sides
from aggregation.sources.platform_export import read_export


@pytest.fixture(scope="session")
def small():
    """dataset, ratings, ids, fit, sides, scores, and kind: what each guideline was planted as."""
    made = simulate(5, World(90))
    dataset = read_export(made.export, Choices(HELPFUL), "simulated")
    ratings, ids = encode(dataset.ratings)
    found = fit(ratings, settings=Settings(max_starts=8, moves=False))
    sides = two_sides(ratings)
    scores = with_two_sides(score(ratings, ids, found.parameters), sides, ids)
    kind = made.guidelines.set_index("guideline_id")["kind"]
    return SimpleNamespace(
        dataset=dataset,
        ratings=ratings,
        ids=ids,
        fit=found,
        sides=sides,
        scores=scores,
        kind=kind,
    )
