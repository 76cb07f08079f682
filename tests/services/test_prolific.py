"""Prolific over real sockets: all pages, failures kept apart, nobody named but in the post."""

import json
import os
import re
from pathlib import Path

import nbformat
import papermill
import pytest
from loopback import Loopback
from papermill.exceptions import PapermillExecutionError
from prolific_worlds import cleaned, crowd, export, person, row
from test_http import spellings
from worlds import assert_says

from aggregation import RunError
from aggregation.errors import AccessError, AnswerError
from aggregation.params.schema import DemographicsSection
from aggregation.services.demographics import clean
from aggregation.services.http import Policy
from aggregation.services.prolific import MAX_PAGES, Prolific, deliver, gather

ROOT = Path(__file__).resolve().parents[2]
KEY = "prolific-secret-token-0123456789"
QUICK = Policy(connect=9, read=9, deadline=60, tries=3, first_wait=0.001, max_wait=0.002)
FILE, DRY, SEND = (
    DemographicsSection(target="file", confirm=True),
    DemographicsSection(target="platform"),
    DemographicsSection(target="platform", confirm=True),
)
NAMES_SOMEBODY = re.compile(r"c0ffee|badcafe")
"""In each id of a participant and of a submission that the worlds have."""


def worlds(**csvs):
    """Studies as the loopback server has them, by id."""
    return {
        key: {"name": f"Study {key}", "state": "COMPLETED", "csv": data}
        for key, data in csvs.items()
    }


def crowded():
    return worlds(**{study: export(rows, mark=True, end="\r\n") for study, rows in crowd().items()})


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Starts a server of given studies; the keys are in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROLIFIC_TOKEN", KEY)
    monkeypatch.setenv("AGGREGATION_PLATFORM_KEY", KEY)
    running = []

    def start(studies):
        running.append(Loopback(key=KEY, studies=studies).__enter__())
        monkeypatch.setenv("PROLIFIC_URL", running[-1].prolific_url)
        monkeypatch.setenv("AGGREGATION_PLATFORM_URL", running[-1].url)
        return running[-1]

    yield start
    for server in running:
        server.__exit__()


# the list of studies


def test_studies_come_from_all_pages_each_once(serve):
    studies = {f"s{k:03}": {"name": f"n{k}", "state": "ACTIVE", "csv": b""} for k in range(250)}
    server = serve(studies)
    found = Prolific(QUICK).studies(["ACTIVE"])
    assert [(s.id, s.name) for s in found] == [(f"s{k:03}", f"n{k}") for k in range(250)]
    assert len(server.requests) == 3


def test_studies_are_asked_for_by_state_as_the_original_does(serve):
    states = {"a": "ACTIVE", "b": "COMPLETED", "c": "UNPUBLISHED"}
    server = serve({k: {"name": k, "state": state, "csv": b""} for k, state in states.items()})
    assert [s.id for s in Prolific(QUICK).studies(["ACTIVE", "COMPLETED"])] == ["a", "b"]
    assert [s.id for s in Prolific(QUICK).studies(["UNPUBLISHED"])] == ["c"]
    assert server.requests[0]["query"]["state"] == "(active|completed)"


@pytest.fixture
def pages(serve):
    """A server whose list of studies is what `server.page(number of this request)` gives."""
    server = serve({})
    server.list_studies = lambda _: server.page(len(server.requests))
    return server


def page(studies, following):
    links = {"next": {"href": following, "title": "Next"}}
    results = [{"id": s, "name": s, "niche": None} for s in studies]
    return json.dumps({"results": results, "_links": links, "meta": {"count": 9}}).encode()


@pytest.mark.parametrize(("new", "n_asked"), [(lambda _: "a", 2), (lambda n: f"s{n}", 3)])
def test_pages_without_end_are_an_error(pages, monkeypatch, new, n_asked):
    monkeypatch.setattr("aggregation.services.prolific.MAX_PAGES", min(3, MAX_PAGES))
    pages.page = lambda n: page([new(n)], f"{pages.prolific_url}/studies/?page={n + 1}")
    with pytest.raises(AnswerError) as error:
        Prolific(QUICK).studies(["ACTIVE"])
    assert_says(error, "does not end", "studies")
    assert len(pages.requests) == n_asked


