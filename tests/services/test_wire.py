"""What a service can do to a client below HTTP: every socket here is a real one, and misbehaves."""

import gzip
import http.client
import re
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from aggregation import errors
from aggregation.services import setting
from aggregation.services.http import Client, Policy, Service

KEY = "secret-key-9f8e7d6c5b4a"
QUICK = Policy(connect=0.5, read=0.5, deadline=1.5, tries=2, first_wait=0.01, longest_wait=0.02)
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@contextmanager
def serving(answer):
    """The address of a server that reads a request and leaves the rest to `answer(connection)`."""

    def one(connection):
        with connection:
            try:
                answer(connection)
            except OSError:
                return  # the client went away, as it should

    def all_of_them():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=all_of_them, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


def taken(connection):
    """Read one request, whole."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(1 << 16)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    missing = int(length[1]) - len(body) if length else 0
    while missing > 0:
        missing -= len(connection.recv(1 << 20))


def drip(connection, data):
    for k in range(len(data)):
        connection.sendall(data[k : k + 1])
        time.sleep(0.1)


def client(url, policy=QUICK):
    service = Service(
        "the platform", url, "Bearer", "AGGREGATION_PLATFORM_KEY", KEY, "its settings"
    )
    return Client(service, policy)


@pytest.mark.parametrize(
    ("quick", "slow"),
    [
        (b"", OK + b"content-length: 2\r\n\r\n{}"),
        (OK + b"content-length: 90\r\n\r\n", b" " * 90),
        (OK + b"transfer-encoding: chunked\r\n\r\n", b"0" * 90),
        (OK + b"content-encoding: gzip\r\n\r\n", gzip.compress(b"{}" * 500)),
    ],
    ids=["headers", "body", "size of a chunk", "gzip"],
)
def test_whatever_drips_ends_at_the_deadline(quick, slow):
    def answer(connection):
        taken(connection)
        connection.sendall(quick)
        drip(connection, slow)

    with serving(answer) as url:
        began = time.monotonic()
        with client(url) as c, pytest.raises(errors.UnreachableError, match=r"after 1\.5 s"):
            c.get("exports")
        assert time.monotonic() - began < 2.5


@pytest.mark.parametrize(
    "rest",
    [
        b"content-length: 90\r\n\r\n" + b" " * 40,
        b"transfer-encoding: chunked\r\n\r\n5\r\n{   }\r\n",
        b"content-length: 2\r\ncontent-encoding: gzip\r\n\r\n{}",
    ],
    ids=["cut", "chunk missing", "no gzip"],
)
def test_a_post_whose_answer_breaks_has_an_unknown_outcome(rest):
    def answer(connection):
        taken(connection)
        connection.sendall(OK + rest)

    with serving(answer) as url, client(url) as c, pytest.raises(errors.UnknownOutcomeError):
        c.post("constitution", b"{}")


def test_a_post_whose_answer_drips_or_is_too_large_has_an_unknown_outcome():
    def dripping(connection):
        taken(connection)
        connection.sendall(OK + b"content-length: 90\r\n\r\n")
        drip(connection, b" " * 90)

    def large(connection):
        taken(connection)
        connection.sendall(OK + b"content-length: 900\r\n\r\n" + b" " * 900)

    with serving(dripping) as url, client(url) as c, pytest.raises(errors.UnknownOutcomeError):
        c.post("constitution", b"{}")
    small = Policy(most_bytes=100)
    with serving(large) as url, client(url, small) as c, pytest.raises(errors.UnknownOutcomeError):
        c.post("constitution", b"{}")


def test_sending_may_take_longer_than_connecting():
    def answer(connection):
        time.sleep(1)  # twice the limit for connecting; the body fills all buffers on the way
        taken(connection)
        connection.sendall(OK + b"content-length: 2\r\n\r\n{}")

    patient = Policy(connect=0.5, read=5, deadline=20, tries=1)
    with serving(answer) as url, client(url, patient) as c:
        assert c.post("constitution", b" " * (30 << 20)).body == b"{}"


def test_a_post_whose_tls_breaks_was_not_sent_and_is_repeated():
    connections = []

    def answer(connection):
        connections.append(connection.recv(100))

    with (
        serving(answer) as url,
        client(url.replace("http", "https")) as c,
        pytest.raises(errors.UnreachableError),
    ):
        c.post("constitution", b"{}")
    assert len(connections) == QUICK.tries


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_error_leads_to_the_request_and_its_key(method):
    with serving(taken) as url, client(url) as c, pytest.raises(errors.ServiceError) as caught:
        c.get("exports") if method == "GET" else c.post("constitution", b"{}")
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("packed", [False, True])
def test_a_download_that_only_looks_whole_is_not_kept(tmp_path, packed):
    cut = gzip.compress(b'{"a": "' + bytes(range(35, 91)) * 9 + b'"}')[:-30]
    head = b"content-encoding: gzip\r\n" if packed else b""

    def answer(connection):
        taken(connection)
        connection.sendall(
            OK + head + b"connection: close\r\n\r\n" + (cut if packed else b'{"a": [')
        )

    with (
        serving(answer) as url,
        client(url) as c,
        pytest.raises(errors.AnswerError, match="cut off"),
    ):
        c.download("exports", None, tmp_path / "e.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("location", ["http://[", "http://127.0.0.1:abc/", "//127.0.0.2:1/"])
def test_a_redirect_to_no_address_is_told_and_its_body_is_not_read(location):
    sent = []

    def answer(connection):
        taken(connection)
        head = f"HTTP/1.1 302 X\r\nlocation: {location}\r\nconnection: close\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(100):
            connection.sendall(b" " * (1 << 20))
            sent.append(1)

    with (
        serving(answer) as url,
        client(url) as c,
        pytest.raises(errors.AnswerError, match="not followed"),
    ):
        c.get("exports")
    assert len(sent) < 50


def test_half_a_key_is_not_shown():
    said = b" " * 1990 + KEY.encode()

    def answer(connection):
        taken(connection)
        connection.sendall(b"HTTP/1.1 404 X\r\ncontent-length: %d\r\n\r\n" % len(said) + said)

    with serving(answer) as url, client(url) as c, pytest.raises(errors.AnswerError) as caught:
        c.get("exports")
    assert KEY[:6] not in str(caught.value)


def test_a_level_of_debugging_for_all_connections_does_not_print_the_key(monkeypatch, capsys):
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)

    def answer(connection):
        taken(connection)
        connection.sendall(OK + b"content-length: 2\r\n\r\n{}")

    with serving(answer) as url, client(url) as c:
        assert c.get("exports") == b"{}"
    assert KEY not in capsys.readouterr().out


def test_no_wait_asked_for_is_no_reason_to_hammer():
    requests = []

    def answer(connection):
        taken(connection)
        requests.append(time.monotonic())
        connection.sendall(b"HTTP/1.1 429 X\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n")

    slower = Policy(tries=8, first_wait=0.2, longest_wait=0.2)
    with serving(answer) as url, client(url, slower) as c, pytest.raises(errors.BusyError):
        c.get("exports")
    assert requests[-1] - requests[0] > 0.1


@pytest.mark.parametrize("url", ["http://[", "https://127.0.0.1:abc"])
def test_an_address_that_is_none_is_told(url):
    with pytest.raises(errors.ParameterError, match="no http"):
        client(url)


def test_trusted_certificates_that_are_not_there_are_told(monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "nowhere.pem")
    with (
        client("https://127.0.0.1:1") as c,
        pytest.raises(errors.UnreachableError, match="REQUESTS_CA_BUNDLE"),
    ):
        c.get("exports")


def test_a_file_of_settings_is_utf_8_with_or_without_a_mark(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfA_KEY=abc\n")
    assert setting("A_KEY") == "abc"
    (tmp_path / ".env").write_bytes(f"A_KEY={KEY}\n".encode() + b"X=\xfc\n")
    with pytest.raises(errors.ParameterError, match="UTF-8") as caught:
        setting("A_KEY")
    assert caught.value.__context__ is None  # which would hold the file
