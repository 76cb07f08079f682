"""Takes the README's picture, the top of the demo's report, by headless Chromium."""

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]

with sync_playwright() as playwright:
    browser = playwright.chromium.launch(
        executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
    )
    page = browser.new_page(viewport={"width": 960, "height": 1150})
    page.goto((ROOT / "outputs" / "demo" / "report" / "index.html").as_uri())
    page.screenshot(path=ROOT / "docs" / "report.png")
    browser.close()
