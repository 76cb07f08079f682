"""What analysts see and call in JupyterLab: values that show themselves, earlier runs opened."""

import ast
import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

import aggregation as ag
from aggregation.data import cards, dataset
from aggregation.params.loading import dump
from aggregation.params.schema import RatingsSection, SimulatedSource
from aggregation.runs import summary as run_card

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "<script>alert(1)</script><img src=x onerror=\"alert('2')\">&amp;\u202e\x1b[31m\n"
NORMAL, BOUND = 3_000, 12_000


class Tags(HTMLParser):
    """The tags that a browser would see, and the text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert {name for name, _ in attrs} <= {"style", "scope", "colspan"}

    def handle_data(self, data):
        self.text += data + " "


OURS = {"div", "p", "strong", "table", "tr", "th", "td", "code"}


def shown(value, at_most=NORMAL):
    """The text of a value's HTML, once that is seen to be small and of our own tags only."""
    html = value._repr_html_()
    seen = Tags(html)
    assert seen.tags <= OURS
    assert len(html) <= at_most
    assert len(repr(value)) < 2_000
    assert repr(value).isprintable()
    return " ".join(seen.text.split())


@pytest.fixture(scope="module")
def read():
    source = SimulatedSource(kind="simulated", n_users=60)
    return ag.read(source, RatingsSection(min_per_user=8), 3)


@pytest.fixture(scope="module")
def coded(read):
    return ag.encode(read.ratings)


@pytest.fixture(scope="module")
def fitted(coded):
    return ag.fit(coded[0], settings=ag.Settings(starts=8, max_starts=8))


def ended(fit, **changes):
    """The fit of one minimum with other values there."""
    return dataclasses.replace(fit, minima=(dataclasses.replace(fit.minima[0], **changes),))


@pytest.fixture(scope="module")
def replayed(coded):
    """Gradient descent, as it is where it stops, which it does not on these ratings."""
    found = ag.fit(coded[0], settings=ag.Settings(method="gradient-descent"))
    return ended(found, converged=True)


@pytest.fixture(scope="module")
def judged(read, coded, fitted):
    scores = ag.by_side(ag.score(*coded, fitted.parameters), *coded, fitted.parameters)
    return ag.select(ag.with_unrated(scores, read.guidelines["guideline_id"]), ag.ALIGNED_2023)


@pytest.fixture
def folder(tmp_path, read, coded, fitted, judged):
    """A run that finished, by hand."""
    folder = ag.RunFolder.of("a", tmp_path / "outputs")
    folder.write_text("params.yaml", "run: a\ntitle: ''\n")
    folder.save_dataset(read)
    folder.save_fit(fitted, *coded)
    folder.save_evidence(ag.Evidence(judged, {}), pd.DataFrame())
    folder.write_json("manifest.json", {"stages": {"ingest": {}, "publish": {}}})
    return folder


# a dataset


def test_a_dataset_says_what_it_holds_and_what_was_dropped(read):
    text = shown(read)
    n = len(read.ratings)
    raters = read.ratings["user_id"].nunique()
    assert f"Dataset: {n:,} ratings by {raters} users of 121 guidelines" in text
    assert f"60, {60 - raters} of them without ratings" in text
    (dropped,) = [c for c in read.counts if c.action == "dropped"]
    assert dropped.n > 0
    assert f"dropped {dropped.n} ratings: the user has fewer than 8 ratings" in text
    days = sorted(str(at)[:10] for at in read.ratings["rated_at"])
    assert f"{days[0]} to {days[-1]}" in text
    assert f"{read.ratings['helpful'].mean():.0%} of the ratings" in text


def with_about(read, **changes):
    return dataclasses.replace(read, about=dataclasses.replace(read.about, **changes))


def test_a_simulated_dataset_says_so_and_another_does_not(read):
    assert "Simulated: nobody said any of this." in shown(read)
    assert "simulated" in repr(read)
    real = with_about(read, simulated=False, origin="a table")
    assert "imulated" not in shown(with_about(real, title=""))
    assert "imulated" not in repr(real)


def test_nothing_dropped_is_not_the_same_as_nothing_known(read):
    assert "dropped unknown" in shown(dataclasses.replace(read, counts=()))
    kept = (dataset.Count("ratings", "kept", "", 7),)
    assert "dropped nothing" in shown(dataclasses.replace(read, counts=kept))


