"""Fits that several modules look at."""

import pytest
from deliberations import one_descent, simulated

from aggregation import fit


@pytest.fixture(scope="session")
def world():
    """Ratings and ids of a simulated deliberation with one minimum."""
    return simulated()


@pytest.fixture(scope="session")
def optimum(world):
    """The default fit of `world`."""
    return fit(world[0])


@pytest.fixture(scope="session")
def single(world):
    """One descent on `world`."""
    return fit(world[0], settings=one_descent())
