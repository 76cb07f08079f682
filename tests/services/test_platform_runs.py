"""Whole runs against a platform: fetched, trained, published, read back, trained again."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import inprocess
import pandas as pd
import pytest
from loopback import Loopback
from prolific_worlds import export, row
from test_http import KEY
from test_prolific import NAMES_SOMEBODY, crowded, worlds

from aggregation import RunError, World, simulate
from aggregation.errors import UnknownOutcomeError
from aggregation.runs import runner

COMMAND = Path(sys.executable).with_name("aggregation")
PARAMS = """\
run: nightly
seed: 3
source: {kind: platform}
train: {starts: 2, max_starts: 2, moves: false}
publish: {target: platform}
"""
CONFIRM = "publish.confirm=true"


def run(cwd, *changes, **options):
    """A run in this process; gives its folder."""
    options = {"out": cwd / "outputs", "say": lambda _: None, **options}
    return runner.run(cwd / "p.yaml", changes=changes, execute=inprocess.execute, **options)


def told(folder):
    return (folder / "published" / "last.txt").read_text()


def everything(folder):
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Fetched, published, and again with newcomers: the server, and what each run said."""
    cwd = tmp_path_factory.mktemp("platform")
    (cwd / "p.yaml").write_text(PARAMS)
    whole = simulate(3, World(80)).export
    first = copy.deepcopy(whole)
    new_users = {u["id"] for u in whole["users"][-10:]}
    new_guidelines = {g["id"] for g in whole["guidelines"][-6:]}
    first["users"] = [None, *(u for u in whole["users"] if u["id"] not in new_users)]
    first["guidelines"] = [g for g in whole["guidelines"] if g["id"] not in new_guidelines]
    first["ratings"] = [
        r
        for r in whole["ratings"]
        if r["authorId"] not in new_users and r["guidelineId"] not in new_guidelines
    ]
    with Loopback(first, KEY) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGGREGATION_PLATFORM_KEY", KEY)
        patch.setenv("AGGREGATION_PLATFORM_URL", server.url)
        folder = run(cwd)
        said, dry = [told(folder)], len(server.constitutions)
        run(cwd, CONFIRM)
        said.append(told(folder))
        body = (folder / "constitution.json").read_bytes()
        stored = copy.deepcopy(server.export)
        for name in ("users", "guidelines"):
            known = {r["id"]: r for r in copy.deepcopy(stored[name]) if r}
            server.export[name] = [known.get(r["id"], r) for r in whole[name]]
        server.export["ratings"] = whole["ratings"]
        run(cwd, CONFIRM)
        yield {
            "server": server,
            "posted": len(server.constitutions),
            "folder": folder,
            "cwd": cwd,
            "said": said,
            "dry": dry,
            "body": body,
            "stored": stored,
        }


def test_a_run_without_confirm_publishes_nothing_and_says_so(world):
    assert world["dry"] == 0
    assert "Dry run: nothing is sent to" in world["said"][0]
    assert "Published to" in world["said"][1]


def test_what_the_platform_stored_is_the_payload(world):
    sent = json.loads(world["body"])
    assert world["server"].constitutions[0] == sent
    assert sent["accepted_guideline_ids"] == sorted(sent["accepted_guideline_ids"])
    stored = world["stored"]
    assert stored["mu"] == sent["mu"]
    for name, word in (("guidelines", "guideline"), ("users", "user")):
        records = [r for r in stored[name] if r and r["id"] in sent[f"{word}_intercepts"]]
        assert len(records) == len(sent[f"{word}_intercepts"])
        for record in records:
            assert record["intercept"] == sent[f"{word}_intercepts"][record["id"]]
            assert record["embeddings"] == sent[f"{word}_embeddings"][record["id"]]


