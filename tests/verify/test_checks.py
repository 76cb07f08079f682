"""Verify: an honest run holds, and whatever is edited is found, forged hashes or not."""

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from loopback import Loopback

import aggregation as ag
from aggregation import RunFolder
from aggregation.data.fingerprint import fingerprints
from aggregation.files import sha256, with_checksum
from aggregation.params import load_params
from aggregation.report.index import index_page
from aggregation.runs import provenance as manifest
from aggregation.runs import runner as runs
from aggregation.runs.provenance import as_committed, circumstances
from aggregation.runs.stages import MAKES, READS
from aggregation.verify import checks as verifying
from aggregation.verify import decisions
from aggregation.verify import reference_solver as recompute
from aggregation.verify.checks import verify
from aggregation.verify.claims import files
from aggregation.verify.reference_data import read_points, read_world
from aggregation.verify.reference_solver import Point, descend, loss, residual
from aggregation.verify.rerun import _alone, repeat

COMMAND = Path(sys.executable).with_name("aggregation")

PARAMS = """\
run: small
seed: 7
source: {kind: simulated, n_users: 80}
train: {starts: 4, max_starts: 4}
"""


def made(place, *changes):
    (place / "p.yaml").write_text(PARAMS)
    return runs.run(place / "p.yaml", changes=changes, out=place / "outputs", say=lambda _: None)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return made(tmp_path_factory.mktemp("honest"))


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    return made(
        tmp_path_factory.mktemp("replayed"), "train.method=gradient-descent", "source.n_users=40"
    )


@pytest.fixture(scope="module")
def held(honest, tmp_path_factory):
    """A run whose users are those of the model that `honest` published."""
    place = tmp_path_factory.mktemp("held")
    export, body = ag.simulate(7, 80).export, json.loads((honest / "constitution.json").read_text())
    export["mu"] = body["mu"]
    for name, word in (("guidelines", "guideline"), ("users", "user")):
        for record in export[name]:
            record["intercept"] = body[f"{word}_intercepts"][record["id"]]
            record["embeddings"] = body[f"{word}_embeddings"][record["id"]]
    (place / "export.json").write_text(json.dumps(export))
    source = f"source={{kind: platform-file, path: '{place}/export.json'}}"
    return made(place, source, "train.hold=users")


@pytest.fixture
def copy(honest, tmp_path):
    return RunFolder(shutil.copytree(honest, tmp_path / "small"))


@pytest.fixture
def quick(monkeypatch):
    """One start, and no report: for tests that verify hundreds of times."""
    monkeypatch.setattr(verifying, "STARTS", 1)
    monkeypatch.setattr(verifying, "MOST", 1)
    monkeypatch.setattr(decisions, "report", lambda _: (True, ""))


def failures(claims):
    return [claim for claim in claims if claim.holds is False]


def held_to(folder, constitution=None):
    """Whether each claim holds, by name."""
    return {c.what: c.holds for c in verify(folder, constitution)}


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
    begun = folder.path / "manifest.partial.json"  # so it is called since something was written
    if begun.exists():
        begun.replace(folder.path / "manifest.json")
    manifest = folder.read_json("manifest.json")
    stages = manifest["stages"]
    for record in stages.values():
        record["outputs"] = {n: sha256(folder.path / n) for n in record["outputs"]}
    for stage, record in stages.items():
        made = {n: h for s in READS[stage] if s in stages for n, h in stages[s]["outputs"].items()}
        makes = tuple(name for s in READS[stage] for name in MAKES[s])
        if makes:
            record["input"] = {n: h for n, h in made.items() if n in makes}
    manifest["parameters"] = sha256(folder.path / "params.yaml")
    manifest["tables"] = folder.read_json("data/ingest.json")["tables"]
    folder.write_json("manifest.json", with_checksum(manifest))


