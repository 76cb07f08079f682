"""The CSV is read as CSV, who withdrew is left out, and no small number can be known."""

import itertools
import json

import pytest
from hypothesis import given, strategies as st
from prolific_worlds import HEADER, HOMEMAKER, TYPICAL, cleaned, crowd, export, person, row
from worlds import assert_says

from aggregation import InputError
from aggregation.report import sentences
from aggregation.report.demographics import demographics_section
from aggregation.report.environment import templates
from aggregation.services.demographics import (
    CATEGORIES,
    REQUIRED,
    body,
    clean,
    counts,
    parse,
    suppressed,
)


def fate(found, action, reason=""):
    return sum(c.n for c in found.counts if c.action == action and reason in c.reason)


def number(found, category, value):
    table = counts(found)
    return table[(table["category"] == category) & (table["value"] == value)]["n"].tolist()


def page(found):
    section = demographics_section(counts(found).to_dict("records"))
    return templates().get_template("demographics.html").render(demographics=section, say=sentences)


# reading


@pytest.mark.parametrize("mark", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_cells_come_back_as_they_were_written(mark, end):
    rows = [
        row(1),
        row(2, Vegetarian='a "quoted", cell', Nationality="Côte d'Ivoire"),
        row(3, Vegetarian="two\nlines"),
    ]
    data = export(rows, mark=mark, end=end)
    assert HOMEMAKER.encode() in data
    assert parse(data, "s") == rows


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=4))
def test_any_text_survives_being_a_cell(texts):
    rows = [row(k, Vegetarian=text) for k, text in enumerate(texts)]
    assert parse(export(rows, end="\r\n"), "s") == rows


def test_columns_that_are_not_required_may_differ_or_be_missing():
    short = [name for name in HEADER if name in REQUIRED]
    assert parse(export([row(1)], header=short), "s") == [{n: row(1)[n] for n in short}]


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_column_is_an_error_that_names_study_and_column(name):
    data = export([row(1)], header=[h for h in HEADER if h != name])
    with pytest.raises(InputError) as error:
        parse(data, "study 'Tax' (a1)")
    assert_says(error, "study 'Tax' (a1), line 1", repr(name), "demographics.endpoint")


def test_a_column_twice_is_an_error():
    with pytest.raises(InputError) as error:
        parse(export([row(1)], header=[*HEADER, "Age"]), "study a1")
    assert_says(error, "study a1, line 1", "'Age' occurs twice")


def broken(line):
    """A good row on lines 2 and 3, then `line`, the participant's id in it."""
    return export([row(1, Vegetarian="two\nlines")]) + line.replace("ID", person(2)).encode()


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (broken("x,ID,APPROVED\n"), ["line 4", "fewer cells than the header"]),
        (broken('x,"ID"y,APPROVED\n'), ["line 4", "export it again"]),
        (broken('x,"ID,APPROVED\n'), ["export it again"]),
        (export([row(1), row(2, Completed_at=person(2))]), ["line 3", "'Completed at'"]),
        (export([row(1) | {"Participant id": " "}]), ["line 2", "'Participant id'"]),
        (export([row(1) | {"Participant id": "DATA_EXPIRED"}]), ["line 2", "'Participant id'"]),
        (export([row(2)]) + b"\xff\xfe", ["UTF-8"]),
        (export([row(2)]).partition(b"\n")[2], ["line 1", "no demographic export"]),
        (b"<html>Sign in</html>", ["line 1", "no demographic export"]),
        (b"", ["line 1", "no demographic export"]),
    ],
)
def test_what_is_no_export_is_an_error_with_its_line_and_without_its_cells(data, parts):
    with pytest.raises(InputError) as error:
        parse(data, "study a1")
    assert_says(error, "study a1", *parts)
    assert "c0ffee" not in str(error.value)
    assert len(str(error.value).splitlines()) <= 3
    assert error.value.__context__ is None or error.value.__suppress_context__


