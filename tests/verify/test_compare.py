"""Comparing two runs: what was planted between them is found, and nothing else."""

import dataclasses
import json
import re
import shlex
import shutil
import unicodedata

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import aggregation as ag
from aggregation.cli import main
from aggregation.files import sha256, with_checksum
from aggregation.params.loading import dump, load_params
from aggregation.params.schema import RatingsSection, SimulatedSource
from aggregation.report.comparison import comparison_page
from aggregation.verify.compare import READ, compare

MANIFEST = {
    "package": "0.1.0",
    "commit": "a" * 40,
    "dirty": False,
    "lock": "b" * 64,
    "libraries": {"jax": "0.10.2", "numpy": "2.4.0"},
}
HOSTILE = {
    "<g0>\x1b[31m": "<script>window.pwned = 1</script>",
    "g\u202e1": "\x1b[31mred\x1b]0;title\x07 \u202eevil\u202c \u2066never ended",
    "g2": "x" * 10_000,
    '"><img src=x onerror=alert(1)>': "two\nlines\r\tand \u2028 another\x85 {{ 7 * 7 }} {% raw %}",
}
SIDES = ("before", "after")


@pytest.fixture(scope="module")
def dataset():
    return ag.read(SimulatedSource(kind="simulated", n_users=40), RatingsSection(), 3)


def finish(folder, dataset, rule, **changes):
    """evidence/ and params.yaml, as diagnostics and the runner write them."""
    run = folder.load()
    scores = ag.score(run.ratings, run.ids, run.fit.parameters)
    scores = ag.by_side(scores, run.ratings, run.ids, run.fit.parameters)
    scores = ag.with_unrated(scores, dataset.guidelines["guideline_id"])
    constitution = ag.select(scores, rule)
    folder.save_evidence(
        ag.Evidence(constitution, {}), ag.minima_table(scores, rule, run.ids, run.fit)
    )
    given = folder.path / "given.yaml"
    given.write_text("run: small\nsource: {kind: simulated, n_users: 40}\n")
    words = {"run": folder.path.name, **changes}
    words |= {f"rule.{name}": value for name, value in {"name": rule.name, **rule.bounds}.items()}
    params = load_params(given, [f"{key}={value}" for key, value in words.items()])
    given.unlink()
    folder.write_text("params.yaml", dump(params))
    return with_manifest(folder)


def with_manifest(folder, **changes):
    """The folder with a manifest that names its files, as the runner writes it."""
    stages = {}
    for name in ("data", "model", "evidence"):
        files = sorted((folder.path / name).iterdir())
        outputs = {f"{name}/{file.name}": sha256(file) for file in files}
        stages[name] = {"notebook": "", "parameters": {}, "input": {}, "outputs": outputs}
    own = {"parameters": sha256(folder.path / "params.yaml"), "stages": stages}
    folder.write_json("manifest.json", with_checksum(MANIFEST | own | changes))
    return folder


def make(path, dataset, rule=None, **changes):
    """A run's folder, made by the package as the notebooks do."""
    folder = ag.RunFolder(path)
    folder.save_dataset(dataset)
    ratings, ids = ag.encode(dataset.ratings)
    fit = ag.fit(ratings, settings=ag.Settings(starts=2, max_starts=2, moves=False))
    folder.save_fit(fit, ratings, ids)
    return finish(folder, dataset, rule or ag.ALIGNED_2023, **changes)


@pytest.fixture(scope="module")
def first(tmp_path_factory, dataset):
    return make(tmp_path_factory.mktemp("first") / "one", dataset)


def copy(folder, path):
    shutil.copytree(folder.path, path)
    return ag.RunFolder(path)


def verdicts(folder):
    found = folder.constitution().scores
    return dict(zip(found["guideline_id"], found["verdict"], strict=True))


def changed(comparison, *changes):
    rows = comparison.guidelines
    return set(rows.loc[rows["change"].isin(changes), "guideline_id"])


def row(comparison, guideline_id):
    (found,) = [r for r in comparison.as_json()["guidelines"] if r["guideline_id"] == guideline_id]
    return found


