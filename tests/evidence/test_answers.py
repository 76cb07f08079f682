"""Support by declared answers: plain counts, and nothing that tells of few people."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from aggregation import encode
from aggregation.data.suppression import MIN_CELL_SIZE
from aggregation.evidence.answers import by_answer


def judged(rows, said):
    """By guideline: what `by_answer` says; rows: user, guideline, helpful; said: user -> answer."""
    table = pd.DataFrame(rows, columns=["user_id", "guideline_id", "helpful"])
    ratings, ids = encode(table)
    answers = pd.DataFrame(
        {"user_id": list(said), "question": "age", "answer": list(said.values())}
    )
    scores = pd.DataFrame({"guideline_id": [*ids.guidelines, "unrated"]})
    return by_answer(scores, ratings, ids, answers).set_index("guideline_id")


def test_rates_are_those_of_the_people_who_gave_each_answer():
    said = {f"u{k:02}": "young" if k < 30 else "old" for k in range(50)}
    rows = [(u, "g", float(k < 24 or k >= 45)) for k, u in enumerate(said)]
    found = judged(rows, said).loc["g"]
    old, young = found["by_answer"]
    assert (young["question"], young["answer"], young["n"]) == ("age", "young", 30)
    assert young["helpful_rate"] == pytest.approx(24 / 30)
    assert (old["n"], old["helpful_rate"]) == (20, pytest.approx(5 / 20))
    assert 0 < old["low"] < old["helpful_rate"] < old["high"] < 1
    assert found["lowest_answer"] == "age: old"
    assert found["lowest_answer_rate"] == pytest.approx(0.25)


def test_a_guideline_without_ratings_or_a_deliberation_without_answers_has_none():
    said = {f"u{k}": "old" for k in range(20)}
    rows = [(u, "g", 1.0) for u in said]
    assert pd.isna(judged(rows, said).loc["unrated", "lowest_answer_rate"])
    assert judged(rows, {}).loc["g", "by_answer"] == []


@given(
    st.lists(st.integers(0, 25), min_size=1, max_size=6),
    st.integers(0, 12),
)
def test_no_number_of_few_people_is_shown_or_can_be_computed(sizes, silent):
    users = [(f"u{k}-{i}", f"answer {k}") for k, n in enumerate(sizes) for i in range(n)]
    users += [(f"s{i}", None) for i in range(silent)]
    if not users:
        return
    rows = [(u, "g", float(hash(u) % 2)) for u, _ in users]
    found = judged(rows, {u: a for u, a in users if a}).loc["g", "by_answer"]
    shown = {c["answer"]: c["n"] for c in found}
    assert all(n >= MIN_CELL_SIZE for n in shown.values())
    held = [n for k, n in enumerate(sizes) if n and f"answer {k}" not in shown]
    held += [silent] * (silent > 0)
    rest = len(users) - sum(shown.values())
    assert rest == sum(held)
    if any(n < MIN_CELL_SIZE for n in held):  # the rest could be anybody's
        assert len(held) > 1 or not shown
        assert rest - (len(held) - 1) >= MIN_CELL_SIZE or not shown
    assert np.isfinite([c["helpful_rate"] for c in found]).all()
