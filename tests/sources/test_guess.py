"""Guessing: forty ways in which people keep ratings are read without a word of explanation."""

from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from aggregation import InputError, load_params, read
from aggregation.sources.guess import guess, parameter_file

USERS, GUIDELINES = 20, 12


def _rated():
    random = np.random.default_rng(0)
    user, guideline = np.nonzero(random.random((USERS, GUIDELINES)) < 0.8)
    return pd.DataFrame({"u": user, "g": guideline, "y": random.random(len(user)) < 0.7})


RATED = _rated()
N, HELPFUL = len(RATED), int(RATED["y"].sum())
STARS = np.where(
    RATED["y"],
    np.random.default_rng(1).integers(4, 6, N),
    np.random.default_rng(2).integers(1, 4, N),
)


def long(
    names=("user_id", "guideline_id", "rating"), words=("yes", "no"), user="u{}", guideline="g{}"
):
    """One rating a row."""
    return pd.DataFrame(
        {
            names[0]: [user.format(u) for u in RATED["u"]],
            names[1]: [guideline.format(g) for g in RATED["g"]],
            names[2]: np.where(RATED["y"], *words),
        }
    )


def numbers(value, names=("voter", "statement", "value")):
    """One rating a row, all of them numbers."""
    return pd.DataFrame({names[0]: RATED["u"], names[1]: RATED["g"], names[2]: value})


def wide(words=("Agree", "Disagree"), *, user=True, time=False, texts=True, **more):
    """One person a row."""
    cells = RATED.assign(v=np.where(RATED["y"], *words))
    table = cells.pivot_table(index="u", columns="g", values="v", aggfunc="first")
    name = "We should do thing {}, really" if texts else "Q{}"
    table.columns = [name.format(g) for g in table.columns]
    table = table.reset_index(names="Respondent")
    if not user:
        table = table.drop(columns="Respondent")
    if time:
        table.insert(0, "Timestamp", [f"2024/05/{1 + k:02d} 10:00:00" for k in range(len(table))])
    return table.assign(**{name: of(len(table)) for name, of in more.items()})


def csv(table, **options):
    return lambda path: table.to_csv(path, index=False, **options)


def excel(table):
    def write(path):
        book = openpyxl.Workbook()
        book.active.append(list(table.columns))
        for row in table.astype(object).where(table.notna(), None).itertuples(index=False):
            book.active.append(list(row))
        book.save(path)

    return write


def parquet(table):
    return lambda path: table.to_parquet(path)


