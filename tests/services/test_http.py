"""Requests over real sockets: each fault has its right outcome, and no key goes elsewhere."""

import gzip
import json
import logging
import re
import shutil
import socket
import subprocess
import threading
import time
import traceback
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from loopback import Loopback

from aggregation import errors
from aggregation.services import setting
from aggregation.services.http import Policy
from aggregation.services.platform import Platform
from aggregation.services.prolific import Prolific

KEY = "secret-key-9f8e7d6c5b4a"
QUICK = Policy(
    connect=1, read=0.3, deadline=4, tries=3, first_wait=0.01, max_wait=0.02, max_bytes=1 << 22
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
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@pytest.fixture
def platform(monkeypatch, tmp_path):
    """Gives a function: the client of the platform at an address, or of that server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGGREGATION_PLATFORM_KEY", KEY)

    def client(at, policy=QUICK):
        monkeypatch.setenv("AGGREGATION_PLATFORM_URL", at if isinstance(at, str) else at.url)
        return Platform(policy=policy)

    return client


@pytest.fixture
def server():
    with Loopback(EXPORT, KEY) as running:
        yield running


@contextmanager
def serving(answer):
    """The address of a server that leaves each connection to `answer(connection)`."""

    def one(connection):
        with connection:
            try:
                answer(connection)
            except OSError:
                return  # the client went away, as it should

    def accept():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


def taken(connection):
    """Read one request, whole; gives its head."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(1 << 16)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    missing = int(length[1]) - len(body) if length else 0
    while missing > 0:
        missing -= len(connection.recv(1 << 20))
    return head


def saying(*pieces, pause=0.0):
    """An answer to each request: these bytes, with pauses."""

    def answer(connection):
        taken(connection)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)

    return serving(answer)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def refused(caught, *words, kind=None):
    """What every error has in common: it is short, clear, and without the key anywhere."""
    message = str(caught.value)
    assert len(message.splitlines()) <= 3, message
    for word in words:
        assert word in message
    assert KEY not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    if kind is not None:
        assert caught.type is kind


# what works


def test_flags_are_spelled_as_in_the_original_and_others_are_left_out(server, platform):
    export = platform(server).export({"topics": False, "users": True, "mu": True})
    assert json.loads(export) == {"mu": None, "users": EXPORT["users"]}
    assert server.requests[-1]["query"] == {"users": "True", "mu": "True"}


def test_a_post_arrives_byte_for_byte_and_comes_back_with_the_next_export(server, platform):
    client = platform(server)
    client.post_constitution(BODY)
    export = json.loads(client.export({"mu": True, "guidelines": True}))
    assert server.constitutions == [json.loads(BODY)]
    assert export["mu"] == 0.5
    assert export["guidelines"][1]["embeddings"] == [0.2]


def test_gzip_is_unpacked(server, platform):
    server.fail("exports", "gzip")
    assert json.loads(platform(server).export({"users": True})) == {"users": EXPORT["users"]}


# faults that pass


@pytest.mark.parametrize("fault", [500, 503, 429, "reset in the body", "reset", "hang"])
def test_a_get_is_tried_again(server, platform, fault):
    server.fail("exports", fault, times=2)
    export = platform(server).export({"ratings": True})
    assert json.loads(export)["ratings"] == EXPORT["ratings"]
    assert len(server.requests) == 3


def test_retry_after_is_waited_for(server, platform):
    server.fail("exports", 429, headers={"retry-after": "1"})
    began = time.monotonic()
    platform(server).export({})
    assert time.monotonic() - began >= 1


def test_retry_after_may_be_a_date(server, platform):
    then = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    server.fail("exports", 429, headers={"retry-after": then})
    with pytest.raises(errors.BusyError):  # after the deadline
        platform(server).export({})
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "value", ["", "soon", "-5", "1e9", "Fri, 01 Jan 100000000000000000000 00:00:00 GMT"]
)
def test_a_retry_after_that_means_nothing_is_ignored(server, platform, value):
    server.fail("exports", 429, headers={"retry-after": value})
    platform(server).export({})
    assert len(server.requests) == 2


def test_no_wait_asked_for_is_no_reason_to_hammer(server, platform):
    server.fail("exports", 429, times=8, headers={"retry-after": "0"})
    slower = Policy(tries=8, first_wait=0.2, max_wait=0.2)
    began = time.monotonic()
    with pytest.raises(errors.BusyError):
        platform(server, slower).export({})
    assert time.monotonic() - began > 0.1


def test_a_post_that_was_put_off_is_sent_again_once(server, platform):
    server.fail("constitution", 429)
    platform(server).post_constitution(BODY)
    assert len(server.constitutions) == 1


