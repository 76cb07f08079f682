"""All pages in a real browser: quiet, safe against what strangers write, readable by everybody."""

import pytest
from axe_playwright_python.sync_playwright import Axe


@pytest.mark.parametrize("width", [400, 1280])
def test_pages_need_no_network_run_nothing_and_fit_the_screen(browser, pages, width):
    for path in pages:
        page = browser.new_page(viewport={"width": width, "height": 900})
        asked, said = [], []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.on("console", lambda message, said=said: said.append(message.text))
        page.on("pageerror", lambda error, said=said: said.append(str(error)))
        page.on("dialog", lambda dialog, said=said: said.append(dialog.message))
        page.goto(path.as_uri())
        assert [url for url in asked if not url.startswith(("data:", path.as_uri()))] == []
        assert said == [], path.name
        assert page.evaluate("window.pwned") is None, path.name
        assert page.locator("script").count() == 0, path.name
        assert page.locator("img:not([alt]), img[alt='']").count() == 0, path.name
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)"), (
            path.name
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path.name
        page.close()


@pytest.mark.parametrize(("width", "contrast"), [(400, False), (1280, True)])
def test_axe_finds_nothing_that_keeps_anybody_from_reading_a_page(browser, pages, width, contrast):
    found = []
    options = {  # contrast takes most of the time, and is the same at all widths
        "resultTypes": ["violations"],
        "rules": {"color-contrast": {"enabled": contrast}},
    }
    for path in pages if contrast else pages[:2]:  # one of each kind: a report, a notebook
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        answer = Axe().run(page, options=options).response
        assert len(answer["passes"]) > 20
        for rule in answer["violations"]:
            found += [f"{path.name}: {rule['id']}: {n['html']:.200}" for n in rule["nodes"]]
        page.close()
    assert found == []


def test_texts_of_strangers_are_shown_as_they_wrote_them(browser, hostile):
    page = browser.new_page()
    page.goto((hostile / "report" / "index.html").as_uri())
    assert page.locator("h1").inner_text() == "<script>window.pwned = 3</script>"
    shown = page.locator(".card .text").all_inner_texts()
    assert "<script>window.pwned = 1</script>Be kind" in shown
    assert any("{{ 7 * 7 }} {% raw %}" in text for text in shown)
    assert page.locator(".condition").first.inner_text() == "Someone asks <b>why</b>:"
    assert page.locator("h3", has_text="<i>topic</i> 0").count() == 1
    assert max(map(len, shown)) < 2100  # a text of a million letters is cut, and says so
    assert any("of 1,000,000 characters" in text for text in shown)
    page.close()


def test_no_participant_is_named_in_anything_published(hostile, pages):
    for path in [*pages, hostile / "constitution.csv"]:
        assert "participant-secret" not in path.read_text("utf-8"), path.name
    assert "participant-secret" in (hostile / "constitution.json").read_text("utf-8")


@pytest.mark.parametrize("width", [400, 1280])
def test_no_word_of_the_table_of_all_guidelines_is_broken(browser, hostile, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto((hostile / "report" / "index.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    cells = page.locator("table.all tbody tr td:nth-child(3)")
    heights = cells.evaluate_all(
        "cells => cells.map(c => c.querySelector('*') ? 0 : (() => {"
        "const r = document.createRange(); r.selectNodeContents(c);"
        "return r.getClientRects().length})())"
    )
    assert heights == [1] * 24  # a verdict is one word on one line
    last = page.locator("table.all tbody tr td:last-child").evaluate_all(
        "cells => cells.map(c => c.getBoundingClientRect().width)"
    )
    assert min(last) >= 200
    page.close()
