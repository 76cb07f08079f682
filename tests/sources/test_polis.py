"""Polis: the last vote counts, the sign is found out, nothing is lost unseen."""

import pandas as pd
import pytest
from worlds import assert_conserved, assert_says, cells, counted, polis_folder, reading, rows_to

from aggregation import InputError

FOLDERS = [
    "bg2050-volunteers",
    "brexit-consensus",
    "london.youth.policing",
    "scoop-hivemind.taxes",
    "scoop-hivemind.ubi",
    "vtaiwan.uberx",
]
PASS = {"values": {"agree": "helpful", "disagree": "not_helpful", "pass": 0.5}}
T = 1_700_000_000_000
TWO = [("0", "9", 2, 1), ("1", "9", 1, 1)]
VOTES = [(T, "0", "a", 1), (T, "0", "b", 1), (T, "1", "a", -1), (T, "1", "b", 1)]
"""Statement 0: both agree; statement 1: a disagrees, b agrees. The totals of TWO fit agree=1."""
READ = {("a", "0"): 1.0, ("b", "0"): 1.0, ("a", "1"): 0.0, ("b", "1"): 1.0}


def flipped(events):
    return [(at, statement, who, -vote) for at, statement, who, vote in events]


def sizes(dataset):
    return len(dataset.ratings), len(dataset.users), len(dataset.guidelines)


@pytest.mark.parametrize(
    ("name", "moderation", "expected"),
    [
        ("scoop-hivemind.taxes", "all", (15113, 327, 148)),
        ("scoop-hivemind.taxes", "lenient", (15056, 326, 91)),
        ("brexit-consensus", "all", (4637, 201, 50)),
        ("vtaiwan.uberx", "all", (42923, 1810, 197)),
        ("vtaiwan.uberx", "lenient", (42830, 1800, 119)),
    ],
)
def test_real_deliberations_have_their_known_sizes(data, name, moderation, expected):
    assert sizes(reading("polis", data / "polis" / name, moderation=moderation)) == expected


@pytest.mark.parametrize(
    ("name", "votes"),
    # agree, disagree, pass: shared/data/README.md, counted apart from this package
    [
        ("scoop-hivemind.taxes", (8577, 6536, 2222)),
        ("brexit-consensus", (2685, 1952, 666)),
        ("london.youth.policing", (392, 192, 54)),
        ("bg2050-volunteers", (10006, 1621, 2656)),
        ("scoop-hivemind.ubi", (4582, 1759, 812)),
        ("vtaiwan.uberx", (31029, 11894, 6520)),
    ],
)
def test_agrees_disagrees_and_passes_are_those_published(data, name, votes):
    got = reading("polis", data / "polis" / name, PASS, moderation="all", meta="keep")
    values = got.ratings["helpful"].value_counts()
    assert (values[1.0], values[0.0], values[0.5]) == votes


@pytest.mark.parametrize("name", FOLDERS)
def test_log_and_matrix_tell_the_same_and_lose_nothing(data, name):
    log = reading("polis", data / "polis" / name, moderation="all", votes="log")
    matrix = reading("polis", data / "polis" / name, moderation="all", votes="matrix")
    same = ["user_id", "guideline_id", "helpful"]
    pd.testing.assert_frame_equal(log.ratings[same], matrix.ratings[same])
    pd.testing.assert_frame_equal(log.guidelines, matrix.guidelines)
    assert log.ratings["rated_at"].notna().all()
    assert matrix.ratings["rated_at"].isna().all()
    assert_conserved(log)
    assert_conserved(matrix)


@pytest.mark.parametrize("moderation", ["all", "lenient", "strict"])
@pytest.mark.parametrize("name", FOLDERS[:3])
def test_every_choice_conserves_rows(data, name, moderation):
    choices = {"self_ratings": "drop", "min_per_user": 5, "min_per_guideline": 5}
    got = reading("polis", data / "polis" / name, choices, moderation=moderation)
    assert_conserved(got)
    assert got.ratings.groupby("user_id").size().min() >= 5
    assert got.ratings.groupby("guideline_id").size().min() >= 5


