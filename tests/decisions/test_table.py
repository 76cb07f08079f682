"""The constitution as text for people: only what is accepted, and nothing of it is markup."""

import re

import mistune
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from aggregation import as_markdown, numbered
from aggregation.decisions.constitution import select
from aggregation.decisions.rules import ALIGNED_2023


def made(texts, accepted):
    """A constitution of guidelines with these texts, the first `accepted` of them accepted."""
    n = len(texts)
    ids = [f"g{k}" for k in range(n)]
    scores = pd.DataFrame(
        {
            "guideline_id": ids,
            "n_ratings": 10,
            "helpful_rate": np.where(np.arange(n) < accepted, 0.9, 0.1),
            "intercept": 0.9,
            "consensus_score": -np.arange(n, dtype=float),
        }
    )
    guidelines = pd.DataFrame({"guideline_id": ids, "text": texts, "topic_id": "t"})
    topics = pd.DataFrame({"topic_id": ["t"], "title": ["# T*o*pic"], "parent_id": [None]})
    return select(scores, ALIGNED_2023), (guidelines, topics)


class Data:
    """What the table reads of a dataset."""

    def __init__(self, tables):
        self.guidelines, self.topics = tables


def test_accepted_guidelines_stand_under_their_topic_with_their_numbers():
    constitution, tables = made(["Be kind.", "Be cruel."], 1)
    text = as_markdown(constitution, Data(tables), "What *now*?")
    assert text.splitlines() == [
        "# What \\*now\\*\\?",
        "",
        "## \\# T\\*o\\*pic",
        "",
        "- Be kind\\. (90 % helpful of 10 ratings)",
    ]


def test_where_nothing_is_accepted_the_text_says_so():
    constitution, tables = made(["Be cruel."], 0)
    assert "No guideline was accepted." in as_markdown(constitution, Data(tables), "T")


@given(st.text(min_size=1))
@pytest.mark.filterwarnings("ignore")
def test_no_text_of_a_stranger_becomes_markup(text):
    constitution, tables = made([text], 1)
    html = mistune.html(as_markdown(constitution, Data(tables), "T"))
    tags = {tag.split()[0].strip("</>") for tag in re.findall(r"<[^>]*>", html)}
    assert tags <= {"h1", "h2", "ul", "li", "p"}


def test_ids_become_the_numbers_of_the_constitution():
    constitution, _ = made(["a", "b", "c"], 2)
    rows = pd.DataFrame({"gained": [["g2", "g0"], []], "lost": [["g1"], []], "loss": [1.0, 2.0]})
    found = numbered(rows, constitution)
    assert found["gained"].tolist() == [[1, 3], []]
    assert found["lost"].tolist() == [[2], []]
    assert found["loss"].tolist() == [1.0, 2.0]
