"""Whole runs against a platform: fetched, trained, published, read back, trained again."""

import copy
import json
import os
import random
import shutil
import subprocess
import sys
from functools import partialmethod
from pathlib import Path

import pandas as pd
import pytest
from kills import killed_at
from loopback import Loopback
from prolific_worlds import export, row
from test_http import KEY
from test_prolific import NAMES_SOMEBODY, crowded, worlds

from aggregation import InputError, RunFolder, read, sections, simulate
from aggregation.errors import ServiceError
from aggregation.files import sha256
from aggregation.services.platform import Platform
from aggregation.verify.claims import _written, files
from aggregation.verify.rerun import repeat

COMMAND = Path(sys.executable).with_name("aggregation")
PARAMS = """\
run: nightly
seed: 3
source: {kind: platform}
train: {starts: 2, max_starts: 2, moves: false}
publish: {target: platform}
"""


def command(cwd, url, *words, **environment):
    env = {**os.environ, "AGGREGATION_PLATFORM_URL": url, **environment}
    return subprocess.run(
        [COMMAND, "run", "p.yaml", *words], cwd=cwd, env=env, capture_output=True, text=True
    )


def everything(folder):
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Fetched, published, and again with newcomers: the server, the folder, what each run said."""
    cwd = tmp_path_factory.mktemp("platform")
    (cwd / "p.yaml").write_text(PARAMS)
    whole = simulate(3, 80).export
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
    with Loopback(first, KEY) as server:
        (cwd / ".env").write_text(f"AGGREGATION_PLATFORM_KEY={KEY}\n")
        said = [command(cwd, server.url)]
        dry = len(server.constitutions)
        said.append(command(cwd, server.url, "--set", "publish.confirm=true"))
        body = (cwd / "outputs" / "nightly" / "constitution.json").read_bytes()
        stored = copy.deepcopy(server.export)
        now = copy.deepcopy(stored)
        known = {u["id"]: u for u in now["users"] if u}
        server.export["users"] = [known.get(u["id"], u) for u in whole["users"]]
        known = {g["id"]: g for g in now["guidelines"]}
        server.export["guidelines"] = [known.get(g["id"], g) for g in whole["guidelines"]]
        server.export["ratings"] = whole["ratings"]
        said.append(command(cwd, server.url, "--set", "publish.confirm=true"))
        yield {
            "server": server,
            "folder": cwd / "outputs" / "nightly",
            "kept": shutil.copytree(cwd / "outputs" / "nightly", cwd / "kept"),
            "cwd": cwd,
            "said": said,
            "dry": dry,
            "body": body,
            "stored": stored,
        }


def test_every_run_ends_well(world):
    for done in world["said"]:
        assert done.returncode == 0, done.stderr


def test_a_run_without_confirm_publishes_nothing_and_says_so(world):
    assert world["dry"] == 0
    assert "Dry run: nothing is sent to" in world["said"][0].stdout
    assert "Published to" in world["said"][1].stdout


def test_what_the_platform_stored_is_the_payload(world):
    sent = json.loads(world["body"])
    assert world["server"].constitutions[0] == sent
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
    assert len(world["server"].constitutions) == 2


def test_the_raw_export_is_kept_and_a_run_can_be_repeated_without_the_platform(world):
    folder = world["folder"]
    before = (folder / "constitution.json").read_bytes()
    receipt = json.loads((folder / "source" / "receipt.json").read_text())
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["stages"]["ingest"]["input"] == {"export.json": receipt["body_sha256"]}
    nobody = "http://127.0.0.1:9/api"
    words = ("--offline", "--until", "train", "--set", "publish.target=file")
    done = command(world["cwd"], nobody, *words, AGGREGATION_PLATFORM_KEY="")
    assert done.returncode == 0, done.stderr
    done = command(world["cwd"], nobody, "--offline", "--set", "publish.target=file")
    assert done.returncode == 0, done.stderr
    assert (folder / "constitution.json").read_bytes() == before
    export = folder / "source" / "export.json"
    content = export.read_bytes()
    try:
        export.write_bytes(content.replace(b"helpful", b"hopeful", 1))
        done = command(world["cwd"], nobody, "--offline")
        assert done.returncode != 0
        assert "is not what the platform sent" in done.stderr
    finally:
        export.write_bytes(content)


def test_an_export_outlives_a_platform_that_refuses(world, tmp_path, monkeypatch):
    monkeypatch.setenv("AGGREGATION_PLATFORM_KEY", KEY)
    source = tmp_path / "source"
    shutil.copytree(world["folder"] / "source", source)

    def again(**words):
        given = sections(source={"kind": "platform", **words}, ratings={})
        return read(given.source, given.ratings, 0, source)

    before = everything(source)
    monkeypatch.setenv("AGGREGATION_PLATFORM_KEY", "refused")
    with pytest.raises(ServiceError, match="401"):
        again(base_url=world["server"].url)
    assert everything(source) == before
    assert len(again(offline=True).ratings) > 0
    receipt = source / "receipt.json"
    for damaged in ("{}", "[" * 100_000, receipt.read_text("utf-8").replace("sha", "SHA", 1)):
        receipt.write_text(damaged)
        with pytest.raises(InputError, match=r"receipt\.json: was changed .*: run once without"):
            again(offline=True)


def test_a_receipt_of_an_address_in_any_script_verifies(world, tmp_path, monkeypatch):
    monkeypatch.setenv("AGGREGATION_PLATFORM_KEY", KEY)
    monkeypatch.setattr(Platform, "download_export", partialmethod(_copied, world))
    given = sections(source={"kind": "platform", "base_url": "http://127.0.0.1:9/ü"}, ratings={})
    read(given.source, given.ratings, 0, tmp_path / "source")
    fine, told = _written(RunFolder(tmp_path), "source/receipt.json")
    assert fine, told


def _copied(_, world, target, flags):
    assert flags["ratings"]
    shutil.copyfile(world["folder"] / "source" / "export.json", target)
    return sha256(target)


def test_any_edit_of_what_came_from_the_platform_or_went_there_is_found(world):
    folder = world["kept"]
    assert [str(c) for c in files(RunFolder(folder)) if c.holds is not True] == []
    kept = [p for name in ("source", "published") for p in sorted((folder / name).iterdir())]
    assert {p.name for p in kept} == {
        *("export.json", "receipt.json", "pending.json", "known.json", "constitution.json"),
        "last.txt",
    }
    chance = random.Random(1)
    for path in kept:
        whole = path.read_bytes()
        for at in (0, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(8))):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            assert any(c.holds is False for c in files(RunFolder(folder))), (path, at)
        path.unlink()
        assert any(c.holds is False for c in files(RunFolder(folder))), path
        path.write_bytes(whole)
    (folder / "published" / "more.json").write_text("{}")
    assert any(c.holds is False for c in files(RunFolder(folder)))
    (folder / "published" / "more.json").unlink()


def test_a_published_run_is_repeated_without_the_platform(world):
    claims = list(repeat(RunFolder(world["kept"])))
    assert [c.holds for c in claims] == [None, True]
    assert "publish.target=file" in claims[0].told


def test_the_key_is_nowhere_but_in_the_file_it_came_from(world):
    for path, content in everything(world["cwd"]).items():
        assert path.name == ".env" or KEY.encode() not in content, path
    for done in world["said"]:
        assert KEY not in done.stdout + done.stderr


# test_http.py meets every fault; here, what becomes of a run: one of each kind.


@pytest.mark.parametrize("fault", [401, "html", "redirect"])
def test_a_fault_ends_a_run_with_three_lines_and_no_key(world, tmp_path, fault):
    (tmp_path / "p.yaml").write_text(PARAMS)
    server = world["server"]
    server.fail("exports", fault, times=9, to="https://example.org/exports")
    try:
        done = command(tmp_path, server.url, AGGREGATION_PLATFORM_KEY=KEY)
    finally:
        server.faults.clear()
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) <= 3, done.stderr
    assert "Traceback" not in done.stderr
    for content in everything(tmp_path).values():
        assert KEY.encode() not in content
    assert KEY not in done.stdout + done.stderr


@pytest.mark.parametrize("fault", ["reset in the body", 500])
def test_a_fault_that_passes_does_not_end_a_run(world, tmp_path, fault):
    (tmp_path / "p.yaml").write_text(PARAMS)
    world["server"].fail("exports", fault)
    keys = {"AGGREGATION_PLATFORM_KEY": KEY}
    done = command(tmp_path, world["server"].url, "--until", "ingest", **keys)
    assert done.returncode == 0, done.stderr
    assert world["server"].faults.pop()[2] == 0  # it was met


def go_on_from(world, cwd, more=""):
    """Let the run of `cwd` begin with what the last one left."""
    (cwd / "p.yaml").write_text(PARAMS + more)
    shutil.copytree(world["kept"], cwd / "outputs" / "nightly")


def test_a_post_that_broke_is_told_and_settled_by_the_next_run(world, tmp_path):
    server, keys = world["server"], {"AGGREGATION_PLATFORM_KEY": KEY}
    go_on_from(world, tmp_path)
    server.fail("constitution", "reset after it is stored")
    posted = len(server.constitutions)
    other = ("--set", "publish.confirm=true", "--set", "rule.min_ratings=9")
    done = command(tmp_path, server.url, "--from", "diagnostics", *other, **keys)
    assert done.returncode != 0
    assert "Nobody knows whether what was sent arrived" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3, done.stderr
    done = command(tmp_path, server.url, *other, **keys)
    assert done.returncode == 0, done.stderr
    assert "nothing is sent" in done.stdout
    assert len(server.constitutions) == posted + 1


WORK = """
import aggregation as ag
from aggregation.sources import platform
given = ag.sections(source={"kind": "platform"}, ratings={})
folder = ag.RunFolder(ag.folder.Path(sys.argv[1]))
def work():
    folder.save_dataset(ag.read(given.source, given.ratings, 0, folder.path / "source"))
