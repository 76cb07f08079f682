"""`verify`: an honest run holds, and an edit is found although every hash was forged."""

import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from forgery import (
    copy_of,
    edit_json,
    edit_table,
    forge,
    point_of,
    read_json,
    remodel,
    without_embeddings,
    write_json,
)

from aggregation.cli import main
from aggregation.files import with_checksum
from aggregation.verify import checks
from aggregation.verify.checks import verify


def holds(folder, constitution=None, **given):
    """Whether each claim holds, by name."""
    return {c.what: c.holds for c in verify(folder, constitution, **given)}


def failing(folder, constitution=None):
    return [what for what, held in holds(folder, constitution).items() if held is False]


# honest runs


def test_every_claim_of_an_honest_run_holds(honest):
    assert holds(honest) == dict.fromkeys(
        (
            "plain files",
            "files",
            "no others",
            "data and model",
            "loss",
            "KKT residual",
            "lowest minimum",
            "scores and verdicts",
            "constitution.json",
        ),
        True,
    )


def test_a_run_holds_under_another_name(honest, tmp_path):
    assert failing(copy_of(honest, tmp_path / "renamed")) == []


def test_forging_and_remodelling_alone_change_nothing(copy):
    """So what the tests below find is the edit."""
    forge(copy)
    assert failing(copy) == []
    remodel(copy, point_of(copy))
    assert failing(copy) == []


def test_a_fit_by_gradient_descent_claims_no_minimum(descended):
    found = holds(descended)
    assert [what for what, held in found.items() if not held] == ["fit"]
    assert found["fit"] is None
    assert not {"KKT residual", "lowest minimum"} & found.keys()
    assert "fit" not in holds(descended, strict=True)


@pytest.mark.slow
def test_fixed_rows_are_compared_with_the_earlier_model_bit_for_bit(fixed, tmp_path):
    assert [what for what, held in holds(fixed).items() if held is not True] == []
    assert "fixed" in holds(fixed)
    for name in ("user", "mu"):
        moved, x = copy_of(fixed, tmp_path / name), point_of(fixed)
        if name == "user":
            x.intercepts[0][0] = np.nextafter(x.intercepts[0][0], 1)
        else:
            x = type(x)(np.nextafter(x.mu, 1), x.intercepts, x.embeddings)
        remodel(moved, x)
        assert failing(moved) == ["fixed"]
        assert "published constitution" in failing(fixed, moved.path / "constitution.json")


def test_nothing_can_be_fixed_without_an_earlier_model(copy):
    path = copy.path / "params.yaml"
    path.write_text(path.read_text().replace("hold: null", "hold: users"))
    forge(copy)
    assert failing(copy) == ["data and model"]


def test_above_a_number_of_ratings_the_search_is_open(honest, monkeypatch):
    monkeypatch.setattr(checks, "MAX_SEARCHED_RATINGS", 10)
    assert holds(honest)["lowest minimum"] is None


def test_receipts_and_demographics_are_open(copy):
    (copy.path / "published").mkdir()
    (copy.path / "published" / "receipt.json").write_text('{"url": "https://example.org"}')
    path = copy.path / "params.yaml"
    path.write_text(path.read_text().replace("demographics: null", "demographics: {}"))
    forge(copy)
    found = holds(copy)
    assert {what for what, held in found.items() if held is None} == {"receipts", "demographics"}


# forged runs


def json_edit(name, edit):
    return lambda folder: edit_json(folder, name, edit)


def cell(name, column, edit):
    """An edit of the first cell of a column."""

    def change(folder):
        def edited(table):
            table = table.copy()
            table[column] = [edit(table[column].iloc[0]), *table[column].iloc[1:]]
            return table

        edit_table(folder, f"{name}.parquet", edited)

    return change


def first_entry(key, by):
    def edit(body):
        name = min(body[key])
        value = body[key][name]
        body[key][name] = [v + by for v in value] if isinstance(value, list) else value + by

    return edit


def reworded(failed):
    return [reason | {"reason": "trust me"} for reason in failed]


