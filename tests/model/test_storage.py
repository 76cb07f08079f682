"""A fit is stored as tables and plain values, and comes back bit for bit."""

import dataclasses
import json

import numpy as np
import pandas as pd
from hypothesis import given, settings, strategies as st

from aggregation import Fit, Parameters, Penalty, encode
from aggregation.model.multistart import Minimum, Start
from aggregation.model.storage import SIDES, restored, tables, values


def bits(value):
    """Everything in a value, floats and arrays down to the bit."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return type(value).__name__, {f.name: bits(getattr(value, f.name)) for f in fields}
    if isinstance(value, tuple):
        return tuple(map(bits, value))
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.str, value.shape, value.tobytes()
    return type(value).__name__, value.hex() if isinstance(value, float) else value


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([-0.0, 0.0, 5e-324])
IDS = ["z", "Z", "é", "a b", "台灣", "10", "9", "🎉", "\ue000"]


@st.composite
def fits(draw):
    """Any fit that could be saved, of 9 users and 2 guidelines."""
    d, n_minima = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    n_starts, sweeps = draw(st.integers(1, 4)), draw(st.integers(1, 3))

    def array(*shape):
        size = int(np.prod(shape))
        return np.array(draw(st.lists(NUMBERS, min_size=size, max_size=size))).reshape(shape)

    minima = tuple(
        Minimum(
            draw(NUMBERS),
            draw(NUMBERS),
            draw(st.booleans()),
            draw(st.integers(0, 256)),
            Parameters(np.float64(draw(NUMBERS)), array(9), array(9, d), array(2), array(2, d)),
        )
        for _ in range(n_minima)
    )
    starts = st.builds(Start, st.sampled_from(["uniform", "earlier model"]), st.booleans(), NUMBERS)
    return Fit(
        method="alternating",
        penalty=draw(st.builds(Penalty, st.floats(1e-3, 9), norm=st.sampled_from(["l1", "l2"]))),
        balance=draw(st.none() | NUMBERS),
        sweeps=draw(st.integers(0, 10**6)),
        starts=tuple(draw(starts) for _ in range(n_starts)),
        settled=draw(st.booleans()),
        minima=minima,
        n_minima=draw(st.integers(1, 300)),
        moves=draw(st.integers(0, 10**5)),
        n_blocks=draw(st.integers(1, 9)),
        sample=draw(st.integers(0, 9)),
        continued=draw(st.booleans()),
        history=array(sweeps, n_starts),
    )


@settings(max_examples=30)
@given(fits())
def test_any_fit_is_read_back_bit_for_bit(fit):
    table = pd.DataFrame(
        [(user, guideline, 1.0) for user in IDS for guideline in "ba"],
        columns=["user_id", "guideline_id", "helpful"],
    )
    ratings, ids = encode(table)
    stored = tables(fit, ids)
    plain = json.loads(json.dumps(values(fit, ratings)))
    assert bits(restored(plain, stored)) == bits(fit)
    for name in SIDES:  # rows follow their ids, not the table
        stored[name] = stored[name].iloc[::-1].reset_index(drop=True)
    assert bits(restored(plain, stored)) == bits(fit)
