"""Loading a parameter file: what is refused and how, what is accepted, what is written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aggregation import ParameterError
from aggregation.decisions.rules import RULES
from aggregation.params.loading import dump, load_params, parse_values, sections
from aggregation.params.schema import PolisSource, SimulatedSource, TrainSection

BASE = "run: a\nsource: {kind: simulated}\n"
TABLE = "run: a\nsource:\n  kind: table\n  path: x\n"
SECRET = "hunter2"


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
        (BASE + "sede: 1\n", 3, "sede", "seed"),
        (BASE + "train:\n  starts: 2\n  tolerence: 1\n", 5, "train.tolerence", "tolerance"),
        (BASE + "rule: {min_rating: 2}\n", 3, "rule.min_rating", "min_ratings"),
        (BASE + "rule: {name: aligned-2024}\n", 3, "rule", "aligned-2023"),
        (TABLE + "  guidelnes: x\n", 5, "source.guidelnes", "guidelines"),
        (TABLE + "  columns:\n    userid: x\n", 6, "source.columns.userid", "user_id"),
        ("run: a\nsource:\n  kind: poliss\n", 2, "source", "polis"),
    ],
)
def test_an_unknown_name_is_refused_with_file_line_key_and_the_nearest_valid_name(
    write, text, line, key, nearest
):
    message = refusal(path := write(text))
    assert message.startswith(f"{path}, line {line}: {key}: ")
    assert message.endswith(f"did you mean {nearest!r}?")


def test_the_names_offered_are_those_of_this_kind_of_source(write):
    message = refusal(write("run: a\nsource: {kind: simulated, pathh: x}\n"))
    offered = "kind, n_users, n_guidelines, median_ratings, camps, axes, exposure, "
    offered += "coin_tossers, straight_liners, attackers"
    assert message.endswith(f"source.pathh: unknown key: it can be {offered}")


@pytest.mark.parametrize(
    ("text", "line", "key", "problem"),
    [
        (BASE + "train:\n  starts: two\n", 4, "train.starts", "must be a valid integer, not 'two'"),
        (BASE + "train:\n  starts: 2.5\n", 4, "train.starts", "must be a valid integer, not 2.5"),
        (BASE + "train: {starts: 0}\n", 3, "train.starts", "greater than or equal to 1, not 0"),
        (BASE + "publish: {confirm: 1}\n", 3, "publish.confirm", "must be a valid boolean, not 1"),
        (BASE + "title: 3\n", 3, "title", "must be a valid string, not 3: put it in quotes"),
        (BASE + "title: true\n", 3, "title", "must be a valid string, not true: put it in quotes"),
        (BASE + "title: 2024-01-01\n", 3, "title", "put it in quotes"),
        (BASE + "title: [a]\n", 3, "title", "must be a valid string, not a list"),
        (BASE + "title: x" + "x" * 100_000, 3, "title", "at most 100000 characters"),
        (BASE + 'title: "x\\ud800"\n', 3, "title", "must be a valid string, unable to parse"),
        (BASE + "rule: {min_intercept: 0,3}\n", 3, "rule.3", "is there a decimal comma? Write 0.5"),
        (BASE + "train:\n", 3, "train", "must be a section, keys and their values, not null"),
        (BASE + "train: []\n", 3, "train", "must be a section, keys and their values, not a list"),
        (BASE + "rule: 3\n", 3, "rule", "must be a section, keys and their values, not 3"),
        (BASE + "seed: -1\n", 3, "seed", "must be greater than or equal to 0, not -1"),
        (BASE + "rule: {min_helpful_rate: 2}\n", 3, "rule.min_helpful_rate", "or equal to 1"),
        (BASE + "train: {tolerance: .nan}\n", 3, "train.tolerance", "must be a finite number"),
        (BASE + "rule: {min_intercept: .inf}\n", 3, "rule.min_intercept", "must be a finite"),
        (BASE + "ratings: {duplicates: frist}\n", 3, "ratings.duplicates", "'first'"),
        (BASE + '"a\\e\\nb": 1\n', 3, "a\\x1b\\nb", "unknown key"),
        (BASE + "demographics: {states: []}\n", 3, "demographics.states", "at least 1 item"),
        ("run: ../x\nsource: {kind: simulated}\n", 1, "run", "letters, digits"),
        ('run: "a\\n"\nsource: {kind: simulated}\n', 1, "run", "letters, digits"),
        ("run: a\nsource:\n  path: x\n", 2, "source", "kind is missing: it can be simulated, "),
        ("run: a\nsource:\n  kind: polis\n", 2, "source.path", "is missing: add it"),
        ("run: a\nsource: polis\n", 2, "source", "must be a section, keys and their values"),
    ],
)
def test_a_wrong_value_is_refused_with_file_line_key_and_what_is_valid(
    write, text, line, key, problem
):
    message = refusal(path := write(text))
    assert message.startswith(f"{path}, line {line}: {key}: ")
    assert problem in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("value", ["helpfull", "2", "true", "[1]"])
def test_a_word_with_an_impossible_meaning_is_refused_once(write, value):
    message = refusal(path := write(BASE + f"ratings:\n  values:\n    pass: {value}\n"))
    assert message.startswith(
        f"{path}, line 5: ratings.values.pass: must be helpful, not_helpful, null or a number from "
        "0 to 1, not "
    )
    assert "\n" not in message


def test_a_missing_key_is_named_with_the_file(write):
    assert refusal(path := write("run: a\n")) == f"{path}: source: is missing: add it"


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
        (BASE + f"seed: 0x{'f' * 6000}\n", 3, "seed: is too large a number"),
    ],
    ids=["duplicate", "inline", "open", "tab", "alias", "tag", "documents", "number"],
)
def test_broken_yaml_and_duplicate_keys_are_refused_with_their_line(write, text, line, problem):
    message = refusal(path := write(text))
    assert message.startswith(f"{path}, line {line}: ")
    assert problem in message
    assert len(message) < 300


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no parameters: begin with `run: a-name`"),
        ("- a\n- list\n", "holds no parameters"),
        (b"run: \xff\xfe\n", "is not UTF-8 text: save it as UTF-8"),
        (BASE + "title: " + "[" * 3000 + "]" * 3000, "is no YAML"),
        (BASE + "title: \x00\n", "is no YAML"),
        (BASE + f"seed: 1{'0' * 6000}\n", "is no YAML"),
        ("run: a\nsource: &s\n  kind: *s\n", "stands for itself"),
        (BASE + BOMB, "an alias for too much: take it out"),
        ("- 1\n" * 300_000, "is no file of less than 1 MB: give a parameter file"),
    ],
    ids=["empty", "list", "latin", "deep", "control", "number", "cycle", "bomb", "data"],
)
def test_a_file_that_holds_no_parameters_is_refused_by_name(write, text, problem):
    message = refusal(path := write(text))
    assert message.startswith(str(path))
    assert problem in message
    assert len(message) < 300


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(pipe := tmp_path / "pipe")
    for path in (tmp_path, pipe, Path("/dev/zero")):
        assert refusal(path).startswith(f"{path}: is no file")
    missing = tmp_path / "none.yaml"
    why = "cannot be read (No such file or directory): check the path"
    assert refusal(missing) == f"{missing}: {why}"


@pytest.mark.parametrize(
    "key",
    [
        *("api_key", "apiKey", "APIKEY", "accessToken", "prolific_token_2", "private-key"),
        *("Authorization", "publish.client_secret", "source.password"),
    ],
)
def test_a_key_that_looks_like_a_secret_is_refused_without_its_value(write, key):
    section, _, name = key.rpartition(".")
    there = f"{section}: {{{name}: {SECRET}}}\n" if section else f"{name}: {SECRET}\n"
    text = BASE + there
    if section == "source":
        text = f"run: a\n\nsource: {{kind: simulated, {name}: {SECRET}}}\n"
    message = refusal(path := write(text))
    assert message.startswith(f"{path}, line 3: {key}: looks like a secret: take it out")
    assert SECRET not in message


@pytest.mark.parametrize(
    "text",
    [
        f"publish: {{a: {{b: {{password: {SECRET}}}}}}}\n",
        f"publish: [{{password: {SECRET}}}]\n",
        f"title: {{password: {SECRET}}}\n",
        f"ratings: {{values: {{x: {{token: {SECRET}}}}}}}\n",
        f"columns: {{token: {SECRET}}}\n",
        f"api_key: {SECRET}\napi_key: {SECRET}3\n",
        f"publish: {{token: {SECRET}, token: {SECRET}3}}\n",
        f"api_key: *{SECRET}\n",
        f"api_key: !{SECRET} x\n",
        f"api_key: &{SECRET}\n  &{SECRET} x\n",
        f"api_key: {{{SECRET}\n",
        f'api_key: "{SECRET}\n',
    ],
)
def test_a_secret_in_a_wrong_place_or_in_broken_yaml_does_not_reach_the_message(write, text):
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


def test_a_secret_never_reaches_the_terminal_nor_the_disk(write, tmp_path):
    command = [sys.executable, "-m", "aggregation.cli", "run", str(write(BASE))]
    command += ["--out", str(tmp_path / "o"), "--set", f"publish={{api_key: {SECRET}}}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "looks like a secret" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("section", ["source", "publish", "demographics"])
def test_a_parameter_file_cannot_say_which_host_gets_a_key(write, section):
    kind = "kind: platform, " if section == "source" else ""
    for key in ("base_url", "prolific_url"):
        text = f"{section}: {{{kind}{key}: 'https://x.org'}}\n"
        message = refusal(write("run: a\n" + text if kind else BASE + text))
        assert f"{section}.{key}: unknown key" in message


def test_yaml_is_version_1_2_and_words_of_the_data_are_no_secrets(write):
    text = b"\xef\xbb\xbf" + (BASE + "title: NO\nquestion: 台灣 🎉\nseed: 017\n").encode()
    values = "ratings: {values: {key: helpful, token: null, 1: 0.5, no: 1}}\n"
    params = load_params(write(text + values.encode() + b"train: {tolerance: 1e-3}\n"))
    assert (params.title, params.question, params.seed) == ("NO", "台灣 🎉", 17)
    assert params.train.tolerance == 0.001
    words = params.ratings.model_dump()["values"]
    assert words == {"key": "helpful", "token": None, "1": 0.5, "no": 1.0}


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
    changes = [f"title={written}", "source={kind: table}", f"source.path={written}"]
    params = load_params(write(BASE), [*changes, "source.columns.user_id=1"])
    assert params.title == params.source.path == meant
    assert params.source.columns.user_id == "1"


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
        ("seed.x=1", "--set: seed: must be a valid integer, not a section"),
        ("seed={", "--set seed, line 1: "),
        ("seed=0x" + "f" * 6000, "--set: seed: must be a valid integer, not '0xff"),
        ("title=null", "--set: title: must be a valid string, not null"),
        ("publish={force: true}", "--set: publish: force needs a reason: publish.reason"),
    ],
)
def test_a_wrong_set_is_refused_as_such(write, change, message):
    assert refusal(write(BASE), [change]).startswith(message)


def test_values_of_a_grid_are_parsed_as_yaml():
    assert parse_values("1, a, 1e-3, [x, null]", "--grid") == ["1", '"a"', "0.001", '["x", null]']
    assert parse_values("2024-01-01", "--grid") == ['"2024-01-01"']
    with pytest.raises(ParameterError, match=r"^--grid k, line 1: "):
        parse_values("{", "--grid k")


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


def test_sections_validates_single_sections():
    given = sections(seed=3, train={"starts": 2}, source={"kind": "simulated"}, rule={})
    assert given.seed == 3
    assert given.train == TrainSection(starts=2)
    assert given.source == SimulatedSource(kind="simulated")
    assert given.rule.min_ratings == 5
    assert not hasattr(given, "publish")  # only what was given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tran": {}}, "parameters: tran: unknown key: did you mean 'train'?"),
        ({"train": {"starst": 1}}, "parameters: train.starst: unknown key: did you mean 'starts'?"),
        ({"source": {"kind": "polis"}}, "parameters: source.path: is missing: add it"),
        ({"run": "a b"}, "parameters: run: must be letters, digits"),
        ({"publish": {"token": SECRET}}, "parameters: publish.token: looks like a secret"),
    ],
)
def test_sections_refuses_what_the_file_would(given, message):
    with pytest.raises(ParameterError) as caught:
        sections(**given)
    assert str(caught.value).startswith(message)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_the_defaults_of_every_rule_are_read_back_as_they_are_written(rule, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(f"run: r\nsource: {{kind: simulated}}\nrule: {{name: {rule}}}\n")
    once = dump(load_params(path))
    path.write_text(once)
    assert dump(load_params(path)) == once
