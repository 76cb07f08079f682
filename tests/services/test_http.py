"""Over real sockets: every fault has its right outcome, and no key gets anywhere it should not."""

import json
import logging
import shutil
import socket
import subprocess
import time
import traceback
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import Loopback

from aggregation import errors
from aggregation.services import setting
from aggregation.services.http import Client, Policy, Service, retry_after
from aggregation.services.platform import Platform, service

KEY = "secret-key-9f8e7d6c5b4a"
QUICK = Policy(
    connect=1, read=0.5, deadline=4, tries=3, first_wait=0.02, longest_wait=0.1, most_bytes=1 << 22
)
EXPORT = {
    "topics": [],
    "guidelines": [None, {"id": "g1", "value": "Be kind.", "embeddings": [], "intercept": None}],
    "ratings": [{"authorId": "u1", "guidelineId": "g1", "rating": "helpful"}] * 50,
    "users": [{"id": "u1", "embeddings": [], "intercept": None}],
    "mu": None,
}
BODY = json.dumps(
    {
        "accepted_guideline_ids": ["g1"],
        "guideline_scores": {"g1": 0.9},
        "guideline_intercepts": {"g1": 0.4},
        "user_intercepts": {"u1": 0.1},
        "guideline_embeddings": {"g1": [0.2]},
        "user_embeddings": {"u1": [0.3]},
        "mu": 0.5,
    }
).encode()


@pytest.fixture
def server():
    with Loopback(EXPORT, KEY) as running:
        yield running


def at(url, key=KEY):
    return Service("the platform", url, "Bearer", "AGGREGATION_PLATFORM_KEY", key, "its settings")


def client(url, key=KEY, policy=QUICK):
    return Client(at(url, key), policy)


def platform(server, key=KEY, policy=QUICK):
    return Platform(at(server.url, key), policy)


def refused(caught, *words, kind=None):
    """What every error has in common: short, telling, and without the key anywhere."""
    message = str(caught.value)
    assert len(message.splitlines()) <= 3, message
    for word in words:
        assert word in message
    whole = "".join(traceback.format_exception(caught.value))
    assert KEY not in whole
    assert KEY not in repr(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    if kind is not None:
        assert caught.type is kind


# what works


def test_the_five_flags_decide_what_an_export_holds(server):
    with platform(server) as p:
        assert p.export({"mu": True, "users": True}) == {"mu": None, "users": EXPORT["users"]}
    assert server.requests[-1]["query"] == {
        "topics": "false",
        "guidelines": "false",
        "ratings": "false",
        "users": "true",
        "mu": "true",
    }


def test_a_download_is_the_body_byte_for_byte_and_its_hash(server, tmp_path):
    import hashlib

    names = ("topics", "guidelines", "ratings", "users", "mu")
    with platform(server) as p:
        digest = p.download_export(tmp_path / "e.json", dict.fromkeys(names, True))
    content = (tmp_path / "e.json").read_bytes()
    assert json.loads(content) == EXPORT
    assert digest == hashlib.sha256(content).hexdigest()
    assert [p.name for p in tmp_path.iterdir()] == ["e.json"]


def test_a_post_arrives_byte_for_byte_and_comes_back_with_the_next_export(server):
    with platform(server) as p:
        assert p.post_constitution(BODY).status == 200
        export = p.export({"mu": True, "guidelines": True})
    assert server.constitutions == [json.loads(BODY)]
    assert export["mu"] == 0.5
    assert export["guidelines"][1]["embeddings"] == [0.2]


def test_gzip_is_unpacked(server):
    server.fail("exports", "gzip")
    with platform(server) as p:
        assert p.export({"users": True}) == {"users": EXPORT["users"]}


# faults that pass


@pytest.mark.parametrize(
    "fault", [500, 503, 429, "reset in the body", "reset before an answer", "hang"]
)
def test_a_get_is_tried_again(server, tmp_path, fault):
    server.fail("exports", fault, times=2, seconds=1)
    with platform(server) as p:
        p.download_export(tmp_path / "e.json", {"ratings": True})
    assert json.loads((tmp_path / "e.json").read_text())["ratings"] == EXPORT["ratings"]
    assert len(server.requests) == 3


def test_retry_after_is_waited_for(server):
    server.fail("exports", 429, headers={"retry-after": "1"})
    began = time.monotonic()
    with platform(server) as p:
        p.export({})
    assert time.monotonic() - began >= 1


def test_a_post_that_was_put_off_is_sent_again_once(server):
    server.fail("constitution", 429)
    with platform(server) as p:
        p.post_constitution(BODY)
    assert len(server.constitutions) == 1


# faults that stay


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (401, errors.AccessError, ["AGGREGATION_PLATFORM_KEY", "its settings", "401"]),
        (403, errors.AccessError, ["AGGREGATION_PLATFORM_KEY", "403"]),
        (404, errors.AnswerError, ["404", "check address"]),
        (429, errors.BusyError, ["429", "too many requests"]),
        (500, errors.BusyError, ["500", "try again later"]),
        ("html", errors.AnswerError, ["text/html", "check the address"]),
        ("truncated json", errors.AnswerError, ["no whole JSON"]),
        ("reset in the body", errors.UnreachableError, ["in the middle of its answer"]),
        ("hang", errors.UnreachableError, ["does not answer within 0.5 s"]),
    ],
)
def test_what_does_not_pass_is_told(server, caplog, fault, kind, words):
    caplog.set_level(logging.DEBUG)
    server.fail("exports", fault, times=99, seconds=1)
    with platform(server) as p, pytest.raises(errors.ServiceError) as caught:
        p.export({"ratings": True})
    refused(caught, "the platform", "/api/openapi/exports", *words, kind=kind)
    assert KEY not in caplog.text