def test_no_participant_is_named(read, judged, fitted, folder):
    values = (read, judged, fitted, ag.open_run(folder.path))
    every = "".join(value._repr_html_() + repr(value) for value in values)
    assert not [user for user in read.users["user_id"] if user in every]


def test_a_deliberation_without_anything_in_it_shows_itself():
    nothing = ag.Dataset(**{name: dataset.frame(name, []) for name in dataset.TABLES})
    text = shown(nothing)
    assert "Dataset: 0 ratings by 0 users of 0 guidelines" in text
    assert "nan" not in text.lower()
    scores = pd.DataFrame(
        {c: [] for c in ("guideline_id", "n_ratings", "helpful_rate", "intercept")}
    ).assign(consensus_score=[])
    empty = ag.select(scores, ag.ALIGNED_2023)
    assert "0 accepted, 0 undecided, 0 rejected" in shown(empty)
    assert "No guideline is accepted." in shown(empty)


def test_what_strangers_write_stays_text_and_short(read):
    many = tuple(dataset.Count("ratings", "dropped", HOSTILE * 500, 3) for _ in range(1_000))
    hostile = with_about(
        dataclasses.replace(read, counts=many), title=HOSTILE * 10_000, origin="&" * 1_000_000
    )
    text = shown(hostile, BOUND)
    assert "<script>alert(1)</script>" in text
    assert "994 more, see counts_table()" in text
    assert " ..." in text


@settings(max_examples=60)
@given(
    st.text(max_size=600),
    st.lists(st.tuples(st.text(max_size=300), st.text(max_size=300)), max_size=40),
    st.lists(st.text(max_size=300), max_size=40),
)
def test_a_card_is_bounded_escaped_and_one_line_of_text(headline, facts, doubts):
    card = cards.Card(headline, tuple(facts), tuple(doubts), (".a()",))
    html = card.html()
    assert Tags(html).tags <= OURS
    assert len(html) < 60_000
    assert card.line().isprintable()
    assert len(card.line()) < 50_000
    left = len(facts) - cards.MAX_FACTS
    assert (f"and {left} more" in html) or left <= 0


# a fit


def test_a_fit_says_whether_it_converged_and_settled(coded, fitted):
    assert fitted.settled
    assert f"loss {fitted.objective:.8f}, converged, settled" in shown(fitted)
    reached = f"8 starts ended in {fitted.n_minima} minim"
    assert reached in shown(fitted)
    once = ag.Settings(starts=2, max_starts=2, moves=False, max_sweeps=1)
    alone = ag.fit(coded[0], settings=once)
    text = shown(alone)
    assert "not converged, not settled" in text
    assert "this is no minimum" in text
    assert "a lower one may exist" in text
    assert "not converged, not settled" in repr(alone)
    assert "this is no minimum" in repr(alone)


def test_gradient_descent_certifies_nothing_and_says_so(replayed):
    text = shown(replayed)
    assert "gradient descent certifies nothing" in text.lower()
    assert "converged" not in text
    assert "certifies nothing" in repr(replayed)
    assert "did not stop" in shown(ended(replayed, converged=False))


def test_a_fit_with_fixed_users_says_so(coded, fitted):
    fixed = ag.fit(coded[0], warm_start=fitted.parameters, hold="users")
    assert "are fixed as an earlier model has them" in shown(fixed)
    assert "are fixed" not in shown(fitted)


def test_blocks_that_nothing_relates_are_doubts():
    rows = [
        (f"{b}{u}", f"{b}{g}", float((u + g) % 2)) for b in "ab" for u in range(5) for g in (1, 2)
    ]
    table = pd.DataFrame(rows, columns=["user_id", "guideline_id", "helpful"])
    found = ag.fit(ag.encode(table)[0], settings=ag.Settings(starts=2))
    assert "fall into 2 blocks" in shown(found)


# a constitution


def test_a_constitution_counts_its_verdicts_and_what_decided(judged):
    verdicts = judged.scores["verdict"].value_counts()
    assert verdicts["accepted"] > 0
    told = ", ".join(f"{verdicts.get(v, 0)} {v}" for v in ("accepted", "undecided", "rejected"))
    assert f"Constitution: {told}" in shown(judged)
    assert told in repr(judged)
    s = judged.scores
    liked = ((s["helpful_rate"] >= 0.8) & (s["n_ratings"] >= 5)).sum()
    assert f"would accept {liked}" in shown(judged)
    assert f"intercept {(~(s['intercept'] > 0.375)).sum()}" in shown(judged)
    assert "ratings at least 5, intercept more than 0.375, helpful rate at least 0.8" in shown(
        judged
    )


