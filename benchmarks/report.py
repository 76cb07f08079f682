"""The report's size, and how fast it is made, opened, sorted and searched, in headless Chromium.

python benchmarks/report.py RUN...   # folders of finished runs, such as outputs/demo
"""

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from aggregation.params.loading import load_params
from aggregation.runs.folder import open_run
from aggregation.runs.pages import report_page

REPEATS = 5

ACTIONS = {
    "sort": "document.querySelectorAll('table.all thead button')[3].click()",
    "search": "(f => { f.value = 'a'; f.dispatchEvent(new Event('input', {bubbles: true})); })"
    "(document.querySelector('[data-search]'))",
}


def timed(page, action):
    """Milliseconds until the action is done and the page laid out."""
    return page.evaluate(
        "() => { const start = performance.now(); "
        f"{action}; document.body.offsetHeight; return performance.now() - start; }}"
    )


def measure(browser, run):
    folder = open_run(run)
    start = time.perf_counter()
    text = report_page(folder, folder.load(), load_params(folder.path / "params.yaml"))
    found = {"made": [1000 * (time.perf_counter() - start)], "opened": [], "sort": [], "search": []}
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "index.html"
        file.write_text(text, encoding="utf-8")
        for _ in range(REPEATS):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(file.as_uri())
            timing = "performance.getEntriesByType('navigation')[0].domComplete"
            found["opened"].append(page.evaluate(timing))
            for name, action in ACTIONS.items():
                found[name].append(timed(page, action))
            page.close()
    numbers = (f"{statistics.median(values):,.0f}" for values in found.values())
    return " | ".join([run, f"{len(text.encode()) / 1000:,.0f}", *numbers])


with sync_playwright() as playwright:
    chromium = playwright.chromium.launch(
        executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
    )
    print("| run | kB | made, ms | opened | sorted | searched |\n|---|---|---|---|---|---|")
    for name in sys.argv[1:]:
        print(f"| {measure(chromium, name)} |", flush=True)
    chromium.close()
