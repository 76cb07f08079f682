"""Prolific over real sockets: all pages, one failure among many, nobody named but in the post."""

import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nbformat
import papermill
import pytest
from loopback import Loopback
from papermill.exceptions import PapermillExecutionError
from prolific_worlds import cleaned, crowd, export, person, row
from worlds import assert_says

from aggregation import RunError
from aggregation.errors import AccessError, AnswerError, ServiceError
from aggregation.services import platform
from aggregation.services.demographics import clean
from aggregation.services.http import Policy
from aggregation.services.prolific import Prolific, deliver, gather, service

ROOT = Path(__file__).resolve().parents[2]
KEY = "prolific-secret-token-0123456789"
QUICK = Policy(connect=2, read=2, deadline=5, tries=2, first_wait=0.01, longest_wait=0.02)
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
    monkeypatch.delenv("AGGREGATION_PLATFORM_URL", raising=False)
    running = []

    def start(studies):
        running.append(Loopback(key=KEY, studies=studies).__enter__())
        return running[-1]

    yield start
    for server in running:
        server.__exit__()


def asking(server):
    return Prolific(service(server.prolific_url), QUICK)


# the list of studies


def test_studies_come_from_all_pages_each_once(serve):
    studies = {f"s{k:03}": {"name": f"n{k}", "state": "ACTIVE", "csv": b""} for k in range(250)}
    server = serve(studies)
    with asking(server) as prolific:
        found = prolific.studies(["ACTIVE"])
    assert [(s.id, s.name) for s in found] == [(f"s{k:03}", f"n{k}") for k in range(250)]
    assert len(server.requests) == 3


def test_studies_are_asked_for_by_state_as_the_original_does(serve):
    states = {"a": "ACTIVE", "b": "COMPLETED", "c": "UNPUBLISHED"}
    server = serve({k: {"name": k, "state": state, "csv": b""} for k, state in states.items()})
    with asking(server) as prolific:
        assert [s.id for s in prolific.studies(["ACTIVE", "COMPLETED"])] == ["a", "b"]
        assert [s.id for s in prolific.studies(["UNPUBLISHED"])] == ["c"]
    assert server.requests[0]["query"]["state"] == "(active|completed)"


class Pages(BaseHTTPRequestHandler):
    """Answers any GET with what `server.page(number of this request)` gives."""

    def do_GET(self):
        self.server.asked += 1
        content = self.server.page(self.server.asked)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def pages(monkeypatch):
    """A server whose pages a test makes up; gives it and a Prolific that asks it."""
    monkeypatch.setenv("PROLIFIC_TOKEN", KEY)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    server.daemon_threads, server.asked = True, 0
    server.base = f"http://127.0.0.1:{server.server_address[1]}/api/v1"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    with Prolific(service(server.base), QUICK) as prolific:
        yield server, prolific
    server.shutdown()
    server.server_close()


def page(studies, following):
    links = {"next": {"href": following, "title": "Next"}}
    results = [{"id": s, "name": s, "niche": None} for s in studies]
    return json.dumps({"results": results, "_links": links, "meta": {"count": 9}}).encode()


@pytest.mark.parametrize(
    "following",
    [lambda _: "/studies/?page=2", lambda n: f"/studies/?page={n + 1}"],
    ids=["repeats", "goes on and on"],
)
def test_pages_that_bring_nothing_new_are_an_error_not_an_endless_loop(pages, following):
    server, prolific = pages
    server.page = lambda n: page(["a"], server.base + following(n))
    with pytest.raises(AnswerError) as error:
        prolific.studies(["ACTIVE"])
    assert_says(error, "brings no new study", "after 1 studies")
    assert server.asked == 2


def test_a_next_page_on_another_host_does_not_get_the_token(pages):
    server, prolific = pages
    server.page = lambda _: page(["a"], "https://prolific.example/api/v1/studies/?page=2")
    with pytest.raises(ServiceError, match=r"prolific\.example"):
        prolific.studies(["ACTIVE"])


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
    server, prolific = pages
    server.page = lambda _: answer
    with pytest.raises(AnswerError) as error:
        prolific.studies(["ACTIVE"])
    assert_says(error, "/studies/", "no list of studies", f"({place}: ")
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
    with asking(server) as prolific:
        assert prolific.demographics("a1", endpoint) == server.studies["a1"]["csv"]
    assert [(r["method"], r["path"]) for r in server.requests] == [(method, path)]


def test_an_id_stays_within_its_place_in_the_address(serve):
    server = serve({})
    with asking(server) as prolific, pytest.raises(AnswerError, match="404"):
        prolific.demographics("../users/?x=1#", "deprecated")
    assert server.requests[0]["path"] == "/api/v1/studies/..%2Fusers%2F%3Fx%3D1%23/export/"


