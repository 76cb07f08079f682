"""All pages in real browsers: quiet, safe against what strangers write, readable by everybody."""

import os
import re
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from hostile import TEXTS

from aggregation import Settings, World, deliberate, simulate
from aggregation.report.texts import marked

OPEN = "document.querySelectorAll('details').forEach(d => d.open = true)"

HELD = """[...document.querySelectorAll(".card")].every((card) => {
  card.style.contentVisibility = "visible";
  const ends = [...card.querySelectorAll(".text")].map((t) => t.getBoundingClientRect().bottom);
  return card.getBoundingClientRect().bottom + 1 >= Math.max(...ends);
})"""
"""Whether no text reaches out of its card."""

SCRIPTS = {"index", "people", "markdown", "two-axes"}
"""Pages with the one script that sorts tables."""


@pytest.fixture(scope="module")
def report(hostile):
    return hostile / "report" / "index.html"


def too_wide(visit, *widths):
    """The widths at which the page is wider than the window."""

    def wider(width):
        visit.resize(width)
        return visit.evaluate("document.documentElement.scrollWidth") > width

    return [width for width in widths if wider(width)]


def test_pages_need_no_network_run_nothing_and_fit_the_screen(any_browser, pages):
    for path in pages:
        with any_browser.visit(path) as visit:
            assert too_wide(visit, 1280, 320) == [], path.name
            assert visit.asked == [], path.name
            assert visit.said == [], path.name
            assert visit.evaluate("window.pwned") is None, path.name
            allowed = path.stem in SCRIPTS
            assert visit.evaluate("document.scripts.length") == allowed, path.name
            assert visit.evaluate("[...document.images].every(i => i.alt)"), path.name
            whole = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
            assert visit.evaluate(whole), path.name


def test_no_hostile_text_runs_fetches_or_breaks_the_page(any_browser, corpus_pages):
    assert len(TEXTS) >= 60
    for path in corpus_pages:
        with any_browser.visit(path) as visit:
            visit.evaluate(f"() => {{ {OPEN}; }}")
            assert visit.evaluate("window.pwned") is None, path.name
            assert visit.asked == [], path.name
            assert visit.said == [], path.name
            assert visit.evaluate("document.querySelectorAll('h1').length") == 1, path.name
            for width in (1920, 320):
                assert too_wide(visit, width) == [], path.name
                assert visit.evaluate(HELD), path.name  # nothing lies over what comes after it


def test_every_hostile_text_is_shown_as_it_was_written(any_browser, corpus_pages):
    with any_browser.visit(corpus_pages[0]) as visit:
        shown = visit.evaluate(
            "[...document.querySelectorAll('table.all td.text')].map(c => c.textContent)"
        )
    shown = {squeezed(text) for text in shown}
    for text in TEXTS:
        words = re.sub(r"<[^>]*>", "", str(marked(text[:2000])))
        whole = squeezed(unescape(words))
        assert any(whole in cell for cell in shown), text[:80]