# cleaning


@pytest.mark.parametrize("column", [name for name in HEADER if name != "Participant id"])
def test_a_row_with_withdrawn_consent_in_any_cell_goes_nowhere(column):
    withdrawn = row(1) | {column: "CONSENT_REVOKED"}
    found = cleaned(s=[withdrawn, row(2)])
    assert found.studies == {"s": [row(2)]}
    assert found.people == [row(2)]
    assert fate(found, "dropped", "consent withdrawn") == 1
    assert b"REVOKED" not in body(found)


def test_who_withdrew_in_one_study_is_left_out_of_all():
    found = cleaned(a=[row(1), row(2)], b=[row(1, Age="CONSENT_REVOKED", Status="RETURNED")])
    assert person(1).encode() not in body(found)
    assert [r["Participant id"] for r in found.people] == [person(2)]
    assert fate(found, "dropped", "consent withdrawn") == 2


def test_a_row_that_lost_its_participant_by_withdrawal_is_no_error():
    gone = dict.fromkeys(HEADER, "CONSENT_REVOKED")
    assert cleaned(s=[gone, row(1)]).studies == {"s": [row(1)]}


@pytest.mark.parametrize("status", ["RETURNED", "TIMED-OUT", "REJECTED", "timed_out", "TIMED OUT"])
def test_unfinished_and_rejected_submissions_are_left_out(status):
    found = cleaned(s=[row(1, Status=status), row(2, Status="AWAITING REVIEW")])
    assert found.studies == {"s": [row(2, Status="AWAITING REVIEW")]}
    assert fate(found, "dropped", "status") == 1


def test_which_statuses_are_left_out_is_a_setting():
    rows = {"s": [row(1, Status="RETURNED"), row(2, Status="AWAITING REVIEW")]}
    assert clean(rows, ()).studies == rows
    assert clean(rows, ["AWAITING REVIEW"]).studies == {"s": rows["s"][:1]}


def test_expired_answers_are_posted_as_they_are_and_counted_as_unknown():
    rows = [row(k, Sex="DATA_EXPIRED" if k < 12 else "Male", Age="DATA_EXPIRED") for k in range(30)]
    found = cleaned(s=rows)
    assert found.studies["s"] == rows
    assert number(found, "sex", "unknown") == [12]
    assert number(found, "age", "unknown") == [30]


def test_a_participant_of_several_studies_is_counted_once_as_completed_last():
    rows = {
        "a": [row(k, Sex="Male", Completed_at="2023-06-21T01:00:00+02:00") for k in range(12)],
        "b": [row(k, Sex="Female", Completed_at="2023-06-20T22:59:59.9Z") for k in range(12)],
        "c": [row(k, Sex="Other", Completed_at="") for k in range(12)],
    }
    found = cleaned(**rows)
    assert number(found, "sex", "Male") == number(found, "people", "all") == [12]
    assert found.studies == rows  # the posted body keeps all
    assert (fate(found, "merged"), fate(found, "note", "differing")) == (24, 12)


def test_agreeing_answers_are_merged_without_a_note():
    found = cleaned(a=[row(1)], b=[row(1, Completed_at="2024-01-01T00:00:00Z")])
    assert (fate(found, "merged"), fate(found, "note")) == (1, 0)


@given(st.permutations(["a", "b", "c"]), st.lists(st.integers(1, 3), min_size=3, max_size=3))
def test_the_order_of_studies_changes_nothing(order, days):
    rows = {
        study: [row(1, Sex=study, Completed_at=f"2023-06-0{day}T00:00:00Z"), row(2)]
        for study, day in zip("abc", days)
    }
    one, other = clean(rows, ()), clean({study: rows[study] for study in order}, ())
    assert one == other
    assert body(one) == body(other)


