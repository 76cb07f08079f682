"""Languages of the report: every message is translated, and its placeholders are kept."""

import re
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from aggregation.report.index import index_page
from aggregation.report.language import LANGUAGES, Language

PACKAGE = Path(str(files("aggregation")))
METHODS = [("**.py", "python"), ("**/templates/**.html", "jinja2")]
OPTIONS = {"**/templates/**.html": {"trimmed": "true", "newstyle_gettext": "true"}}


def messages():
    """Every message of the code and the templates; a tuple where it has a plural."""
    found = extract_from_dir(PACKAGE, METHODS, OPTIONS)
    return {message for _, _, message, _, _ in found}


@pytest.mark.parametrize("code", [c for c in LANGUAGES if c != "en"])
def test_every_message_is_translated_with_its_placeholders(code):
    catalogue = read_po(
        BytesIO((PACKAGE / "report" / "locale" / f"{code}.po").read_bytes()), locale=code
    )
    known = {m.id if isinstance(m.id, str) else tuple(m.id): m for m in catalogue if m.id}
    assert messages() == set(known), "run: make words"
    for message in known.values():
        assert not message.fuzzy, message.id
        pairs = [(message.id, message.string)]
        if not isinstance(message.id, str):
            pairs = list(zip(message.id, message.string, strict=True))
        for english, text in pairs:
            assert text, english
            assert placeholders(text) == placeholders(english), english
            assert re.findall(r"</?\w+", text) == re.findall(r"</?\w+", english)


def placeholders(text):
    return set(re.findall(r"%\((\w+)\)s", text))


def test_numbers_and_dates_follow_the_language():
    english, german = Language("en"), Language("de")
    assert [t.number(12345) for t in (english, german)] == ["12,345", "12.345"]
    assert [t.percent(0.891) for t in (english, german)] == ["89%", "89\u00a0%"]
    assert [t.decimal(0.375, 3) for t in (english, german)] == ["0.375", "0,375"]
    assert german.points(-0.114) == "−11"
    assert german.percent(float("nan")) == "–"


def test_the_page_is_in_the_language_that_is_asked_for(values):
    page = index_page(**values | {"language": "de"})
    assert '<html lang="de" dir="ltr">' in page
    assert "8 von 24 Leitlinien sind angenommen." in page
    words = re.sub("<(style|script).*?</\\1>", "", page, flags=re.DOTALL)
    for english in ("accepted", "smaller side", "How far to trust it", "guidelines are"):
        assert not re.search(rf">[^<]*\b{english}\b", words), english