def test_a_wrong_key_is_refused_without_being_shown(server):
    with platform(server, key="another-key-123") as p, pytest.raises(errors.AccessError) as caught:
        p.export({})
    refused(caught, "AGGREGATION_PLATFORM_KEY")
    assert "another-key-123" not in str(caught.value)


def test_nobody_there_is_told():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/api"
    with client(url) as c, pytest.raises(errors.UnreachableError) as caught:
        c.get("exports")
    refused(caught, "cannot be reached", "check the address")


def test_a_slow_drip_ends_at_the_deadline(server):
    server.fail("exports", "slow drip")
    began, short = time.monotonic(), replace(QUICK, deadline=1)
    with platform(server, policy=short) as p, pytest.raises(errors.UnreachableError) as caught:
        p.export({"ratings": True})
    refused(caught, "not whole after 1 s")
    assert 1 <= time.monotonic() - began < 3


def test_an_answer_that_never_ends_is_cut_off_and_nothing_is_left(server, tmp_path):
    server.fail("exports", "huge", size=300 << 20)
    with platform(server) as p, pytest.raises(errors.AnswerError) as caught:
        p.download_export(tmp_path / "e.json", {"ratings": True})
    refused(caught, "larger than 4,194,304 bytes")
    assert list(tmp_path.iterdir()) == []


def test_a_bomb_is_measured_unpacked(server, tmp_path):
    server.export["topics"] = ["x" * (8 << 20)]
    server.fail("exports", "gzip")
    with platform(server) as p, pytest.raises(errors.AnswerError) as caught:
        p.download_export(tmp_path / "e.json", {"topics": True})
    refused(caught, "larger than")


def test_the_key_does_not_follow_a_redirect(server):
    with Loopback(EXPORT, KEY) as other:
        server.fail("exports", "redirect", to=f"{other.url}/exports")
        with platform(server) as p, pytest.raises(errors.AnswerError) as caught:
            p.export({})
        refused(caught, "redirects to", "not followed")
        assert other.requests == []


def test_a_redirect_within_the_host_is_followed_by_a_get_only(server):
    server.fail("exports", "redirect", to="/api/openapi/exports?users=true")
    server.fail("constitution", "redirect", to="/api/openapi/constitution")
    with platform(server) as p:
        assert p.export({}) == {"users": EXPORT["users"]}
        with pytest.raises(errors.AnswerError, match="not followed"):
            p.post_constitution(BODY)
    assert server.constitutions == []


def test_an_address_of_another_host_does_not_get_the_key(server):
    with Loopback(EXPORT, KEY) as other, client(server.url) as c:
        with pytest.raises(errors.AnswerError) as caught:
            c.get(f"{other.url}/exports")
        refused(caught, "another host")
        assert other.requests == []


@pytest.mark.parametrize(
    "url", ["http://example.org/api", "ftp://127.0.0.1/", "http://u:p@127.0.0.1"]
)
def test_addresses_that_would_show_the_key_are_refused(url):
    with pytest.raises(errors.ParameterError) as caught:
        client(url)
    refused(caught)


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ключ", "x" * 5000])
def test_what_is_no_key_is_refused_and_not_shown(server, key):
    with pytest.raises(errors.AccessError) as caught:
        client(server.url, key=key)
    refused(caught, "AGGREGATION_PLATFORM_KEY")
    assert not key or key not in str(caught.value)


