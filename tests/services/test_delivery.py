"""A constitution is posted once, knowingly, and the receipt says what became of it."""

import hashlib
import itertools
import json

import pytest
from kills import killed_at
from loopback import Loopback
from test_http import KEY

import aggregation as ag
from aggregation.errors import RunError, ServiceError, UnknownOutcomeError
from aggregation.params import PublishSection

IDS = [f"g{k}" for k in range(8)]
EXPORT = {
    "guidelines": [{"id": g, "value": g, "embeddings": [], "intercept": None} for g in IDS],
    "users": [{"id": "u1", "embeddings": [], "intercept": None}],
    "ratings": [],
    "mu": None,
}


def constitution(accepted, mu=0.5):
    return {
        "accepted_guideline_ids": accepted,
        "guideline_scores": dict.fromkeys(accepted, 0.9),
        "guideline_intercepts": dict.fromkeys(IDS, 0.4),
        "user_intercepts": {"u1": 0.1},
        "guideline_embeddings": {g: [0.2] for g in IDS},
        "user_embeddings": {"u1": [0.3]},
        "mu": mu,
    }


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with Loopback(EXPORT, KEY) as running:
        monkeypatch.setenv("AGGREGATION_PLATFORM_KEY", KEY)
        monkeypatch.setenv("AGGREGATION_PLATFORM_URL", running.url)
        yield running


@pytest.fixture
def folder(tmp_path):
    folder = ag.RunFolder(tmp_path / "run")
    prepare(folder, IDS[:4])
    return folder


def prepare(folder, accepted, mu=0.5, n_ratings=100):
    """What the earlier stages leave, as far as posting reads it."""
    folder.write_text("constitution.json", json.dumps(constitution(accepted, mu)))
    folder.write_json("model/fit.json", {"n_ratings": n_ratings})


def send(**changes):
    return PublishSection(target="platform", confirm=True, **changes)


def receipt(folder):
    return folder.read_json("published/receipt.json")


def test_a_file_is_sent_nowhere(server, folder):
    assert "Nothing is sent" in ag.post(folder, PublishSection(confirm=True)).told
    assert server.requests == []


def test_a_dry_run_says_what_would_change_and_sends_nothing(server, folder):
    told = ag.post(folder, PublishSection(target="platform"))
    assert "Dry run" in told.told
    assert told.table().set_index("change").loc["newly accepted", "n"] == 4
    assert server.constitutions == []
    assert {p.name for p in (folder.path / "published").iterdir()} == {"last.txt"}


def test_the_body_is_constitution_json_byte_for_byte_and_the_receipt_says_so(server, folder):
    ag.post(folder, send())
    sent = (folder.path / "constitution.json").read_bytes()
    assert server.constitutions == [json.loads(sent)]
    found = receipt(folder)
    assert found["state"] == "published"
    assert found["status"] == 200
    assert found["body_sha256"] == hashlib.sha256(sent).hexdigest()
    assert json.loads(found["response"]) == {"success": True}
    assert (folder.path / "published" / "constitution.json").read_bytes() == sent


def test_the_same_again_is_not_posted_and_something_new_is(server, folder):
    ag.post(folder, send())
    assert "nothing is sent" in ag.post(folder, send()).told
    prepare(folder, IDS[:4], mu=0.5 + 1e-9)  # a fit from the model it found ends that near
    ag.post(folder, send())
    assert len(server.constitutions) == 1
    prepare(folder, IDS[1:5])
    told = ag.post(folder, send())
    assert len(server.constitutions) == 2
    assert told.changes.accepted == ("g4",)
    assert told.changes.gone == ("g0",)


@pytest.mark.parametrize(
    ("accepted", "n_ratings", "says"),
    [
        ([], 100, "no guideline is accepted"),
        (IDS[3:], 100, "3 of the 4"),
        (IDS[:4], 99, "99 ratings"),
    ],
)
def test_a_guard_stops_it_unless_it_is_forced_with_a_reason(
    server, folder, accepted, n_ratings, says
):
    ag.post(folder, send())
    prepare(folder, accepted, mu=0.6, n_ratings=n_ratings)
    with pytest.raises(RunError, match=says) as caught:
        ag.post(folder, send())
    assert "publish.force" in str(caught.value)
    assert len(server.constitutions) == 1
    assert says in ag.post(folder, PublishSection(target="platform")).told
    ag.post(folder, send(force=True, reason="the council decided so"))
    assert len(server.constitutions) == 2
    assert receipt(folder)["forced"] == "the council decided so"


def test_to_force_without_a_reason_is_refused():
    with pytest.raises(ValueError, match="force needs a reason"):
        send(force=True, reason="  ")


def test_what_arrived_without_an_answer_is_found_later_and_not_posted_again(server, folder):
    server.fail("constitution", "reset after it is stored")
    with pytest.raises(UnknownOutcomeError):
        ag.post(folder, send())
    assert receipt(folder)["state"] == "unknown"
    assert "nothing is sent" in ag.post(folder, send()).told
    assert len(server.constitutions) == 1
    assert receipt(folder)["state"] == "published"
    assert "found there" in receipt(folder)["response"]


def test_what_did_not_arrive_is_posted_later(server, folder):
    server.fail("constitution", "reset before it is stored")
    with pytest.raises(UnknownOutcomeError):
        ag.post(folder, send())
    ag.post(folder, send())
    assert len(server.constitutions) == 1
    assert receipt(folder)["state"] == "published"


def test_nothing_is_sent_while_the_platform_cannot_say_what_it_has(server, folder):
    server.fail("constitution", "reset after it is stored")
    with pytest.raises(UnknownOutcomeError):
        ag.post(folder, send())
    server.fail("exports", 404)
    with pytest.raises(RunError, match="Nothing was sent") as caught:
        ag.post(folder, send())
    assert len(str(caught.value).splitlines()) <= 3
    assert len(server.constitutions) == 1


def test_a_refusal_leaves_a_receipt_and_what_was_known(server, folder):
    ag.post(folder, send())
    prepare(folder, IDS[1:5])
    server.fail("constitution", 403)
    with pytest.raises(ServiceError):
        ag.post(folder, send())
    assert receipt(folder)["state"] == "refused"
    assert KEY not in json.dumps(receipt(folder))
    told = ag.post(folder, PublishSection(target="platform"))
    assert told.changes.gone == ("g0",)  # against what was published, not what was refused


WORK = """
import aggregation as ag
from aggregation.params import PublishSection
import aggregation.services.platform
folder = ag.RunFolder(ag.folder.Path(sys.argv[1]))
def work():
    ag.post(folder, PublishSection(target="platform", confirm=True))
"""


def test_a_process_killed_at_any_step_of_posting_leaves_one_constitution(server, folder):
    """The next call settles it, wherever that was."""
    posted = []
    with killed_at(WORK, folder.path) as killed:
        for step in itertools.count(1):
            mu = 0.5 + 0.01 * step
            prepare(folder, IDS[:4], mu)
            if not killed(step):
                break
            posted.append(len(server.constitutions) - len(posted))
            ag.post(folder, send())
            assert len(server.constitutions) == len(posted), step
            assert receipt(folder)["state"] == "published"
            assert folder.read_json("published/constitution.json")["mu"] == mu
    assert posted == sorted(posted)
    assert set(posted) == {0, 1}  # some before it was sent, some after
    assert len(posted) > 20