def remodel(folder, x):
    """Write the point `x` as the run's fit, with all that follows from it, and forge the hashes."""
    world = read_world(folder)
    p, ids = world.problem, world.ids
    for side, (name, key) in enumerate((("users", "user_id"), ("guidelines", "guideline_id"))):
        table = pd.DataFrame({key: pd.Series(ids[side], dtype="str")})
        table["intercept"], table["embedding"] = x.intercepts[side], list(x.embeddings[side])
        table["other_intercepts"] = table["other_embeddings"] = [np.empty(0)] * len(table)
        table.to_parquet(folder.path / f"model/{name}.parquet")
    minima = {"minimum": 1, "guideline_id": ids[1], "intercept": x.intercepts[1]}
    pd.DataFrame(minima).to_parquet(folder.path / "model/minima.parquet")
    fit = folder.read_json("model/fit.json")
    fit |= {"mu": float(x.mu), "objective": loss(p, x), "kkt_residual": residual(p, x, world.held)}
    fit["balance"] = recompute.balance(p, x) if world.held is None else None
    fit["starts"] = [fit["objective"]] * len(fit["starts"])
    names = ("objective", "kkt_residual", "converged", "mu")
    fit["minima"] = [{name: fit[name] for name in names} | {"starts": len(fit["starts"])}]
    folder.write_json("model/fit.json", fit)
    downstream(folder, x)


def downstream(folder, x):
    """What follows from the model, written as the notebooks do."""
    params, dataset = load_params(folder.path / "params.yaml"), folder.dataset()
    ratings, ids = ag.encode(dataset.ratings)
    (i, j), (f, h) = x.intercepts, x.embeddings
    p = ag.Parameters(np.float64(x.mu), i, f, j, h)
    scores = ag.by_side(ag.score(ratings, ids, p), ratings, ids, p)
    scores = ag.with_unrated(scores, dataset.guidelines["guideline_id"])
    found = ag.select(scores, params.rule.rule())
    ends = folder.read_json("model/fit.json")["minima"]
    intercepts = folder.read_table("model/minima.parquet")
    folder.save_evidence(found, ag.minima_table(found.scores, found.rule, intercepts, ends))
    folder.write_text("constitution.json", ag.body(ag.payload(found, p, ids)))
    folder.write_text("constitution.csv", "\ufeff" + ag.table(found, dataset))
    write_report(folder)
    forge(folder)


def write_report(folder):
    params = load_params(folder.path / "params.yaml")
    names = ("title", "question", "participants", "attribution")
    words = {name: getattr(params, name) for name in names}
    page = index_page(folder, **words, near_misses=params.diagnostics.near_misses)
    folder.write_text("report/index.html", page)


def its_point(folder):
    return read_points(read_world(folder), folder, folder.read_json("model/fit.json"))[0]


def nobody_anywhere(folder):
    """The minimum at which all embeddings are 0."""
    world, x = read_world(folder), its_point(folder)
    zeros = tuple(np.zeros_like(f) for f in x.embeddings)
    return descend(world.problem, Point(x.mu, x.intercepts, zeros), 1e-10, 20000, world.held)


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


def test_any_flipped_byte_is_found_and_nothing_stops_the_other_claims(copy, monkeypatch):
    monkeypatch.setattr(verifying, "STARTS", 1)
    monkeypatch.setattr(verifying, "MOST", 1)
    chance = random.Random(1)
    files = sorted(p for p in copy.path.rglob("*") if p.is_file())
    for number in range(200):
        path = chance.choice(files)
        whole = path.read_bytes()
        at, bit = chance.randrange(len(whole)), 1 << chance.randrange(8)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        if number % 5:
            assert first_failure(copy) is not None, (path, at, bit)
        else:
            assert in_words(list(verify(copy))), (path, at, bit)
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
        files = (p for p in copy.path.rglob("*") if p.is_file() and p.name != "manifest.json")
        before = {p: p.read_bytes() for p in files}
        edit(copy, chance)
        assert any(p.read_bytes() != whole for p, whole in before.items())
        forge(copy)
        assert first_failure(copy) is not None


def test_remodelling_alone_changes_nothing(copy):
    """So that what the tests below find is the model, not how it was written."""
    remodel(copy, its_point(copy))
    assert {what for what, holds in held_to(copy).items() if not holds} == set()


def test_another_minimum_is_found_although_its_certificate_holds(copy):
    """A fit at which nobody stands anywhere is stationary: only a search finds it out."""
    remodel(copy, nobody_anywhere(copy))
    assert [c.what for c in failures(verify(copy))] == ["lowest minimum"]


def test_a_lower_minimum_that_the_run_itself_lists_is_found(copy):
    fit = copy.read_json("model/fit.json")
    fit["minima"] += [fit["minima"][0] | {"objective": fit["objective"] * 0.9}]
    holds, told = verifying._lowest(read_world(copy), its_point(copy), fit)
    assert holds is False
    assert "itself has a lower one" in told


