"""`verify --strict`: a rerun gives the same bytes, and what it cannot compare is open."""

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from forgery import copy_of, edit_json, finished, forge, read_json, write_json
from inprocess import execute
from loopback import Loopback

import aggregation as ag
from aggregation.cli import main
from aggregation.files import with_checksum
from aggregation.params.loading import load_params
from aggregation.verify import rerun as rerunning
from aggregation.verify.rerun import _offline

STAGES = ("diagnostics", "ingest", "publish", "train")


def rerun(folder):
    """Claims by name, as (holds, told)."""
    return {c.what: (c.holds, c.told) for c in rerunning.rerun(folder, execute)}


def append(folder, name, text):
    (folder.path / name).write_text((folder.path / name).read_text("utf-8") + text, "utf-8")


@pytest.fixture
def gives(monkeypatch):
    """Let the rerun give the files of a run, without the seconds that it takes."""

    def rerun_gives(folder):
        def run(*_, out, **__):
            shutil.copytree(folder.path, Path(out) / "small", dirs_exist_ok=True)

        monkeypatch.setattr(rerunning, "run", run)

    return rerun_gives


def test_it_finds_every_forged_byte(copy, honest, gives):
    """Edits that `verify` alone cannot find, with all hashes forged."""
    gives(honest)
    for name in ("constitution.csv", "report/index.html", "report/train.html"):
        append(copy, name, "certified")
    edit_json(copy, "notebooks/train.ipynb", lambda n: n["metadata"].update(by="us"))
    edit_json(copy, "model/fit.json", lambda fit: fit.update(settled=True, starts=[0.1] * 64))
    edit_json(copy, "evidence/minima.json", lambda minima: minima[0].update(accepted=99))
    edit_json(copy, "data/ingest.json", lambda told: told["about"].update(simulated=False))
    (copy.path / "report" / "more.html").write_text("certified")

    edit_json(
        copy,
        "manifest.json",
        lambda m: m["stages"]["train"]["outputs"].update({"report/more.html": ""}),
    )
    forge(copy)
    found = rerun(copy)
    holds, told = found["same bytes"]
    assert holds is False
    assert told == (
        "not those of constitution.csv, data/ingest.json, evidence/minima.json, model/fit.json, "
        "notebooks/train.ipynb, report/index.html, report/more.html, report/train.html"
    )


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda m: m.update(audited=True), "another audited than here"),
        (lambda m: m["stages"]["train"]["parameters"].update(seed=8), "another stages than here"),
    ],
)
def test_it_finds_an_edited_manifest(copy, honest, gives, edit, told):
    gives(honest)
    edit_json(copy, "manifest.json", edit)
    forge(copy)
    assert rerun(copy)["same manifest"] == (False, told)


def test_another_environment_is_open(copy, honest, gives):
    gives(honest)
    manifest = read_json(copy, "manifest.json")
    write_json(copy, "manifest.json", with_checksum(manifest | {"processor": "Z80"}))
    found = rerun(copy)
    assert found["same bytes"][0] is True
    assert found["same manifest"] == (None, "another processor than here")


@pytest.fixture
def without_source(fixed, tmp_path):
    """A copy of the run from a file, where that file is not at hand."""
    export = Path(load_params(fixed.path / "params.yaml").source.path)
    hidden = export.rename(export.with_suffix(".hidden"))
    yield copy_of(fixed, tmp_path / "small")
    hidden.rename(export)


def test_an_honest_run_whose_source_is_gone_is_repeated_from_its_data(without_source):
    assert rerun(without_source) == {
        "source": (None, "not at hand: the rerun begins with data/ as it is"),
        "same bytes": (True, "all 26 files"),
        "same manifest": (True, "but for commit and dirty"),
    }


def test_a_forged_run_whose_source_is_gone_fails(without_source, fixed, gives):
    gives(fixed)
    append(without_source, "report/train.html", "certified")
    forge(without_source)
    assert rerun(without_source)["same bytes"] == (False, "not those of report/train.html")


def test_a_rerun_from_data_reads_and_writes_no_name_of_the_manifest(without_source, fixed, gives):
    gives(fixed)
    outputs = {"../../../outside": "", "/dev/zero": ""}
    edit_json(
        without_source, "manifest.json", lambda m: m["stages"]["ingest"]["outputs"].update(outputs)
    )
    manifest = with_checksum(read_json(without_source, "manifest.json"))
    write_json(without_source, "manifest.json", manifest)
    found = rerun(without_source)
    assert found["same bytes"] == (False, "not those of ../../../outside, /dev/zero")


def test_a_rerun_asks_nobody_and_names_what_it_leaves_out(tmp_path, monkeypatch):
    monkeypatch.setenv("AGGREGATION_PLATFORM_KEY", "try-me-0123456789")
    with Loopback(ag.simulate(7, ag.World(40)).export) as server:
        monkeypatch.setenv("AGGREGATION_PLATFORM_URL", server.url)
        changes = ("source={kind: platform}", "publish={target: platform, confirm: true}")
        folder = finished(tmp_path, *changes)
        asked = len(server.requests)
        found = rerun(folder)
        assert len(server.requests) == asked
    holds, told = found["not compared"]
    assert holds is None
    assert told == (
        "rerun with source.offline=true, publish.target=file; without notebooks/ingest.ipynb, "
        "notebooks/publish.ipynb, params.yaml, published/last.txt, report/ingest.html, "
        "report/publish.html"
    )
    assert found["source"] == (True, "at hand")
    assert found["same bytes"] == (True, "all 21 files")
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


@pytest.mark.slow
def test_a_rerun_in_kernels_gives_the_same_data_model_and_decisions(copy):
    """The run itself was made in this process, so notebooks and their pages differ."""
    found = {c.what: c for c in rerunning.rerun(copy)}
    notebooks = [f"notebooks/{stage}.ipynb" for stage in STAGES]
    pages = [f"report/{stage}.html" for stage in STAGES]
    assert found["same bytes"].told == f"not those of {', '.join(notebooks + pages)}"
    assert found["same manifest"].holds is True


def test_the_command_repeats_a_run_and_everything_holds(copy, honest, gives):
    gives(honest)
    done = CliRunner().invoke(main, ["verify", str(copy.path), "--strict"])
    lines = done.output.splitlines()
    assert (done.exit_code, lines[-1]) == (0, "Everything holds.")
    assert "holds  same bytes: all 26 files" in lines
    assert "note" in lines[-2]


def test_a_source_that_has_no_end_is_not_read(without_source):
    path = without_source.path / "params.yaml"
    source = load_params(path).source.path
    path.write_text(path.read_text("utf-8").replace(source, "/dev/zero"), "utf-8")
    found = rerun(without_source)
    assert found["source"][0] is None
    assert found["same bytes"][0] is False
    assert "source.path" in found["same bytes"][1]
