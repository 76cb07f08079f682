"""The command that makes the report of a finished run again, and the page that lists runs."""

import json
import re
import shutil

import pytest
from click.testing import CliRunner

from aggregation import RunError, load_params
from aggregation.cli import main
from aggregation.runs.folder import RunFolder
from aggregation.runs.pages import report_page, write_run_list


def test_the_report_is_made_again_and_the_run_is_not_changed(hostile, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in hostile.rglob("*")}
    done = CliRunner().invoke(main, ["report", str(hostile)], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.output == "Report: hostile.html\n"
    assert {path: path.stat().st_mtime_ns for path in hostile.rglob("*")} == before
    made = (tmp_path / "hostile.html").read_text("utf-8")
    first = (hostile / "report" / "index.html").read_text("utf-8")
    links = r'<a href="\w+\.html">\w+</a>\n'  # a file that is sent on links to no other
    assert made == re.sub(links, "", first)
    assert "train.html" in first
    assert "train.html" not in made


def test_the_report_is_made_in_another_language(hostile, tmp_path):
    file = tmp_path / "bericht.html"
    words = ["report", str(hostile), "--page", str(file), "--set", "report.language=de"]
    assert CliRunner().invoke(main, words, catch_exceptions=False).exit_code == 0
    assert '<html lang="de"' in file.read_text("utf-8")


def test_evidence_of_another_version_is_a_clear_error(hostile, tmp_path):
    folder = RunFolder(shutil.copytree(hostile, tmp_path / "old"))
    summary = folder.read_json("evidence/summary.json")
    del summary["sides"]
    folder.write_json("evidence/summary.json", summary)
    given = load_params(folder.path / "params.yaml")
    with pytest.raises(RunError, match="run the diagnostics notebook"):
        report_page(folder, folder.load(), given)


def test_the_newest_run_comes_first(tmp_path):
    for name, started in (("a", "2026-01-01"), ("b", "2026-01-03"), ("c", "2026-01-02")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "params.yaml").write_text("run: x\n")
        (tmp_path / name / "timing.json").write_text(json.dumps({"started": f"{started}T00:00"}))
    page = write_run_list(tmp_path).read_text("utf-8")
    assert re.findall(r"<bdi>(\w)</bdi>", page) == ["b", "c", "a"]