def test_a_search_that_does_not_come_down_to_the_loss_leaves_it_open(copy, monkeypatch):
    monkeypatch.setattr(recompute, "search", lambda *_: iter([(None, 1.0)] * 1000))
    found = {c.what: c for c in verify(copy)}["lowest minimum"]
    assert found.holds is None
    assert "128 starts, only reached 1.000000000" in found.told


@pytest.mark.parametrize(
    "changes",
    [
        ["source.n_users=8", "seed=3", "train.penalty=community-notes", "train.dimensions=2"],
        ["source.n_users=30", "train.embedding_penalty=0.001"],
    ],
    ids=["squares on two axes", "a loss that is nearly flat"],
)
def test_a_fit_holds_where_the_loss_hardly_says_which_numbers(changes, tmp_path):
    found = held_to(RunFolder(made(tmp_path, *changes)))
    assert False not in found.values()
    assert found["fit"] is True


def test_where_numbers_differ_but_not_the_loss_decisions_count(copy, monkeypatch):
    world, x = read_world(copy), its_point(copy)
    monkeypatch.setattr(verifying, "SAME_NUMBER", 0.0)
    holds, told = verifying._again(world, x)
    assert holds is True
    assert told.endswith("the same verdicts")
    monkeypatch.setattr(verifying, "verdicts", lambda found: id(found))
    assert verifying._again(world, x)[0] is False


def test_held_rows_are_those_of_the_earlier_model(held, tmp_path):
    assert [str(c) for c in verify(RunFolder(held)) if not c.holds] == []
    assert failures(verify(RunFolder(held), held / "constitution.json")) == []
    for edit in ("users", "mu"):
        folder = RunFolder(shutil.copytree(held, tmp_path / edit / "small"))
        world, x = read_world(folder), its_point(folder)
        users = x.intercepts[0] + (0.01 if edit == "users" else 0.0)
        moved = Point(
            x.mu + (0.01 if edit == "mu" else 0.0), (users, x.intercepts[1]), x.embeddings
        )
        moved = descend(world.problem, moved, 1e-10, 20000, world.held)
        remodel(folder, moved)
        assert [c.what for c in failures(verify(folder))] == ["held"]
        found = held_to(RunFolder(held), folder.path / "constitution.json")
        assert found["held"] is False


def test_nobody_is_held_without_an_earlier_model(copy):
    path = copy.path / "params.yaml"
    path.write_text(path.read_text().replace("hold: null", "hold: users"))
    manifest = copy.read_json("manifest.json")
    manifest["stages"]["train"]["parameters"]["train"]["hold"] = "users"
    copy.write_json("manifest.json", with_checksum(manifest))
    forge(copy)
    assert held_to(copy)["held"] is False


def test_a_number_that_is_none_fails_a_run_and_a_constitution(copy, honest, tmp_path):
    table("model/users.parquet", "intercept", lambda *_: float("nan"))(copy, random.Random(0))
    assert held_to(copy)["model"] is False
    body = json.loads((honest / "constitution.json").read_bytes())
    body["user_intercepts"][min(body["user_intercepts"])] = float("nan")
    (tmp_path / "published.json").write_text(json.dumps(body))
    found = held_to(RunFolder(honest), tmp_path / "published.json")
    assert found["constitution"] is False


def test_of_a_replay_a_run_leaves_it_open_and_a_constitution_is_the_runs_own(replayed, tmp_path):
    folder, published = RunFolder(replayed), tmp_path / "published.json"
    assert [(c.what, c.holds) for c in verify(folder) if not c.holds] == [("fit", None)]
    assert "--strict" in next(c.told for c in verify(folder) if c.what == "fit")
    assert all(c.holds for c in verify(folder, repeated=True))
    body = json.loads((replayed / "constitution.json").read_bytes())
    for key in ("user_embeddings", "guideline_embeddings"):
        body[key] = {k: [-x for x in v] for k, v in body[key].items()}
    published.write_text(json.dumps(body))
    assert held_to(folder, published)["model"] is True
    assert held_to(folder, published)["fit"] is None
    assert "fit" not in {c.what for c in verify(folder, published, repeated=True)}
    body["user_intercepts"] = {k: v + 1e-5 for k, v in body["user_intercepts"].items()}
    published.write_text(json.dumps(body))
    assert held_to(folder, published)["model"] is False
    copy = RunFolder(shutil.copytree(replayed, tmp_path / "small"))
    table = copy.read_table("model/guidelines.parquet")
    copy.write_table("model/guidelines.parquet", table.assign(intercept=table["intercept"] + 0.5))
    forge(copy)
    body = json.loads((replayed / "constitution.json").read_bytes())
    body["guideline_intercepts"] = {k: v + 0.5 for k, v in body["guideline_intercepts"].items()}
    published.write_text(json.dumps(body))
    found = held_to(copy, published)
    assert (found["model"], found["run's loss"]) == (True, False)