def test_no_spelling_of_a_next_page_takes_the_token_to_another_host(pages):
    """The address of the next page is not requested: pages are asked for by number."""
    with Loopback(key=KEY) as evil:
        home = pages.prolific_url.split("/")[2]
        addresses = [a for a in spellings(f"127.0.0.1:{evil.port}", home) if a]
        for address in addresses:
            pages.requests.clear()
            pages.page = lambda n, to=address: page([f"s{n}"], to if n == 1 else None)
            assert [s.id for s in Prolific(QUICK).studies(["ACTIVE"])] == ["s1", "s2"]
        assert evil.requests == []
        assert len(addresses) >= 60


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        (b'{"results": [{"name": "x"}], "_links": {"next": {"href": null}}}', "results.0.id"),
        (b'{"results": [{"id": "x", "name": "x"}]}', "_links"),
        (b'{"detail": "no"}', "results"),
        (b"[]", "the whole"),
        (b'{"results": [', "the whole"),
    ],
)
def test_an_answer_that_is_no_list_of_studies_is_an_error_with_its_place(pages, answer, place):
    pages.page = lambda _: answer
    with pytest.raises(AnswerError) as error:
        Prolific(QUICK).studies(["ACTIVE"])
    assert_says(error, "/studies/", "no list of studies", f"({place}")
    assert len(str(error.value).splitlines()) <= 3


# demographics


@pytest.mark.parametrize(
    ("endpoint", "method", "path"),
    [
        ("successor", "POST", "/api/v1/studies/a1/demographic-export/"),
        ("deprecated", "GET", "/api/v1/studies/a1/export/"),
    ],
)
def test_demographics_come_from_the_endpoint_that_is_set(serve, endpoint, method, path):
    server = serve(crowded())
    assert Prolific(QUICK).demographics("a1", endpoint) == server.studies["a1"]["csv"]
    assert [(r["method"], r["path"]) for r in server.requests] == [(method, path)]


def test_an_id_stays_within_its_place_in_the_address(serve):
    server = serve({})
    with pytest.raises(AnswerError, match="404"):
        Prolific(QUICK).demographics("../users/?x=1#", "deprecated")
    assert server.requests[0]["path"] == "/api/v1/studies/..%2Fusers%2F%3Fx%3D1%23/export/"


@pytest.mark.parametrize("fault", [502, 429, "reset"])
def test_demographics_are_tried_again_though_they_are_read_by_post(serve, fault):
    server = serve(crowded())
    server.fail("/a1/demographic-export/", fault)
    assert Prolific(QUICK).demographics("a1") == server.studies["a1"]["csv"]
    assert len(server.requests) == 2


def test_one_study_that_fails_does_not_lose_the_others(serve):
    server = serve(worlds(a=export([row(1)]), b=b"<html>", c=export([row(2)]), d=b"", e=b""))
    server.fail("/a/demographic-export/", 404)
    gathered = gather(Prolific(QUICK), ["COMPLETED"])
    assert gathered.rows == {"c": [row(2)]}
    assert (gathered.studies["failure"] != "").tolist() == [True, True, False, True, True]
    assert gathered.studies["submissions"].tolist() == [0, 0, 1, 0, 0]
    with pytest.raises(RunError) as error:
        gathered.check()
    assert_says(error, "4 of 5 studies failed", "'Study a' (a)", "'Study e' (e)", "404")
    assert len(str(error.value).splitlines()) == 3
    assert not NAMES_SOMEBODY.search(repr(gathered))


def test_studies_that_all_answer_are_no_error(serve):
    serve(crowded())
    gathered = gather(Prolific(QUICK), ["COMPLETED"], "deprecated")
    gathered.check()
    assert gathered.rows == crowd()


def test_a_missing_token_names_its_variable(serve, monkeypatch):
    serve(crowded())
    monkeypatch.delenv("PROLIFIC_TOKEN")
    with pytest.raises(AccessError, match="PROLIFIC_TOKEN"):
        Prolific(QUICK).studies(["ACTIVE"])