def assert_why_is_true(comparison):
    """The sentences name exactly the conditions that hold on one side, each number on its side."""
    rule = comparison.as_json()["rule"]
    for r in comparison.as_json()["guidelines"]:
        if not (r["verdict_before"] and r["verdict_after"]):
            continue
        expected = set()
        for what, column, condition in (
            ("intercept", "intercept", "min_intercept"),
            ("ratings", "n_ratings", "min_ratings"),
            ("helpful rate", "helpful_rate", "min_helpful_rate"),
        ):
            holds = []
            for side in SIDES:
                value, limit = r[f"{column}_{side}"], rule[condition][side]
                value = -np.inf if value is None else value
                holds.append(value > limit if what == "intercept" else value >= limit)
            if holds[0] != holds[1] and r["verdict_before"] != r["verdict_after"]:
                expected.add((what, *holds))
        assert {meaning(sentence) for sentence in r["why"]} == expected, r


def meaning(sentence):
    """(what, held before, holds after), read from the numbers of the sentence alone."""
    found = re.fullmatch(
        r"(.+?) (none|-?[\d.]+)(?: -> (-?[\d.]+|none))?, "
        r"(?:needs (?:more than|at least)|limit) ([\d.]+)(?: -> ([\d.]+))?",
        sentence,
    )
    what, value, new_value, limit, new_limit = found.groups()
    numbers = [(value, limit), (new_value or value, new_limit or limit)]
    sides = [(-np.inf if v == "none" else float(v), float(x)) for v, x in numbers]
    return (what, *(v > x if what == "intercept" else v >= x for v, x in sides))


# nothing


def test_a_run_and_itself_elsewhere_under_another_name_differ_in_nothing(first, tmp_path, dataset):
    other = finish(copy(first, tmp_path / "other"), dataset, ag.ALIGNED_2023)
    comparison = compare(first, other)
    assert comparison.same
    assert comparison.text() == "Nothing differs between one and other."
    assert "Nothing differs between one and other." in comparison_page(comparison)
    assert compare(other, first).same
    namesake = compare(first, copy(first, tmp_path / "one"))
    assert (namesake.before, namesake.after) == (
        f"{first.path.parent.name}/one",
        f"{tmp_path.name}/one",
    )


def test_an_axis_that_points_the_other_way_is_no_difference(first, tmp_path, dataset):
    def flip(cells):
        return [[-x for x in cell] for cell in cells]

    other = copy(first, tmp_path / "other")
    for name in ("users", "guidelines"):
        table = other.read_table(f"model/{name}.parquet")
        table = table.assign(embedding=flip(table["embedding"]))
        other.write_table(f"model/{name}.parquet", table)
    finish(other, dataset, ag.ALIGNED_2023)
    tables = [run.read_table("model/users.parquet")["embedding"] for run in (first, other)]
    assert not np.allclose(*map(np.stack, tables))
    assert compare(first, other).same


def test_numbers_that_differ_by_rounding_only_are_the_same(first, tmp_path):
    other = copy(first, tmp_path / "other")
    for relative, same in ((1e-12, True), (1e-6, False)):
        scores = first.read_table("evidence/guidelines.parquet")
        scores["intercept"] *= 1 + relative
        other.write_table("evidence/guidelines.parquet", scores)
        assert compare(first, other).same is same


# what was planted


def test_counts_have_their_thousands_set_apart(first, tmp_path):
    other = copy(first, tmp_path / "one")
    fit = other.read_json("model/fit.json")
    other.write_json("model/fit.json", fit | {"n_ratings": 1_234_567})
    pair = next(pair for pair in compare(first, other).fit if pair.key == "n_ratings")
    assert pair.shown() == (f"{fit['n_ratings']:,}", "1,234,567")
    assert f"n_ratings: {fit['n_ratings']:,} -> 1,234,567" in compare(first, other).text()