def test_a_fit_that_was_allowed_to_stop_early_holds_if_it_decides_as_its_minimum(tmp_path):
    early = ("train={starts: 1, max_starts: 1, moves: false, tolerance: 1.0e-4}",)
    folder = RunFolder(made(tmp_path, "source.n_users=60", *early))
    assert failures(verify(folder)) == []
    assert failures(verify(folder, folder.path / "constitution.json")) == []
    x = its_point(folder)
    close = folder.constitution().accepted.sort_values("intercept")["guideline_id"].iloc[0]
    x.intercepts[1][list(read_world(folder).ids[1]).index(close)] -= 0.2
    remodel(folder, x)
    assert held_to(folder)["fit"] is False


def edited(name, edit):
    """An edit of a JSON file; the report is written anew, as it shows some of it."""

    def change(folder):
        value = folder.read_json(name)
        edit(value)
        folder.write_json(name, value)
        write_report(folder)

    return change


def retold(edit):
    """An edit of the table of verdicts, order and reasons included."""

    def change(folder):
        name = "evidence/guidelines.parquet"
        edit(pd.read_parquet(folder.path / name)).to_parquet(folder.path / name)
        write_report(folder)

    return change


def reworded(frame):
    failed = [[reason | {"reason": "trust me"} for reason in cell] for cell in frame["failed"]]
    return frame.assign(failed=failed)


def given_more(cells):
    (own,) = (c for c in cells if "injected-parameters" in c["metadata"].get("tags", []))
    cells.append(own | {"source": "import os"})


def given_other(cells):
    (own,) = (c for c in cells if "injected-parameters" in c["metadata"].get("tags", []))
    own["source"] = "".join(own["source"]).replace("seed = 7", "seed = 8")


def more_starts(fit):
    """Twice the starts that there were, and what follows from that."""
    for name in ("starts", "start_kinds", "start_continuation"):
        fit[name] = 2 * fit[name]
    for end in fit["minima"]:
        end["starts"] *= 2
    losses = np.array(fit["starts"])
    fit["settled"] = bool((losses <= losses.min() * (1 + 1e-7)).sum() >= 3)


def not_converged(fit):
    fit["converged"] = fit["minima"][0]["converged"] = False


def with_column(folder):
    table = folder.read_table("model/users.parquet")
    folder.write_table("model/users.parquet", table.assign(email="a@b.c"))


def with_comment(folder):
    folder.write_text("params.yaml", (folder.read_bytes("params.yaml") + b"# certified").decode())


LIES = {
    "starts that were not made": ("search", edited("model/fit.json", more_starts)),
    "how many minima": ("search", edited("model/fit.json", lambda f: f.update(n_minima=77))),
    "whether it is a minimum": ("other minima", edited("model/fit.json", not_converged)),
    "a key of the fit": ("numbers", edited("model/fit.json", lambda f: f.update(by="NIST"))),
    "a key of the data": ("input tables", edited("data/ingest.json", lambda i: i.update(by="us"))),
    "a column of the model": ("numbers", with_column),
    "a comment": ("parameters", with_comment),
    "reasons": ("scores and verdicts", retold(reworded)),
    "the order of guidelines": ("scores and verdicts", retold(lambda frame: frame.iloc[::-1])),
    "what minima would accept": (
        "other minima",
        edited("evidence/minima.json", lambda b: b[0].update(accepted=99)),
    ),
    "the first minimum": (
        "other minima",
        edited("model/fit.json", lambda f: f["minima"][0].update(objective=0.01)),
    ),
    "settled": ("search", edited("model/fit.json", lambda f: f.update(settled=not f["settled"]))),
    "blocks": ("search", edited("model/fit.json", lambda f: f.update(n_blocks=5))),
    "starts": ("search", edited("model/fit.json", lambda f: f.update(starts=[0.01] * 4))),
    "how many reached it": (
        "search",
        edited("model/fit.json", lambda f: f["minima"][0].update(starts=64)),
    ),
    "a cell that was given besides": (
        "notebooks' parameters",
        edited("notebooks/train.ipynb", lambda n: given_more(n["cells"])),
    ),
    "a seed that was given": (
        "notebooks' parameters",
        edited("notebooks/train.ipynb", lambda n: given_other(n["cells"])),
    ),
    "a topic in the table": ("constitution.csv", lambda f: text_of(f, "constitution.csv")),
    "who was simulated": (
        "source",
        edited("data/ingest.json", lambda i: i["about"].update(simulated=False)),
    ),
    "what was counted": (
        "source",
        edited("data/ingest.json", lambda i: i["counts"][0].update(n=10**6)),
    ),
}