WHOLE = RATED["y"].astype(int)
SHAPES = {
    "comma.csv": (csv(long()), {}),
    "semicolon.csv": (csv(long(), sep=";"), {}),
    "tabs.csv": (csv(long(), sep="\t"), {}),
    "tabs.tsv": (csv(long(), sep="\t"), {}),
    "pipes.txt": (csv(long(), sep="|"), {}),
    "utf-16.csv": (csv(long(), encoding="utf-16"), {}),
    "byte-order-mark.csv": (csv(long(), encoding="utf-8-sig"), {}),
    "latin-1.csv": (csv(long(user="Zoë Müller-{}", guideline="Größe {}"), encoding="latin-1"), {}),
    "cp1252.csv": (csv(long(guideline="“Quoted” – straße {}"), encoding="cp1252"), {}),
    "packed.csv.gz": (csv(long()), {}),
    "packed.tsv.gz": (csv(long(), sep="\t"), {}),
    "windows-lines.csv": (csv(long(), lineterminator="\r\n"), {}),
    "quoted.csv": (csv(long(guideline='Text, with "quotes"\nand a line {}'), quoting=1), {}),
    "book.xlsx": (excel(long()), {}),
    "wide.xlsx": (excel(wide()), {}),
    "text.parquet": (parquet(long()), {}),
    "booleans.parquet": (parquet(numbers(RATED["y"])), {}),
    "integers.parquet": (parquet(numbers(WHOLE)), {}),
    "lower-true.csv": (csv(numbers(np.where(RATED["y"], "true", "false"))), {}),
    "True.csv": (csv(numbers(RATED["y"])), {}),
    "one-zero.csv": (csv(numbers(WHOLE)), {}),
    "floats.csv": (csv(numbers(WHOLE.astype(float))), {}),
    "one-minus-one.csv": (csv(numbers(2 * WHOLE - 1, ("voter-id", "comment-id", "vote"))), {}),
    "float-ids.csv": (csv(long().assign(user_id=RATED["u"].astype(float))), {}),
    "likert.csv": (
        csv(
            long(("Participant ID", "Statement", "Response"), ("Strongly agree", "Rather disagree"))
        ),
        {},
    ),
    "german.csv": (
        csv(long(("Person", "Aussage", "Antwort"), ("Ja", "Nein")), sep=";"),
        {"named": {"user": "Person", "guideline": "Aussage"}},
    ),
    "stars.csv": (csv(numbers(STARS, ("user", "item", "rating"))), {"threshold": 4}),
    "many-stars.csv": (
        csv(numbers(STARS, ("user", "item", "stars"))),
        {"threshold": 4, "named": {"rating": "stars"}},
    ),
    "with-times.csv": (csv(long(("who", "what", "vote")).assign(at="2024-05-01T10:00:00Z")), {}),
    "with-more.csv": (
        csv(
            long(("respondent", "proposal", "opinion"), ("support", "oppose")).assign(
                age="20-29", country="NZ"
            )
        ),
        {},
    ),
    "thumbs.csv": (csv(long(("email", "idea", "reaction"), ("thumbs_up", "thumbs_down"))), {}),
    "likes.csv": (csv(long(("member", "policy", "choice"), ("Like", "Dislike"))), {}),
    "chinese.csv": (csv(long(("user", "comment", "vote"), ("同意", "不同意"))), {}),
    "spaces.csv": (csv(long(user=" u{} ", guideline="g{} ", words=(" Yes ", "NO"))), {}),
    "platform.csv": (csv(long(words=("helpful", "not_helpful"))), {}),
    "google-form.csv": (csv(wide(time=True, user=False)), {}),
    "google-form-with-names.csv": (
        csv(wide(time=True, Comments=lambda n: [f"free text {k}" for k in range(n)])),
        {},
    ),
    "lime-survey.csv": (
        csv(wide(("Y", "N"), texts=False, Gender=lambda n: ["F", "M"] * (n // 2)), sep=";"),
        {},
    ),
    "lime-survey-numbers.csv": (csv(wide(("1", "0"), texts=False)), {}),
    "wide.csv": (csv(wide(("agree", "disagree"))), {}),
}


def read_as_guessed(path, texts=None, **given):
    """The dataset by the parameter file that is written for these files, unedited."""
    found = guess(path, texts, **given)
    params = path.parent / "params.yaml"
    params.write_text(parameter_file(found, "mine", "aggregation init"), encoding="utf-8")
    loaded = load_params(params)
    return read(loaded.source, loaded.ratings), found


@pytest.mark.parametrize("name", SHAPES)
def test_ratings_in_forty_shapes_are_read_without_help(tmp_path, name):
    write, given = SHAPES[name]
    write(tmp_path / name)
    got, _ = read_as_guessed(tmp_path / name, **given)
    assert len(got.ratings) == N
    assert got.ratings["helpful"].sum() == HELPFUL
    assert got.ratings["user_id"].nunique() == USERS
    assert got.ratings["guideline_id"].nunique() == GUIDELINES
    by = got.ratings.groupby("guideline_id")["helpful"].sum().sort_values().to_list()
    assert by == sorted(RATED.groupby("g")["y"].sum().to_list())


def test_there_are_forty_shapes():
    assert len(SHAPES) == 40


def test_passes_are_no_ratings(tmp_path):
    words = np.where(RATED["y"], "agree", np.where(RATED["g"] == 3, "pass", "disagree"))
    csv(long().assign(rating=words))(tmp_path / "r.csv")
    got, found = read_as_guessed(tmp_path / "r.csv")
    assert found.words == {"agree": "helpful", "disagree": "not_helpful", "pass": None}
    assert len(got.ratings) == N - (words == "pass").sum()
    csv(numbers(np.where(words == "agree", 1, np.where(words == "pass", 0, -1))))(
        tmp_path / "n.csv"
    )
    same, found = read_as_guessed(tmp_path / "n.csv")
    assert len(same.ratings) == len(got.ratings)
    assert found.notes == ["0 is taken for a pass, as 1 and -1 are there too"]


def test_texts_are_found_by_ids_and_length(tmp_path):
    csv(numbers(WHOLE.astype(float)).astype({"statement": float}))(tmp_path / "r.csv")
    texts = pd.DataFrame(
        {
            "n": 1,
            "id": range(GUIDELINES),
            "by": "someone",
            "statement": [f"A longer text, number {g}" for g in range(GUIDELINES)],
            "category": ["A", "B"] * (GUIDELINES // 2),
        }
    )
    csv(texts)(tmp_path / "t.csv")
    got, found = read_as_guessed(tmp_path / "r.csv", tmp_path / "t.csv")
    assert found.source["guideline_columns"] == {
        "guideline_id": "id",
        "text": "statement",
        "topic": "category",
    }
    assert got.guidelines["text"].str.startswith("A longer text").all()
    assert list(got.topics["title"]) == ["A", "B"]
    assert "t.csv has 12 of the 12 rated guidelines" in found.notes


@pytest.mark.parametrize(
    ("table", "given", "says"),
    [
        (numbers(STARS, ("user", "item", "rating")), {}, ["'1', '2', '3'", "--threshold 4"]),
        (long(words=("foo", "bar")), {}, ["not clear what the ratings mean", "'bar', 'foo'"]),
        (long(("a", "b", "c")), {}, ["--user COLUMN --guideline COLUMN", "a, b, c"]),
        (long(), {"named": {"user": "who"}}, ["no column 'who'", "user_id, guideline_id, rating"]),
        (long()[:0], {}, ["has a header but no rows"]),
    ],
)
def test_what_cannot_be_guessed_is_an_error_with_what_to_give(tmp_path, table, given, says):
    csv(table)(tmp_path / "r.csv")
    with pytest.raises(InputError) as error:
        guess(tmp_path / "r.csv", **given)
    for part in (str(tmp_path / "r.csv"), *says):
        assert part in str(error.value)


def test_texts_of_something_else_are_an_error_with_examples(tmp_path):
    csv(long())(tmp_path / "r.csv")
    csv(pd.DataFrame({"id": ["x"], "text": ["y"]}))(tmp_path / "t.csv")
    with pytest.raises(InputError, match="no column holds ids of rated guidelines, such as 'g0'"):
        guess(tmp_path / "r.csv", tmp_path / "t.csv")


@settings(max_examples=20)
@given(st.text(min_size=1, max_size=20), st.text(max_size=20))
def test_whatever_a_column_is_called_the_parameter_file_says_it(tmp_path_factory, name, word):
    folder = Path(tmp_path_factory.getbasetemp()) / "guessed"
    folder.mkdir(exist_ok=True)
    table = long(("user", "item", "vote"))
    table[f"x {name}".replace("\r", " ").replace("\n", " ").strip()] = word
    parquet(table)(folder / "r.parquet")
    got, _ = read_as_guessed(folder / "r.parquet", named={"user": "user", "rating": "vote"})
    assert len(got.ratings) == N


def test_names_that_would_move_a_cursor_are_shown_as_code(tmp_path):
    csv(long(("a\x1b[2J", "b", "c")))(tmp_path / "r.csv")
    with pytest.raises(InputError, match=r"It has: a\\x1b\[2J, b, c"):
        guess(tmp_path / "r.csv")


def test_a_name_of_a_file_cannot_end_a_comment(tmp_path):
    csv(long())(tmp_path / "r.csv")
    texts = pd.DataFrame({"id": [f"g{g}" for g in range(GUIDELINES)], "text": "Some text"})
    name = "t\nrun: other\n.csv"
    csv(texts)(tmp_path / name)
    found = guess(tmp_path / "r.csv", tmp_path / name)
    path = tmp_path / "p.yaml"
    path.write_text(parameter_file(found, "mine", f"aggregation init r.csv '{name}'"))
    assert load_params(path).run == "mine"
