"""Two real browsers with one way to use them: a page visited, what it asked for and said.

Chromium by Playwright; Firefox by WebDriver BiDi, which it speaks itself (W3C, "WebDriver BiDi").
"""

import json
import os
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import sync_playwright
from websocket import create_connection


@dataclass
class Visit:
    """A page that was opened: what it asked for and said, and a way to ask it."""

    evaluate: object
    """Runs an expression of JavaScript in the page; returns its value."""
    resize: object
    """Gives the window another width."""
    asked: list = field(default_factory=list)
    """URLs that were requested, without the page itself and what it carries along."""
    said: list = field(default_factory=list)
    """Messages of the console, errors and dialogs."""


def found(names, package):
    """The path of a browser; skips where there is none, unless browsers are required."""
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        assert not os.environ.get("AGGREGATION_BROWSER_REQUIRED"), f"{names[0]} is missing"
        pytest.skip(f"no {names[0]} on this machine (Debian: apt-get install {package})")
    return path


@contextmanager
def chromium():
    path = found(("chromium", "google-chrome", "chrome"), "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


class Chromium:
    def __init__(self, browser):
        self.browser = browser

    @contextmanager
    def visit(self, path):
        page = self.browser.new_page(viewport={"width": 1280, "height": 900})
        visit = Visit(page.evaluate, lambda n: page.set_viewport_size({"width": n, "height": 900}))
        page.on("request", lambda request: self._asked(visit, path, request.url))
        page.on("console", lambda message: visit.said.append(message.text))
        page.on("pageerror", lambda error: visit.said.append(str(error)))
        page.on("dialog", lambda dialog: visit.said.append(dialog.message))
        page.goto(path.as_uri())
        yield visit
        page.close()

    def _asked(self, visit, path, url):
        if not url.startswith(("data:", path.as_uri())):
            visit.asked.append(url)


class Firefox:
    """A session of WebDriver BiDi."""

    def __init__(self, socket):
        self.socket, self.n, self.events = socket, 0, []
        self.call("session.new", capabilities={})
        events = ["log.entryAdded", "network.beforeRequestSent", "browsingContext.userPromptOpened"]
        self.call("session.subscribe", events=events)
        self.context = self.call("browsingContext.getTree")["contexts"][0]["context"]

    def call(self, method, **params):
        self.n += 1
        self.socket.send(json.dumps({"id": self.n, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.n:
                assert answer["type"] == "success", answer
                return answer["result"]
            self.events.append(answer)

    def evaluate(self, expression):
        expression = expression.strip()
        if re.match(r"(async )?\(?\w*\)? *=>", expression):
            expression = f"({expression})()"
        told = self.call(
            "script.evaluate",
            expression=f"Promise.resolve({expression}).then(v => JSON.stringify(v ?? null))",
            target={"context": self.context},
            awaitPromise=True,
        )
        assert told["type"] == "success", told
        return json.loads(told["result"]["value"])

    def resize(self, width):
        size = {"width": width, "height": 900}
        self.call("browsingContext.setViewport", context=self.context, viewport=size)

    @contextmanager
    def visit(self, path):
        self.resize(1280)
        self.evaluate("1")  # events of the page before arrive before its answer
        self.events.clear()
        visit, url = Visit(self.evaluate, self.resize), path.as_uri()
        self.call("browsingContext.navigate", context=self.context, url=url, wait="complete")
        self.evaluate("new Promise(requestAnimationFrame)")
        for event in self.events:
            told = event["params"]
            if event["method"] != "network.beforeRequestSent":
                visit.said.append(str(told.get("text") or told))
            elif not told["request"]["url"].startswith(("data:", url)):
                visit.asked.append(told["request"]["url"])
        yield visit


QUIET = """
user_pref("app.normandy.enabled", false);
user_pref("app.update.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("messaging-system.rsexperimentloader.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("services.settings.server", "data:,");
"""
"""Firefox asks nobody for news of itself."""


@contextmanager
def firefox(profile):
    path = found(("firefox-esr", "firefox"), "firefox-esr")
    (profile / "user.js").write_text(QUIET, encoding="utf-8")
    words = ["--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"]
    log = profile / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen([path, *map(str, words)], stdout=file, stderr=file)
    try:
        for _ in range(600):
            if address := re.search(r"BiDi listening on (ws://\S+)", log.read_text("utf-8")):
                break
            assert process.poll() is None, log.read_text("utf-8")
            time.sleep(0.1)
        assert address, f"Firefox is not ready after a minute: {log.read_text('utf-8')}"
        socket = create_connection(f"{address[1]}/session", timeout=60, suppress_origin=True)
        yield Firefox(socket)
        socket.close()
    finally:
        process.terminate()
        process.wait(30)
