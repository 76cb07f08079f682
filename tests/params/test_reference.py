"""docs/parameters.md is generated from the schema."""

from pathlib import Path

from aggregation.params.reference import reference

PAGE = Path(__file__).resolve().parents[2] / "docs" / "parameters.md"


def test_the_page_of_parameters_is_that_of_the_schema():
    assert PAGE.read_text("utf-8") == reference(), "write it anew with: make docs"


def test_the_reference_names_every_key_with_a_meaning():
    rows = [line.split(" | ") for line in reference().splitlines() if line.startswith("| `")]
    keys = {row[0].strip("| `") for row in rows}
    assert {"run", "seed", "kind", "n_users", "moderation", "starts", "min_helpful_rate"} <= keys
    leaves = [row for row in rows if row[1] != "section" and row[0] not in ("| `kind`", "| `name`")]
    assert all(row[3].strip(" |") for row in leaves)


def test_limits_defaults_and_meanings_are_those_of_the_core():
    rows = reference().splitlines()
    assert (
        "| `max_sweeps` | integer >= 1 | `5000` | Give up on a start after this many sweeps. |"
        in rows
    )