def test_the_second_run_starts_from_what_was_stored_and_keeps_ids_aligned(world):
    fit = json.loads((world["folder"] / "model" / "fit.json").read_text())
    assert fit["warm_start"] is True
    assert fit["start_kinds"][0] == "earlier model"
    first = json.loads(world["body"])["user_embeddings"]
    second = json.loads((world["folder"] / "constitution.json").read_text())["user_embeddings"]
    assert len(second) == len(first) + 10
    both = pd.DataFrame(
        {
            "first": {u: e[0] for u, e in first.items()},
            "second": {u: e[0] for u, e in second.items()},
        }
    ).dropna()
    assert len(both) == len(first)
    assert both.corr().iloc[0, 1] > 0.95  # the same people on the same sides
    assert world["posted"] == 2


def test_a_run_is_repeated_on_the_saved_export_without_the_platform(world, tmp_path, monkeypatch):
    go_on_from(world, tmp_path)
    monkeypatch.setenv("AGGREGATION_PLATFORM_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("AGGREGATION_PLATFORM_KEY", "")
    folder = run(tmp_path, "source.offline=true", "publish.target=file")
    body = (world["folder"] / "constitution.json").read_bytes()
    assert (folder / "constitution.json").read_bytes() == body
    receipt = json.loads((folder / "source" / "receipt.json").read_text())
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["stages"]["ingest"]["input"] == {"export.json": receipt["body_sha256"]}


def test_the_key_is_in_no_file(world):
    for path, content in everything(world["cwd"]).items():
        assert KEY.encode() not in content, path


def test_a_fault_ends_the_command_with_three_lines_and_no_key(world, tmp_path):
    (tmp_path / "p.yaml").write_text(PARAMS)
    (tmp_path / ".env").write_text(f"AGGREGATION_PLATFORM_KEY={KEY}\n")
    env = {k: v for k, v in os.environ.items() if k != "AGGREGATION_PLATFORM_KEY"}
    world["server"].fail("exports", "html")
    done = subprocess.run(
        [COMMAND, "run", "p.yaml"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "answers with a web page" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3, done.stderr
    assert "Traceback" not in done.stderr
    for path, content in everything(tmp_path).items():
        assert path.name == ".env" or KEY.encode() not in content
    assert KEY not in done.stdout + done.stderr


def go_on_from(world, cwd, more=""):
    """Let the run of `cwd` begin with what the last one left."""
    (cwd / "p.yaml").write_text(PARAMS + more)
    shutil.copytree(world["folder"], cwd / "outputs" / "nightly")


def test_a_post_that_broke_is_told_and_settled_by_the_next_run(world, tmp_path):
    """Only the rule changed, so the export cannot tell: the next run sends it again."""
    server = world["server"]
    go_on_from(world, tmp_path)
    server.fail("constitution", "reset", stored=True)
    posted = len(server.constitutions)
    with pytest.raises((UnknownOutcomeError, RunError), match="It is unknown whether"):
        run(tmp_path, CONFIRM, "rule.min_ratings=9")
    folder = run(tmp_path, CONFIRM, "rule.min_ratings=9")
    assert "Published" in told(folder)
    assert len(server.constitutions) == posted + 2
    assert server.constitutions[-1] == json.loads((folder / "constitution.json").read_bytes())


def test_a_study_that_fails_loses_neither_the_others_nor_the_constitution(
    world, tmp_path, monkeypatch
):
    server = world["server"]
    server.studies = crowded() | worlds(zz=export([row(1), row(2, Completed_at="no time")]))
    monkeypatch.setenv("PROLIFIC_URL", server.prolific_url)
    monkeypatch.setenv("PROLIFIC_TOKEN", KEY)
    go_on_from(world, tmp_path, "demographics: {target: platform, confirm: true}\n")
    with pytest.raises(RunError, match=r"1 of 3 studies failed: 'Study zz' \(zz\)"):
        run(tmp_path)
    assert [set(sent["studyIdToDemoData"]) for sent in server.demographics] == [{"a1", "b2"}]
    for path, content in everything(tmp_path).items():
        assert not NAMES_SOMEBODY.search(content.decode("utf-8", "replace")), path
