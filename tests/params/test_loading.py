"""The parameter file: what it refuses and how, what it accepts, what it writes."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from aggregation import Condition, ParameterError, Rule, load_params, sections, select
from aggregation.params import PolisSource, SimulatedSource, TrainSection, dump, reference
from aggregation.params.schema import rule_section

ROOT = Path(__file__).resolve().parents[2]
BASE = "run: a\nsource: {kind: simulated}\n"
SECRET = "hunter2"

SAMPLE = """\
run: nz-tax                       # the folder under outputs/
title: "What should change about tax?"
seed: 20231013
source: {kind: polis, path: ../shared/data/polis/scoop-hivemind.taxes}
ratings: {values: {agree: helpful, disagree: not_helpful, pass: null}, duplicates: last, \
min_per_user: 1, min_per_guideline: 1}
train: {method: alternating, penalty: aligned, intercept_penalty: 0.15, embedding_penalty: 0.03, \
dimensions: 1, starts: 8, tolerance: 1.0e-6, warm_start: true}
diagnostics: {near_misses: 12}
rule: {name: aligned-2023, min_intercept: 0.375, min_ratings: 5, min_helpful_rate: 0.8}
publish: {target: file, confirm: false}
"""
"""The parameter file of the design, word for word."""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "p.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refusal(path, changes=()):
    with pytest.raises(ParameterError) as caught:
        load_params(path, changes)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "key", "nearest"),
    [
        (BASE + "sede: 1\n", 3, "sede", "'seed'"),
        (BASE + "train:\n  starts: 2\n  tolerence: 1\n", 5, "train.tolerence", "'tolerance'"),
        (BASE + "rule: {min_rating: 2}\n", 3, "rule.min_rating", "'min_ratings'"),
        (
            "run: a\nsource:\n  kind: polis\n  path: x\n  moderatoin: all\n",
            5,
            "source.moderatoin",
            "'moderation'",
        ),
        (
            "run: a\nsource:\n  kind: table\n  path: x\n  columns:\n    userid: x\n",
            6,
            "source.columns.userid",
            "'user_id'",
        ),
        (
            "run: a\nsource:\n  kind: table\n  path: x\n  guideline_columns: {txt: x}\n",
            5,
            "source.guideline_columns.txt",
            "'text'",
        ),
        ("run: a\nsource:\n  kind: poliss\n", 2, "source", "'polis'"),
    ],
)
def test_an_unknown_name_is_refused_with_file_line_key_and_the_nearest_valid_name(
    write, text, line, key, nearest
):
    path = write(text)
    message = refusal(path)
    assert message.startswith(f"{path}, line {line}: {key}: ")
    assert message.endswith(f"did you mean {nearest}?")


def test_the_names_offered_are_those_of_this_kind_of_source(write):
    message = refusal(write("run: a\nsource: {kind: simulated, pathh: x}\n"))
    assert message.endswith("source.pathh: unknown key: it can be kind, n_users")


@pytest.mark.parametrize(
    ("text", "line", "key", "problem"),
    [
        (BASE + "train:\n  starts: two\n", 4, "train.starts", "must be a valid integer, not 'two'"),
        (BASE + "train:\n  starts: 2.5\n", 4, "train.starts", "must be a valid integer, not 2.5"),
        (BASE + "train:\n  starts: '2'\n", 4, "train.starts", "must be a valid integer, not '2'"),
        (BASE + "publish: {confirm: 1}\n", 3, "publish.confirm", "must be a valid boolean, not 1"),
        (BASE + "title: 3\n", 3, "title", "must be a valid string, not 3"),
        (BASE + "train: 3\n", 3, "train", "must be a section, keys and their values, not 3"),
        (BASE + "title: 2024\n", 3, "title", "must be a valid string, not 2024: put it in quotes"),
        (BASE + "rule: {min_intercept: 0,3}\n", 3, "rule.3", "is there a decimal comma? Write 0.5"),
        (BASE + "train:\n", 3, "train", "must be a section, keys and their values, not null"),
        (BASE + "train: []\n", 3, "train", "must be a section, keys and their values, not []"),
        (
            BASE + "train: {starts: 0}\n",
            3,
            "train.starts",
            "must be greater than or equal to 1, not 0",
        ),
        (BASE + "seed: -1\n", 3, "seed", "must be greater than or equal to 0, not -1"),
        (BASE + "rule: {min_helpful_rate: 2}\n", 3, "rule.min_helpful_rate", "or equal to 1"),
        (BASE + "train: {tolerance: .nan}\n", 3, "train.tolerance", "must be a finite number"),
        (BASE + "rule: {min_intercept: .inf}\n", 3, "rule.min_intercept", "must be a finite"),
        (BASE + "ratings: {duplicates: frist}\n", 3, "ratings.duplicates", "'first'"),
        ("run: ../x\nsource: {kind: simulated}\n", 1, "run", "letters, digits"),
        ("run: .x\nsource: {kind: simulated}\n", 1, "run", "letters, digits"),
        ('run: "a\\n"\nsource: {kind: simulated}\n', 1, "run", "letters, digits"),
        ("run: a\nsource:\n  path: x\n", 2, "source", "`kind` is missing: one of polis"),
        ("run: a\nsource:\n  kind: polis\n", 2, "source.path", "is missing: add it"),
    ],
)
def test_a_wrong_value_is_refused_with_file_line_key_and_what_is_valid(
    write, text, line, key, problem
):
    path = write(text)
    message = refusal(path)
    assert message.startswith(f"{path}, line {line}: {key}: ")
    assert problem in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("value", ["helpfull", "2", "true", "[1]"])
def test_a_word_with_an_impossible_meaning_is_refused_once(write, value):
    path = write(BASE + f"ratings:\n  values:\n    pass: {value}\n")
    message = refusal(path)
    assert message.startswith(
        f"{path}, line 5: ratings.values.pass: must be helpful, not_helpful, null or a number from "
        "0 to 1, not "
    )
    assert "\n" not in message


@pytest.mark.parametrize(
    ("missing", "rest"), [("run", "source: {kind: simulated}"), ("source", "run: a")]
)
def test_a_missing_key_is_named_with_the_file(write, missing, rest):
    path = write(rest + "\n")
    assert refusal(path) == f"{path}: {missing}: is missing: add it"


def test_every_wrong_thing_is_named_at_once(write):
    lines = refusal(write(BASE + "sede: 1\ntrain: {starts: 0}\n")).splitlines()
    assert sorted(line.split(": ")[1] for line in lines) == ["sede", "train.starts"]


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (BASE + "seed: 1\nseed: 2\n", 4, 'found duplicate key "seed"'),
        (BASE + "train: {starts: 1, starts: 2}\n", 3, 'found duplicate key "starts"'),
        (BASE + "train: {starts: 2\n", 4, "expected ',' or '}'"),
        (BASE + "train:\n\tstarts: 2\n", 4, "cannot start any token"),
        (BASE + "title: *nothing\n", 3, "undefined alias"),
        (BASE + "title: !!python/object:os.system x\n", 3, "constructor for the tag"),
        (BASE + "---\n" + BASE, 3, "another document"),
    ],
)
def test_broken_yaml_and_duplicate_keys_are_refused_with_their_line(write, text, line, problem):
    path = write(text)
    message = refusal(path)
    assert message.startswith(f"{path}, line {line}: ")
    assert problem in message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no parameters: begin with `run: a-name`"),
        ("# only a comment\n", "holds no parameters"),
        ("- a\n- list\n", "holds no parameters"),
        (b"run: \xff\xfe\n", "is not UTF-8 text: save it as UTF-8"),
        (BASE + "title: " + "[" * 3000 + "]" * 3000, "is no YAML"),
        (BASE + "title: \x00\n", "is no YAML"),
        ("run: a\nsource: &s\n  kind: *s\n", "stands for itself"),
    ],
    ids=["empty", "comment", "list", "latin", "deep", "control", "cycle"],
)
def test_a_file_that_holds_no_parameters_is_refused_by_name(write, text, problem):
    message = refusal(path := write(text))
    assert message.startswith(f"{path}: ")
    assert problem in message


def test_a_folder_and_a_missing_file_are_refused_by_name(tmp_path):
    assert refusal(tmp_path) == f"{tmp_path}: is no file: give a parameter file (YAML)"
    missing = tmp_path / "none.yaml"
    assert (
        refusal(missing) == f"{missing}: cannot be read (No such file or directory): check the path"
    )


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (f"api_key: {SECRET}\n", "api_key"),
        (f"apiKey: {SECRET}\n", "apiKey"),
        (f"APIKEY: {SECRET}\n", "APIKEY"),
        (f"accessToken: {SECRET}\n", "accessToken"),
        (f"prolific_token_2: {SECRET}\n", "prolific_token_2"),
        (f"private-key: {SECRET}\n", "private-key"),
        (f"Authorization: {SECRET}\n", "Authorization"),
        (f"publish: {{client_secret: {SECRET}}}\n", "publish.client_secret"),
        (f"publish: {{a: {{b: {{password: {SECRET}}}}}}}\n", "publish.a.b.password"),
        (f"publish: [{{password: {SECRET}}}]\n", "publish.0.password"),
        (f"ratings: {{values: {{x: {{token: {SECRET}}}}}}}\n", "ratings.values.x.token"),
        (f"columns: {{token: {SECRET}}}\n", "columns.token"),
    ],
)
def test_a_key_that_looks_like_a_secret_is_refused_at_any_depth_without_its_value(write, text, key):
    path = write(BASE + text)
    message = refusal(path)
    assert message.startswith(f"{path}, line 3: {key}: looks like a secret")
    assert SECRET not in message


@pytest.mark.parametrize(
    "text",
    [
        f"api_key: {SECRET}\napi_key: {SECRET}3\n",
        f"publish: {{token: {SECRET}, token: {SECRET}3}}\n",
        f"api_key: *{SECRET}\n",
        f"api_key: !{SECRET} x\n",
        f"api_key: &{SECRET}\n  &{SECRET} x\n",
        f"api_key: {{{SECRET}\n",
        f'api_key: "{SECRET}\n',
    ],
)
def test_a_secret_in_broken_yaml_does_not_reach_the_message(write, text):
    message = refusal(write(BASE + text))
    assert ", line " in message
    assert SECRET not in message


@pytest.mark.parametrize(
    "change",
    [
        f"api_key={SECRET}",
        f"publish.api_key={SECRET}",
        f"publish={{api_key: {SECRET}}}",
        f"publish={{api_key: {SECRET}, api_key: {SECRET}3}}",
        f"api_key={{{SECRET}",
        f"api_key=*{SECRET}",
        f"api_key=!{SECRET} x",
    ],
)
def test_a_secret_given_by_set_is_refused_without_its_value(write, change):
    message = refusal(write(BASE), [change])
    assert message.startswith("--set")
    assert "api_key" in message
    assert SECRET not in message


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("run: a\nsource: {kind: platform, base_url: 'https://x.org'}\n", "source.base_url"),
        ("publish: {base_url: 'https://x.org'}\n", "publish.base_url"),
        ("demographics: {prolific_url: 'https://x.org'}\n", "demographics.prolific_url"),
        ("demographics: {base_url: 'https://x.org'}\n", "demographics.base_url"),
    ],
)
def test_a_parameter_file_cannot_say_which_host_gets_a_key(write, text, key):
    with pytest.raises(ParameterError) as error:
        load_params(write(text if "source" in text else BASE + text))
    assert f"{key}: unknown key" in str(error.value)


def test_a_secret_never_reaches_the_terminal_nor_the_disk(write, tmp_path):
    command = [sys.executable, "-m", "aggregation.cli", "run", str(write(BASE))]
    command += ["--out", str(tmp_path / "o"), "--set", f"publish={{api_key: {SECRET}}}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "looks like a secret" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert not (tmp_path / "o").exists()


def test_words_of_the_data_are_no_secrets(write):
    params = load_params(write(BASE + "ratings: {values: {key: helpful, token: null, 1: 0.5}}\n"))
    assert params.ratings.model_dump()["values"] == {"key": "helpful", "token": None, "1": 0.5}


def test_yaml_is_version_1_2(write):
    params = load_params(
        write(BASE + "title: NO\nquestion: yes\ntrain: {tolerance: 1e-3}\nseed: 017\n")
    )
    assert (params.title, params.question) == ("NO", "yes")
    assert params.train.tolerance == 0.001
    assert params.seed == 17


def test_a_byte_order_mark_and_other_scripts_are_read(write):
    path = write(b"\xef\xbb\xbf" + (BASE + "title: 台灣 🎉\n").encode())
    assert load_params(path).title == "台灣 🎉"


def test_set_changes_one_key_and_its_value_is_typed_by_the_schema(write):
    path = write(BASE + "train: {starts: 3}\n")
    changes = ["train.starts=16", "train.tolerance=1e-3", "title=NO", "source.n_users=5", "seed=7"]
    params = load_params(path, changes)
    assert (params.train.starts, params.train.tolerance) == (16, 0.001)
    assert (params.title, params.source.n_users, params.seed) == ("NO", 5, 7)
    assert params.train.dimensions == load_params(path).train.dimensions


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2024", "2024"),
        ("007", "007"),
        ("Tax: what now", "Tax: what now"),
        ("[x]", "[x]"),
        ("* & {", "* & {"),
        ('"2024"', "2024"),
        ("", ""),
        ("true", "true"),
    ],
)
def test_set_takes_whatever_is_written_where_a_text_is_wanted(write, written, meant):
    path = write(BASE)
    assert load_params(path, [f"title={written}"]).title == meant
    table = ["source={kind: table}", f"source.path={written}", "source.columns.user_id=1"]
    source = load_params(path, table).source
    assert (source.path, source.columns.user_id) == (meant, "1")


def test_set_replaces_a_whole_section_and_the_last_change_counts(write):
    source = "source={kind: polis, path: a=b}"
    params = load_params(write(BASE), [source, "seed=1", "seed=2"])
    assert params.source == PolisSource(kind="polis", path="a=b")
    assert params.seed == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.starts=two", "--set: train.starts: must be a valid integer, not 'two'"),
        ("train.starts=", "--set: train.starts: must be a valid integer, not null"),
        ("train.startz=2", "--set: train.startz: unknown key: did you mean 'starts'?"),
        ("rulee.min_ratings=2", "--set: rulee: unknown key: did you mean 'rule'?"),
        ("train.starts", "--set train.starts: write it as key=value, such as train.starts=16"),
        ("run.x=1", "--set run.x: run is no section"),
        ("seed.x=1", "--set: seed: must be a valid integer, not {'x': 1}"),
        ("seed={", "--set seed, line 1: "),
        ("run=null", "--set: run: must be a valid string, not null"),
        ("publish={force: true}", "--set: publish: force needs a reason: publish.reason"),
        ("title=null", "--set: title: must be a valid string, not null"),
        ("demographics.endpont=successor", "--set: demographics.endpont: unknown key: did you"),
    ],
)
def test_a_wrong_set_is_refused_as_such(write, change, message):
    assert refusal(write(BASE), [change]).startswith(message)


def test_dump_is_complete_and_loads_as_the_same_parameters(write):
    text = """\