def test_a_rule_with_another_limit_changes_what_lies_between_and_says_so(first, tmp_path, dataset):
    rule = ag.ALIGNED_2023.with_bounds(min_intercept=0.45, min_ratings=9)
    other = finish(copy(first, tmp_path / "strict"), dataset, rule)
    comparison = compare(first, other)
    old, new = verdicts(first), verdicts(other)
    lost = {g for g in old if old[g] == "accepted" != new[g]}
    moved = {g for g in old if old[g] != new[g]}
    assert lost
    assert moved - lost
    assert changed(comparison, "lost") == lost
    assert changed(comparison, "other") == moved - lost
    assert changed(comparison, "gained", "new", "gone") == set()
    assert_why_is_true(comparison)
    sentences = [w for r in comparison.as_json()["guidelines"] for w in r["why"]]
    assert any(re.fullmatch(r"intercept 0\.\d+, limit 0\.375 -> 0\.45", w) for w in sentences)
    assert any(re.fullmatch(r"ratings [5-8], limit 5 -> 9", w) for w in sentences)
    assert {p.key: (p.before, p.after) for p in comparison.parameters} == {
        "rule.min_intercept": (0.375, 0.45),
        "rule.min_ratings": (5, 9),
    }
    assert all(pair.same for pair in comparison.fit)
    lines = comparison.text().splitlines()
    n = len(moved - lost)
    told = f"No longer accepted: {len(lost)}; Judged otherwise, accepted in neither: {n}."
    assert lines[0] == told
    assert "  rule.min_intercept: 0.375 -> 0.45" in lines
    assert {"Data: the same", "Fit: the same", "Versions: the same"} <= set(lines)
    kept = f"{len(old) - len(moved)} verdicts as before"
    assert lines[-1] == f"{kept}, 0 with other numbers, 0 with another text."
    back = compare(other, first)
    assert changed(back, "gained") == lost
    assert back.text().startswith(f"Accepted now: {len(lost)}; Judged otherwise")


def test_a_guideline_whose_ratings_turn_falls_and_why_names_its_numbers(first, tmp_path, dataset):
    target = first.constitution().accepted["guideline_id"].iloc[0]
    r = dataset.ratings
    turned = r.assign(helpful=r["helpful"].where(r["guideline_id"] != target, 0.0))
    n_turned = int((turned["helpful"] != r["helpful"]).sum())
    other = make(tmp_path / "turned", dataclasses.replace(dataset, ratings=turned))
    comparison = compare(first, other)
    assert target in changed(comparison, "lost")
    fallen = row(comparison, target)
    assert (fallen["verdict_before"], fallen["verdict_after"]) == ("accepted", "rejected")
    assert fallen["helpful_rate_after"] == 0
    old = first.constitution().accepted.iloc[0]
    assert fallen["intercept_before"] == old["intercept"]
    rate = f"helpful rate {old['helpful_rate']:.2f} -> 0.00, needs at least 0.8"
    assert rate in fallen["why"]
    assert re.fullmatch(r"intercept 0\.\d+ -> -?[\d.]+, needs more than 0\.375", fallen["why"][0])
    assert_why_is_true(comparison)
    assert comparison.data["ratings"] == {
        "only_before": 0,
        "only_after": 0,
        "changed": n_turned,
        "same": len(r) - n_turned,
    }
    assert comparison.parameters == ()
    fit = {p.key: p for p in comparison.fit}
    assert not fit["loss"].same
    assert fit["n_ratings"].same
    truth = {g for g in verdicts(first) if verdicts(first)[g] != verdicts(other)[g]}
    assert changed(comparison, "gained", "lost", "other") == truth
    lines = comparison.text().splitlines()
    assert f"    {rate}" in lines
    assert f"  ratings: 0 only before, 0 only after, {n_turned} changed" in comparison.text()


