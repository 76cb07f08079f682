"""The payload is what the contract says; the table runs nothing in a spreadsheet."""

import csv
import io
import json

import jsonschema
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from aggregation import (
    ALIGNED_2023,
    Condition,
    Dataset,
    Parameters,
    Rule,
    body,
    changes,
    encode,
    guards,
    overview,
    payload,
    score,
    select,
    table,
)
from aggregation.data.dataset import frame
from aggregation.data.topics import topic_paths
from aggregation.decisions.payload import Payload
from aggregation.decisions.table import neutral

NUMBERS = {"type": "object", "additionalProperties": {"type": "number"}}
LISTS = {
    "type": "object",
    "additionalProperties": {"type": "array", "items": {"type": "number"}},
}
CONTRACT = {  # POST /constitution: exactly these seven keys
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "accepted_guideline_ids": {
            "type": "array",
            "items": {"type": "string"},
            "uniqueItems": True,
        },
        "guideline_scores": NUMBERS,
        "guideline_intercepts": NUMBERS,
        "user_intercepts": NUMBERS,
        "guideline_embeddings": LISTS,
        "user_embeddings": LISTS,
        "mu": {"type": "number"},
    },
}
CONTRACT["required"] = list(CONTRACT["properties"])

EVIL = ['=HYPERLINK("x")', "＝1+1", "-1", "@SUM(A1)", "\tx", "\nx"]


@pytest.fixture(scope="module")
def world():
    """Eight users, one guideline accepted, texts that are formulas."""
    rows = [(f"u{u}", f"g{g}", float(g == 0 or u < 3)) for u in range(8) for g in range(6)]
    ratings, ids = encode(pd.DataFrame(rows, columns=["user_id", "guideline_id", "helpful"]))
    random = np.random.default_rng(0)
    p = Parameters(
        0.2,
        random.random(8),
        random.random((8, 2)),
        np.array([0.5] + [0.1] * 5),
        random.random((6, 2)),
    )
    constitution = select(score(ratings, ids, p), ALIGNED_2023)
    topics = [
        {"topic_id": "t", "title": "=root", "parent_id": None},
        {"topic_id": "s", "title": "leaf", "parent_id": "t"},
    ]
    dataset = Dataset(
        pd.DataFrame(),
        frame(
            "guidelines",
            [{"guideline_id": f"g{k}", "text": EVIL[k], "topic_id": "s"} for k in range(6)],
        ),
        frame("users", []),
        frame("topics", topics),
        frame("answers", []),
    )
    return constitution, p, ids, dataset


def test_the_body_satisfies_the_contract(world):
    constitution, p, ids, _ = world
    sent = json.loads(body(payload(constitution, p, ids)))
    jsonschema.validate(sent, CONTRACT)
    assert sent["accepted_guideline_ids"] == ["g0"]
    assert sent["guideline_scores"] == {"g0": constitution.scores["consensus_score"][0]}
    assert sent["user_embeddings"]["u3"] == p.user_embedding[3].tolist()
    assert sent["guideline_intercepts"]["g4"] == 0.1
    assert sent["mu"] == 0.2


def test_accepted_guidelines_are_in_the_order_of_their_ids_as_in_the_original():
    rows = [(f"u{u}", f"g{g}", float(u < 8 + g % 3)) for u in range(10) for g in range(12)]
    ratings, ids = encode(pd.DataFrame(rows, columns=["user_id", "guideline_id", "helpful"]))
    p = Parameters(0.2, np.zeros(10), np.zeros((10, 1)), np.full(12, 0.5), np.zeros((12, 1)))
    constitution = select(score(ratings, ids, p), ALIGNED_2023)
    sent = payload(constitution, p, ids)
    assert sent.accepted_guideline_ids == sorted(constitution.accepted["guideline_id"])
    assert list(sent.guideline_scores) == sent.accepted_guideline_ids
    assert sent.accepted_guideline_ids != list(constitution.accepted["guideline_id"])


def test_the_body_refuses_nan(world):
    constitution, p, ids, _ = world
    broken = Parameters(float("nan"), *list(vars(p).values())[1:])
    with pytest.raises(ValueError, match="finite"):
        payload(constitution, broken, ids)