def test_a_post_that_cannot_have_arrived_is_sent_again(platform, monkeypatch):
    port, servers = free_port(), []

    def come(_):
        if not servers:
            servers.append(Loopback(EXPORT, KEY, port=port).__enter__())

    monkeypatch.setattr("aggregation.services.http.time.sleep", come)
    platform(f"http://127.0.0.1:{port}/api/openapi").post_constitution(BODY)
    assert len(servers[0].constitutions) == 1
    servers[0].__exit__()


# faults that stay


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (401, errors.AccessError, ["AGGREGATION_PLATFORM_KEY", "settings", "401"]),
        (403, errors.AccessError, ["AGGREGATION_PLATFORM_KEY", "403"]),
        (404, errors.AnswerError, ["404", "check address"]),
        (429, errors.BusyError, ["429", "try again later"]),
        (500, errors.BusyError, ["500", "try again later"]),
        ("html", errors.AnswerError, ["web page", "check the address"]),
        ("reset in the body", errors.UnreachableError, ["the connection broke"]),
        ("hang", errors.UnreachableError, ["does not answer in time"]),
    ],
)
def test_a_fault_that_stays_is_a_clear_error(server, platform, caplog, fault, kind, words):
    caplog.set_level(logging.DEBUG)
    server.fail("exports", fault, times=99)
    with pytest.raises(errors.ServiceError) as caught:
        platform(server).export({"ratings": True})
    refused(caught, "the platform", "/api/openapi/exports", *words, kind=kind)
    assert KEY not in caplog.text


def test_a_service_that_is_not_there_is_a_clear_error(platform):
    with pytest.raises(errors.UnreachableError) as caught:
        platform(f"http://127.0.0.1:{free_port()}/api").export({})
    refused(caught, "cannot be reached", "check the address")


@pytest.mark.parametrize(
    "head",
    [b"content-length: 900", b"transfer-encoding: chunked\r\n\r\n384", b"connection: close"],
)
def test_a_body_that_drips_ends_at_the_deadline(platform, head):
    short = replace(QUICK, deadline=0.5)
    with saying(OK + head + b"\r\n\r\n", *[b" "] * 100, pause=0.1) as url:
        began = time.monotonic()
        with pytest.raises(errors.UnreachableError) as caught:
            platform(url, short).export({})
        assert time.monotonic() - began < 3
    refused(caught, "takes too long")


def test_an_answer_that_never_ends_is_cut_off(server, platform):
    server.fail("exports", "huge", size=300 << 20)
    with pytest.raises(errors.AnswerError) as caught:
        platform(server).export({"ratings": True})
    refused(caught, "larger than 4,194,304 bytes")


def test_a_packed_answer_is_measured_unpacked(server, platform):
    server.export["topics"] = ["x" * (8 << 20)]
    server.fail("exports", "gzip")
    with pytest.raises(errors.AnswerError) as caught:
        platform(server).export({"topics": True})
    refused(caught, "larger than")


def test_the_body_of_an_error_is_not_read(platform):
    sent = []

    def answer(connection):
        taken(connection)
        connection.sendall(b"HTTP/1.1 500 X\r\nconnection: close\r\n\r\n")
        for _ in range(100):
            connection.sendall(b" " * (1 << 20))
            sent.append(1)

    with serving(answer) as url, pytest.raises(errors.BusyError):
        platform(url).export({})
    assert len(sent) < 20 * QUICK.tries


def test_certificates_that_cannot_be_trusted_end_it(tmp_path, platform, monkeypatch):
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
        for ask in (lambda c: c.export({}), lambda c: c.post_constitution(BODY)):
            with pytest.raises(errors.UnreachableError) as caught:
                ask(platform(server))
            refused(caught, "certificate does not verify", "nothing was sent")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "nowhere.pem")
        with pytest.raises(errors.UnreachableError, match="REQUESTS_CA_BUNDLE"):
            platform(server).export({})
        assert server.requests == []


# a post is sent once


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("fault", ["reset", "hang", 500, 303, 308, 408, 409, "html"])
def test_a_post_that_may_have_arrived_is_not_sent_again(server, platform, fault, stored):
    location = {"headers": {"location": "/api/openapi/constitution"}}
    server.fail("constitution", fault, stored=stored, **location)
    with pytest.raises(errors.UnknownOutcomeError) as caught:
        platform(server).post_constitution(BODY)
    refused(caught, "It is unknown whether", "before you send it again")
    assert len(server.constitutions) == stored
    assert [r["method"] for r in server.requests] == ["POST"]