def test_one_study_that_fails_does_not_lose_the_others(serve):
    server = serve(worlds(a=export([row(1)]), b=b"<html>", c=export([row(2)]), d=b"", e=b""))
    server.fail("/a/demographic-export/", 404)
    with asking(server) as prolific:
        gathered = gather(prolific, ["COMPLETED"])
    assert gathered.rows == {"c": [row(2)]}
    assert set(gathered.failures) == {"a", "b", "d", "e"}
    assert gathered.summary()["submissions"].tolist() == [0, 0, 1, 0, 0]
    with pytest.raises(RunError) as error:
        gathered.check()
    assert_says(error, "4 of 5 studies failed", "'Study a' (a)", "'Study e' (e)", "404")
    assert len(str(error.value).splitlines()) == 3
    assert not NAMES_SOMEBODY.search(repr(gathered))


def test_studies_that_all_answer_are_no_error(serve):
    with asking(serve(crowded())) as prolific:
        gathered = gather(prolific, ["COMPLETED"], "deprecated")
    gathered.check()
    assert gathered.rows == crowd()


def test_a_missing_token_names_its_variable(serve, monkeypatch):
    server = serve(crowded())
    monkeypatch.delenv("PROLIFIC_TOKEN")
    with pytest.raises(AccessError, match="PROLIFIC_TOKEN"):
        asking(server)


def test_the_token_comes_from_the_environment_before_env_in_the_working_directory(
    serve, monkeypatch, tmp_path
):
    server = serve(crowded())
    (tmp_path / ".env").write_text("PROLIFIC_TOKEN=wrong\n")
    with asking(server) as prolific:
        assert len(prolific.studies(["COMPLETED"])) == 2
    monkeypatch.delenv("PROLIFIC_TOKEN")
    with asking(server) as prolific, pytest.raises(AccessError):
        prolific.studies(["COMPLETED"])
    (tmp_path / ".env").write_text(f"PROLIFIC_TOKEN={KEY}\n")
    with asking(server) as prolific:
        assert len(prolific.studies(["COMPLETED"])) == 2


# to the platform


def test_nothing_is_sent_unless_the_platform_is_the_target_and_it_is_confirmed(serve, monkeypatch):
    server = serve({})
    monkeypatch.delenv("AGGREGATION_PLATFORM_KEY")  # a dry run needs none
    found, to = cleaned(**crowd()), platform.service(base_url=server.url)
    for target, confirm in (("file", True), ("file", False), ("platform", False)):
        told = deliver(found, to, target=target, confirm=confirm)
        assert "80 submissions of 2 studies" in told
        assert not NAMES_SOMEBODY.search(told)
    assert "confirm: true" in told
    empty = deliver(clean({}), to, target="platform", confirm=True)
    assert "nothing is sent" in empty
    assert server.requests == []


def test_what_is_sent_has_the_originals_shape_and_nobody_who_withdrew(serve):
    server = serve({})
    found = cleaned(**crowd())
    to = platform.service(base_url=server.url)
    told = deliver(found, to, target="platform", confirm=True)
    kept = {"a1": crowd()["a1"], "b2": crowd()["b2"][:40]}
    assert server.demographics == [{"studyIdToDemoData": kept}]
    assert told == f"Sent 80 submissions of 2 studies to {server.url}: status 200."


def test_a_platform_that_repeats_what_it_was_sent_names_nobody(serve):
    server = serve({})
    server.fail("/demographics", 400, said=f"bad row {person(1)}")
    to = platform.service(base_url=server.url)
    with pytest.raises(AnswerError) as error:
        deliver(cleaned(**crowd()), to, target="platform", confirm=True)
    assert_says(error, "400", "prolific/demographics")
    assert not NAMES_SOMEBODY.search(str(error.value))


# the notebook


def execute(server, folder, **wanted):
    """The notebook under plain papermill; the error's message, if it ended with one."""
    given = {"prolific_url": server.prolific_url, "base_url": server.url, **wanted}
    try:
        papermill.execute_notebook(
            str(ROOT / "notebooks" / "demographics.ipynb"),
            str(folder / "demographics.ipynb"),
            parameters={"run": "some", "demographics": given},
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
    assert execute(server, tmp_path) == ""
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
    said = execute(server, tmp_path, target="platform", confirm=True)
    assert said.startswith("RunError: 1 of 3 studies failed: 'Study zz' (zz).")
    assert "line 3" in said
    assert [set(sent["studyIdToDemoData"]) for sent in server.demographics] == [{"a1", "b2"}]
    assert person(1) in json.dumps(server.demographics)
    assert not NAMES_SOMEBODY.search(said)
    assert "outputs/some/demographics/counts.json" in assert_names_nobody(tmp_path)