def test_a_constitution_that_accepts_nothing_says_so(judged):
    none = ag.select(judged.scores, ag.ALIGNED_2023.with_bounds(min_intercept=10.0))
    assert "No guideline is accepted." in shown(none)
    assert "no guideline is accepted" in repr(none)


# a fit saved and read back


def bits(value):
    """Everything in a value, floats and arrays down to the bit."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return type(value).__name__, {f.name: bits(getattr(value, f.name)) for f in fields}
    if isinstance(value, tuple):
        return tuple(map(bits, value))
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.str, value.shape, value.tobytes()
    return type(value).__name__, value.hex() if isinstance(value, float) else value


@pytest.fixture(scope="module")
def saved(coded, fitted, replayed):
    """Fits of every kind."""
    axes = ag.Settings(starts=3, max_starts=3, dimensions=2, moves=False)
    return {
        "search": fitted,
        "two axes": ag.fit(coded[0], settings=axes),
        "fixed": ag.fit(coded[0], warm_start=fitted.parameters, hold="users"),
        "gradient descent": replayed,
    }


@pytest.mark.parametrize("kind", ["search", "two axes", "fixed", "gradient descent"])
def test_a_fit_is_read_back_bit_for_bit(tmp_path, coded, saved, kind):
    fit, folder = saved[kind], ag.RunFolder(tmp_path)
    assert (len(fit.minima) > 1) == (kind == "two axes")
    assert fit.warm_start == (kind == "fixed")
    folder.save_fit(fit, *coded)
    again = folder.fit()
    assert bits(again) == bits(fit)
    assert repr(again) == repr(fit)
    assert again.warm_start == fit.warm_start
    pd.testing.assert_frame_equal(again.summary(), fit.summary())


def test_the_fit_read_back_has_the_rows_of_the_model(folder):
    run = folder.load()
    assert bits(folder.fit()) == bits(run.fit)
    assert len(run.ids.users) == len(run.fit.parameters.user_intercept)


def test_a_fit_of_an_earlier_version_is_refused_with_a_remedy(folder):
    values = folder.read_json("model/fit.json")
    del values["start_continuation"]
    folder.write_json("model/fit.json", values)
    with pytest.raises(ag.RunError, match=r"start_continuation.*run the train notebook again"):
        folder.fit()


def test_a_run_without_a_fit_says_which_notebook_to_run(tmp_path):
    with pytest.raises(ag.RunError, match="run the train notebook of this run first"):
        ag.RunFolder(tmp_path).fit()


# an earlier run


@pytest.mark.parametrize("kind", [str, Path])
def test_a_run_is_opened_with_one_call(folder, kind, fitted, judged):
    again = ag.open_run(kind(folder.path))
    assert again == folder
    assert bits(again.fit()) == bits(fitted)
    assert list(again.constitution().scores["verdict"]) == list(judged.scores["verdict"])


def test_a_finished_run_shows_its_numbers_and_what_to_call(folder, read, fitted, judged):
    text, raters = shown(ag.open_run(folder.path)), read.ratings["user_id"].nunique()
    assert "Run a: finished" in text
    assert "manifest" not in text
    assert f"{len(read.ratings):,} ratings, {raters} users, 121 guidelines" in text
    assert f"loss {fitted.objective:.8f}" in text
    assert f"{len(judged.accepted)} accepted" in text
    assert read.about.title in text
    assert "Simulated: nobody said any of this." in text
    for call in (".dataset()", ".fit()", ".constitution()"):
        assert call in text
    assert repr(folder) == f"<Run a: finished; in {folder.path}>"


def test_a_run_that_did_not_finish_opens_and_says_so(folder):
    (folder.path / "manifest.json").unlink()
    (folder.path / "evidence" / "summary.json").unlink()
    (folder.path / "model" / "fit.json").unlink()
    again = ag.open_run(folder.path)
    assert not again.finished
    text = shown(again)
    assert "Run a: not finished" in text
    assert "There is no manifest.json" in text
    assert "train not done" in text
    assert "diagnostics not done" in text
    assert "not finished" in repr(again)


def test_a_fit_that_certifies_nothing_is_a_doubt_of_its_run(tmp_path, coded, fitted, replayed):
    folder = ag.RunFolder(tmp_path)
    folder.save_fit(replayed, *coded)
    assert "certifies nothing" in shown(folder)
    folder.save_fit(dataclasses.replace(fitted, settled=False), *coded)
    assert "not settled" in shown(folder)


@pytest.mark.parametrize("name", [*run_card.PARTS.values(), "params.yaml"])
@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\udcff", "[" * 100_000, "a: *a"])
def test_a_damaged_file_is_a_doubt_and_no_traceback(folder, name, content):
    (folder.path / name).write_text(content, "utf-8", errors="surrogateescape")
    text = shown(ag.open_run(folder.path))
    assert name == "params.yaml" or f"{name[0].upper()}{name[1:]} cannot be read" in text


def test_a_hostile_title_stays_text_and_short(folder):
    title = json.dumps(HOSTILE * 2_000, ensure_ascii=True)
    folder.write_text("params.yaml", f"run: a\ntitle: {title}\n")
    text = shown(ag.open_run(folder.path), BOUND)
    assert "<script>alert(1)</script>" in text
    assert " ..." in text


def test_a_run_that_went_as_far_as_was_asked_says_how_far(folder):
    folder.write_json("manifest.json", {"stages": {"ingest": {}, "train": {}}})
    assert not folder.finished
    assert "Run a: done up to train" in shown(folder)
    assert "manifest" not in shown(folder)


def test_what_is_no_run_is_refused_with_a_remedy(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)  # where there is no outputs/
    out = folder.path.parent
    for wrong, why in (
        (out / "b", "there is no params.yaml, so it is no run's folder"),
        (out, "there is no params.yaml"),
    ):
        with pytest.raises(ag.RunError, match=why) as caught:
            ag.open_run(wrong)
        assert f"{wrong}: " in str(caught.value)
        assert f"open one of {folder.path}" in str(caught.value)
    with pytest.raises(ag.RunError, match=r"make one with: aggregation run params/demo\.yaml"):
        ag.open_run(tmp_path / "nowhere" / "b")


def test_an_error_names_a_few_runs_only_and_the_nearest_first(tmp_path):
    outputs = tmp_path / "outputs"
    ag.RunFolder.of("a", tmp_path).write_text("params.yaml", "")
    for k in range(20):
        ag.RunFolder.of(f"r{k:02}", outputs).write_text("params.yaml", "")
    with pytest.raises(ag.RunError, match=r"r07, \.\.\.") as caught:
        ag.open_run(outputs / "z")
    assert f"open one of {outputs / 'r00'}, " in str(caught.value)
    assert "r08" not in str(caught.value)


# parameters


def test_parameters_show_every_key_and_value():
    for path in sorted((ROOT / "params").glob("*.yaml")):
        params = ag.load_params(path)
        text = shown(params, 3_500)
        assert f"Parameters of run {params.run}" in text
        for section, value in params.model_dump().items():
            assert section in text
            for key in value if isinstance(value, dict) else ():
                assert key in text
    assert "min_intercept: 0.375" in text
    assert "confirm: false" in text


def test_hostile_parameters_stay_text(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        f"run: a\ntitle: {json.dumps(HOSTILE * 300)}\nsource: {{kind: simulated}}\n", "utf-8"
    )
    html = ag.load_params(path)._repr_html_()
    assert Tags(html).tags <= OURS
    assert len(html) < 6_000


def test_a_loaded_file_takes_the_place_of_the_sections_of_a_notebook():
    params = ag.load_params(ROOT / "params" / "demo.yaml")
    line = '`given = ag.load_params("params/demo.yaml")`'
    for stage in ("ingest", "train", "diagnostics", "publish"):
        cells = nbformat.read(ROOT / "notebooks" / f"{stage}.ipynb", as_version=4).cells
        (told,) = (cell.source for cell in cells if "lab" in cell.metadata.get("tags", []))
        assert line in told
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        read = {
            node.attr: ast.unparse(node)
            for node in ast.walk(ast.parse(code))
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "given"
        }
        assert read
        assert set(read) <= set(type(params).model_fields)
    given = ag.sections(**params.model_dump())
    assert {name: getattr(given, name) for name in vars(given)} == dict(params)


def test_parameters_written_for_a_run_by_hand_are_those_of_the_run(tmp_path):
    params = ag.Params(run="t", seed=3, source={"kind": "simulated", "n_users": 5})
    folder = ag.RunFolder.of("t", tmp_path)
    folder.write_text("params.yaml", dump(params))
    assert ag.load_params(ag.open_run(folder.path).path / "params.yaml") == params