def test_real_meta_statement_is_left_out_unless_kept(data):
    folder = data / "polis" / "bg2050-volunteers"
    dropped, kept = (reading("polis", folder, meta=word) for word in ("drop", "keep"))
    assert set(kept.guidelines["guideline_id"]) - set(dropped.guidelines["guideline_id"]) == {"12"}
    assert counted(dropped, "ratings", "dropped", "meta") > 50
    assert counted(kept, "ratings", "dropped", "meta") == 0


def test_real_title_and_many_line_question_come_from_the_summary(data):
    about = reading("polis", data / "polis" / "bg2050-volunteers").about
    assert about.title == "Together, we'll build the BG of 2050."
    assert about.description.startswith("In the next 25 years")
    assert "\n\nWhat would you want to see" in about.description
    assert "pol.is/3nemnipcrc" in about.origin


def test_chinese_text_is_read_as_written(data):
    texts = reading("polis", data / "polis" / "vtaiwan.uberx").guidelines["text"]
    assert texts.str.contains("計程車").any()
    assert not texts.str.contains("\ufffd").any()


# by hand


def test_last_vote_counts(tmp_path):
    events = [(T + 5, "0", "a", -1), (T, "0", "a", 1), *VOTES[1:]]
    got = reading("polis", polis_folder(tmp_path, events, TWO), agree=1)
    assert cells(got) == READ | {("a", "0"): 0.0}
    assert counted(got, "ratings", "merged", "last") == 1
    assert_conserved(got)


def test_first_vote_counts_where_asked(tmp_path):
    events = [(T + 5, "0", "a", -1), (T, "0", "a", 1), *VOTES[1:]]
    folder = polis_folder(tmp_path, events, TWO)
    assert cells(reading("polis", folder, {"duplicates": "first"}, agree=1)) == READ


def test_voting_again_is_an_error_where_asked(tmp_path):
    folder = polis_folder(tmp_path, [*VOTES, (T + 5, "0", "a", 1), (T + 6, "0", "a", 1)], TWO)
    with pytest.raises(InputError) as error:
        reading("polis", folder, {"duplicates": "error"}, agree=1)
    assert_says(error, folder / "votes.csv", "'0' has 3 ratings by user 'a'", "duplicates: last")


def test_later_pass_takes_an_agree_back(tmp_path):
    folder = polis_folder(tmp_path, [*VOTES, (T + 5, "0", "a", 0)], TWO)
    got = reading("polis", folder)
    assert cells(got) == {k: v for k, v in READ.items() if k != ("a", "0")}
    assert counted(got, "ratings", "dropped", "'pass'") == 1
    assert counted(got, "ratings", "merged") == 1


@pytest.mark.parametrize(("votes", "helpful"), [((1, -1), 0.0), ((-1, 1), 1.0)])
def test_order_in_the_file_decides_among_equal_times(tmp_path, votes, helpful):
    events = [(T, "0", "a", votes[0]), *VOTES[1:], (T, "0", "a", votes[1])]
    got = reading("polis", polis_folder(tmp_path, events, TWO), agree=1)
    assert cells(got)["a", "0"] == helpful


def test_pass_is_missing_not_a_no(tmp_path):
    got = reading("polis", polis_folder(tmp_path, [*VOTES, (T, "1", "c", 0)], TWO))
    assert cells(got) == READ
    assert "c" not in set(got.users["user_id"])


@pytest.mark.parametrize("turn", [list, flipped])
def test_sign_of_the_log_is_found_from_the_matrix(tmp_path, turn):
    matrix = {"a": (1, {"0": 7, "1": 7}), "b": (2, {"0": 7, "1": 7})}  # its votes are not read
    # told by comments.csv, the sign would be the other one
    misleading = [("0", "9", 0, 1), ("1", "9", 0, 1)]
    got = reading("polis", polis_folder(tmp_path, turn(VOTES), misleading, matrix))
    assert cells(got) == READ
    assert counted(got, "ratings", "note", f"{turn(VOTES)[0][3]} means agree in votes.csv") == 4