def test_guidelines_that_come_and_go_and_users_with_them(first, tmp_path, dataset):
    gone = first.constitution().accepted["guideline_id"].iloc[0]
    r, g = dataset.ratings.astype({"user_id": str, "guideline_id": str}), dataset.guidelines
    kept = r[r["guideline_id"] != gone]
    new = kept[kept["guideline_id"] == kept["guideline_id"].iloc[0]].assign(guideline_id="new")
    renamed = {dataset.users["user_id"].iloc[0]: "participant-secret"}
    other = make(
        tmp_path / "moved",
        dataclasses.replace(
            dataset,
            ratings=pd.concat([kept, new], ignore_index=True).replace({"user_id": renamed}),
            guidelines=pd.concat(
                [
                    g[g["guideline_id"] != gone],
                    g[:2].assign(guideline_id=["new", "unrated"], text=["Be new.", "Be unrated."]),
                ],
                ignore_index=True,
            ),
            users=dataset.users.replace({"user_id": renamed}),
        ),
    )
    comparison = compare(first, other)
    assert changed(comparison, "new") == {"new", "unrated"}
    assert changed(comparison, "gone") == {gone}
    unrated = row(comparison, "unrated")
    assert (unrated["verdict_before"], unrated["verdict_after"]) == ("", "undecided")
    assert unrated["why"] == []
    assert (unrated["n_ratings_before"], unrated["n_ratings_after"]) == (None, 0)
    assert (unrated["text"], unrated["intercept_after"]) == ("Be unrated.", None)
    data = comparison.data
    assert data["guidelines"] == {
        "only_before": 1,
        "only_after": 2,
        "changed": 0,
        "same": len(g) - 1,
    }
    assert data["users"] == {
        "only_before": 1,
        "only_after": 1,
        "changed": 0,
        "same": len(dataset.users) - 1,
    }
    by_renamed = int(kept["user_id"].isin(renamed).sum())
    by_gone = len(r) - len(kept)
    assert data["ratings"]["same"] == len(kept) - by_renamed
    assert data["ratings"]["only_before"] == by_gone + by_renamed
    assert data["ratings"]["only_after"] == len(new) + by_renamed
    assert comparison.result().endswith("New guidelines: 2; Guidelines that are gone: 1.")
    shown = [comparison.text(), comparison_page(comparison), json.dumps(comparison.as_json())]
    users = {"participant-secret", *dataset.users["user_id"]}
    for text in shown:
        assert not [user for user in users if user in text]
        assert "Be new." in text


def test_a_condition_that_holds_on_both_sides_or_on_none_is_no_reason(first, tmp_path):
    """Scores planted by hand at both sides of every limit, and as near to it as numbers go."""
    values = [
        (n, rate, intercept)
        for n in (0, 4, 5, 6)
        for rate in (0.7, np.nextafter(0.8, 0), 0.8, 0.9)
        for intercept in (-0.2, 0.37499, 0.375, np.nextafter(0.375, 1), 0.3751, 0.6)
    ]
    random = np.random.default_rng(1)
    after = [values[k] for k in random.permutation(len(values))]
    runs = []
    for name, cells in (("one", values), ("other", after)):
        table = pd.DataFrame(cells, columns=["n_ratings", "helpful_rate", "intercept"])
        table.loc[table["n_ratings"] == 0, ["helpful_rate", "intercept"]] = np.nan
        table["guideline_id"] = pd.Series([f"g{k:03}" for k in range(len(table))], dtype="str")
        table["consensus_score"] = table["intercept"]
        run = copy(first, tmp_path / name)
        run.save_evidence(ag.Evidence(ag.select(table, ag.ALIGNED_2023), {}), pd.DataFrame())
        runs.append(run)
    comparison = compare(*runs)
    assert len(changed(comparison, "gained", "lost", "other")) > 30
    assert_why_is_true(comparison)
    assert "none -> " in comparison.text()
    assert '<td class="num">0.37499</td>' in comparison_page(comparison)
    assert '<td class="num">0.3750</td>' not in comparison_page(comparison)
    # and with a rule that changes too, to a limit that three decimals do not hold
    rule = ag.ALIGNED_2023.with_bounds(min_intercept=0.37505, min_ratings=6, min_helpful_rate=0.75)
    scores = runs[1].read_table("evidence/guidelines.parquet")
    scores = scores.drop(columns=["verdict", "failed"])
    runs[1].save_evidence(ag.Evidence(ag.select(scores, rule), {}), pd.DataFrame())
    assert_why_is_true(compare(*runs))
    assert ", limit 0.375 -> 0.37505\n" in compare(*runs).text()


