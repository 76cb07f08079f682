"""A sweep lowers the loss of every start."""

import numpy as np
import pytest
from deliberations import dense, one_descent
from hypothesis import given, settings, strategies as st

from aggregation import Penalty, fit


@pytest.mark.parametrize(("dimensions", "norm", "per"), [(1, "l1", "rating"), (2, "l2", "rating")])
@settings(max_examples=4)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_sweep_lowers_the_loss_of_every_start(dimensions, norm, per, seed):
    ratings = dense(np.random.default_rng(seed).choice([0.0, 0.5, 1.0], (8, 6)))
    penalty = Penalty(norm=norm, per=per)
    settings = one_descent(dimensions=dimensions, starts=3, max_starts=3, seed=seed)
    found = fit(ratings, penalty, settings)
    assert np.diff(found.history, axis=0).max(initial=0) <= 1e-12
    assert found.objective <= found.history[-1].min() + 1e-12
    assert np.isfinite(found.parameters.user_embedding).all()
