"""The report in a real browser: whole, quiet, safe against what strangers write, readable."""

import csv
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright
from prolific_worlds import crowd

from aggregation import RunFolder
from aggregation.data.dataset import TABLES
from aggregation.data.topics import DEEPEST
from aggregation.decisions.table import overview
from aggregation.report.comparison import difference_page
from aggregation.report.index import PEOPLE, _doubts, index_page
from aggregation.report.notebook_pages import _mathml
from aggregation.report.run_list import write_listing
from aggregation.runs.runner import run
from aggregation.services.demographics import clean, counts
from aggregation.verify.compare import compare

HOSTILE = [
    "<script>window.pwned = 1</script>Be kind",
    '"><img src=x onerror="window.pwned = 2">',
    "{{ 7 * 7 }} {% raw %} ${alert(1)}",
    "[Someone asks <b>why</b>]: Answer & explain",
    "كن صادقا \u202eevil\u202c with both scripts",
    "多語言 😀 emoji\nand a second line",
    "a" * 1_000_000,
    "javascript:alert(1) [x](javascript:alert(2)) `code` $x^2$",
]
PAGES = ("index", "ingest", "train", "diagnostics", "publish")


def browser_path() -> str | None:
    return shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """A real run, kernels and all, on a table whose every text is an attack."""
    folder = tmp_path_factory.mktemp("hostile")
    random = np.random.default_rng(0)
    texts = HOSTILE * 3
    with (folder / "guidelines.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["guideline_id", "text", "topic"])
        rows.writerows([f"g{k}", t, f"<i>topic</i> {k % 2}"] for k, t in enumerate(texts))
    with (folder / "ratings.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["user_id", "guideline_id", "rating"])
        for u in range(40):
            for k in range(len(texts)):
                likes = 0.97 if k < 8 else 0.9 if (k < 16) == (u < 20) else 0.1
                word = "helpful" if random.random() < likes else "not_helpful"
                rows.writerow([f"participant-secret-{u}", f"g{k}", word])
    (folder / "params.yaml").write_text(
        "run: hostile\n"
        'title: "<script>window.pwned = 3</script>"\n'
        'question: "<img src=x onerror=alert(1)> & why?"\n'
        f"source: {{kind: table, path: '{folder}/ratings.csv', "
        f"guidelines: '{folder}/guidelines.csv', guideline_columns: {{topic: topic}}}}\n"
        "train: {starts: 2}\n"
    )
    return run(folder / "params.yaml", out=folder, say=lambda _: None)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    (folder / "params.yaml").write_text(
        "run: small\nseed: 20231013\nsource: {kind: simulated, n_users: 300}\ntrain: {starts: 2}\n"
    )
    return run(folder / "params.yaml", out=folder, say=lambda _: None)


@pytest.fixture(scope="module")
def browser():
    path = browser_path()
    if path is None:
        assert not os.environ.get("AGGREGATION_BROWSER_REQUIRED"), "Chromium is missing"
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield chromium
        chromium.close()


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_pages_need_no_network_run_nothing_and_fit_the_screen(browser, hostile, name, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    address = (hostile / "report" / f"{name}.html").as_uri()
    page.goto(address)
    assert [url for url in asked if not url.startswith(("data:", address))] == []
    assert said == []
    assert page.evaluate("window.pwned") is None
    assert page.locator("script").count() == 0
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    for image in page.locator("img").all():
        assert image.evaluate("i => i.complete && i.naturalWidth > 0")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory, hostile, simulated):
    """Every kind of page there is, as files."""
    place = tmp_path_factory.mktemp("pages")
    folder = RunFolder(shutil.copytree(simulated, place / "small"))
    folder.write_json(PEOPLE, counts(clean(crowd())).to_dict("records"))
    folder.write_text("report/index.html", index_page(folder))
    difference = place / "difference.html"
    difference.write_text(difference_page(compare(RunFolder(hostile), folder)), encoding="utf-8")
    own = (at / "report" / f"{name}.html" for at in (hostile, folder.path) for name in PAGES)
    return [*own, difference, write_listing(place)]


@pytest.mark.parametrize("width", [400, 1280])
def test_pages_can_be_read_by_everybody_as_far_as_axe_can_tell(browser, pages, width):
    found = []
    for path in pages:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        answer = Axe().run(page).response
        assert len(answer["passes"]) > 20
        for rule in answer["violations"]:
            found += [f"{path.name}: {rule['id']}: {n['html']:.200}" for n in rule["nodes"]]
        page.close()
    assert found == []


def test_pages_have_nothing_that_is_meant_for_jupyterlab_only(hostile):
    notebook = (hostile / "notebooks" / "train.ipynb").read_text("utf-8")
    assert "To work on a parameter file in JupyterLab" in notebook
    assert "To work on a parameter file" not in (hostile / "report" / "train.html").read_text()


def test_tex_that_cannot_be_read_is_shown_as_it_is():
    assert _mathml(r"\begin{matrix} a & b", "inline") == r"<code>\begin{matrix} a &amp; b</code>"
    assert "<math" in _mathml("a^2", "inline")


def test_the_report_links_to_the_pages_that_are_there(hostile, tmp_path):
    folder = RunFolder(shutil.copytree(hostile, tmp_path / "hostile"))
    notebooks = folder.path / "notebooks"
    (notebooks / "train.ipynb").rename(notebooks / "train.failed.ipynb")
    (notebooks / "publish.ipynb").rename(notebooks / "publish.partial.ipynb")  # under way
    page = index_page(folder)
    links = re.findall(r'<a href="(\w+)\.html">', page)
    assert list(dict.fromkeys(links)) == ["ingest", "diagnostics", "publish"]


def test_topics_as_deep_as_they_may_be_are_shown(simulated, tmp_path):
    folder = RunFolder(shutil.copytree(simulated, tmp_path / "small"))
    topics = folder.dataset().topics
    chain = pd.DataFrame(
        {
            "topic_id": [f"d{k}" for k in range(DEEPEST - 1)],
            "title": [f"level {k}" for k in range(DEEPEST - 1)],
            "description": None,
            "parent_id": [None, *(f"d{k}" for k in range(DEEPEST - 2))],
        }
    )
    topics = topics.assign(parent_id=f"d{DEEPEST - 2}")
    folder.write_table("data/topics.parquet", pd.concat([chain, topics]), TABLES["topics"])
    page = index_page(folder)
    assert f">level {DEEPEST - 2}</h6>" in page
    paths = overview(folder.constitution(), folder.dataset())["topic"]
    assert paths.str.count(" > ").max() == DEEPEST - 1


def test_ratings_that_are_all_the_same_are_the_first_doubt(hostile):
    folder = RunFolder(hostile)
    rest = folder.constitution(), folder.read_json("model/fit.json"), []
    dataset = folder.dataset()
    assert not any(doubt.startswith("Every rating") for doubt in _doubts(dataset, *rest))
    alike = replace(dataset, ratings=dataset.ratings.assign(helpful=1.0))
    assert _doubts(alike, *rest)[0].startswith("Every rating is the same")


def test_strangers_texts_are_shown_as_they_wrote_them(browser, hostile):
    page = browser.new_page()
    page.goto((hostile / "report" / "index.html").as_uri())
    assert page.locator("h1").inner_text() == "<script>window.pwned = 3</script>"
    shown = page.locator(".card .text").all_inner_texts()
    assert "<script>window.pwned = 1</script>Be kind" in shown
    assert any("{{ 7 * 7 }} {% raw %}" in text for text in shown)
    condition = page.locator(".condition").first.inner_text()
    assert condition == "Someone asks <b>why</b>:"
    assert page.locator("h3", has_text="<i>topic</i> 0").count() == 1
    assert max(map(len, shown)) < 2100  # a text of a million letters is cut, and says so
    assert any("1,000,000 characters" in text for text in shown)
    page.close()


def test_no_participant_is_named_in_anything_published(hostile):
    published = [*(hostile / "report").iterdir(), hostile / "constitution.csv"]
    assert len(published) == 6
    for path in published:
        assert "participant-secret" not in path.read_text("utf-8"), path.name
    assert "participant-secret" in (hostile / "constitution.json").read_text("utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_every_page_of_a_simulated_run_says_so(browser, simulated, hostile, name):
    page = browser.new_page()
    page.goto((simulated / "report" / f"{name}.html").as_uri())
    assert page.locator(".banner").is_visible()
    assert "Simulated" in page.locator(".banner").inner_text()
    page.goto((hostile / "report" / f"{name}.html").as_uri())
    assert page.locator(".banner").count() == 0
    page.close()


def test_the_report_holds_the_constitution_by_topic_with_its_numbers(browser, simulated):
    from aggregation import RunFolder

    constitution = RunFolder(simulated).constitution()
    page = browser.new_page()
    page.goto((simulated / "report" / "index.html").as_uri())
    cards = page.locator("#constitution ~ .cards .card")
    near = page.locator("#near ~ .cards .card")
    accepted = constitution.accepted
    assert len(accepted) > 5
    assert cards.count() - near.count() == len(accepted)
    assert near.count() == min(len(constitution.near_misses()), 12)
    first = page.locator("#guideline-1").inner_text().replace("\u00a0", " ")
    row = accepted.iloc[0]
    assert f"{100 * row['helpful_rate']:.0f} % helpful of {row['n_ratings']} ratings" in first
    assert f"Consensus {100 * row['consensus_score']:.0f} %" in first
    assert page.locator("text=No guideline accepted yet, of 17 guidelines.").count() == 1
    reason = page.locator("#near ~ .cards .reasons").first.inner_text()
    assert re.match(r"Not accepted: .+, needs (more than|at least) ", reason)
    page.close()


def test_every_link_of_the_report_leads_somewhere(simulated):
    for name in PAGES:
        text = (simulated / "report" / f"{name}.html").read_text("utf-8")
        for target in re.findall(r'href="([^"]+)"', text):
            if target.startswith(("data:", "#")):
                continue
            assert (simulated / "report" / target).exists(), f"{name}: {target}"


def test_formulas_are_mathml_not_tex(simulated):
    text = (simulated / "report" / "train.html").read_text("utf-8")
    assert text.count("<math") >= 2
    assert "\\lambda" not in re.sub(r"<details.*?</details>", "", text, flags=re.DOTALL)


def test_histograms_are_drawn_to_the_numbers(browser, simulated):
    from aggregation import RunFolder, perspectives

    folder = RunFolder(simulated)
    ratings, ids, parameters = folder.model()
    found = perspectives(ratings, parameters.user_embedding)
    row = ids.guidelines.get_loc(folder.constitution().accepted["guideline_id"].iloc[0])
    page = browser.new_page()
    page.goto((simulated / "report" / "index.html").as_uri())
    heights = page.locator("#guideline-1 rect.h").evaluate_all(
        "bars => bars.map(b => +b.getAttribute('height'))"
    )
    tallest = (found.helpful[row] + found.not_helpful[row]).max()
    np.testing.assert_allclose(heights, 44 * found.helpful[row] / tallest, atol=0.01)
    page.close()