def test_every_submission_meets_exactly_one_fate():
    found = cleaned(**crowd())
    n = {action: fate(found, action) for action in ("read", "dropped", "merged", "kept")}
    assert n == {"read": 84, "dropped": 4, "merged": 20, "kept": 60}


def test_the_body_has_the_originals_shape():
    found = cleaned(b=[row(2)], a=[row(1, Nationality="Côte d'Ivoire"), row(3, Status="RETURNED")])
    sent = json.loads(body(found))
    assert sent == {
        "studyIdToDemoData": {"a": [row(1, Nationality="Côte d'Ivoire")], "b": [row(2)]}
    }
    assert list(sent["studyIdToDemoData"]["b"][0]) == HEADER


def test_what_holds_participants_does_not_show_them():
    found = cleaned(**crowd())
    shown = repr(found) + found.fates().to_string()
    assert "c0ffee" not in shown


# counting


def test_the_categories_are_those_of_the_platforms_page():
    found = cleaned(s=[row(k) for k in range(10)])
    table = counts(found)
    assert table[["category", "value"]].to_numpy().tolist() == [
        ["people", "all"],
        ["age", "30-34"],
        *([category, TYPICAL[column]] for category, column in list(CATEGORIES.items())[1:]),
    ]
    assert table["n"].tolist() == [10] * 10
    assert not table["suppressed"].any()


def test_ages_are_in_bars_of_five_years_and_upwards():
    ages = ["9", "20", "24", "25", "29", "100", "x", "", "19.5", "DATA_EXPIRED"]
    found = cleaned(s=[row(10 * k + j, Age=age) for k, age in enumerate(ages) for j in range(10)])
    table = counts(found)
    bars = table[table["category"] == "age"]
    assert dict(zip(bars["value"], bars["n"])) == {
        "5-9": 10,
        "20-24": 20,
        "25-29": 20,
        "100-104": 10,
        "unknown": 40,
    }
    assert list(bars["value"]) == ["5-9", "20-24", "25-29", "100-104", "unknown"]


def test_of_fewer_than_ten_people_nothing_is_told_not_even_the_answers():
    found = cleaned(s=[row(k) for k in range(9)])
    table = counts(found)
    assert table["suppressed"].all()
    assert table["n"].isna().all()
    assert set(table["value"]) == {"all", ""}


@pytest.mark.parametrize(
    ("cells", "held"),
    [
        ({"a": 10, "b": 12}, set()),
        ({"a": 50, "b": 20, "c": 3}, {"b", "c"}),  # one alone is the difference to the total
        ({"a": 50, "b": 9, "c": 3}, {"b", "c"}),
        ({"a": 50, "b": 4, "c": 3}, {"a", "b", "c"}),  # their sum alone tells that both are few
        ({"a": 50, "b": 20, "c": 20, "d": 3}, {"b", "c", "d"}),  # b or c would give the order away
        ({"a": 50, "b": 10, "c": 9, "d": 9}, {"b", "c", "d"}),  # 18 = 9 + 9 below 10
        ({"a": 5, "b": 6}, {"a", "b"}),
        ({"a": 4, "b": 5}, None),  # nine people
        ({"a": 5, "b": 5}, None),  # ten: each is known to be at most nine
        (dict.fromkeys("abcdefghijkl", 1), None),  # twelve people, twelve answers
        ({"a": 12}, set()),
        ({"a": 3}, None),
        ({}, None),
    ],
)
def test_small_numbers_are_held_back_with_as_many_more_as_it_takes(cells, held):
    assert suppressed(cells, 10) == held


def view(cells, least):
    """All that is published of one category: the total, the numbers shown, the values held back."""
    held = suppressed(cells, least)
    if held is None:
        return None
    shown = {value: n for value, n in cells.items() if value not in held}
    return sum(cells.values()), shown, held


tables = st.lists(st.integers(1, 40), max_size=9).map(lambda ns: dict(zip("abcdefghi", ns)))