def test_order_is_gained_lost_other_new_gone_then_the_rest_by_text(first, tmp_path, dataset):
    rule = ag.ALIGNED_2023.with_bounds(min_intercept=0.3, min_ratings=8, min_helpful_rate=0.75)
    other = finish(copy(first, tmp_path / "other"), dataset, rule)
    for folder, lost in ((first, "g001"), (other, "g002")):
        scores = folder.read_table("evidence/guidelines.parquet")
        path = copy(folder, tmp_path / lost)
        path.write_table("evidence/guidelines.parquet", scores[scores["guideline_id"] != lost])
    comparison = compare(ag.RunFolder(tmp_path / "g001"), ag.RunFolder(tmp_path / "g002"))
    order = ["gained", "lost", "other", "new", "gone", "same"]
    found = comparison.guidelines[["change", "text", "guideline_id"]].itertuples(index=False)
    keys = [(order.index(change), text, g) for change, text, g in found]
    assert keys == sorted(keys)
    assert {order[k] for k, _, _ in keys} == set(order)


def test_parameters_of_an_older_version_are_compared_as_they_stand(first, tmp_path):
    other = copy(first, tmp_path / "old")
    text = (first.path / "params.yaml").read_text()
    assert "  starts: 8\n" in text
    text = text.replace("  starts: 8\n", "  starts: 8.0\n  forgotten: [1, \u202eb]\n")
    text = text.replace("  warm_start: true\n", "  warm_start: 1\n")
    text = re.sub(r"\n  max_sweeps: .*", "", text)
    (other.path / "params.yaml").write_text(text)
    comparison = compare(other, first)
    assert {p.key: (p.before, p.after) for p in comparison.parameters} == {
        "train.forgotten": ([1, "\u202eb"], None),
        "train.max_sweeps": (None, 5000),
        "train.warm_start": (1, True),
    }
    lines = comparison.text().splitlines()
    assert lines[0] == "No verdict changed."
    assert '  train.forgotten: [1, "\ufffdb"] -> none' in lines
    assert "  train.max_sweeps: none -> 5000" in lines


def test_versions_that_differ_are_told_where_both_are_known(first, tmp_path):
    other = copy(first, tmp_path / "other")
    libraries = {"jax": "0.10.3", "numpy": "2.4.0"}
    with_manifest(other, commit="d" * 40, libraries=libraries, seed=9)
    comparison = compare(first, other)
    assert [p.key for p in comparison.versions] == ["commit", "libraries.jax"]
    assert '  libraries.jax: "0.10.2" -> "0.10.3"' in comparison.text()
    (other.path / "manifest.json").unlink()
    (other.path / "manifest.partial.json").unlink(missing_ok=True)
    comparison = compare(first, other)
    assert comparison.versions is None
    assert comparison.same
    assert comparison.result().endswith("as far as is known: versions are not.")


# strangers


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, dataset, first):
    """Two runs whose verdicts all change, on guidelines of strangers."""
    ids = list(dataset.guidelines["guideline_id"])
    accepted = list(first.constitution().accepted["guideline_id"])
    named = dict(zip(accepted, HOSTILE, strict=False))
    texts = dict(zip(accepted, HOSTILE.values(), strict=False))
    world = dataclasses.replace(
        dataset,
        guidelines=dataset.guidelines.assign(
            text=[texts.get(g, f"~ text of {g}") for g in ids],
            guideline_id=pd.Series([named.get(g, g) for g in ids], dtype="str"),
        ),
        ratings=dataset.ratings.astype({"guideline_id": str}).replace({"guideline_id": named}),
    )
    path = tmp_path_factory.mktemp("hostile")
    one = make(path / "one", world)
    return one, finish(
        copy(one, path / "two"), world, ag.ALIGNED_2023.with_bounds(min_intercept=2.0)
    )


def test_nothing_that_strangers_wrote_steers_the_terminal(hostile):
    text = compare(*hostile).text()
    n_lost = len(changed(compare(*hostile), "lost"))
    assert n_lost > 30
    assert f"  and {n_lost - 30} more, all with --json\n" in text
    for c in text.replace("\n", ""):
        assert unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp"), hex(ord(c))
    assert max(map(len, text.splitlines())) < 200
    assert "x" * 90 in text
    assert "x" * 100 not in text
    assert "two lines and another {{ 7 * 7 }} {% raw %}" in text
    assert "\ufffd[31mred" in text


