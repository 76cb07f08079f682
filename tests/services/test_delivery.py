"""A constitution is posted once, knowingly, and the receipt says what became of it."""

import hashlib
import itertools
import json
import random
from contextlib import suppress

import pytest
from kills import killed_at
from loopback import Loopback
from test_http import KEY

from aggregation.errors import InputError, RunError, ServiceError, UnknownOutcomeError
from aggregation.params.schema import PublishSection
from aggregation.services.delivery import deliver
from aggregation.services.http import Policy

IDS = [f"g{k}" for k in range(8)]
EXPORT = {
    "guidelines": [{"id": g, "value": g, "embeddings": [], "intercept": None} for g in IDS],
    "users": [{"id": "u1", "embeddings": [], "intercept": None}],
    "ratings": [],
    "mu": None,
}
QUICK = Policy(connect=9, read=9, deadline=60, tries=2, first_wait=0.001, max_wait=0.002)
ASKED = {"guidelines": "True", "mu": "True"}


def constitution(accepted=IDS[:4], mu=0.5):
    """The body of a constitution; `mu` says which model it is."""
    content = {
        "accepted_guideline_ids": list(accepted),
        "guideline_scores": dict.fromkeys(accepted, 0.9),
        "guideline_intercepts": dict.fromkeys(IDS, 0.4),
        "user_intercepts": {"u1": 0.1},
        "guideline_embeddings": {g: [0.2] for g in IDS},
        "user_embeddings": {"u1": [0.3]},
        "mu": mu,
    }
    return json.dumps(content).encode()