def test_cells_that_a_spreadsheet_would_run_are_neutralised(world):
    constitution, _, _, dataset = world
    rows = list(csv.DictReader(io.StringIO(table(constitution, dataset), newline="")))
    assert len(rows) == 6
    assert sorted(r["text"] for r in rows) == sorted("'" + text for text in EVIL)
    assert {r["topic"] for r in rows} == {"'=root > leaf"}
    assert rows[0]["verdict"] == "accepted"
    assert "needs more than 0.375" in rows[1]["reasons"]


FORMULAS = "=+-@＝＋－＠"


@given(st.text("=+-@＝＋－＠\t\r\n \u3000\u200b\ufeffax'"))
def test_a_neutral_cell_begins_with_no_formula_and_other_cells_are_left_alone(text):
    safe = neutral(text)
    begins = text.lstrip().lstrip("\u200b\ufeff \u3000\t\r\n")[:1]
    if text[:1] in ("\t", "\r", "\n") or (begins and begins in FORMULAS):
        assert safe == "'" + text
    else:
        assert safe == text


@pytest.mark.parametrize("text", ["a = b", "3 - 1", "'=1", "(+1)", "é", "", "x\n=1"])
def test_texts_that_are_no_formula_stay_as_they_are(text):
    assert neutral(text) == text


def test_the_table_has_the_columns_that_the_rule_reads(world):
    constitution, _, _, dataset = world
    rule = Rule("mine", (Condition("min_share", "share", ">", 0.5),))
    found = overview(select(constitution.scores.assign(share=0.7), rule), dataset)
    assert list(found.columns)[-3:] == ["intercept", "share", "guideline_id"]
    assert (found["share"] == 0.7).all()


def test_paths_of_topics_go_from_the_root_down(world):
    assert topic_paths(world[3].topics) == {"t": "=root", "s": "=root > leaf"}


# What publishing would change.


def model(accepted, mu=0.5, **scores):
    ids = sorted({*accepted, "x"})
    return Payload(
        accepted_guideline_ids=list(accepted),
        guideline_scores={g: scores.get(g, 0.5) for g in accepted},
        guideline_intercepts=dict.fromkeys(ids, 0.4),
        user_intercepts={"u": 0.1},
        guideline_embeddings={g: [0.2] for g in ids},
        user_embeddings={"u": [0.3]},
        mu=mu,
    )


def test_changes_tell_what_is_new_gone_and_moved():
    found = changes(model("abc", a=0.5, b=0.6), model("bcd", mu=0.7, b=0.75))
    assert not found.first
    assert found.accepted == ("d",)
    assert found.gone == ("a",)
    assert found.kept == 2
    assert found.moved == {"b": pytest.approx(0.15)}
    assert found.mu == pytest.approx(0.2)
    assert not found.same
    table = found.table().set_index("change")
    assert table.loc["newly accepted", "guidelines"] == ["d"]
    assert table.loc["of these, score moved (by +0.150 at most)", "n"] == 1


def test_a_first_constitution_is_all_new():
    found = changes(None, model("ab"))
    assert found.first
    assert found.accepted == ("a", "b")
    assert not found.same


@given(st.floats(-0.9e-6, 0.9e-6), st.booleans())
def test_noise_within_a_fits_tolerance_is_no_change_and_more_is(noise, anywhere):
    base = model("ab")
    moved = base.model_dump()
    if anywhere:
        moved["user_embeddings"]["u"][0] += noise
    moved["mu"] += noise
    assert changes(base, Payload(**moved)).same
    moved["guideline_intercepts"]["a"] += 3e-6
    assert not changes(base, Payload(**moved)).same


@pytest.mark.parametrize(
    ("before", "after", "ratings", "says"),
    [
        ("abcd", "", (9, 9), ["no guideline is accepted", "4 of the 4"]),
        ("abcd", "ax", (9, 9), ["3 of the 4"]),
        ("abcd", "abx", (9, 9), []),
        ("ab", "ab", (8, 9), ["8 ratings are fewer than the 9"]),
        ("", "a", (9, 9), []),
    ],
)
def test_guards_stop_what_nobody_can_have_meant(before, after, ratings, says):
    new = model(after)
    against = guards(changes(model(before), new), new, *ratings)
    assert len(against) == len(says)
    for reason, words in zip(against, says):
        assert words in reason