def test_the_page_shows_what_strangers_wrote_and_runs_none_of_it(hostile):
    page = comparison_page(compare(*hostile))
    assert "default-src 'none'" in page
    assert not re.search(r"<script|<img|\x1b|<g0>", page)
    assert "&lt;script&gt;window.pwned = 1&lt;/script&gt;" in page
    assert "&#34;&gt;&lt;img src=x onerror=alert(1)&gt;" in page
    assert "{{ 7 * 7 }} {% raw %}" in page
    assert "x" * 600 in page
    assert "x" * 601 not in page
    assert "of 10,000 characters" in page
    assert len(re.findall(r"<table", page)) == len(re.findall(r"<caption", page)) > 3
    assert not re.search(r"<th(?! scope=)[ >]", page)
    assert not re.search(r"(?:src|href)=\"(?!#main\")", page)
    page.encode("utf-8")


def test_another_text_under_the_same_id_is_told(first, tmp_path, dataset):
    other = copy(first, tmp_path / "one")
    texts = dataset.guidelines["text"].tolist()
    texts[0] = "quite another"
    other.save_dataset(
        dataclasses.replace(dataset, guidelines=dataset.guidelines.assign(text=texts))
    )
    told = compare(first, other)
    found = row(told, dataset.guidelines["guideline_id"][0])
    assert (found["text"], found["text_before"]) == (texts[0], dataset.guidelines["text"][0])
    assert not told.same
    assert told.kept().endswith(", 1 with another text.")
    assert comparison_page(told).count("(text changed)") == 1
    texts = [f"another {k}" for k in range(len(texts))]
    other.save_dataset(
        dataclasses.replace(dataset, guidelines=dataset.guidelines.assign(text=texts))
    )
    finish(other, dataset, ag.ALIGNED_2023.with_bounds(min_intercept=2.0))
    told = compare(first, other)
    assert "text changed, before: " in told.text()


LIMITS = ("min_intercept", "min_ratings", "min_helpful_rate")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "evidence/summary.json",
            json.dumps({"rule": dict.fromkeys(LIMITS, ()), "verdicts": 1}),
        ),
        ("model/fit.json", "[" * 100_000),
        ("params.yaml", "extra: &a [*a]\n"),
        ("params.yaml", "x: " + "[" * 500),
        ("data/ingest.json", '{"about": 1}'),
        ("data/users.parquet", None),
        ("evidence/guidelines.parquet", None),
    ],
)
def test_whatever_is_damaged_is_an_error_in_words(first, tmp_path, name, content):
    other = copy(first, tmp_path / "one")
    if content is None:
        frame = other.read_table(name)
        frame = frame.assign(**{c: [["x"]] * len(frame) for c in frame.columns[1:]})
        frame.to_parquet(other.path / name)
    else:
        (other.path / name).write_text(content)
    with pytest.raises(ag.RunError, match="damaged"):
        compare(first, other)


def test_a_verdict_that_steers_a_terminal_does_not(first, tmp_path):
    other = copy(first, tmp_path / "one")
    frame = other.read_table("evidence/guidelines.parquet")
    frame["verdict"] = "evil\x1b[31m"
    other.write_table("evidence/guidelines.parquet", frame)
    assert "\x1b" not in compare(first, other).text()


def test_json_holds_every_guideline_in_full_and_no_nan(hostile, first, tmp_path, dataset):
    told = json.loads(json.dumps(compare(*hostile).as_json(), allow_nan=False))
    assert len(told["guidelines"]) == len(dataset.guidelines)
    assert "x" * 10_000 in {r["text"] for r in told["guidelines"]}
    assert sum(told["verdicts"].values()) == len(dataset.guidelines)
    assert told["verdicts"]["lost"] == len(hostile[0].constitution().accepted)
    assert set(told["fit"]) == {
        "loss",
        "mu",
        "n_ratings",
        "n_users",
        "n_guidelines",
        "residual",
        "settled",
    }
    assert told["fit"]["n_users"] == {"before": 40, "after": 40}
    other = copy(first, tmp_path / "other")
    (other.path / "params.yaml").write_text("run: other\nstrange: [.nan]\nday: 2024-01-02\n")
    told = compare(first, other).as_json()
    assert told["parameters"]["strange"] == {"before": None, "after": [None]}
    assert told["parameters"]["day"] == {"before": None, "after": "2024-01-02"}
    json.dumps(told, allow_nan=False)


