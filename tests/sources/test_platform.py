"""The export over HTTP: kept as it came, replaced by nothing worse, read again without asking."""

import itertools
import json

import pytest
from kills import killed_at
from loopback import Loopback

from aggregation import InputError, read, sections
from aggregation.errors import ServiceError
from aggregation.files import sha256

KEY = "secret-key-9f8e7d6c5b4a"
EXPORT = {
    "topics": [],
    "guidelines": [None, {"id": "g1", "value": "Be kind."}],
    "ratings": [{"authorId": f"u{k}", "guidelineId": "g1", "rating": "helpful"} for k in range(3)],
    "users": [{"id": f"u{k}"} for k in range(3)],
    "mu": None,
}


@pytest.fixture(autouse=True)
def server(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGGREGATION_PLATFORM_KEY", KEY)
    with Loopback(EXPORT, KEY) as running:
        monkeypatch.setenv("AGGREGATION_PLATFORM_URL", running.url)
        yield running


def fetch(raw, **words):
    given = sections(source={"kind": "platform", **words}, ratings={})
    return read(given.source, given.ratings, 0, raw)


def everything(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_export_is_kept_byte_for_byte_with_its_hash_and_read_again_offline(server, tmp_path):
    raw = tmp_path / "source"
    first = fetch(raw)
    assert set(everything(raw)) == {"export.json", "receipt.json"}
    assert json.loads((raw / "export.json").read_text()) == EXPORT
    receipt = json.loads((raw / "receipt.json").read_text())
    assert receipt["body_sha256"] == sha256(raw / "export.json")
    assert (receipt["url"], KEY in str(receipt)) == (server.url, False)
    n_requests = len(server.requests)
    assert fetch(raw, offline=True).ratings.equals(first.ratings)
    assert len(server.requests) == n_requests


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (401, ServiceError),
        ("html", ServiceError),
        ("truncated json", InputError),
        ("odd", InputError),
    ],
)
def test_an_unusable_answer_does_not_replace_the_last_good_export(server, tmp_path, fault, error):
    raw = tmp_path / "source"
    fetch(raw)
    before = everything(raw)
    server.export["topics"] = None  # it would differ
    if fault == "odd":
        server.export["ratings"] = [{"authorId": "u1"}]
    else:
        server.fail("exports", fault)
    with pytest.raises(error):
        fetch(raw)
    assert everything(raw) == before
    assert len(fetch(raw, offline=True).ratings) == 3


def test_what_was_changed_since_is_not_read_offline(tmp_path):
    raw = tmp_path / "source"
    with pytest.raises(InputError, match=r"export\.json: .* gone: run once without"):
        fetch(raw, offline=True)
    fetch(raw)
    content = (raw / "export.json").read_bytes()
    (raw / "export.json").write_bytes(content.replace(b"kind", b"kine"))
    with pytest.raises(InputError, match="is not what the platform sent"):
        fetch(raw, offline=True)
    (raw / "export.json").write_bytes(content)
    receipt = (raw / "receipt.json").read_text()
    for damaged in ("{}", "[" * 100_000, receipt.replace("sha", "SHA", 1)):
        (raw / "receipt.json").write_text(damaged)
        with pytest.raises(InputError, match=r"receipt\.json: was changed .*: run once without"):
            fetch(raw, offline=True)


WORK = """
from pathlib import Path
import aggregation as ag
from aggregation.sources import platform
given = ag.sections(source={"kind": "platform"}, ratings={})
def work():
    ag.read(given.source, given.ratings, 0, Path(sys.argv[1]))
"""


def test_a_process_killed_at_any_step_leaves_no_half_written_export(tmp_path):
    raw = tmp_path / "source"
    with killed_at(WORK, raw) as killed:
        for step in itertools.count(1):
            if not killed(step):
                break
            for name in ("export.json", "receipt.json"):
                if (raw / name).exists():
                    json.loads((raw / name).read_text())
    assert step > 10
    assert len(fetch(raw, offline=True).ratings) == 3
