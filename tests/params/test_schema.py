"""The schema: it follows from the settings and rules of the core, and fits the files we ship."""

from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest

from aggregation import COMMUNITY_NOTES, Condition, ParameterError, Penalty, Rule, Settings, select
from aggregation.data.choices import Choices
from aggregation.decisions.rules import RULES
from aggregation.params.loading import dump, load_params, sections
from aggregation.params.reference import reference
from aggregation.params.schema import Params, RatingsSection, TrainSection, rule_key

FILES = sorted((Path(__file__).resolve().parents[2] / "params").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_the_parameter_files_that_come_with_the_project_are_valid(path, tmp_path):
    params = load_params(path)
    assert params.run == path.stem or path.stem == "polis"
    (tmp_path / "p.yaml").write_text(dump(params))
    assert load_params(tmp_path / "p.yaml") == params


def test_there_are_parameter_files_for_every_kind_of_source():
    kinds = {load_params(path).source.kind for path in FILES}
    assert kinds == {"simulated", "platform-file", "platform", "polis", "table", "community-notes"}


def test_settings_of_the_core_are_its_own_names_limits_and_defaults():
    assert TrainSection().settings(7) == Settings(seed=7)
    assert TrainSection(starts=2, moves=False).settings(0) == Settings(starts=2, moves=False)
    assert TrainSection().weights() == Penalty()
    assert TrainSection(penalty="community-notes").weights() == COMMUNITY_NOTES
    mixed = TrainSection(embedding_penalty=0.5, embedding_norm="l2").weights()
    assert mixed == Penalty(embedding=0.5, norm="l2")
    assert {f.name for f in fields(Choices)} == set(RatingsSection.model_fields) - {"flagged"}
    with pytest.raises(ValueError, match="less than or equal to 8"):
        TrainSection(dimensions=9)


def test_words_of_a_source_become_numbers():
    assert RatingsSection().choices("polis") == Choices({"agree": 1, "disagree": 0, "pass": None})
    assert RatingsSection().choices("table") == Choices({"helpful": 1, "not_helpful": 0})
    words = {"yes": "helpful", "no": "not_helpful", "hm": 0.5, "-": None}
    given = RatingsSection(values=words, duplicates="error").choices("polis")
    assert given == Choices({"yes": 1, "no": 0, "hm": 0.5, "-": None}, "error")


MINE = Rule(
    "mine",
    (
        Condition("min_n", "n_ratings", ">", 2, otherwise="undecided", decimals=0),
        Condition("max_share", "share", "<=", 0.6, least=0, most=1),
    ),
)


class WithMine(Params):
    """The schema with one more rule."""

    rule: rule_key(RULES | {"mine": MINE})


def test_a_new_rule_is_accepted_judged_explained_and_documented_at_once(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("run: a\nsource: {kind: simulated}\nrule: {name: mine, min_n: 3}\n")
    rule = load_params(path, ["rule.max_share=0.5"], WithMine).rule.rule()
    assert rule == MINE.with_bounds(min_n=3, max_share=0.5)

    scores = pd.DataFrame({"guideline_id": ["a", "b"], "n_ratings": [3, 4], "share": [0.1, 0.75]})
    found = select(scores.assign(consensus_score=0.0), rule).scores.set_index("guideline_id")
    assert found["verdict"].to_dict() == {"a": "undecided", "b": "rejected"}
    assert [f["reason"] for f in found.loc["b", "failed"]] == ["share 0.75, needs at most 0.5"]

    rows = reference(WithMine).partition("## `rule`, `mine`")[2].splitlines()
    assert "| `min_n` | integer | `2` | Ratings: more than this, else undecided. |" in rows
    assert (
        "| `max_share` | number >= 0, <= 1 | `0.6` | Share: at most this, else rejected. |" in rows
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("rule={name: mine, max_share: 2}", "rule.max_share: must be less than or equal to 1"),
        ("rule={name: mine, min_ratings: 2}", "rule.min_ratings: unknown key: did you mean 'min_n"),
        ("rule={name: mone}", "rule: name is 'mone': did you mean 'mine'?"),
        ("rule={max_share: 1}", "rule.max_share: unknown key"),  # without a name, the first rule
    ],
)
def test_the_keys_of_a_rule_are_its_own_conditions(tmp_path, change, message):
    path = tmp_path / "p.yaml"
    path.write_text("run: a\nsource: {kind: simulated}\n")
    assert load_params(path, schema=WithMine).rule.rule() == RULES["aligned-2023"]
    with pytest.raises(ParameterError) as caught:
        load_params(path, [change], WithMine)
    assert message in str(caught.value)


def test_earlier_accepted_guidelines_come_from_a_list_or_a_constitution(tmp_path):
    path = tmp_path / "constitution.json"
    path.write_text('{"accepted_guideline_ids": ["b", "a"]}')
    for given in (str(path), ["b", "a"]):
        rule = sections(rule={"slack": 0.1, "accepted_before": given}).rule.rule()
        assert (rule.slack, rule.accepted_before) == (0.1, ("b", "a"))
    path.write_text("{}")
    away = tmp_path / "away.json"
    for broken, why in ((path, "holds no accepted_guideline_ids"), (away, "No such file")):
        with pytest.raises(ParameterError, match=why):
            sections(rule={"accepted_before": str(broken)})
