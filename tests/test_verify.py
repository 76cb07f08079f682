"""Verify: an honest run holds, and whatever is edited is found, forged hashes or not."""

import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aggregation import RunFolder, runs
from aggregation.fingerprint import fingerprints
from aggregation.repeat import repeat
from aggregation.seal import sealed
from aggregation.stages import MAKES, READS, sha256
from aggregation.verify import verify

COMMAND = Path(sys.executable).with_name("aggregation")

PARAMS = """\
run: small
seed: 7
source: {kind: simulated, n_users: 80}
train: {starts: 4, max_starts: 4}
"""


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    place = tmp_path_factory.mktemp("honest")
    (place / "p.yaml").write_text(PARAMS)
    return runs.run(place / "p.yaml", out=place / "outputs", say=lambda _: None)


@pytest.fixture
def copy(honest, tmp_path):
    return RunFolder(shutil.copytree(honest, tmp_path / "small"))


def failures(claims):
    return [claim for claim in claims if claim.holds is False]


def first_failure(folder, constitution=None):
    return next((c for c in verify(folder, constitution) if c.holds is False), None)


def forge(folder):
    """Make every hash anew, as somebody would who wants an edit to pass."""
    try:
        told = folder.read_json("data/ingest.json")
        told["tables"] = fingerprints(folder.dataset())
        folder.write_json("data/ingest.json", told)
    except (KeyError, ValueError):
        pass
    manifest = folder.read_json("manifest.json")
    stages = manifest["stages"]
    for record in stages.values():
        record["outputs"] = {n: sha256(folder.path / n) for n in record["outputs"]}
    for stage, record in stages.items():
        made = {n: h for s in READS[stage] if s in stages for n, h in stages[s]["outputs"].items()}
        makes = tuple(name for s in READS[stage] for name in MAKES[s])
        record["input"] = {n: h for n, h in made.items() if n.startswith(makes)} if makes else {}
    manifest["parameters"] = sha256(folder.path / "params.yaml")
    manifest["tables"] = folder.read_json("data/ingest.json")["tables"]
    folder.write_json("manifest.json", sealed(manifest))


def test_everything_holds_of_an_honest_run(honest):
    claims = list(verify(RunFolder(honest)))
    assert [str(c) for c in claims if c.holds is not True] == []
    names = [claim.what for claim in claims]
    for name in ("files", "loss", "certificate", "balance", "fit", "lowest minimum", "report"):
        assert name in names
    assert len(names) == len(set(names))


def test_a_run_holds_under_another_name_too(honest, tmp_path):
    renamed = shutil.copytree(honest, tmp_path / "renamed")
    assert [str(c) for c in verify(RunFolder(renamed)) if c.holds is not True] == []


def test_forging_alone_changes_nothing(copy):
    """So that what the tests below find is the edit, not the forgery."""
    before = copy.read_bytes("manifest.json")
    forge(copy)
    assert copy.read_bytes("manifest.json") == before
    assert first_failure(copy) is None


def test_any_flipped_byte_is_found(copy):
    chance = random.Random(1)
    files = sorted(p for p in copy.path.rglob("*") if p.is_file())
    for _ in range(200):
        path = chance.choice(files)
        whole = path.read_bytes()
        at, bit = chance.randrange(len(whole)), 1 << chance.randrange(8)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        found = first_failure(copy)
        assert found is not None, (path, at, bit)
        path.write_bytes(whole)
    assert first_failure(copy) is None


def table(name, column, edit):
    def change(folder, chance):
        frame = pd.read_parquet(folder.path / name)
        at = chance.randrange(len(frame))
        cells = list(frame[column])
        cells[at] = edit(cells[at], chance)
        frame[column] = pd.Series(cells, index=frame.index, dtype=frame[column].dtype)
        frame.to_parquet(folder.path / name)

    return change


def number(name, key):
    def change(folder, _):
        values = folder.read_json(name)
        at = values
        *path, last = key.split(".")
        for step in path:
            at = at[step]
        at[last] = at[last] + 1 if isinstance(at[last], int) else at[last] + 0.001
        folder.write_json(name, values)

    return change


def payload(key):
    """An edit of one number or id of constitution.json, written as the package writes it."""

    def change(folder, chance):
        body = json.loads(folder.read_bytes("constitution.json"))
        if isinstance(body[key], list):
            body[key].pop(chance.randrange(len(body[key])))
        elif isinstance(body[key], dict):
            name = chance.choice(sorted(body[key]))
            value = body[key][name]
            body[key][name] = [v + 1e-6 for v in value] if isinstance(value, list) else value + 1e-6
        else:
            body[key] += 1e-6
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        folder.write_text("constitution.json", text)

    return change


