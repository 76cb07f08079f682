"""A platform and a Prolific on this machine, over real HTTP, with faults on command.

Tests use `with Loopback(...) as server`. By hand (`make platform`): python tests/loopback.py
"""

import argparse
import copy
import gzip
import json
import socket
import ssl
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

LISTS = ("topics", "guidelines", "ratings", "users")
KEYS = {
    "accepted_guideline_ids",
    "guideline_scores",
    *("guideline_intercepts", "user_intercepts", "guideline_embeddings", "user_embeddings"),
    "mu",
}
BASE, PROLIFIC = "/api/openapi", "/api/v1"


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that was killed is no error of the server's; any other is told."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Loopback:
    """One server for both services.

    `faults` is a list of (path ending, fault, times); see `Handler._fault` for the faults. What was
    posted is kept in `constitutions` and `demographics`, every request in `requests`.
    """

    def __init__(self, export=None, key="try-me-0123456789", studies=None, port=0, tls=None):
        self.export, self.key = copy.deepcopy(export or {}), key
        self.studies = studies or {}  # id -> {"name", "state", "csv": bytes}
        self.constitutions, self.demographics, self.requests = [], [], []
        self.faults, self.released = [], threading.Event()
        self._lock = threading.Lock()
        self._server = Server(("127.0.0.1", port), Handler)
        self._server.world = self
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.port}{BASE}"
        self.prolific_url = f"{scheme}://127.0.0.1:{self.port}{PROLIFIC}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def fail(self, path, fault, times=1, **details):
        """The next `times` requests whose path ends so meet that fault; `stored=True`: only after
        what was posted has been stored."""
        self.faults.append([path, fault, times, details])

    def fault_for(self, path):
        with self._lock:
            for entry in self.faults:
                if entry[2] > 0 and path.endswith(entry[0]):
                    entry[2] -= 1
                    return entry[1], entry[3]
        return None, {}

    def list_studies(self, query):
        """A page of the list of studies, as JSON."""
        states = query.get("state", "").strip("()").lower().split("|")
        found = [
            {"id": key, "name": s["name"], "status": s["state"]}
            for key, s in sorted(self.studies.items())
            if s["state"].lower() in states
        ]
        page, size = int(query.get("page", 1)), int(query.get("page_size", 20))
        query_left = f"state={query.get('state', '')}&page={page + 1}&page_size={size}"
        more = page * size < len(found)
        following = f"{self.prolific_url}/studies/?{query_left}" if more else None
        items = found[(page - 1) * size : page * size]
        return json.dumps({"results": items, "_links": {"next": {"href": following}}}).encode()

    def take(self, constitution):
        """Keep what was posted, and give it out with the next export, as the platform does."""
        with self._lock:
            self.constitutions.append(constitution)
            self.export["mu"] = constitution["mu"]
            for name, word in (("guidelines", "guideline"), ("users", "user")):
                for record in filter(None, self.export.get(name) or []):
                    i = constitution[f"{word}_intercepts"].get(record["id"])
                    if i is not None:
                        record["intercept"] = i
                        record["embeddings"] = constitution[f"{word}_embeddings"][record["id"]]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    @property
    def world(self):
        return self.server.world

    def do_GET(self):
        self._answer(None)

    def do_POST(self):
        length = int(self.headers.get("content-length", 0))
        self._answer(self.rfile.read(length))

    def _answer(self, body):
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        given = self.headers.get("authorization", "")
        self.world.requests.append(
            {"method": self.command, "path": url.path, "query": query, "key": bool(given)}
        )
        fault, details = self.world.fault_for(url.path)
        scheme = "Token" if url.path.startswith(PROLIFIC) else "Bearer"
        if fault is None and given != f"{scheme} {self.world.key}":
            self._json(401, {"error": "unauthorized"})
            return
        stored = fault in (None, "interim") or details.get("stored", False)
        status, kind, content = self._content(url.path, query, body, stored)
        self._send(status, kind, content, fault, details)

    def _content(self, path, query, body, stored):
        """Status, content type and bytes; posts are kept here, unless a fault comes first."""
        world = self.world
        if path == f"{BASE}/exports" and body is None:
            flags = {name for name, value in query.items() if value.lower() == "true"}
            export = {name: world.export.get(name) for name in (*LISTS, "mu") if name in flags}
            return 200, "application/json", json.dumps(export).encode()
        if path == f"{BASE}/constitution" and body is not None:
            given = json.loads(body)
            if set(given) != KEYS:
                return 400, "application/json", b'{"error": "exactly seven keys"}'
            if stored:
                world.take(given)
            return 200, "application/json", b'{"success": true}'
        if path == f"{BASE}/prolific/demographics" and body is not None:
            if stored:
                world.demographics.append(json.loads(body))
            return 200, "application/json", b"{}"
        if path.startswith(f"{PROLIFIC}/studies/"):
            return self._prolific(path.removeprefix(f"{PROLIFIC}/studies/"), query, body)
        return 404, "application/json", b'{"error": "no such path"}'

    def _prolific(self, rest, query, body):
        studies = self.world.studies
        if not rest:
            return 200, "application/json", self.world.list_studies(query)
        study, _, what = rest.partition("/")
        wanted = "export/" if body is None else "demographic-export/"
        if study not in studies or what != wanted:
            return 404, "application/json", b'{"error": "no such study"}'
        return 200, "text/csv", studies[study]["csv"]

    def _json(self, status, value, **headers):
        self._whole(status, "application/json", json.dumps(value).encode(), headers)

    def _whole(self, status, kind, content, headers=()):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        for name, value in dict(headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def _reset(self):
        """An RST instead of an end."""
        off = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, off)
        self.connection.close()
        self.close_connection = True

    def _send(self, status, kind, content, fault, details):
        if fault is None:
            self._whole(status, kind, content)
        elif isinstance(fault, int):
            said = {"error": f"status {fault}", "said": details.get("said", "")}
            self._json(fault, said, **details.get("headers", {}))
        elif fault == "interim":
            self.wfile.write(b"HTTP/1.1 %d Wait\r\n\r\n" % details["status"])
            self._whole(status, kind, content)
        elif fault == "reset":
            self._reset()
        elif fault == "hang":
            self.world.released.wait(30)
            self._reset()
        elif fault == "html":
            self._whole(200, "text/html; charset=utf-8", b"<html><b>Sign in</b></html>")
        elif fault == "truncated json":
            self._whole(200, kind, content[: len(content) // 2])
        elif fault == "gzip":
            self._whole(200, kind, gzip.compress(content), {"content-encoding": "gzip"})
        elif fault == "redirect":
            self._whole(302, kind, b"", {"location": details["to"]})
        else:
            self._streamed(kind, content, fault, details)

    def _streamed(self, kind, content, fault, details):
        """Bodies that do not come whole, or not soon."""
        size = details.get("size", len(content))
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(size))
        self.end_headers()
        try:
            if fault == "reset in the body":
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                self._reset()
            elif fault == "slow drip":
                for at in range(len(content)):
                    self.wfile.write(content[at : at + 1])
                    self.wfile.flush()
                    time.sleep(0.05)
            elif fault == "huge":
                piece = b" " * (1 << 20)
                for _ in range(size >> 20):
                    self.wfile.write(piece)
            else:
                raise ValueError(fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


def main():
    from aggregation import World, simulate

    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--port", type=int, default=8010)
    words.add_argument("--key", default="try-me-0123456789")
    words.add_argument("--users", type=int, default=600)
    given = words.parse_args()
    export = simulate(20231013, World(given.users)).export
    with Loopback(export, given.key, port=given.port) as server:
        print(f"A platform with a simulated deliberation at {server.url}. In another terminal:")
        print(f"  export AGGREGATION_PLATFORM_URL={server.url}")
        print(f"  export AGGREGATION_PLATFORM_KEY={given.key}")
        print("  .venv/bin/aggregation run params/platform.yaml --set publish.confirm=true")
        print("Ctrl-C stops it.", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print(f"\n{len(server.constitutions)} constitutions were posted.")


if __name__ == "__main__":
    main()
