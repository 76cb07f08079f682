"""What strangers wrote is shown, and does nothing."""

import re
from html import unescape

import pytest
from hypothesis import given, strategies as st

from aggregation.report.texts import MARKS, TAGS, brief, markdown, marked, split_condition


@given(st.text())
def test_a_text_is_whole_and_holds_no_tag_of_its_own(text):
    shown = marked(text)
    assert set(re.findall(r"<[^>]*>", shown)) <= {'<span class="mark">', "</span>"}
    without = re.sub(r'<span class="mark">[^<]*</span>', "", shown)
    visible = [c for c in text if c.isalnum() and c.isascii()]
    assert [c for c in unescape(without) if c.isalnum() and c.isascii()] == visible


@pytest.mark.parametrize("character", MARKS)
def test_characters_that_nobody_sees_are_shown_as_marks(character):
    shown = marked(f"be{character}kind")
    assert character not in shown
    assert f'be<span class="mark">{MARKS[character]}</span>kind' == shown


def test_joiners_stay_where_a_script_or_an_emoji_needs_them():
    for text in ("👩‍💻", "می‌خواهم", "क्‍ष"):
        assert marked(text) == text
    assert "ZWJ" in marked("ad\u200dmin")


def test_marks_stacked_upon_a_letter_are_cut_and_counted():
    shown = marked("e" + "\u0301" * 40 + " end")
    assert shown == "e" + "\u0301" * 3 + '<span class="mark">+37</span> end'
    assert marked("Việt Nam é") == "Việt Nam é"


@given(st.text())
def test_markdown_gives_only_harmless_tags_without_attributes(text):
    for tag in re.findall(r"<[^>]*>", markdown(text)):
        assert tag == '<span class="mark">' or re.fullmatch(r"</?(\w+) ?/?>", tag)[1] in {
            *TAGS,
            "span",
        }


def test_markdown_keeps_emphasis_and_lists_and_drops_links_and_pictures():
    text = "**a** _b_ [c](https://x.invalid) ![d](https://x.invalid/p.png) <i>e</i>\n\n- f\n- g"
    shown = markdown(text)
    assert "<strong>a</strong> <em>b</em> c" in shown
    assert "<ul><li>f</li><li>g</li></ul>" in shown
    assert "&lt;i&gt;e&lt;/i&gt;" in shown
    assert "x.invalid" not in shown


def test_the_condition_before_a_guideline_is_parted_from_it():
    assert split_condition("[Someone asks]: Answer") == ("Someone asks", "Answer")
    assert split_condition("[Someone asks]:") == ("", "[Someone asks]:")
    assert split_condition("Answer [x]: y") == ("", "Answer [x]: y")


def test_a_text_in_brief_is_cut_at_a_word():
    assert brief("one two  three\nfour", 9) == "one two…"
    assert brief("one two", 9) == "one two"
    assert brief("o\u202ene\x00", 9) == "one\ufffd"
    assert brief("x" * 1_000_000, 9) == "x" * 9 + "…"