def text_of(folder, name):
    whole = folder.read_bytes(name).decode("utf-8")
    topic = folder.read_table("data/topics.parquet")["title"].iloc[-1]
    assert topic in whole
    folder.write_text(name, whole.replace(topic, "Elsewhere"))


@pytest.mark.parametrize(("what", "lie"), LIES.values(), ids=LIES)
def test_a_lie_is_found_by_the_claim_that_can_tell(copy, what, lie):
    lie(copy)
    forge(copy)
    assert held_to(copy)[what] is False


def test_data_that_the_source_does_not_give_is_found(copy):
    """Although all that follows was computed from it, by the notebooks themselves."""
    EDITS["a rating"](copy, random.Random(3))
    forge(copy)
    assert held_to(copy)["source"] is False


def test_a_source_that_is_not_here_is_not_read_again(held, tmp_path):
    folder = RunFolder(shutil.copytree(held, tmp_path / "small"))
    path = folder.path / "params.yaml"
    path.write_text(path.read_text("utf-8").replace("export.json", "gone.json"), "utf-8")
    claims = {c.what: c for c in verify(folder)}
    assert claims["source"].holds is None
    assert "not read again" in claims["source"].told


def test_another_version_of_the_package_turns_nothing_off(copy):
    manifest = copy.read_json("manifest.json")
    manifest["package"]["sha256"] = "0" * 64
    copy.write_json("manifest.json", with_checksum(manifest))
    found = held_to(copy)
    assert (found["package"], found["report"], found["source"]) == (None, True, True)
    text("report/index.html", "accepted", "excepted")(copy, random.Random(0))
    forge(copy)
    claims = {c.what: c for c in verify(copy)}
    assert claims["report"].holds is None
    assert "otherwise" in claims["report"].told


def test_a_published_minimum_above_the_runs_own_is_found(honest, copy):
    remodel(copy, nobody_anywhere(copy))
    claims = {c.what: c for c in verify(RunFolder(honest), copy.path / "constitution.json")}
    assert claims["certificate"].holds is True
    assert claims["run's loss"].holds is False
    assert re.search(r"loss 0\.\d{9}, by the run 0\.\d{9}", claims["run's loss"].told)


def test_files_that_are_gone_or_do_not_belong_are_found(copy):
    (copy.path / "data" / "more.parquet").write_text("x")
    assert first_failure(copy).what == "no others"
    (copy.path / "data" / "more.parquet").unlink()
    kept = copy.path / "notebooks" / ".ipynb_checkpoints"
    kept.mkdir()
    (kept / "x-checkpoint.ipynb").write_text("by JupyterLab")
    assert first_failure(copy) is None
    kept.rename(copy.path / "report" / kept.name)
    assert first_failure(copy).what == "no others"
    shutil.rmtree(copy.path / "report" / kept.name)
    (copy.path / "more" / "inside").mkdir(parents=True)
    assert "more/inside/" in first_failure(copy).told
    shutil.rmtree(copy.path / "more")
    (copy.path / "model" / "history.parquet").unlink()
    assert first_failure(copy).what == "files"


def other_manifest(folder, edit):
    """The manifest with an edit, its hashes and its seal forged."""
    told = folder.read_json("manifest.json")
    edit(told)
    folder.write_json("manifest.json", with_checksum(told))


def in_libraries(manifest):
    manifest["libraries"]["jax"] = "0.0.1"


HERE = circumstances()


def with_guests(manifest):
    """A stage that the parameters do not ask for."""
    stages = manifest["stages"]
    made = ("demographics/counts.json", "notebooks/demographics.ipynb", "report/demographics.html")
    stages["demographics"] = stages["ingest"] | {"outputs": dict.fromkeys(made, "")}
    for record in stages.values():
        record["pages"] = list(stages)