@pytest.fixture(autouse=True)
def server(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with Loopback(EXPORT, KEY) as running:
        monkeypatch.setenv("AGGREGATION_PLATFORM_KEY", KEY)
        monkeypatch.setenv("AGGREGATION_PLATFORM_URL", running.url)
        yield running


@pytest.fixture
def published(tmp_path):
    return tmp_path / "run" / "published"


DRY = PublishSection(target="platform")
SEND = PublishSection(target="platform", confirm=True)
FORCE = PublishSection(target="platform", confirm=True, force=True, reason="decided")


def send(published, accepted=IDS[:4], mu=0.5, wanted=SEND, n_ratings=100):
    return deliver(published, constitution(accepted, mu), n_ratings, wanted, QUICK)


def receipt(published):
    return json.loads((published / "receipt.json").read_text())


def bodies(server):
    return [(c["accepted_guideline_ids"], c["mu"]) for c in server.constitutions]


def test_a_file_is_sent_nowhere(server, published):
    wanted = PublishSection(confirm=True)
    assert "Nothing is sent" in send(published, wanted=wanted).told
    assert server.requests == []


def test_a_dry_run_says_what_would_change_and_sends_nothing(server, published):
    delivery = send(published, wanted=DRY)
    assert "Dry run" in delivery.told
    assert delivery.table().set_index("change").loc["newly accepted", "n"] == 4
    assert server.constitutions == []
    assert [p.name for p in published.iterdir()] == ["last.txt"]


def test_the_body_is_sent_byte_for_byte_and_the_receipt_says_so(server, published):
    send(published)
    assert server.constitutions == [json.loads(constitution())]
    found = receipt(published)
    assert found["state"] == "published"
    assert found["body_sha256"] == hashlib.sha256(constitution()).hexdigest()
    assert (published / "constitution.json").read_bytes() == constitution()


def test_the_same_again_is_not_posted_and_something_new_is(server, published):
    send(published)
    assert "nothing is sent" in send(published).told
    send(published, mu=0.5 + 1e-9)  # a fit that starts from the model it found ends that near
    assert len(server.constitutions) == 1
    found = send(published, IDS[1:5]).changes
    assert len(server.constitutions) == 2
    assert (found.accepted, found.gone) == (("g4",), ("g0",))


def test_after_another_run_has_published_the_first_one_publishes_again(server, published, tmp_path):
    send(published, mu=0.5)
    send(tmp_path / "another", mu=0.6)
    assert "Published" in send(published, mu=0.5).told
    assert [mu for _, mu in bodies(server)] == [0.5, 0.6, 0.5]
    assert "nothing is sent" in send(published, mu=0.5).told


@pytest.mark.parametrize(
    ("accepted", "n_ratings", "says"),
    [
        ([], 100, "no guideline is accepted"),
        (IDS[3:], 100, "3 of the 4"),
        (IDS[:4], 99, "99 ratings"),
    ],
)
def test_a_guard_stops_it_unless_it_is_forced_with_a_reason(
    server, published, accepted, n_ratings, says
):
    send(published)
    new = {"accepted": accepted, "mu": 0.6, "n_ratings": n_ratings}
    with pytest.raises(RunError, match=says) as caught:
        send(published, **new)
    assert "publish.force" in str(caught.value)
    assert len(server.constitutions) == 1
    assert says in send(published, **new, wanted=DRY).told
    send(published, **new, wanted=FORCE)
    assert len(server.constitutions) == 2
    assert receipt(published)["forced"] == "decided"


def test_to_force_without_a_reason_is_refused():
    with pytest.raises(ValueError, match="force needs a reason"):
        PublishSection(force=True, reason="  ")


def lose(server, published, *, stored, **body):
    """Send a body whose answer is lost."""
    server.fail("constitution", "reset", stored=stored)
    with pytest.raises(UnknownOutcomeError):
        send(published, **body)
    assert receipt(published)["state"] == "unknown"


def test_what_arrived_without_an_answer_is_found_later_and_not_posted_again(server, published):
    lose(server, published, stored=True)
    assert "nothing is sent" in send(published).told
    assert len(server.constitutions) == 1
    assert receipt(published)["state"] == "published"
    assert "when asked later" in receipt(published)["why"]


def test_what_did_not_arrive_is_posted_later(server, published):
    lose(server, published, stored=False)
    send(published)
    assert len(server.constitutions) == 1
    assert receipt(published)["state"] == "published"


@pytest.mark.parametrize("stored", [False, True])
def test_where_only_the_rule_changed_an_export_proves_nothing_and_it_is_sent_again(
    server, published, stored
):
    send(published, IDS[:4])
    lose(server, published, stored=stored, accepted=IDS[1:5])
    assert "Published" in send(published, IDS[1:5]).told
    assert bodies(server)[-1] == (IDS[1:5], 0.5)


def test_what_was_published_before_is_sent_again_while_a_like_body_may_have_arrived(
    server, published
):
    send(published, IDS[:4])
    lose(server, published, stored=True, accepted=IDS[1:5])
    server.fail("constitution", 404)
    with pytest.raises(ServiceError):
        send(published, IDS[:4])
    assert receipt(published)["state"] == "unknown"  # the other one may be there
    assert "Published" in send(published, IDS[:4]).told
    assert bodies(server)[-1] == (IDS[:4], 0.5)


@pytest.mark.parametrize(
    "odd",
    [
        *({"guidelines": wrong} for wrong in ([], None, 5, [1], [{"intercept": 1}], "x", {})),
        {"guidelines": [{"id": f"other{k}", "intercept": 0.4} for k in range(8)]},
        {"guidelines": [{"id": g, "intercept": "0.4", "embeddings": [0.2]} for g in IDS]},
        *({"mu": wrong} for wrong in ("0.5", [0.5], {}, True, int("9" * 400), None)),
    ],
)
def test_an_export_that_does_not_show_the_model_never_proves_that_it_arrived(
    server, published, odd
):
    lose(server, published, stored=False)
    server.take = server.constitutions.append
    server.export |= {"mu": 0.5} | odd
    assert "Published" in send(published).told
    assert "Published" in send(published).told  # nor that it is still there
    assert len(server.constitutions) == 2


def test_nothing_is_sent_while_the_platform_cannot_say_what_it_has(server, published):
    lose(server, published, stored=True)
    server.fail("exports", 404)
    with pytest.raises(ServiceError, match=r"exports.*404"):
        send(published)
    assert len(server.constitutions) == 1
    assert receipt(published)["state"] == "unknown"


def test_a_refusal_leaves_a_receipt_and_what_was_known(server, published):
    send(published)
    server.fail("constitution", 403, said=f"no {KEY}")
    with pytest.raises(ServiceError):
        send(published, IDS[1:5])
    assert receipt(published)["state"] == "refused"
    assert KEY not in (published / "receipt.json").read_text()
    found = send(published, IDS[1:5], wanted=DRY).changes
    assert found.gone == ("g0",)  # against what was published, not what was refused


def test_receipts_of_another_address_prove_nothing(server, published, monkeypatch):
    send(published)
    with Loopback(EXPORT, KEY) as other:
        monkeypatch.setenv("AGGREGATION_PLATFORM_URL", other.url)
        assert "Published" in send(published).told
        assert len(other.constitutions) == 1
    monkeypatch.setenv("AGGREGATION_PLATFORM_URL", server.url)
    assert "Published" in send(published).told


@pytest.mark.parametrize("damage", ["", "{}", "[" * 100_000, '{"state": "published"}', "null"])
def test_a_damaged_receipt_is_a_clear_error(published, damage):
    send(published)
    (published / "receipt.json").write_text(damage)
    with pytest.raises(InputError, match=r"receipt\.json: was changed .* remove the file"):
        send(published)


FAULTS = [
    None,
    *((fault, {"stored": stored}) for fault in ("reset", "html") for stored in (False, True)),
    *((s, {"stored": b}) for s in (301, 303, 408, 409, 500, 502, 504) for b in (False, True)),
    *((status, {}) for status in (400, 401, 403, 404, 422, 429)),
    *(("interim", {"status": status}) for status in (102, 103)),
    *((fault, {"stored": True}) for fault in ("reset in the body", "truncated json", "gzip")),
]


@pytest.mark.slow
def test_over_a_thousand_random_faults_receipt_and_server_never_disagree(server, published):
    """Three models with three lists each; now and then, somebody else publishes another model."""
    chance, states = random.Random(11), []
    for k in range(1000):
        body = IDS[(n := chance.randrange(3)) : n + 4], chance.choice([0.4, 0.5, 0.6])
        if chance.random() < 0.1:
            server.take(json.loads(constitution(mu=1 + k)))
        fault = chance.choice(FAULTS)
        if fault:
            server.fail("constitution", fault[0], times=chance.choice([1, 2]), **fault[1])
        if chance.random() < 0.05:
            server.fail("exports", chance.choice([500, 404, "reset"]))
        n_before, told = len(server.constitutions), ""
        with suppress(ServiceError):
            told = send(published, *body, wanted=FORCE).told
        server.faults.clear()
        now, n = bodies(server)[-1:], len(server.constitutions) - n_before
        state = receipt(published)["state"] if published.exists() else ""
        assert n <= 1, k
        if told:  # it was published, or is there
            assert now == [body], k
            assert n == ("nothing is sent" not in told), k
            assert state == "published" or n == 0, k
        if state == "refused":
            assert n == 0, k
        states.append(state)
        assert state != "sending"
    assert min(states.count(state) for state in ("published", "refused", "unknown")) > 50


WORK = """
from pathlib import Path
from aggregation.params.schema import PublishSection
from aggregation.services.delivery import deliver
def work():
    folder = Path(sys.argv[1])
    body = (folder / "constitution.json").read_bytes()
    deliver(folder / "published", body, 100, PublishSection(target="platform", confirm=True))
"""


def test_a_process_killed_at_any_step_leaves_one_constitution(server, published):
    """The next call settles it, wherever that was."""
    posted, folder = [], published.parent
    folder.mkdir()
    with killed_at(WORK, folder) as killed:
        for step in itertools.count(1):
            mu = 0.5 + 0.01 * step
            (folder / "constitution.json").write_bytes(constitution(mu=mu))
            if not killed(step):
                break
            posted.append(len(server.constitutions) - len(posted))
            send(published, mu=mu)
            assert len(server.constitutions) == len(posted), step
            assert receipt(published)["state"] == "published"
            assert json.loads((published / "constitution.json").read_bytes())["mu"] == mu
    assert posted == sorted(posted)
    assert set(posted) == {0, 1}  # some before it was sent, some after
    assert len(posted) > 20