def in_text(name, old, new):
    def change(folder):
        path = folder.path / name
        assert old in path.read_text("utf-8")
        path.write_text(path.read_text("utf-8").replace(old, new, 1), "utf-8")

    return change


SCORES, FIT, BODY = "evidence/guidelines", "model/fit.json", "constitution.json"
EDITS = {
    "a rating": ("loss", cell("data/ratings", "helpful", lambda v: 1 - v)),
    "a user's intercept": ("loss", cell("model/users", "intercept", lambda v: v + 1e-4)),
    "a user's embedding": ("loss", cell("model/users", "embedding", lambda v: v + 0.01)),
    "a guideline's intercept": (
        "KKT residual",
        cell("model/guidelines", "intercept", lambda v: v + 1e-4),
    ),
    "a number that is none": (
        "data and model",
        cell("model/users", "intercept", lambda _: float("nan")),
    ),
    "mu": ("loss", json_edit(FIT, lambda f: f.update(mu=f["mu"] + 1e-3))),
    "the loss": ("loss", json_edit(FIT, lambda f: f.update(objective=f["objective"] - 1e-6))),
    "the first minimum": ("data and model", json_edit(FIT, lambda f: f["minima"][0].update(mu=0))),
    "the residual": ("KKT residual", json_edit(FIT, lambda f: f.update(kkt_residual=0.5))),
    "whether it converged": ("data and model", json_edit(FIT, lambda f: f.update(converged=False))),
    "the number of users": ("data and model", json_edit(FIT, lambda f: f.update(n_users=9))),
    "the penalty": ("data and model", json_edit(FIT, lambda f: f["penalty"].update(embedding=1))),
    "a verdict": ("scores and verdicts", cell(SCORES, "verdict", lambda _: "rejected")),
    "a score": ("scores and verdicts", cell(SCORES, "consensus_score", lambda v: v + 1e-6)),
    "a rate": ("scores and verdicts", cell(SCORES, "helpful_rate", lambda v: v - 1e-6)),
    "a side": ("scores and verdicts", cell(SCORES, "n_ratings_larger", lambda v: v + 1)),
    "reasons": (
        "scores and verdicts",
        lambda folder: edit_table(
            folder, f"{SCORES}.parquet", lambda t: t.assign(failed=t["failed"].map(reworded))
        ),
    ),
    "the order": (
        "scores and verdicts",
        lambda folder: edit_table(folder, f"{SCORES}.parquet", lambda t: t.iloc[::-1]),
    ),
    "the summary": (
        "scores and verdicts",
        json_edit("evidence/summary.json", lambda s: s["verdicts"].update(accepted=99)),
    ),
    "the rule in the summary": (
        "scores and verdicts",
        json_edit("evidence/summary.json", lambda s: s["rule"].update(name="mine")),
    ),
    "the rule in the parameters": (
        "scores and verdicts",
        in_text("params.yaml", "min_intercept: 0.375", "min_intercept: 0.3"),
    ),
    "the accepted guidelines": (BODY, json_edit(BODY, lambda b: b["accepted_guideline_ids"].pop())),
    "their order": (BODY, json_edit(BODY, lambda b: b["accepted_guideline_ids"].reverse())),
    "their scores": (BODY, json_edit(BODY, first_entry("guideline_scores", 1e-6))),
    "an intercept of the payload": (BODY, json_edit(BODY, first_entry("user_intercepts", 1e-9))),
    "an embedding of the payload": (
        BODY,
        json_edit(BODY, first_entry("guideline_embeddings", 1e-9)),
    ),
    "mu of the payload": (BODY, json_edit(BODY, lambda b: b.update(mu=b["mu"] + 1e-9))),
}


@pytest.mark.parametrize(("what", "edit"), EDITS.values(), ids=EDITS)
def test_an_edit_is_found_although_every_hash_was_forged(copy, what, edit, monkeypatch):
    monkeypatch.setattr(checks, "STARTS", 0)
    edit(copy)
    forge(copy)
    assert what in failing(copy)


def test_another_stationary_point_is_found_by_the_search(copy):
    remodel(copy, without_embeddings(copy))
    assert failing(copy) == ["lowest minimum"]


# files