def with_a_page(manifest):
    manifest["stages"]["publish"]["outputs"]["report/summary.html"] = "0" * 64


def in_train(**words):
    return lambda manifest: manifest["stages"]["train"].update(words)


@pytest.mark.parametrize(
    ("edit", "claim", "holds"),
    [
        (lambda m: m.update(processor="Z80"), "made with", None),
        (in_libraries, "made with", None),
        (lambda m: m.update(commit="0" * 40, dirty=False), "made with", None),
        (lambda m: m.update(commit="HEAD", dirty=False), "made with", False),
        (lambda m: m.update(commit=None, dirty=False), "made with", False),
        (lambda m: m.update(commit="0" * 40, dirty="no"), "made with", False),
        (lambda m: m.update(host="evil.example"), "manifest", False),
        (lambda m: m.pop("seed"), "manifest", False),
        (lambda m: m.update(commit="v1.0, audited", dirty=True), "made with", False),
        (lambda m: m.update(lock="0" * 64, commit=HERE["commit"], dirty=False), "made with", None),
        (with_guests, "stages", False),
        (with_a_page, "stages", False),
        (in_train(pages=[]), "stages", False),
        (in_train(extra="x"), "stages", False),
    ],
)
def test_invented_circumstances_do_not_hold(copy, edit, claim, holds):
    other_manifest(copy, edit)
    found = {c.what: c.holds for c in files(copy)}
    assert found[claim] is holds, found


def test_a_commit_holds_if_package_and_lock_are_still_the_same(tmp_path, monkeypatch):
    def git(*words):
        own = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", tmp_path, *own, *words], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    for name in ("src/a.py", "requirements.lock", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("one")
    git("add", "-A")
    git("commit", "-qm", "one")
    monkeypatch.setattr(manifest, "ROOT", tmp_path)
    commit = git("rev-parse", "HEAD")
    assert as_committed(commit) is True
    (tmp_path / "README.md").write_text("two")
    git("commit", "-qam", "two")
    (tmp_path / "src/a.py").chmod(0o755)
    assert as_committed(commit) is True
    (tmp_path / "src/a.py").write_text("two")
    assert as_committed(commit) is False
    git("commit", "-qam", "three")
    assert as_committed(commit) is False
    assert as_committed("1" * 40) is None
    for word in ("HEAD", "--help", commit[:7], ""):
        assert as_committed(word) is False


def test_nothing_else_lies_where_others_write(copy):
    for name in (".lock", "notebooks/.ipynb_checkpoints/train-checkpoint.ipynb"):
        (copy.path / name).parent.mkdir(exist_ok=True)
        (copy.path / name).write_text("process 17 since 2026-01-01T00:00:00+00:00")
    assert {c.holds for c in files(copy)} == {True}
    for name, content in (
        (".lock", b"process 17 since you ask"),
        ("notebooks/.ipynb_checkpoints/evil.html", b"<script>"),
    ):
        before = (copy.path / name).read_bytes() if (copy.path / name).exists() else None
        (copy.path / name).write_bytes(content)
        assert [c.what for c in files(copy) if c.holds is False] == ["no others"]
        (copy.path / name).unlink()
        if before is not None:
            (copy.path / name).write_bytes(before)


def test_a_receipt_of_a_run_that_sends_nothing_proves_nothing(copy):
    (copy.path / "published").mkdir()
    (copy.path / "published" / "pending.json").write_bytes(copy.read_bytes("constitution.json"))
    receipt = {"state": "published", "body_sha256": sha256(copy.path / "constitution.json")}
    finished = copy.read_bytes("manifest.json")
    copy.write_json("published/receipt.json", with_checksum(receipt))
    (copy.path / "manifest.partial.json").unlink()
    (copy.path / "manifest.json").write_bytes(finished)
    found = {c.what: c.holds for c in files(copy)}
    assert found.pop("published/receipt.json") is None
    assert set(found.values()) == {True}


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_a_constitution_that_has_no_end_is_not_read(honest, path):
    told = [str(c) for c in verify(RunFolder(honest), Path(path)) if c.holds is False]
    assert told == ["FAILS  constitution: cannot be checked: it is no file"]


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(path.parent)  # such a name may have a hundred letters
        one.bind(path.name)
        os.chdir(here)