@pytest.mark.parametrize("status", [102, 103])
def test_a_post_that_is_answered_after_an_interim_status_is_not_refused(server, platform, status):
    server.fail("constitution", "interim", status=status)
    with pytest.raises(errors.UnknownOutcomeError):
        platform(server).post_constitution(BODY)
    assert len(server.constitutions) == 1


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"content-length: 90\r\n\r\n" + b" " * 40,
        OK + b"transfer-encoding: chunked\r\n\r\n5\r\n{   }\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\nxyz\r\n{   }\r\n",
        OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        OK + b"content-length: 2\r\ncontent-encoding: gzip\r\n\r\n{}",
        OK + b"content-length: 19\r\n\r\n" + b'{"success": "true"}',
        OK + b"content-length: 2\r\n\r\n[]",
        OK + b"content-length: 3000\r\n\r\n" + b"[" * 3000,
        OK + b"x: y\r\n" * 200 + b"\r\n",
        b"certificate verify failed\r\n\r\n",
        b"HTTP/1.1 999 X\r\n\r\n",
        b"",
    ],
)
def test_a_post_whose_answer_is_odd_has_an_unknown_outcome(platform, answer):
    with saying(answer) as url, pytest.raises(errors.UnknownOutcomeError) as caught:
        platform(url).post_constitution(BODY)
    refused(caught)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_post_that_the_platform_refuses_is_no_unknown_outcome(server, platform, status):
    server.fail("constitution", status)
    with pytest.raises((errors.AnswerError, errors.AccessError)) as caught:
        platform(server).post_constitution(BODY)
    refused(caught, str(status))


# the key


def spellings(evil, home):
    """Addresses of `evil` (host:port) that look like `home`, like a path, or like nothing."""
    host, port = evil.split(":")
    fullwidth = "".join(chr(ord(c) + 0xFEE0) for c in host)
    return [
        *(f"{scheme}//{evil}/x" for scheme in ("http:", "HTTP:", "hTtP:", "https:", "ftp:", "")),
        *(f"http:{slashes}{evil}/x" for slashes in ("/", "", "///", "////", "\\\\", "/\\", "\\/")),
        *(f"{slashes}{evil}/x" for slashes in ("///", "\\\\", "/\\", "\\/", "/\t/", "\t//", " //")),
        *(
            f"http://{evil}{mark}{home}/x"
            for mark in ("\\@", "\\", "/@", "?@", "#@", "\\\\@", "%40")
        ),
        *(
            f"http://{evil}{mark}@{home}/x"
            for mark in ("%5c", "\t", " ", "\\\t", "/", "%2f", "%23")
        ),
        *(f"http://{name}@{evil}/x" for name in (home, "me:pw", f"{home}:80", "a@b", "%40", "\\")),
        *(f"http://{name}:{port}/x" for name in ("localhost", "LOCALHOST", "localhost.", "127.1")),
        *(f"http://{name}:{port}/x" for name in ("0x7f.0.0.1", "2130706433", "[::ffff:127.0.0.1]")),
        *(
            f"http://{name}:{port}/x"
            for name in (fullwidth, "127%2e0.0.1", "127.0.0.1%00", "①27.0.0.1")
        ),
        *(f"http://{host}:{p}/x" for p in (f"0{port}", f"{port}\t", f"+{port}", "٣", "99999", "")),
        *(
            "http://[",
            "http://",
            "http:",
            "//",
            "\\",
            "javascript:1",
            "data:,x",
            "file:///etc/passwd",
        ),
    ]


def test_no_spelling_of_a_redirect_takes_the_key_to_another_host(server, platform):
    with Loopback(EXPORT, KEY) as evil:
        home = server.url.split("/")[2]
        addresses = spellings(f"127.0.0.1:{evil.port}", home)
        assert len(set(addresses)) >= 60
        client, quick = platform(server), replace(QUICK, tries=1)
        client.policy = quick
        for k, address in enumerate(addresses):
            location = {"location": address.encode().decode("latin-1")}
            server.fail("exports", (301, 302, 303, 307, 308)[k % 5], headers=location)
            with pytest.raises(errors.AnswerError) as caught:
                client.export({})
            refused(caught, "a redirect")
        assert evil.requests == []
        assert len(server.requests) == len(addresses)


def test_a_redirect_within_the_host_is_not_followed_either(server, platform):
    server.fail("exports", 302, headers={"location": "/api/openapi/exports?users=True"})
    with pytest.raises(errors.AnswerError, match="a redirect"):
        platform(server).export({})