def test_files_that_were_changed_or_are_gone_are_named(copy):
    (copy.path / "model" / "history.parquet").unlink()
    (copy.path / "constitution.csv").write_bytes(b"x")
    (files,) = [c for c in verify(copy) if c.what == "files"]
    assert files.holds is False
    assert files.told == "2 of 26 changed or gone: model/history.parquet, constitution.csv"


def test_an_edited_manifest_is_found_by_its_checksum(copy):
    edit_json(copy, "manifest.json", lambda m: m.update(commit="0" * 40))
    assert failing(copy) == ["files"]


def test_files_that_the_manifest_does_not_name_are_named(copy):
    (copy.path / "report" / "more.html").write_text("certified")
    for name in ("notebooks/.ipynb_checkpoints/train.ipynb", ".lock", "source/a", "published/b"):
        (copy.path / name).parent.mkdir(exist_ok=True)
        (copy.path / name).write_text("x")
    (others,) = [c for c in verify(copy) if c.holds is False]
    assert others.told == "not the run's, manifest.json does not name them: report/more.html"
    assert "no others" in failing(copy, copy.path / "constitution.json")


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket has at most a hundred letters
        one.bind(path.name)
        os.chdir(here)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("params.yaml", os.mkfifo),
        ("more", a_socket),
        ("data/ratings.parquet", lambda path: path.symlink_to("/dev/zero")),
        ("more", lambda path: path.symlink_to("/etc")),
        ("manifest.json", lambda path: path.symlink_to("nowhere")),
    ],
    ids=["pipe", "socket", "link to a device", "link to a folder", "link to nothing"],
)
def test_nothing_is_opened_where_something_is_no_file(copy, name, make):
    (copy.path / name).unlink(missing_ok=True)
    make(copy.path / name)
    (only,) = verify(copy)
    assert (only.what, only.holds) == ("plain files", False)
    assert name in only.told


def test_a_name_in_the_manifest_leads_to_no_device(copy):
    manifest = read_json(copy, "manifest.json")
    manifest["stages"]["train"]["outputs"]["../" * 9 + "dev/zero"] = "x"
    write_json(copy, "manifest.json", with_checksum(manifest))
    assert failing(copy) == ["files"]


def in_words(claims):
    """Whether a claim fails, and each is one line without a traceback."""
    lines = [str(claim) for claim in claims]
    assert not [line for line in lines if "Traceback" in line or len(line.splitlines()) != 1]
    return any(claim.holds is False for claim in claims)


@pytest.mark.parametrize(
    "name",
    [
        *("manifest.json", "params.yaml", "data/ingest.json", "data/ratings.parquet"),
        *("model/fit.json", "model/users.parquet"),
        *("evidence/summary.json", "evidence/guidelines.parquet", "constitution.json"),
    ],
)
def test_a_damaged_file_fails_in_words(copy, name, monkeypatch):
    monkeypatch.setattr(checks, "STARTS", 0)
    contents = (
        b"[]",
        b"null",
        b"{}",
        b"",
        b"[" * (200 if "yaml" in name else 2000),
        b"\xff\xfe\x00",
        b"1" * 5000,
    )
    for content in contents:
        (copy.path / name).write_bytes(content)
        assert in_words(list(verify(copy)))
    (copy.path / name).unlink()
    assert in_words(list(verify(copy)))


def test_values_of_another_kind_fail_in_words(copy, monkeypatch):
    monkeypatch.setattr(checks, "STARTS", 0)
    fit = read_json(copy, "model/fit.json")
    for key, value in zip(
        ("mu", "objective", "penalty", "mu"), (None, "x", 7, 10**400), strict=True
    ):
        write_json(copy, "model/fit.json", fit | {key: value})
        assert in_words(list(verify(copy))), (key, value)
    write_json(copy, "model/fit.json", fit)
    table = copy.path / "model" / "guidelines.parquet"
    whole = table.read_bytes()
    for value in (None, "x", [], [[1.0]], 1e300):
        edit_table(
            copy, "model/guidelines.parquet", lambda t, v=value: t.assign(embedding=[v] * len(t))
        )
        assert in_words(list(verify(copy))), value
        table.write_bytes(whole)