def text(name, pattern, new):
    def change(folder, chance):
        whole = folder.read_bytes(name).decode("utf-8")
        found = chance.choice(list(re.finditer(pattern, whole)))
        folder.write_text(name, whole[: found.start()] + new + whole[found.end() :])

    return change


def other(words):
    return lambda word, chance: chance.choice([w for w in words if w != word])


def up(by):
    return lambda value, _: value + by


EDITS = {
    "a rating": table("data/ratings.parquet", "helpful", lambda v, _: 1 - v),
    "a guideline's text": table("data/guidelines.parquet", "text", lambda v, _: v + "!"),
    "a topic": table("data/topics.parquet", "title", lambda v, _: v + "!"),
    "a user's intercept": table("model/users.parquet", "intercept", up(1e-4)),
    "a guideline's intercept": table("model/guidelines.parquet", "intercept", up(1e-4)),
    "a user's embedding": table("model/users.parquet", "embedding", lambda v, _: v + 0.01),
    "an embedding": table("model/guidelines.parquet", "embedding", lambda v, _: v + 0.01),
    "mu": number("model/fit.json", "mu"),
    "the loss": number("model/fit.json", "objective"),
    "the residual": number("model/fit.json", "kkt_residual"),
    "the balance": number("model/fit.json", "balance"),
    "the numbers": number("model/fit.json", "n_users"),
    "the penalty": number("model/fit.json", "penalty.embedding"),
    "a verdict": table(
        "evidence/guidelines.parquet", "verdict", other(["accepted", "undecided", "rejected"])
    ),
    "a consensus score": table("evidence/guidelines.parquet", "consensus_score", up(1e-6)),
    "a rate": table("evidence/guidelines.parquet", "helpful_rate", up(1e-6)),
    "a count": table("evidence/guidelines.parquet", "n_ratings_positive", up(1)),
    "the summary": number("evidence/summary.json", "verdicts.accepted"),
    "the rule in the evidence": number("evidence/summary.json", "rule.min_intercept"),
    "the rule in the parameters": text(
        "params.yaml", r"min_intercept: 0\.375", "min_intercept: 0.35"
    ),
    "the seed": text("params.yaml", "seed: 7", "seed: 8"),
    **{
        f"{key} of the constitution": payload(key)
        for key in (
            "accepted_guideline_ids",
            "guideline_scores",
            "guideline_intercepts",
            "user_intercepts",
            "guideline_embeddings",
            "user_embeddings",
            "mu",
        )
    },
    "a verdict of the table": text("constitution.csv", "rejected", "accepted"),
    "a number of the table": text("constitution.csv", r"(?<=,0\.)\d(?=\d+,)", "x"),
    "a word of the report": text("report/index.html", "accepted", "excepted"),
    "a number of the report": text("report/index.html", r"0\.\d\d\d", "0.999"),
    "a cell of a notebook": text("notebooks/train.ipynb", r"ag\.fit\(", "ag.fat("),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_field_is_found_although_every_hash_was_forged(copy, honest, edit):
    chance = random.Random(2)
    for _ in range(2):
        shutil.copytree(honest, copy.path, dirs_exist_ok=True)
        before = {p: p.read_bytes() for p in copy.path.rglob("*") if p.is_file()}
        edit(copy, chance)
        assert any(p.read_bytes() != whole for p, whole in before.items())
        forge(copy)
        assert first_failure(copy) is not None


def test_another_minimum_is_found_although_its_certificate_holds(copy):
    """A fit at which nobody stands anywhere is stationary: only a search finds it out."""
    ratings, ids, p = copy.model()
    from aggregation.recompute import Point, Problem, descend, loss, residual

    problem = Problem(
        ratings.user,
        ratings.guideline,
        ratings.helpful,
        (ratings.n_users, ratings.n_guidelines),
        *(0.15, 0.03, "l1", "rating"),
    )
    dead = descend(
        problem,
        Point(
            float(p.mu),
            (p.user_intercept, p.guideline_intercept),
            (np.zeros_like(p.user_embedding), np.zeros_like(p.guideline_embedding)),
        ),
        1e-10,
        20000,
    )
    for side, (name, key, rows) in enumerate(
        (("users", "user_id", ids.users), ("guidelines", "guideline_id", ids.guidelines))
    ):
        frame = pd.read_parquet(copy.path / f"model/{name}.parquet").set_index(key).loc[list(rows)]
        frame["intercept"] = dead.intercepts[side]
        frame["embedding"] = [[0.0]] * len(frame)
        frame.reset_index().to_parquet(copy.path / f"model/{name}.parquet")
    fit = copy.read_json("model/fit.json")
    fit |= {"mu": dead.mu, "objective": loss(problem, dead), "balance": 0.0}
    fit["kkt_residual"] = residual(problem, dead)
    copy.write_json("model/fit.json", fit)
    forge(copy)
    found = {claim.what: claim.holds for claim in verify(copy)}
    assert found["loss"] is found["certificate"] is found["balance"] is True
    assert found["lowest minimum"] is False


def test_files_that_are_gone_or_do_not_belong_are_found(copy):
    (copy.path / "data" / "more.parquet").write_text("x")
    assert first_failure(copy).what == "no others"
    (copy.path / "data" / "more.parquet").unlink()
    (copy.path / "notebooks" / ".ipynb_checkpoints").mkdir()
    (copy.path / "notebooks" / ".ipynb_checkpoints" / "x.ipynb").write_text("by JupyterLab")
    assert first_failure(copy) is None
    (copy.path / "model" / "history.parquet").unlink()
    assert first_failure(copy).what == "files"


@pytest.mark.parametrize("gone", ["manifest.json", "params.yaml", "data", "model", "evidence"])
def test_a_run_with_parts_missing_fails_without_a_traceback(copy, gone):
    path = copy.path / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    claims = list(verify(copy))
    assert failures(claims)
    assert all(len(str(claim).splitlines()) == 1 for claim in claims)


def test_a_published_constitution_is_held_against_the_data(copy, tmp_path):
    whole = copy.read_bytes("constitution.json")
    published = tmp_path / "published.json"
    published.write_bytes(whole)
    assert failures(verify(copy, published)) == []
    body = json.loads(whole)
    rejected = min(set(body["guideline_intercepts"]) - set(body["accepted_guideline_ids"]))
    wrong = {
        "accepts one more": body
        | {"accepted_guideline_ids": [*body["accepted_guideline_ids"], rejected]},
        "another score": body
        | {"guideline_scores": {g: s + 0.01 for g, s in body["guideline_scores"].items()}},
        "another level": body | {"mu": body["mu"] + 0.01},
        "a user more": body | {"user_intercepts": body["user_intercepts"] | {"nobody": 0.0}},
        "a key more": body | {"note": ""},
        "no numbers": body | {"user_intercepts": dict.fromkeys(body["user_intercepts"], "x")},
    }
    for name, edited in wrong.items():
        published.write_text(json.dumps(edited))
        assert first_failure(copy, published) is not None, name
    for broken in ("", "[]", '{"mu": 1, "mu": 2}', "\x00"):
        published.write_text(broken)
        assert first_failure(copy, published) is not None, broken


def test_a_turned_axis_is_the_same_constitution(copy, tmp_path):
    """The loss is blind to it: whoever published from another machine may have it turned."""
    body = json.loads(copy.read_bytes("constitution.json"))
    for key in ("user_embeddings", "guideline_embeddings"):
        body[key] = {k: [-x for x in v] for k, v in body[key].items()}
    (tmp_path / "published.json").write_text(json.dumps(body))
    assert first_failure(copy, tmp_path / "published.json") is None


def test_strict_repeats_the_run_and_finds_what_only_its_hash_could_tell(copy):
    assert [(c.what, c.holds) for c in repeat(copy)] == [("same bits", True)]
    path = copy.path / "notebooks" / "train.ipynb"
    path.write_text(path.read_text("utf-8").replace("loss 0.", "loss 1.", 1), "utf-8")
    forge(copy)
    assert first_failure(copy) is None
    (found,) = repeat(copy)
    assert found.holds is False
    assert found.told == "not those of notebooks/train.ipynb"


def test_the_command_says_each_claim_on_a_line_and_ends_with_its_code(copy):
    def command(*words):
        return subprocess.run([COMMAND, "verify", *map(str, words)], capture_output=True, text=True)

    done = command(copy.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "Everything holds."
    assert all(line.startswith("holds  ") for line in done.stdout.splitlines()[:-1])
    path = copy.path / "constitution.csv"
    path.write_bytes(path.read_bytes()[:-1])
    done = command(copy.path)
    assert (done.returncode, done.stderr) == (1, "")
    assert "FAILS  files: 1 of 25 changed or gone: constitution.csv" in done.stdout
    assert done.stdout.splitlines()[-1] == "NOT everything holds."
    done = command(copy.path / "none")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