def squeezed(text):
    return "".join(text.split())


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1280, "light"),
        (1280, "dark"),
        pytest.param(320, "light", marks=pytest.mark.slow),
        pytest.param(320, "dark", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_that_keeps_anybody_from_reading_a_page(browser, pages, width, scheme):
    """With AGGREGATION_SLOW=1 on every page in every way, which takes a minute."""
    found, slow = [], bool(os.environ.get("AGGREGATION_SLOW"))
    options = {
        "resultTypes": ["violations"],
        "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
        # Contrast takes most of the time, and is the same at all widths.
        "rules": {
            "color-contrast": {"enabled": slow or width == 1280},
            "target-size": {"enabled": True},
        },
    }
    if not slow:
        kinds = {
            (1280, "light"): {"index", "diagnostics", "comparison"},
            (320, "light"): {"index", "train"},
        }
        pages = [path for path in pages if path.stem in kinds.get((width, scheme), {"index"})]
    for path in pages:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.goto(path.as_uri())
        page.evaluate(OPEN)
        answer = Axe().run(page, options=options).response
        assert len(answer["passes"]) > 15
        for rule in answer["violations"]:
            found += [f"{path.name}: {rule['id']}: {n['html']:.200}" for n in rule["nodes"]]
        page.close()
    assert found == []


def test_texts_of_strangers_are_shown_as_they_wrote_them(browser, report):
    page = browser.new_page()
    page.goto(report.as_uri())
    assert page.locator("h1").inner_text() == "<script>window.pwned = 3</script>"
    shown = page.locator(".card .text").all_inner_texts()
    assert "<script>window.pwned = 1</script>Be kind" in shown
    assert any("{{ 7 * 7 }} {% raw %}" in text for text in shown)
    assert page.locator(".condition").first.text_content() == "Someone asks <b>why</b>:"
    assert page.locator("h3", has_text="<i>topic</i> 0").count() == 1
    assert max(map(len, shown)) < 21_000  # a text of a million letters is cut, and says so
    assert page.get_by_text("Cut here, of 1,000,000 characters").count() >= 1
    page.close()


def test_a_long_text_is_shown_in_part_until_it_is_opened(browser, report):
    page = browser.new_page()
    page.goto(report.as_uri())
    long = page.locator(".card details.long").first
    closed = long.bounding_box()["height"]
    assert closed < 400
    long.locator("summary").press("Enter")
    assert long.bounding_box()["height"] > 2 * closed
    page.close()


def test_no_participant_is_named_in_anything_published(hostile, pages):
    for path in [*pages, hostile / "constitution.csv", hostile / "constitution.md"]:
        assert "participant-secret" not in path.read_text("utf-8"), path.name
    assert "participant-secret" in (hostile / "constitution.json").read_text("utf-8")


@pytest.mark.parametrize("width", [320, 1280])
def test_no_word_of_the_page_is_broken_but_those_of_strangers(browser, report, width):
    """A word that has two boxes at different heights is broken."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(report.as_uri())
    page.evaluate(OPEN)
    broken = page.evaluate(
        """() => {
          const STRANGE = ".text, .condition, script, [dir=auto], footer, bdi", found = [];
          const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          for (let node; (node = walker.nextNode()); ) {
            const own = !node.parentElement.closest(STRANGE);
            if (!own || !node.parentElement.checkVisibility()) continue;
            for (const word of node.data.matchAll(/[A-Za-z]{3,20}/g)) {
              const range = document.createRange();
              range.setStart(node, word.index);
              range.setEnd(node, word.index + word[0].length);
              const tops = new Set([...range.getClientRects()].map((r) => Math.round(r.top)));
              if (tops.size > 1) found.push(word[0]);
            }
          }
          return found;
        }"""
    )
    assert broken == []
    page.close()


# the table of all guidelines


def column(visit, k):
    return visit.evaluate(
        "[...document.querySelectorAll('table.all tbody tr')].filter(r => !r.hidden)"
        f".map(r => r.cells[{k}].textContent)"
    )


def test_the_table_is_sorted_searched_and_filtered(any_browser, report):
    with any_browser.visit(report) as visit:
        press = "document.querySelectorAll('table.all thead button')[{}].click()"
        larger = [float(cell.strip("%")) for cell in column(visit, 3)]
        visit.evaluate(press.format(3))
        assert [float(cell.strip("%")) for cell in column(visit, 3)] == sorted(larger)[::-1]
        heading = "document.querySelectorAll('table.all th')[3].getAttribute('aria-sort')"
        assert visit.evaluate(heading) == "descending"
        visit.evaluate(press.format(3))
        assert [float(cell.strip("%")) for cell in column(visit, 3)] == sorted(larger)
        visit.evaluate(press.format(5))
        gaps = [int(cell.replace("−", "-")) for cell in column(visit, 5)]
        assert gaps == sorted(gaps)[::-1]
        visit.evaluate(press.format(0))
        assert column(visit, 0) == [str(k) for k in range(1, 25)]
        enter = (
            "() => {{ const field = document.querySelector('{}'); field.value = '{}';"
            " field.dispatchEvent(new Event('input', {{bubbles: true}})); }}"
        )
        visit.evaluate(enter.format("[data-search]", "EMOJI"))
        assert len(column(visit, 0)) == 3
        assert visit.evaluate("document.querySelector('output').textContent") == "3 of 24 shown"
        visit.evaluate(enter.format("[data-filter=verdict]", "turned down"))
        assert len(column(visit, 0)) == 2
        visit.evaluate(enter.format("[data-search]", ""))
        assert len(column(visit, 0)) == 16
        visit.evaluate(enter.format("[data-filter=topic]", "topic-3"))
        assert len(column(visit, 0)) == 8
        # A link to a row that is filtered away shows it.
        gone = visit.evaluate("document.querySelector('tr[id][hidden]')?.id ?? ''")
        assert gone
        visit.evaluate(f"() => {{ location.hash = '{gone}'; }}")
        visit.evaluate("new Promise(done => setTimeout(done, 100))")
        assert len(column(visit, 0)) == 24


def test_without_a_script_the_table_is_whole_and_no_dead_control_is_shown(browser, report):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator("table.all tbody tr").count() == 24
    assert page.locator("form.filters").is_hidden()
    assert page.locator("th button").count() == 0
    context.close()


def test_the_page_is_used_by_the_keyboard_alone(browser, report):
    page = browser.new_page()
    page.goto(report.as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"
    head = page.locator("table.all th button", has_text="gap")
    head.focus()
    outline = head.evaluate("e => getComputedStyle(e).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    assert page.locator("table.all th[aria-sort]").inner_text().startswith("gap")
    more = page.locator(".card .more summary").first
    more.focus()
    page.keyboard.press("Space")
    assert page.locator(".card .more").first.get_attribute("open") is not None
    page.close()


def test_every_chart_has_a_name_a_description_and_its_numbers_as_a_table(browser, report):
    page = browser.new_page()
    page.goto(report.as_uri())
    charts = page.locator("svg.chart")
    assert charts.count() == 3
    for k in range(3):
        ids = charts.nth(k).get_attribute("aria-labelledby").split()
        assert all(page.locator(f"#{name}").text_content() for name in ids)
    plots = page.locator("figure.plot")
    assert plots.count() == 2
    for k in range(2):
        assert plots.nth(k).get_by_text("Show as table").count() == 1
    page.close()


# colours and paper


def test_the_page_is_dark_where_the_reader_wants_it_and_light_on_paper(browser, report):
    page = browser.new_page(color_scheme="dark")
    page.goto(report.as_uri())
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(paper) == "rgb(20, 23, 26)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    bar = "getComputedStyle(document.querySelector('svg.rate .larger')).fill"
    assert page.evaluate(bar) == "rgb(6, 42, 77)"
    last = "[...document.querySelector('main').children].reduce((a, b) =>"
    last += (
        " a.getBoundingClientRect().bottom > b.getBoundingClientRect().bottom ? a : b).className"
    )
    assert page.evaluate(last) == "appendix"
    rows = page.evaluate("document.querySelector('.tall').scrollHeight")
    assert page.evaluate("document.querySelector('.tall').clientHeight") == rows
    page.close()


# other deliberations


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Reports of a few guidelines, of one, and of people who agree on everything."""
    place = tmp_path_factory.mktemp("others")
    export = simulate(2, World(n_users=40, n_guidelines=10)).export
    votes = pd.DataFrame(export["ratings"])[["authorId", "guidelineId", "rating"]]
    votes.columns = ["user_id", "guideline_id", "rating"]
    kinds = {
        "few": votes,
        "one": votes[votes["guideline_id"] == votes["guideline_id"].iloc[0]],
        "alike": votes.assign(rating="helpful"),
    }
    quick = Settings(starts=2, max_starts=2, moves=False)
    return [
        deliberate(table, settings=quick).report(place / f"{name}.html")
        for name, table in kinds.items()
    ]


def test_small_and_undivided_deliberations_have_pages_too(any_browser, others):
    for path in others:
        with any_browser.visit(path) as visit:
            assert too_wide(visit, 1280, 320) == []
            assert visit.asked == visit.said == []
            assert "undefined" not in visit.evaluate("document.body.innerText")


def test_screenshots_are_kept_where_that_is_asked_for(browser, report, others):
    """CI keeps them: AGGREGATION_SCREENSHOTS names the folder."""
    folder = os.environ.get("AGGREGATION_SCREENSHOTS")
    if not folder:
        pytest.skip("AGGREGATION_SCREENSHOTS is not set")
    for path in [report, *others]:
        for width, scheme in ((320, "light"), (1280, "dark")):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page.goto(path.as_uri())
            name = f"{path.parent.parent.name}-{path.stem}-{width}-{scheme}.png"
            page.screenshot(path=Path(folder) / name, full_page=True)
            page.close()