# a constitution from elsewhere


def test_a_published_constitution_holds_if_data_and_rule_give_it(honest, tmp_path):
    body = read_json(honest, "constitution.json")
    for key in ("user_embeddings", "guideline_embeddings"):  # the loss has no direction
        body[key] = {k: [-x for x in v] for k, v in body[key].items()}
    (tmp_path / "published.json").write_text(json.dumps(body))
    found = holds(honest, tmp_path / "published.json")
    assert found["published constitution"] is True


def test_any_other_published_constitution_is_found(honest, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "STARTS", 0)
    whole, published = read_json(honest, "constitution.json"), tmp_path / "published.json"
    accepted, first = whole["accepted_guideline_ids"], min(whole["user_intercepts"])
    rejected = min(set(whole["guideline_intercepts"]) - set(accepted))
    edits = {
        "one more": {"accepted_guideline_ids": [*accepted, rejected]},
        "one twice": {"accepted_guideline_ids": [*accepted, accepted[0]]},
        "another order": {"accepted_guideline_ids": accepted[::-1]},
        "other scores": {"guideline_scores": dict.fromkeys(accepted, 0.5)},
        "another mu": {"mu": whole["mu"] + 0.01},
        "a text": {"mu": str(whole["mu"])},
        "a truth": {"mu": True},
        "a user more": {"user_intercepts": whole["user_intercepts"] | {"nobody": 0.0}},
        "no number": {"user_intercepts": whole["user_intercepts"] | {first: float("nan")}},
        "a huge number": {"user_intercepts": whole["user_intercepts"] | {first: 10**400}},
        "an axis more": {
            "user_embeddings": {k: [*v, 0.0] for k, v in whole["user_embeddings"].items()}
        },
        "a key more": {"note": ""},
    }
    texts = {name: json.dumps(whole | edit) for name, edit in edits.items()}
    texts |= {"empty": "", "a list": "[]", "deep": "[" * 100_000}
    for name, text in texts.items():
        published.write_text(text)
        assert in_words([c for c in verify(honest, published) if "published" in c.what]), name
    published.write_bytes(json.dumps(whole).encode("utf-16"))
    assert failing(honest, published) == ["published constitution"]
    for odd in ("/dev/zero", "/dev/null", tmp_path):
        assert failing(honest, Path(odd)) == ["published constitution"]


def test_a_published_model_above_the_runs_own_is_found(honest, copy):
    remodel(copy, without_embeddings(copy))
    (claim,) = [c for c in verify(honest, copy.path / "constitution.json") if c.holds is False]
    assert "above the run's" in claim.told


def test_a_published_model_by_gradient_descent_is_the_runs_own(descended, tmp_path):
    body = read_json(descended, "constitution.json")
    assert holds(descended, descended.path / "constitution.json")["published constitution"] is True
    body["user_intercepts"] = {k: v + 1e-9 for k, v in body["user_intercepts"].items()}
    (tmp_path / "published.json").write_text(json.dumps(body))
    assert failing(descended, tmp_path / "published.json") == ["published constitution"]


# the command


def test_the_command_prints_a_line_for_each_claim_and_ends_with_its_code(copy, descended):
    def command(*words):
        done = CliRunner().invoke(main, ["verify", *map(str, words)])
        return done.exit_code, done.output.splitlines()

    code, lines = command(copy.path)
    assert (code, lines[-1]) == (0, "Everything holds.")
    assert all(line.startswith("holds  ") for line in lines[:-2])
    assert lines[-2].startswith("note   Nobody can recompute the commit and its dirty flag")
    code, lines = command(descended.path)
    assert (code, lines[-1]) == (3, "Nothing fails, but 1 claim is open: nobody could tell here.")
    (copy.path / "constitution.csv").write_bytes(b"")
    code, lines = command(copy.path)
    assert (code, lines[-1]) == (1, "NOT everything holds.")
    assert "FAILS  files: 1 of 26 changed or gone: constitution.csv" in lines
    code, lines = command(copy.path / "none")
    assert code == 1
    assert "so it is no run's folder" in lines[0]
    assert command(copy.path, copy.path)[0] == 2