@pytest.mark.parametrize("client", [Platform, Prolific])
def test_an_address_that_could_hold_a_key_is_refused_and_not_printed(monkeypatch, client):
    monkeypatch.setenv(client.key_variable, KEY)
    bad = [
        *(f"https://{KEY}@x.org", f"https://me:{KEY}@x.org/api", f"https://x.org/?api_key={KEY}"),
        *(f"https://x.org/api;key={KEY}", f"https://x.org/#{KEY}", f"https://x.org\\@{KEY}.org"),
        *(
            f"https://x.org/a {KEY}",
            f"https://x.org/\t{KEY}",
            f"https://x.org/\x00{KEY}"[:16] + KEY,
        ),
        *(
            f"ftp://{KEY}",
            f"http://{KEY}.org",
            f"//{KEY}",
            KEY,
            f"https://[{KEY}",
            f"https://ü{KEY}",
        ),
        *(f"https://x.org:{KEY}", f"https://x.org/\N{NO-BREAK SPACE}{KEY}", f"https://x.org,{KEY}"),
    ]
    for url in bad:
        monkeypatch.setenv(client.url_variable, url.replace("\x00", "\x01"))
        with pytest.raises(errors.ParameterError) as caught:
            client()
        refused(caught, client.url_variable, "cannot be used")


def test_good_addresses_are_taken(monkeypatch):
    for url in ("https://x.org", "https://x.org:8443/a/b_c-d.e/~f%20g", "http://[::1]:80/a"):
        monkeypatch.setenv("AGGREGATION_PLATFORM_URL", f" {url}/ ")
        assert Platform().url == url


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ключ", "x" * 5000])
def test_what_is_no_key_is_refused_and_not_shown(server, platform, monkeypatch, key):
    client = platform(server)
    monkeypatch.setenv("AGGREGATION_PLATFORM_KEY", key)
    with pytest.raises(errors.AccessError) as caught:
        client.export({})
    refused(caught, "AGGREGATION_PLATFORM_KEY")
    assert not key or key not in str(caught.value)
    assert server.requests == []


def test_a_service_cannot_put_the_key_into_a_message_or_a_file(platform):
    """It may repeat the key anywhere, whole, split or encoded."""
    half = len(KEY) // 2
    echo = f"{KEY} {KEY[:half]} {KEY[half:]} {KEY.encode().hex()} {KEY[::-1]}".encode()
    for head in (
        b"HTTP/1.1 404 " + echo,
        b"HTTP/1.1 404 X\r\nx: " + echo,
        b"HTTP/1.1 302 X\r\nlocation: http://" + KEY.encode() + b".org/" + KEY.encode(),
        b"HTTP/1.1 302 X\r\nlocation: /" + KEY.encode(),
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html; " + echo,
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nx: " + echo,
        echo,
    ):
        answer = head + b"\r\nconnection: close\r\n\r\n" + echo
        with saying(answer) as url, pytest.raises(errors.ServiceError) as caught:
            platform(url).export({})
        refused(caught)
        for part in (KEY[:half], KEY[half:], KEY.encode().hex(), KEY[::-1]):
            assert part not in str(caught.value)
    with saying(OK + b"connection: close\r\n\r\n" + KEY.encode()) as url:
        assert platform(url).export({}) == b"***"


def test_a_file_with_names_and_passwords_changes_nothing(server, platform, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password mine\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    assert json.loads(platform(server).export({"mu": True})) == {"mu": None}


def test_a_proxy_does_not_see_a_key_that_is_not_encrypted(server, platform, monkeypatch):
    with Loopback(EXPORT, KEY) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert json.loads(platform(server).export({"mu": True})) == {"mu": None}
        assert proxy.requests == []


# settings


def test_settings_come_from_the_environment_first_and_then_from_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGGREGATION_PLATFORM_KEY", raising=False)
    monkeypatch.delenv("AGGREGATION_PLATFORM_URL", raising=False)
    assert setting("AGGREGATION_PLATFORM_KEY") == ""
    assert Platform("development").url == "https://dev.api.energize.ai/api/openapi"
    (tmp_path / ".env").write_text(
        "AGGREGATION_PLATFORM_KEY=of-the-file\nAGGREGATION_PLATFORM_URL=https://example.org/api/\n"
    )
    assert setting("AGGREGATION_PLATFORM_KEY") == "of-the-file"
    assert Platform().url == "https://example.org/api"
    monkeypatch.setenv("AGGREGATION_PLATFORM_KEY", "of-the-environment")
    assert setting("AGGREGATION_PLATFORM_KEY") == "of-the-environment"


def test_a_file_of_settings_is_utf_8_with_or_without_a_mark(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfA_KEY=abc\n")
    assert setting("A_KEY") == "abc"
    (tmp_path / ".env").write_bytes(f"A_KEY={KEY}\n".encode() + b"X=\xfc\n")
    with pytest.raises(errors.ParameterError, match="UTF-8") as caught:
        setting("A_KEY")
    assert caught.value.__context__ is None  # which would hold the file


def test_gzip_that_is_cut_off_is_no_answer(platform):
    cut = gzip.compress(b'{"a": "' + bytes(range(35, 91)) * 9 + b'"}')[:-30]
    head = OK + b"content-encoding: gzip\r\nconnection: close\r\n\r\n"
    with saying(head + cut) as url, pytest.raises(errors.UnreachableError):
        platform(url).export({})