@given(tables)
def test_no_number_below_ten_is_shown_or_follows_from_the_total(cells):
    published = view(cells, 10)
    if published is None:
        assert sum(cells.values()) < 10 or min(cells.values()) < 10
        return
    total, shown, held = published
    assert all(n >= 10 for n in shown.values())
    rest = total - sum(shown.values())
    if held:
        assert len(held) >= 2
        assert rest >= 10
        assert rest - (len(held) - 1) >= 10  # the most that each of them could be
    else:
        assert rest == 0


@given(st.lists(st.integers(1, 7), min_size=1, max_size=5).map(lambda ns: dict(zip("abcde", ns))))
def test_not_even_who_knows_the_rule_can_compute_a_number_held_back(cells):
    least = 3
    published = view(cells, least)
    if published is None or not published[2]:
        return
    total, shown, held = published
    rest = total - sum(shown.values())
    worlds = [
        numbers
        for numbers in itertools.product(range(1, rest), repeat=len(held))
        if sum(numbers) == rest
        and view(shown | dict(zip(sorted(held), numbers)), least) == published
    ]
    assert tuple(cells[value] for value in sorted(held)) in worlds
    for possible in zip(*worlds):
        assert len(set(possible)) > 1


answers = st.sampled_from(["Male", "Female", "Other", "DATA_EXPIRED", ""])


@given(st.lists(st.tuples(answers, st.integers(18, 45)), max_size=60))
def test_the_published_table_gives_no_small_number_away(people):
    found = cleaned(s=[row(k, Sex=sex, Age=str(age)) for k, (sex, age) in enumerate(people)])
    table = counts(found)
    assert [n for n in table["n"] if n is not None and n < 10] == []
    assert all((n is None) == held for n, held in zip(table["n"], table["suppressed"]))
    total = table["n"][0]
    assert total == (len(people) if len(people) >= 10 else None)
    for _, rows in table[1:].groupby("category"):
        held = rows[rows["suppressed"]]
        if held.empty:
            assert rows["n"].sum() == total
        elif list(rows["value"]) != [""]:
            assert len(held) >= 2
            assert total - rows["n"].dropna().sum() >= 10


def test_the_order_of_the_table_tells_nothing_of_the_numbers_held_back():
    sexes = ["Male"] * 30 + ["Female"] * 40 + ["x"] * 2 + ["y"] * 11
    swapped = ["Male"] * 30 + ["Female"] * 40 + ["x"] * 11 + ["y"] * 2
    one, other = (
        counts(cleaned(s=[row(k, Sex=sex) for k, sex in enumerate(of)])) for of in (sexes, swapped)
    )
    assert one.equals(other)
    assert list(one[one["category"] == "sex"]["value"]) == ["Female", "Male", "x", "y"]


# the section of the report


def test_the_section_shows_the_counts_and_says_what_it_keeps_back():
    rows = [row(k, Sex="Male" if k < 5 else "Female", Nationality=f"N{k}") for k in range(40)]
    text = page(cleaned(s=rows))
    assert "<b>40</b> people" in text
    assert "2 numbers are not shown (–), because fewer than 10 people gave that answer" in text
    assert "Nothing can be shown of nationality" in text
    assert '<th scope="row" dir="auto">Male</th><td class="num" colspan="2">–</td>' in text
    assert "N17" not in text
    assert 'United Kingdom</th><td class="num">40</td><td class="num">100%</td>' in text
    assert 'width="100.00%"' in text


def test_the_section_says_when_all_is_shown_and_when_nothing_can_be():
    assert "all numbers are shown" in page(cleaned(s=[row(k) for k in range(10)]))
    few = page(cleaned(s=[row(k) for k in range(9)]))
    assert "Fewer than 10 people" in few
    assert "<table" not in few


def test_answers_are_escaped():
    text = page(cleaned(s=[row(k, Language="<script>alert(1)</script>") for k in range(10)]))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