def test_a_certificate_that_does_not_verify_ends_it(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not there to make a certificate")
    pair = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-out", pair[0], "-keyout", pair[1]),
        ],
        check=True,
        capture_output=True,
    )
    with Loopback(EXPORT, KEY, tls=pair) as server:
        with platform(server) as p, pytest.raises(errors.UnreachableError) as caught:
            p.export({})
        assert server.requests == []
    refused(caught, "certificate does not verify", "nothing was sent")


# a post is sent once


@pytest.mark.parametrize(
    ("fault", "kept"),
    [
        ("reset after it is stored", 1),
        ("reset before it is stored", 0),
        ("hang", 0),
        (500, 0),
        ("html", 0),
        ("truncated json", 0),
    ],
)
def test_a_post_that_may_have_arrived_is_not_repeated(server, fault, kept):
    server.fail("constitution", fault, seconds=1)
    with platform(server) as p, pytest.raises(errors.UnknownOutcomeError) as caught:
        p.post_constitution(BODY)
    refused(caught, "Nobody knows whether", "before you send it again")
    assert len(server.constitutions) == kept
    assert [r["method"] for r in server.requests] == ["POST"]


def test_a_post_that_cannot_have_arrived_is_repeated():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    patient = Policy(connect=1, deadline=10, tries=60, first_wait=0.1, longest_wait=0.1)
    server = None

    def come():
        nonlocal server
        time.sleep(0.3)
        server = Loopback(EXPORT, KEY, port=port).__enter__()

    import threading

    thread = threading.Thread(target=come)
    thread.start()
    with Platform(at(f"http://127.0.0.1:{port}/api/openapi"), patient) as p:
        p.post_constitution(BODY)
    thread.join()
    assert len(server.constitutions) == 1
    server.__exit__()


def test_a_body_that_the_platform_refuses_is_an_error_with_its_words(server):
    with platform(server) as p, pytest.raises(errors.AnswerError) as caught:
        p.post_constitution(b'{"mu": 1}')
    refused(caught, "400", "exactly seven keys")


def test_the_key_is_masked_in_what_a_service_says(server):
    server.fail("exports", 404, said=f"no such thing for {KEY}")
    with platform(server) as p, pytest.raises(errors.AnswerError) as caught:
        p.export({})
    refused(caught, "no such thing for")


# settings


def test_settings_come_from_the_environment_first_and_then_from_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGGREGATION_PLATFORM_KEY", raising=False)
    monkeypatch.delenv("AGGREGATION_PLATFORM_URL", raising=False)
    assert setting("AGGREGATION_PLATFORM_KEY") == ""
    assert service("development").url == "https://dev.api.energize.ai/api/openapi"
    (tmp_path / ".env").write_text(
        "AGGREGATION_PLATFORM_KEY=of-the-file\nAGGREGATION_PLATFORM_URL=https://example.org/api/\n"
    )
    found = service()
    assert (found.key, found.url) == ("of-the-file", "https://example.org/api")
    assert "of-the-file" not in repr(found)
    monkeypatch.setenv("AGGREGATION_PLATFORM_KEY", "of-the-environment")
    assert service().key == "of-the-environment"
    assert service(base_url="https://example.net").url == "https://example.net"


def test_another_file_with_names_and_passwords_changes_nothing(server, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password mine\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with platform(server) as p:
        assert p.export({"mu": True}) == {"mu": None}


def test_a_proxy_does_not_see_a_key_that_is_not_encrypted(server, monkeypatch):
    with Loopback(EXPORT, KEY) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with platform(server) as p:
            assert p.export({"mu": True}) == {"mu": None}
        assert proxy.requests == []


@given(st.integers(0, 10**6))
def test_retry_after_is_a_number_or_a_date(seconds):
    assert retry_after(str(seconds)) == seconds
    then = datetime.now(UTC) + timedelta(seconds=seconds)
    assert abs(retry_after(format_datetime(then, usegmt=True)) - seconds) < 3


@pytest.mark.parametrize("value", [None, "", "soon", "-5", "1e9", "９"])
def test_other_words_in_retry_after_mean_nothing(value):
    assert retry_after(value) is None