@pytest.mark.parametrize("turn", [list, flipped])
def test_sign_of_the_log_is_found_from_the_comments(tmp_path, turn):
    # comments.csv counts events: a agreed to statement 0 three times, then no more; by the last
    # votes alone, the other sign would fit its total better
    events = [(T, "0", "a", 1), (T + 1, "0", "a", 1), (T + 2, "0", "a", 1), (T + 3, "0", "a", -1)]
    folder = polis_folder(tmp_path, turn(events), [("0", "9", 3, 1)])
    assert cells(reading("polis", folder)) == {("a", "0"): 0.0}


@pytest.mark.parametrize("sign", [1, -1])
def test_sign_of_the_matrix_is_found_from_its_totals(tmp_path, sign):
    matrix = {"a": (1, {"0": sign, "1": -sign}), "b": (2, {"0": sign, "1": sign})}
    assert cells(reading("polis", polis_folder(tmp_path, None, TWO, matrix))) == READ


@pytest.mark.parametrize("votes", ["log", "matrix"])
def test_sign_that_cannot_be_told_is_an_error(tmp_path, votes):
    half = [(T, "0", "a", 1), (T, "1", "a", -1)]
    matrix = {"a": (1, {"0": 1, "1": -1})}
    folder = polis_folder(tmp_path, half, TWO, matrix)
    file = {"log": "votes.csv", "matrix": "participants-votes.csv"}[votes]
    with pytest.raises(InputError) as error:
        reading("polis", folder, votes=votes)
    assert_says(error, folder / file, "cannot tell", "source.agree")


@pytest.mark.parametrize(("agree", "helpful"), [(1, 1.0), (-1, 0.0)])
def test_sign_that_is_given_is_taken(tmp_path, agree, helpful):
    half = [(T, "0", "a", 1), (T, "1", "a", -1)]
    got = reading("polis", polis_folder(tmp_path, half, TWO), agree=agree)
    assert cells(got) == {("a", "0"): helpful, ("a", "1"): 1 - helpful}