run: a.b-c_1
title: "null"
question: "several\\nlines: with # signs, 'quotes' and 🎉"
participants: NO
source: {kind: table, path: "1e3", columns: {rated_at: when}, guidelines: null}
ratings: {values: {1: helpful, no: 0.25, "null": null}}
train: {tolerance: 1e-7, starts: 3}
"""
    params = load_params(write(text))
    written = dump(params)
    assert load_params(write(written)) == params
    assert dump(load_params(write(written))) == written
    for key in ("max_sweeps", "min_helpful_rate", "near_misses", "self_ratings", "confirm", "seed"):
        assert f"{key}:" in written  # defaults are spelled out


@pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*.yaml")), ids=lambda p: p.name)
def test_the_parameter_files_that_come_with_the_project_are_valid(path, write):
    params = load_params(path)
    assert params.run == path.stem or path.stem == "polis"
    assert load_params(write(dump(params))) == params


def test_there_are_parameter_files_for_every_kind_of_source():
    kinds = {load_params(path).source.kind for path in (ROOT / "params").glob("*.yaml")}
    assert kinds == {"simulated", "platform-file", "platform", "polis", "table"}


def test_the_parameter_file_of_the_design_is_valid(write):
    params = load_params(write(SAMPLE))
    assert params.run == "nz-tax"
    assert params.source.kind == "polis"
    words = {"agree": "helpful", "disagree": "not_helpful", "pass": None}
    assert params.ratings.model_dump()["values"] == words
    assert params.train == TrainSection()  # the design spells out the defaults


def test_the_page_of_parameters_is_that_of_the_schema():
    page = (ROOT / "docs" / "parameters.md").read_text("utf-8")
    assert page == reference(), "write it anew with: make docs"


def test_the_reference_names_every_key_with_a_meaning():
    rows = [line.split(" | ") for line in reference().splitlines() if line.startswith("| `")]
    keys = {row[0].strip("| `") for row in rows}
    assert {"run", "seed", "kind", "n_users", "moderation", "starts", "min_helpful_rate"} <= keys
    leaves = [row for row in rows if row[1] != "section" and row[0] != "| `kind`"]
    assert all(row[3].strip(" |") for row in leaves)


def test_sections_validates_single_sections():
    given = sections(seed=3, train={"starts": 2}, source={"kind": "simulated"}, rule={})
    assert given.seed == 3
    assert given.train == TrainSection(starts=2)
    assert given.source == SimulatedSource(kind="simulated")
    assert given.rule.min_ratings == 5


def test_a_new_rule_is_a_section_a_verdict_and_a_reason_at_once():
    rate = Condition("min_rate", "helpful_rate", ">=", 0.6, "The rate.", least=0, most=1)
    few = Condition("min_n", "n_ratings", ">", 2, "The number.", "undecided", decimals=0)
    section = rule_section(Rule("mine", (few, rate)))
    keys = section.model_json_schema()["properties"]
    assert keys["min_rate"] == {
        "default": 0.6,
        "description": "The rate.",
        "maximum": 1,
        "minimum": 0,
        "title": "Min Rate",
        "type": "number",
    }
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        section(min_rate=2.0)
    rule = Rule("mine", (few, rate)).with_bounds(**section(min_n=3).model_dump(exclude={"name"}))
    scores = pd.DataFrame(
        {"guideline_id": ["a", "b"], "n_ratings": [3, 4], "helpful_rate": [0.9, 0.5]}
    ).assign(consensus_score=0.0)
    judged = select(scores, rule).scores.set_index("guideline_id")
    assert judged["verdict"].to_dict() == {"a": "undecided", "b": "rejected"}
    assert [f["reason"] for f in judged.loc["b", "failed"]] == [
        "helpful rate 0.50, needs at least 0.6"
    ]


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_parameter_file_without_an_end_is_refused_and_not_waited_for(tmp_path, kind):
    path = Path("/dev/zero")
    if kind == "pipe":
        path = tmp_path / "pipe"
        os.mkfifo(path)
    assert refusal(path) == f"{path}: is no file: give a parameter file (YAML)"


def test_data_given_as_a_parameter_file_are_named_as_such(tmp_path):
    path = tmp_path / "ratings.yaml"
    path.write_text("- 1\n" * 300_000)
    assert "is larger than 1,000,000 bytes: is it the data?" in refusal(path)


@pytest.mark.parametrize("number", ["0x" + "f" * 6000, "1" + "0" * 6000], ids=["hex", "decimal"])
def test_a_number_too_large_to_show_is_an_error_in_words(write, number):
    message = refusal(write(BASE + f"seed: {number}\n"))
    assert "p.yaml: " in message
    assert len(message) < 300
    assert len(refusal(write(BASE), [f"seed={number}"])) < 300


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tran": {}}, "parameters: tran: unknown: did you mean 'train'?"),
        ({"train": {"starst": 1}}, "parameters: train.starst: unknown key: did you mean 'starts'?"),
        ({"train": {"starts": 0}}, "parameters: train.starts: must be greater than or equal to 1"),
        ({"source": {"kind": "polis"}}, "parameters: source.path: is missing: add it"),
        ({"run": "a b"}, "parameters: run: must be letters, digits"),
        ({"seed": -1}, "parameters: seed: must be greater than or equal to 0, not -1"),
        ({"publish": {"token": SECRET}}, "parameters: publish.token: looks like a secret"),
    ],
)
def test_sections_refuses_what_the_file_would(given, message):
    with pytest.raises(ParameterError) as caught:
        sections(**given)
    assert str(caught.value).startswith(message)
    assert SECRET not in str(caught.value)


def test_a_text_that_no_file_can_hold_is_refused(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text('run: a\ntitle: "x\\ud800"\nsource: {kind: simulated}\n')
    with pytest.raises(ParameterError, match=r"p.yaml.*surrogate.*remove it"):
        load_params(path)


def test_aliases_of_aliases_end_in_an_error_and_not_in_hours(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 12)]
    (tmp_path / "p.yaml").write_text("\n".join(["run: a", *lines]) + "\n")
    with pytest.raises(ParameterError, match="stands for itself, or for more than 100,000 values"):
        load_params(tmp_path / "p.yaml")