"""


def test_a_process_killed_at_any_step_of_ingest_leaves_nothing_half_written(
    world, tmp_path, monkeypatch
):
    monkeypatch.setenv("AGGREGATION_PLATFORM_KEY", KEY)
    monkeypatch.setenv("AGGREGATION_PLATFORM_URL", world["server"].url)
    steps = 0
    with killed_at(WORK, tmp_path / "killed") as killed:
        while killed(steps + 1):
            steps += 1
            for path in everything(tmp_path / "killed"):
                if path.suffix == ".json" and not path.name.startswith("."):
                    json.loads(path.read_text("utf-8"))
                if path.suffix == ".parquet" and not path.name.startswith("."):
                    pd.read_parquet(path)
    assert steps > 20
    with killed_at(WORK, tmp_path / "whole") as killed:
        assert not killed(1000)
    for path in everything(tmp_path / "whole"):
        same = tmp_path / "killed" / path.relative_to(tmp_path / "whole")
        assert same.read_bytes() == path.read_bytes(), path


def test_a_study_that_fails_loses_neither_the_others_nor_the_constitution(world, tmp_path):
    server = world["server"]
    server.studies = crowded() | worlds(zz=export([row(1), row(2, Completed_at="no time")]))
    url = server.prolific_url
    wanted = f"demographics: {{prolific_url: '{url}', target: platform, confirm: true}}\n"
    go_on_from(world, tmp_path, wanted)
    keys = {"AGGREGATION_PLATFORM_KEY": KEY, "PROLIFIC_TOKEN": KEY}
    done = command(tmp_path, server.url, "--from", "demographics", **keys)
    assert done.returncode != 0
    assert "1 of 3 studies failed: 'Study zz' (zz)" in done.stderr
    assert "Traceback" not in done.stderr
    assert [set(sent["studyIdToDemoData"]) for sent in server.demographics] == [{"a1", "b2"}]
    folder = tmp_path / "outputs" / "nightly"
    assert (folder / "constitution.json").exists()
    report = (folder / "report" / "index.html").read_text("utf-8")
    assert "Who took part" in report
    assert "of <b>60</b> people" in report
    for path, content in everything(tmp_path).items():
        assert not NAMES_SOMEBODY.search(content.decode("utf-8", "replace")), path