def test_seconds_and_milliseconds_are_the_same_time(tmp_path):
    short = [(at // 1000, *rest) for at, *rest in VOTES]
    long, short = (
        reading("polis", polis_folder(tmp_path / name, events, TWO)).ratings
        for name, events in (("long", VOTES), ("short", short))
    )
    pd.testing.assert_frame_equal(long, short)
    assert set(long["rated_at"]) == {pd.Timestamp("2023-11-14T22:13:20Z")}


@pytest.mark.parametrize(
    ("moderation", "kept"),
    [("all", ["0", "1", "2"]), ("lenient", ["0", "1"]), ("strict", ["0"])],
)
def test_moderation_says_which_statements_stay(tmp_path, moderation, kept):
    comments = [("0", "9", 2, 1), ("1", "9", 2, 0), ("2", "9", 2, -1)]
    events = [(T, s, who, 1) for s in "012" for who in "ab"]
    got = reading("polis", polis_folder(tmp_path, events, comments), moderation=moderation)
    assert list(got.guidelines["guideline_id"]) == kept
    assert set(got.ratings["guideline_id"]) == set(kept)
    assert counted(got, "guidelines", "dropped", f"moderation: {moderation}") == 3 - len(kept)
    assert counted(got, "ratings", "dropped", f"moderation: {moderation}") == 2 * (3 - len(kept))
    assert_conserved(got)


@pytest.mark.parametrize("word", ["true", "True", "t", "1"])
def test_meta_statements_are_left_out_unless_kept(tmp_path, word):
    folder = polis_folder(tmp_path, VOTES, TWO, extra={"is-meta": ["false", word]})
    assert set(reading("polis", folder).ratings["guideline_id"]) == {"0"}
    assert cells(reading("polis", folder, meta="keep")) == READ
    assert_conserved(reading("polis", folder))


def test_own_votes_are_kept_or_dropped(tmp_path):
    comments = [("0", "a", 2, 1), ("1", "9", 1, 1)]
    folder = polis_folder(tmp_path, VOTES, comments)
    assert cells(reading("polis", folder)) == READ
    got = reading("polis", folder, {"self_ratings": "drop"})
    assert cells(got) == {k: v for k, v in READ.items() if k != ("a", "0")}
    assert counted(got, "ratings", "dropped", "wrote the guideline") == 1
    assert_conserved(got)


def test_matrix_is_found_without_its_s(tmp_path):
    matrix = {"a": (1, {"0": 1, "1": -1}), "b": (2, {"0": 1, "1": 1})}
    folder = polis_folder(tmp_path, None, TWO, matrix)
    (folder / "participants-votes.csv").rename(folder / "participant-votes.csv")
    got = reading("polis", folder)
    assert cells(got) == READ
    assert counted(got, "ratings", "read", "participant-votes.csv") == 4


def test_columns_beside_the_votes_of_a_matrix_are_no_votes(tmp_path):
    header = ["participant", "xid", "vote", "guideline_id", "n-agree", "0", "1"]
    folder = polis_folder(tmp_path, None, TWO)
    rows_to(
        folder / "participants-votes.csv",
        header,
        [["a", "x1", "9", "9", 1, 1, -1], ["b", "", "9", "9", 2, 1, 1]],
    )
    assert cells(reading("polis", folder)) == READ


@pytest.mark.parametrize(
    "body", ["None", "nan", "first line\nsecond line\r\nthird, with commas", 'says "yes"', "NA"]
)
def test_text_is_read_as_written(tmp_path, body):
    got = reading("polis", polis_folder(tmp_path, VOTES, TWO, body=body))
    assert list(got.guidelines["text"]) == [body, body]


def test_gaps_in_ids_are_no_row_numbers(tmp_path):
    comments = [("31", "9", 1, 1), ("4", "9", 2, 1)]
    events = [(at, {"0": "4", "1": "31"}[s], who, vote) for at, s, who, vote in VOTES]
    got = reading("polis", polis_folder(tmp_path, events, comments))
    assert dict(zip(got.guidelines["guideline_id"], got.guidelines["text"], strict=True)) == {
        "4": "Statement 4",
        "31": "Statement 31",
    }
    assert cells(got)["a", "31"] == 0.0


def test_statement_without_votes_stays_a_guideline(tmp_path):
    got = reading("polis", polis_folder(tmp_path, VOTES, [*TWO, ("7", "9", 0, 1)]))
    assert list(got.guidelines["guideline_id"]) == ["0", "1", "7"]
    assert cells(got) == READ
    assert_conserved(got)


def test_vote_on_an_unknown_statement_is_dropped_and_counted(tmp_path):
    got = reading("polis", polis_folder(tmp_path, [*VOTES, (T, "77", "a", 1)], TWO))
    assert cells(got) == READ
    assert counted(got, "ratings", "dropped", "not among the guidelines") == 1


def test_log_is_preferred_and_either_can_be_asked_for(tmp_path):
    shorter = {"a": (1, {"0": 1}), "b": (2, {"0": 1, "1": 1})}
    folder = polis_folder(tmp_path, VOTES, TWO, shorter)
    assert cells(reading("polis", folder)) == READ
    assert len(cells(reading("polis", folder, votes="matrix"))) == 3


# errors


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError) as error:
        reading("polis", tmp_path / "away")
    assert_says(error, tmp_path / "away", "no such folder", "check source.path")


@pytest.mark.parametrize("name", ["comments.csv", "votes.csv"])
def test_missing_file_is_named(tmp_path, name):
    folder = polis_folder(tmp_path / "p", VOTES, TWO)
    (folder / name).unlink()
    with pytest.raises(InputError) as error:
        reading("polis", folder)
    assert_says(error, folder, name)
    with pytest.raises(InputError) as error:
        reading("polis", folder, votes="log")
    assert_says(error, folder / name, "no such file", "check source.path")


@pytest.mark.parametrize("vote", ["2", "", "agree", "nan", "0.5"])
def test_vote_that_is_none_names_its_row(tmp_path, vote):
    folder = polis_folder(tmp_path, [*VOTES, (T, "1", "c", vote)], TWO)
    with pytest.raises(InputError) as error:
        reading("polis", folder)
    assert_says(error, folder / "votes.csv", "row 5", repr(vote), "export the file again")


def test_time_that_is_none_names_its_row(tmp_path):
    folder = polis_folder(tmp_path, [*VOTES, ("Sat Oct 1 WIB", "1", "c", 1)], TWO)
    with pytest.raises(InputError) as error:
        reading("polis", folder)
    assert_says(error, folder / "votes.csv", "row 5", "Sat Oct 1 WIB", "write ISO 8601")


def test_bad_vote_of_a_matrix_names_its_row(tmp_path):
    matrix = {"a": (1, {"0": 1, "1": 1}), "b": (1, {"0": 1, "1": "yes"})}
    folder = polis_folder(tmp_path, None, TWO, matrix)
    with pytest.raises(InputError) as error:
        reading("polis", folder)
    assert_says(error, folder / "participants-votes.csv", "row 2", "'yes'", "export the file again")


def test_matrix_without_statement_columns_is_named(tmp_path):
    folder = polis_folder(tmp_path, None, TWO, {"a": (1, {}), "b": (2, {})})
    with pytest.raises(InputError) as error:
        reading("polis", folder)
    assert_says(error, folder / "participants-votes.csv", "no column named by a statement", "again")


def test_unknown_moderation_names_its_row(tmp_path):
    folder = polis_folder(tmp_path, VOTES, [*TWO, ("2", "9", 1, "maybe")])
    with pytest.raises(InputError) as error:
        reading("polis", folder)
    assert_says(error, folder / "comments.csv", "row 3", "'maybe'", "export the file again")


def test_missing_column_is_named_with_those_found(tmp_path):
    folder = polis_folder(tmp_path, VOTES, TWO)
    rows_to(folder / "votes.csv", ["timestamp", "comment-id", "voter", "vote"], [])
    with pytest.raises(InputError) as error:
        reading("polis", folder)
    assert_says(error, folder / "votes.csv", "'voter-id'", "timestamp, comment-id, voter, vote")


def test_statement_told_twice_names_the_file(tmp_path):
    folder = polis_folder(tmp_path, VOTES, [*TWO, ("1", "9", 1, 0)], body="Same")
    rows = (folder / "comments.csv").read_text().replace("0,Same", "0,Other")
    (folder / "comments.csv").write_text(rows)
    with pytest.raises(InputError) as error:
        reading("polis", folder)
    assert_says(error, folder / "comments.csv", "'1' more than once", "keep one")


def test_all_votes_left_out_says_what_became_of_them(tmp_path):
    folder = polis_folder(tmp_path, [(T, "0", "a", 0)], TWO)
    with pytest.raises(InputError) as error:
        reading("polis", folder, agree=1)
    assert_says(error, folder, "no rating is left", "1 ratings dropped: value 'pass' is left out")


def test_log_without_votes_says_so(tmp_path):
    folder = polis_folder(tmp_path, [], TWO)
    with pytest.raises(InputError) as error:
        reading("polis", folder)
    assert_says(error, folder / "votes.csv", "no votes", "export the file again")


def test_broken_quote_in_the_summary_is_named(tmp_path):
    folder = polis_folder(tmp_path, VOTES, TWO)
    (folder / "summary.csv").write_text('topic,"never closed\n')
    with pytest.raises(InputError) as error:
        reading("polis", folder)
    assert_says(error, folder / "summary.csv", "mend the quotes")


def test_folder_without_a_summary_still_says_its_origin(tmp_path):
    folder = polis_folder(tmp_path / "talk", VOTES, TWO)
    assert reading("polis", folder).about.origin == "Polis conversation talk"