# to the platform


def test_nothing_is_sent_unless_the_platform_is_the_target_and_it_is_confirmed(serve, monkeypatch):
    server = serve({})
    monkeypatch.delenv("AGGREGATION_PLATFORM_KEY")  # a dry run needs none
    for wanted in (FILE, DRY):
        told = deliver(cleaned(**crowd()), wanted)
        assert "80 submissions of 2 studies" in told
        assert not NAMES_SOMEBODY.search(told)
    assert "confirm: true" in told
    empty = deliver(clean({}, ()), SEND)
    assert "nothing is sent" in empty
    assert server.requests == []


def test_what_is_sent_has_the_originals_shape_and_nobody_who_withdrew(serve):
    server = serve({})
    told = deliver(cleaned(**crowd()), SEND)
    kept = {"a1": crowd()["a1"], "b2": crowd()["b2"][:40]}
    assert server.demographics == [{"studyIdToDemoData": kept}]
    assert told == f"Sent 80 submissions of 2 studies to {server.url}."


def test_a_platform_that_repeats_what_it_was_sent_names_nobody(serve):
    server = serve({})
    server.fail("/demographics", 400, said=f"bad row {person(1)}")
    with pytest.raises(AnswerError) as error:
        deliver(cleaned(**crowd()), SEND)
    assert_says(error, "400", "prolific/demographics")
    assert not NAMES_SOMEBODY.search(str(error.value))


# the notebook


def execute(folder, **wanted):
    """The notebook under plain papermill; the error's message, if it ended with one."""
    try:
        papermill.execute_notebook(
            str(ROOT / "notebooks" / "demographics.ipynb"),
            str(folder / "demographics.ipynb"),
            parameters={"run": "some", "demographics": wanted},
            kernel_name="python3",
            cwd=str(folder),
            progress_bar=False,
        )
    except PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}"
    return ""


def assert_names_nobody(folder):
    """No file holds an id of a participant or submission, or the key; gives the files."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes().decode("utf-8", "replace")
        assert not NAMES_SOMEBODY.search(content), path.name
        assert KEY not in content, path.name
        assert "CONSENT_REVOKED" not in content, path.name
    return {path.relative_to(folder).as_posix() for path in files}


def test_the_notebook_leaves_counts_only_and_sends_nothing_by_default(serve, tmp_path):
    server = serve(crowded())
    assert execute(tmp_path) == ""
    files = assert_names_nobody(tmp_path)
    assert files == {"demographics.ipynb", "outputs/some/demographics/counts.json"}
    written = json.loads((tmp_path / "outputs/some/demographics/counts.json").read_text("utf-8"))
    people, *cells = written
    assert people == {"category": "people", "value": "all", "n": 60, "suppressed": False}
    sexes = {cell["value"]: cell["n"] for cell in cells if cell["category"] == "sex"}
    assert sexes == {"Male": 30, "Female": 30}
    assert server.demographics == []
    text = os.linesep.join(
        output.get("text", "")
        for cell in nbformat.read(tmp_path / "demographics.ipynb", as_version=4).cells
        for output in cell.get("outputs", [])
    )
    assert "Nothing is sent, of 80 submissions of 2 studies" in text


def test_the_notebook_sends_what_is_good_and_ends_with_an_error_naming_what_failed(serve, tmp_path):
    bad = export([row(1), row(2, Completed_at=person(3))])
    server = serve(crowded() | worlds(zz=bad))
    said = execute(tmp_path, target="platform", confirm=True)
    assert said.startswith("RunError: 1 of 3 studies failed: 'Study zz' (zz).")
    assert "line 3" in said
    assert [set(sent["studyIdToDemoData"]) for sent in server.demographics] == [{"a1", "b2"}]
    assert person(1) in json.dumps(server.demographics)
    assert not NAMES_SOMEBODY.search(said)
    assert "outputs/some/demographics/counts.json" in assert_names_nobody(tmp_path)
