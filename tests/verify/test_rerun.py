"""`verify --strict`: a rerun gives the same bytes, and what it cannot compare is open."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from forgery import copy_of, edit_json, finished, forge, read_json, write_json
from inprocess import execute
from loopback import Loopback

import aggregation as ag
from aggregation.files import with_checksum
from aggregation.params import load_params
from aggregation.runs import runner
from aggregation.verify import rerun as rerunning
from aggregation.verify.rerun import _offline

COMMAND = Path(sys.executable).with_name("aggregation")


def rerun(folder):
    """Claims by name, as (holds, told)."""
    return {c.what: (c.holds, c.told) for c in rerunning.rerun(folder, execute)}


def append(folder, name, text):
    (folder.path / name).write_text((folder.path / name).read_text("utf-8") + text, "utf-8")


def test_an_honest_run_gives_the_same_bytes_again(honest):
    assert rerun(honest) == {
        "source": (True, "at hand"),
        "same bytes": (True, "all 25 files"),
        "same manifest": (True, "but for commit and dirty"),
    }


def test_it_finds_every_forged_byte_and_manifest(copy):
    """Edits that `verify` alone cannot find, with all hashes forged."""
    for name in ("constitution.csv", "report/index.html", "report/train.html"):
        append(copy, name, "certified")
    edit_json(copy, "notebooks/train.ipynb", lambda n: n["metadata"].update(by="us"))
    edit_json(copy, "model/fit.json", lambda fit: fit.update(settled=True, starts=[0.1] * 64))
    edit_json(copy, "evidence/minima.json", lambda minima: minima[0].update(accepted=99))
    edit_json(copy, "data/ingest.json", lambda told: told["about"].update(simulated=False))
    (copy.path / "report" / "more.html").write_text("certified")

    def edit(manifest):
        manifest["stages"]["train"]["outputs"]["report/more.html"] = ""
        manifest["libraries"]["jax"] = "0.0.1"
        manifest["audited"] = True

    edit_json(copy, "manifest.json", edit)
    forge(copy)
    found = rerun(copy)
    holds, told = found["same bytes"]
    assert holds is False
    assert told == (
        "not those of constitution.csv, data/ingest.json, evidence/minima.json, model/fit.json, "
        "notebooks/train.ipynb, report/index.html, report/more.html, report/train.html"
    )
    holds, told = found["same manifest"]
    assert holds is False
    assert told.startswith("another audited, libraries, stages")


def test_another_environment_is_open(copy, monkeypatch):
    """Its bytes may be others, so where they are not, only the claim of the environment is open."""
    manifest = read_json(copy, "manifest.json")
    write_json(copy, "manifest.json", with_checksum(manifest | {"processor": "Z80"}))
    monkeypatch.setattr(rerunning, "run", lambda *_, out, **__: copy_of(copy, Path(out) / "small"))
    monkeypatch.setattr(rerunning, "copy_of", copy_of, raising=False)
    again = rerunning.read

    def read(path, name):
        found = again(path, name)
        return found if path == copy.path else found | {"processor": "here"}

    monkeypatch.setattr(rerunning, "read", read)
    assert rerun(copy)["same manifest"] == (None, "another processor than here")


def without_source(fixed, place):
    """A copy of the run from a file, as it is where that file is not at hand."""
    copy = copy_of(fixed, place / "small")
    export = Path(read_source(copy))
    hidden = export.with_suffix(".hidden")
    export.rename(hidden)
    return copy, lambda: hidden.rename(export)


def read_source(folder):
    return load_params(folder.path / "params.yaml").source.path


@pytest.mark.parametrize("forged", [False, True])
def test_a_run_whose_source_is_gone_is_repeated_from_its_data(fixed, tmp_path, forged):
    copy, put_back = without_source(fixed, tmp_path)
    try:
        if forged:
            append(copy, "report/train.html", "certified")
            forge(copy)
        found = rerun(copy)
    finally:
        put_back()
    assert found["source"] == (None, "not at hand: the rerun begins with data/ as it is")
    told = "not those of report/train.html" if forged else "all 25 files"
    assert found["same bytes"] == (not forged, told)
    assert found["same manifest"][0] is True


def test_a_name_in_the_manifest_leads_out_of_no_folder(fixed, tmp_path):
    copy, put_back = without_source(fixed, tmp_path)
    try:
        outside = tmp_path / "outside"
        outside.write_text("mine")
        edit_json(
            copy,
            "manifest.json",
            lambda m: m["stages"]["ingest"]["outputs"].update({"../outside": "", "/dev/zero": ""}),
        )
        manifest = read_json(copy, "manifest.json")
        write_json(copy, "manifest.json", with_checksum(manifest))
        assert rerun(copy)["same bytes"] == (False, "not those of ../outside, /dev/zero")
    finally:
        put_back()
    assert outside.read_text() == "mine"


def test_what_needs_the_network_is_left_out_and_named(tmp_path, monkeypatch):
    monkeypatch.setenv("AGGREGATION_PLATFORM_KEY", "try-me-0123456789")
    with Loopback(ag.simulate(7, 40).export) as server:
        monkeypatch.setenv("AGGREGATION_PLATFORM_URL", server.url)
        changes = ("source={kind: platform}", "publish={target: platform, confirm: true}")
        folder = finished(tmp_path, *changes)
        asked = len(server.requests)
        append(folder, "notebooks/train.ipynb", " ")
        forge(folder)
        found = rerun(folder)
        assert len(server.requests) == asked
    holds, told = found["not compared"]
    assert holds is None
    assert told == (
        "rerun with source.offline=true, publish.target=file; without notebooks/ingest.ipynb, "
        "notebooks/publish.ipynb, params.yaml, published/last.txt, report/ingest.html, "
        "report/publish.html"
    )
    assert found["same bytes"] == (False, "not those of notebooks/train.ipynb")
    assert found["same manifest"][0] is True


def test_without_demographics_model_and_decisions_are_still_compared(honest):
    params = load_params(honest.path / "params.yaml", ["demographics={}"])
    changes, left_out = _offline(params, here=True)
    assert changes == ["demographics=null"]
    assert {"demographics/counts.json", "report/index.html", "report/train.html"} < left_out
    assert not [n for n in left_out if n.startswith(("data", "model", "evidence", "constitution"))]


def test_a_rerun_that_fails_is_a_claim_that_fails(copy, monkeypatch):
    def fails(*_, **__):
        raise ag.RunError("the train notebook stopped")

    monkeypatch.setattr(rerunning, "run", fails)
    found = rerun(copy)["same bytes"]
    assert found == (False, "cannot be checked: the train notebook stopped")
    (copy.path / "manifest.json").unlink()
    os.mkfifo(copy.path / "manifest.json")
    assert rerun(copy) == {}


def test_the_command_repeats_a_run_with_kernels_and_everything_holds(tmp_path):
    (tmp_path / "p.yaml").write_text(
        "run: small\nsource: {kind: simulated, n_users: 15}\n"
        "train: {starts: 1, max_starts: 1, moves: false}\n"
    )
    path = runner.run(tmp_path / "p.yaml", out=tmp_path / "outputs", say=lambda _: None)
    words = [COMMAND, "verify", path, "--strict"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "Everything holds."
    assert "holds  same bytes: all 25 files" in done.stdout.splitlines()