ODD = {
    "a pipe": os.mkfifo,
    "a socket": a_socket,
    "a link to a file": lambda path: path.symlink_to("/etc/hostname"),
    "a link to a folder": lambda path: path.symlink_to("/etc"),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
@pytest.mark.parametrize("name", ["more", "manifest.json", "data/ratings.parquet", "params.yaml"])
def test_what_is_no_file_is_found_before_anything_is_opened(copy, make, name):
    (copy.path / name).unlink(missing_ok=True)
    make(copy.path / name)
    (only,) = verify(copy)
    assert (only.what, only.holds) == ("plain files", False)
    assert name in only.told
    assert [c.holds for c in repeat(copy)] == [False]


def test_a_run_and_its_folders_may_lie_elsewhere(copy, tmp_path):
    for name in ("data", "notebooks"):
        shutil.move(copy.path / name, tmp_path / name)
        (copy.path / name).symlink_to(tmp_path / name)
    (tmp_path / "link").symlink_to(copy.path)
    assert first_failure(RunFolder(tmp_path / "link")) is None
    (tmp_path / "data" / "more").write_text("x")
    assert "data/more" in first_failure(RunFolder(tmp_path / "link")).told


def test_a_name_in_the_manifest_leads_nowhere_else(copy):
    manifest = copy.read_json("manifest.json")
    manifest["stages"]["train"]["outputs"]["../../../../../../dev/zero"] = "x"
    copy.write_json("manifest.json", with_checksum(manifest))
    assert held_to(copy)["files"] is False


@pytest.mark.parametrize("gone", ["manifest.json", "params.yaml", "data", "model", "evidence"])
def test_a_run_with_parts_missing_fails_without_a_traceback(copy, gone):
    path = copy.path / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    claims = list(verify(copy))
    assert failures(claims)
    assert all(len(str(claim).splitlines()) == 1 for claim in claims)
    assert not any("Error" in claim.told for claim in claims)


def test_a_missing_file_is_named(copy):
    (copy.path / "model" / "fit.json").unlink()
    found = {c.what: c.told for c in verify(copy)}["model"]
    assert found == "cannot be checked: model/fit.json is not there"


def test_a_folders_name_cannot_cut_a_message(copy):
    odd = copy.path.rename(copy.path.with_name("a\nb"))
    (odd / "params.yaml").write_text("run: [")
    told = next(c for c in verify(RunFolder(odd)) if c.holds is False)
    assert len(str(told).splitlines()) == 1
    assert "params.yaml" in str(told)


JSONS = ["manifest.json", "timing.json", "model/fit.json", "data/ingest.json"]
JSONS += ["evidence/summary.json", "evidence/minima.json", "notebooks/train.ipynb"]
OTHERS = ["params.yaml", "constitution.csv", "constitution.json", "data/ratings.parquet"]
HOSTILE = ["[]", "null", '"x"', "{}", "3", "", "[" * 100_000, "\ufeff{}", "1" * 5000, "NaN"]


def in_words(claims):
    """Whether something fails, and every claim is a line without a class of Python's."""
    told = [re.sub(r"is no YAML \(\w+\)", "", str(c)) for c in claims]  # the loader's own words
    assert not any(re.search(r"\w+Error|Traceback|\n", one) for one in told), claims
    return bool(failures(claims))


@pytest.mark.parametrize("name", [*JSONS, *OTHERS])
@pytest.mark.usefixtures("quick")
def test_a_file_that_says_something_else_fails_in_words(copy, name):
    for text in HOSTILE:
        (copy.path / name).write_text(text)
        assert in_words(list(verify(copy)))
    (copy.path / name).write_bytes(b"\xff\xfe\x00")
    assert in_words(list(verify(copy)))


@pytest.mark.parametrize("name", ["model/fit.json", "manifest.json", "data/ingest.json"])
@pytest.mark.usefixtures("quick")
def test_any_value_of_another_kind_fails_in_words(copy, name):
    whole, values = copy.read_json(name), cycle((None, [["x"]], {"x": None}, 10**400, -1.5))
    for key in whole:
        for value in (next(values), next(values)):
            if whole[key] != value:
                (copy.path / name).write_text(json.dumps(whole | {key: value}))
                assert in_words(list(verify(copy))), (key, value)


TABLES = ["data/ratings", "data/guidelines", "model/users", "model/minima", "evidence/guidelines"]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.usefixtures("quick")
def test_a_table_that_holds_something_else_fails_in_words(copy, name):
    path = copy.path / f"{name}.parquet"
    whole, bytes_before = pd.read_parquet(path), path.read_bytes()
    tables = [pd.DataFrame({"a": [1]}), whole.iloc[:0], pd.concat([whole, whole.iloc[:1]])]
    values = cycle((None, "x", 7, [], [[1.0]], {"a": 1}, 1e300))
    for column in whole:
        for value in (next(values), next(values)):
            cells = pd.Series([value] * len(whole), index=whole.index, dtype=object)
            if not whole[column].isna().all():
                tables.append(whole.assign(**{column: cells}))
    for edited in tables:
        edited.to_parquet(path)
        assert in_words(list(verify(copy)))
    path.write_bytes(bytes_before[:200])
    assert in_words(list(verify(copy)))


@pytest.mark.usefixtures("quick")
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
    accepted, first = body["accepted_guideline_ids"], min(body["user_intercepts"])
    zeros = {k: [*v, 0.0] for k, v in body["user_embeddings"].items()}
    wrong |= {
        "a text as a number": body | {"mu": str(body["mu"])},
        "a truth as a number": body | {"mu": True},
        "a huge number": body | {"user_intercepts": body["user_intercepts"] | {first: 10**400}},
        "an axis more": body | {"user_embeddings": zeros},
        "one accepted twice": body | {"accepted_guideline_ids": [*accepted, accepted[0]]},
        "accepted in another order": body | {"accepted_guideline_ids": accepted[::-1]},
        "accepted as keys": body | {"accepted_guideline_ids": dict.fromkeys(accepted, 1)},
        "nested": body | {"user_embeddings": {k: [v] for k, v in body["user_embeddings"].items()}},
        "nothing": dict.fromkeys(body),
    }
    for name, edited in wrong.items():
        published.write_text(json.dumps(edited))
        assert in_words(list(verify(copy, published))), name
    for broken in ("", "[]", '{"mu": 1, "mu": 2}', "\x00", "[" * 100_000, "9" * 5000):
        published.write_text(broken)
        assert in_words(list(verify(copy, published))), broken
    for code in ("utf-16", "utf-8-sig"):
        published.write_bytes(whole.decode("utf-8").encode(code))
        assert in_words(list(verify(copy, published))), code


def test_with_a_constitution_the_runs_files_count_too(copy):
    (copy.path / "more").write_text("x")
    assert held_to(copy, copy.path / "constitution.json")["no others"] is False


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


def test_strict_names_what_it_leaves_out_and_compares_the_rest(tmp_path, monkeypatch):
    monkeypatch.setenv("AGGREGATION_PLATFORM_KEY", "try-me-0123456789")
    with Loopback(ag.simulate(7, 80).export) as server:
        monkeypatch.setenv("AGGREGATION_PLATFORM_URL", server.url)
        changes = ("source={kind: platform}", "publish={target: platform, confirm: true}")
        folder = RunFolder(made(tmp_path, *changes))
    path = folder.path / "notebooks" / "train.ipynb"
    path.write_text(path.read_text("utf-8").replace("loss 0.", "loss 1.", 1), "utf-8")
    forge(folder)
    assert first_failure(folder) is None
    left_out, same = repeat(folder)
    assert left_out.holds is None
    assert left_out.told == (
        "repeated with source.offline=true, publish.target=file; not compared: "
        "notebooks/ingest.ipynb, notebooks/publish.ipynb, params.yaml, published/last.txt, "
        "report/ingest.html, report/publish.html"
    )
    assert (same.holds, same.told) == (False, "not those of notebooks/train.ipynb")


def test_without_demographics_model_and_decisions_are_still_compared(honest):
    params = load_params(honest / "params.yaml", ["demographics={}"])
    changes, left_out = _alone(params, here=True)
    assert changes == ["demographics=null"]
    assert {"demographics/counts.json", "report/index.html", "report/train.html"} < left_out
    assert not any(n.startswith(("data", "model", "evidence", "constitution")) for n in left_out)


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
    assert "is not there; open one of" in done.stderr
    assert command(copy.path, copy.path).returncode == 2


def test_what_is_open_has_a_code_of_its_own(replayed):
    words = [COMMAND, "verify", replayed]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (3, "")
    last = "Nothing fails, but 1 claim is open: nobody could tell here."
    assert done.stdout.splitlines()[-1] == last