def test_a_simulated_deliberation_is_called_so_on_the_page(first, tmp_path, dataset):
    assert f"<strong>Simulated: {compare(first, first).before}.</strong>" in comparison_page(
        compare(first, first)
    )
    other = copy(first, tmp_path / "other")
    about = dataclasses.replace(dataset.about, simulated=False)
    other.save_dataset(dataclasses.replace(dataset, about=about))
    assert "Simulated" not in comparison_page(compare(other, other))


# folders that cannot be compared


def test_the_command_names_a_folder_that_is_no_run(first, tmp_path):
    done = CliRunner().invoke(main, ["diff", str(first.path), str(tmp_path / "none")])
    assert done.exit_code == 1
    assert f"{tmp_path / 'none'}: there is no params.yaml" in done.output


def test_a_run_without_evidence_says_how_to_run_it_to_the_end(first, tmp_path):
    path = tmp_path / "half done"
    other = copy(first, path)
    shutil.rmtree(path / "evidence")
    with pytest.raises(ag.RunError, match="evidence") as caught:
        compare(first, other)
    told, _, words = str(caught.value).partition(": run it to the end first: ")
    assert told.startswith(str(path))
    assert shlex.split(words) == [
        *("aggregation", "run", str(path / "params.yaml")),
        *("--set", "run=half done", "--out", str(tmp_path)),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "params.yaml",
        "data/ratings.parquet",
        "model/fit.json",
        "evidence/guidelines.parquet",
        "evidence/summary.json",
    ],
)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe{]", b"[1, 2]"])
def test_a_damaged_file_is_named_with_the_remedy(first, tmp_path, name, content):
    other = copy(first, tmp_path / "other")
    (other.path / name).write_bytes(content)
    with pytest.raises(ag.RunError, match="damaged or of an unknown version: run it to") as told:
        compare(first, other)
    assert str(other.path / name) in str(told.value)


def test_evidence_of_an_unknown_version_is_refused(first, tmp_path):
    other = copy(first, tmp_path / "other")
    scores = first.read_table("evidence/guidelines.parquet")
    other.write_table("evidence/guidelines.parquet", scores.drop(columns="failed"))
    with pytest.raises(ag.RunError, match="unknown version: run it to the end first"):
        compare(first, other)


# files that were changed after the run


def test_a_file_changed_after_the_run_is_told_even_where_nothing_else_differs(
    first, tmp_path, dataset
):
    one = copy(first, tmp_path / "one")
    two = finish(copy(first, tmp_path / "two"), dataset, ag.ALIGNED_2023)
    assert compare(one, two).altered == ()
    path = two.path / "params.yaml"
    path.write_text(path.read_text("utf-8") + "# by hand\n", encoding="utf-8")
    comparison = compare(one, two)
    assert comparison.same
    assert comparison.altered == ("two/params.yaml",)
    assert comparison.as_json()["altered"] == ["two/params.yaml"]
    assert "two/params.yaml: is not as its run left it" in comparison.text()
    assert "<strong>two/params.yaml</strong> is not as its run left it" in comparison_page(
        comparison
    )


@pytest.mark.parametrize("name", READ)
def test_an_edit_of_any_file_that_is_compared_is_told(first, tmp_path, name):
    one = copy(first, tmp_path / "one")
    two = copy(first, tmp_path / "two")
    path = two.path / name
    if name.endswith(".parquet"):
        table = two.read_table(name)
        table.iloc[::-1].to_parquet(path)
    else:
        path.write_bytes(path.read_bytes() + b"\n")
    assert compare(one, two).altered == (f"two/{name}",)
    assert compare(two, one).altered == (f"two/{name}",)
