"""The notebooks: clean as committed, without logic, and each runs by itself under papermill."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import inprocess
import nbformat
import numpy as np
import papermill
import pytest
from ruamel.yaml import YAML

import aggregation as ag
from aggregation import sections
from aggregation.runs.notebook import declared, notebook_source
from aggregation.runs.stages import MAKES

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STAGES = ("ingest", "train", "diagnostics", "publish")
ABSOLUTE = re.compile(r"(?<![\w.])/(home|root|work|Users|tmp|mnt)\b|\b[A-Za-z]:\\\\?\w")

PARAMS = """\
run: alone
seed: 5
title: Alone
source: {kind: simulated, n_users: 60}
ratings: {min_per_user: 2}
train: {starts: 2, max_starts: 2}
diagnostics: {near_misses: 3}
rule: {min_ratings: 4}
publish: {target: file}
"""

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def code(path):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def is_parameters(cell):
    return "parameters" in cell.metadata.get("tags", [])


def test_every_stage_has_a_notebook():
    assert {*STAGES, "tutorial"} <= {path.stem for path in NOTEBOOKS}


@each
def test_a_notebook_is_valid_and_has_stable_ids(path):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor >= 5) == (4, True)


@each
def test_a_notebook_is_committed_without_outputs_and_traces(path):
    notebook = nbformat.read(path, as_version=4)
    assert "papermill" not in notebook.metadata
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@each
def test_a_notebook_names_no_place_on_somebodys_machine(path):
    found = ABSOLUTE.search(path.read_text("utf-8"))
    assert found is None, found


def test_places_on_machines_are_recognised():
    for text in ('"/home/a"', "open('/mnt/x')", "/Users/me", "/tmp", r"C:\\data", "c:\\x"):
        assert ABSOLUTE.search(text), text
    for text in ("../shared/home", "a/tmp/b", "min/max", "http://x.org/home", r"\lambda: \big"):
        assert not ABSOLUTE.search(text), text


@each
def test_a_notebook_begins_with_its_title_and_purpose(path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    title, blank, purpose = first.source.split("\n")[:3]
    assert title == f"# {path.stem.capitalize()}"
    assert blank == ""
    assert len(purpose) > 20


@each
def test_a_notebook_has_one_parameters_cell_and_it_comes_first(path):
    cells = code(path)
    assert [is_parameters(cell) for cell in cells] == [True] + [False] * (len(cells) - 1)


@each
def test_the_parameters_cell_assigns_literals_that_the_schema_accepts(path):
    given = {}
    for statement in ast.parse(code(path)[0].source).body:
        assert isinstance(statement, ast.Assign)
        (target,) = statement.targets
        given[target.id] = ast.literal_eval(statement.value)
    assert list(given) == declared_by(path.stem)
    assert given.pop("out") == "outputs"
    sections(**given)


@each
def test_every_declared_parameter_is_used(path):
    later = ast.parse("\n".join(cell.source for cell in code(path)[1:]))
    used = {n.id for n in ast.walk(later) if isinstance(n, ast.Name) and n.id}
    assert set(declared_by(path.stem)) <= used


@each
def test_a_notebook_holds_no_logic(path):
    logic = (
        *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda),
        *(ast.If, ast.IfExp, ast.For, ast.While, ast.Try, ast.Match),
        *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
    )
    for cell in code(path):
        assert not re.search(r"^\s*[%!]", cell.source, re.MULTILINE)
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, logic), ast.unparse(node)
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", None) or node.names[0].name
                assert module.split(".")[0] == "aggregation", ast.unparse(node)


# without a run


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A folder in which every notebook was executed by itself, one after the other: the folder,
    and what each wrote."""
    cwd = tmp_path_factory.mktemp("alone")
    given = YAML(typ="safe", pure=True).load(PARAMS) | {"out": str(cwd / "outputs")}
    made = {}
    for stage in STAGES:
        before = set(contents(cwd))
        parameters = {name: given[name] for name in declared_by(stage) if name in given}
        inprocess.execute(
            stage, notebook_source(stage), cwd, parameters, timeout=60.0, say=lambda _: None
        )
        made[stage] = set(contents(cwd)) - before
    return cwd, made


def declared_by(stage):
    return declared(stage, notebook_source(stage))


@pytest.mark.parametrize("stage", STAGES)
def test_a_notebook_runs_alone_and_writes_its_own_files_only(alone, stage):
    _, made = alone
    expected = {f"outputs/alone/{file}" for file in MAKES[stage]}
    assert made[stage] == expected | {f"notebooks/{stage}.ipynb"}


def test_notebooks_obey_their_parameters(alone):
    cwd, _ = alone
    folder = cwd / "outputs" / "alone"
    fit = json.loads((folder / "model" / "fit.json").read_text())
    rule = json.loads((folder / "evidence" / "summary.json").read_text())["rule"]
    assert len(fit["starts"]) == 2
    assert fit["settled"] is False  # two starts cannot agree three times
    assert 40 <= fit["n_users"] <= 60  # min_per_user takes some away
    assert ag.Rule.from_json(rule).bound("min_ratings") == 4
    assert "Alone" in (folder / "report" / "index.html").read_text("utf-8")


def test_papermill_takes_the_parameter_file_on_its_command_line(tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS)
    papermill_command = Path(sys.executable).with_name("papermill")
    notebook = ROOT / "notebooks" / "ingest.ipynb"
    done = subprocess.run(
        [papermill_command, notebook, tmp_path / "out.ipynb", "-f", "params.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs" / "alone" / "data" / "ingest.json").exists()
    assert (tmp_path / "out.ipynb").exists()


# the tutorial


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    """The tutorial as it is, in a working directory where a run lies already: its cells, the
    folder it made, the files before and after."""
    cwd = tmp_path_factory.mktemp("tutorial")
    earlier = cwd / "outputs" / "demo" / "model" / "fit.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("of an earlier run")
    before = contents(cwd)
    papermill.execute_notebook(
        str(ROOT / "notebooks" / "tutorial.ipynb"),
        str(cwd / "tutorial.ipynb"),
        kernel_name="python3",
        cwd=str(cwd),
        progress_bar=False,
    )
    return code(cwd / "tutorial.ipynb"), cwd, before, contents(cwd)


def contents(cwd):
    return {p.relative_to(cwd).as_posix(): p.read_bytes() for p in cwd.rglob("*") if p.is_file()}


def told(cells, beginning):
    """What the cell with this line shows, as text without tags."""
    (cell,) = [c for c in cells if beginning in c.source.splitlines()]
    parts = [
        o.text if o.output_type == "stream" else o.data.get("text/html", o.data["text/plain"])
        for o in cell.outputs
        if o.get("name") != "stderr"
    ]
    return " ".join(re.sub("<[^>]*>", " ", " ".join(parts)).split())


def test_the_tutorial_writes_a_run_of_its_own_and_touches_no_other(tutorial):
    _, _, before, after = tutorial
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) - {"tutorial.ipynb"} == {
        f"outputs/tutorial/{file}"
        for file in (
            *("params.yaml", "data/ingest.json", "model/fit.json"),
            *(f"data/{t}.parquet" for t in ("ratings", "guidelines", "users", "topics", "answers")),
            *(f"model/{t}.parquet" for t in ("users", "guidelines", "history")),
            *("evidence/guidelines.parquet", "evidence/minima.json", "evidence/summary.json"),
        )
    }


def test_every_output_of_the_tutorial_is_something_to_look_at(tutorial):
    cells, *_ = tutorial
    assert is_parameters(cells[0])
    assert not cells[0].outputs
    for cell in cells[1:]:
        seen = [o for o in cell.outputs if o.get("name") != "stderr"]
        assert len(seen) == 1, cell.source
        assert seen[0].output_type in ("display_data", "execute_result", "stream")
        shown = seen[0].get("data", {})
        assert "text" in seen[0] or {"text/html", "image/png"} & set(shown), cell.source
        assert "(no rows)" not in shown.get("text/plain", "")
        errors = "".join(o.text for o in cell.outputs if o.get("name") == "stderr")
        assert not errors.rsplit("\r", maxsplit=1)[-1].strip(), errors


def test_the_tutorial_names_no_participant(tutorial):
    cells, cwd, *_ = tutorial
    users = ag.open_run(cwd / "outputs" / "tutorial").dataset().users["user_id"]
    text = json.dumps([o.get("text") or o.data.get("text/html") for c in cells for o in c.outputs])
    assert len(users) == 200
    assert not [user for user in users if user in text]


def test_the_numbers_in_the_tutorial_are_true(tutorial):
    cells, cwd, *_ = tutorial
    folder = ag.open_run(cwd / "outputs" / "tutorial")
    loaded = folder.load()
    ratings, ids, parameters = loaded.ratings, loaded.ids, loaded.fit.parameters
    n, helpful = np.zeros(len(ids.guidelines)), np.zeros(len(ids.guidelines))
    np.add.at(n, ratings.guideline, 1)
    np.add.at(helpful, ratings.guideline, ratings.helpful)
    majority, liked = helpful > 0.5 * n, (helpful >= 0.8 * n) & (n >= 5)
    accepted = liked & (parameters.guideline_intercept > 0.375)
    other = (helpful >= 0.9 * n) & (n >= 5) & (parameters.guideline_intercept > 0.45)
    assert n.min() >= 5
    assert 0 < other.sum() < accepted.sum() < liked.sum() < majority.sum()

    by_vote = told(cells, "rule = params.rule.rule()")
    assert f"{len(n)} guidelines have at least 5 ratings. {majority.sum()} of them" in by_vote
    assert f"{liked.sum()} to at least 80%" in by_vote
    read = told(
        cells,
        'dataset = ag.read(params.source, params.ratings, params.seed, folder.path / "source")',
    )
    assert f"{len(ratings):,} ratings by 200 users of {len(n)} guidelines" in read
    assert "Simulated: nobody said any of this" in read

    loss = float(ag.loss(parameters, ratings, ag.Penalty()))
    found = told(cells, "fit")
    assert f"loss {loss:.8f}, converged, settled" in found
    assert told(cells, "again.fit()") == found
    assert folder.fit().settled

    card = told(cells, "constitution")
    assert f"{accepted.sum()} accepted, 0 undecided, {len(n) - accepted.sum()} rejected" in card
    assert told(cells, "again.constitution()") == card
    assert f"{other.sum()} accepted" in told(cells, "other")
    kept = told(cells, "before = ag.payload(constitution, fit.parameters, ids)")
    assert f"no longer accepted {accepted.sum() - other.sum()}" in kept
    assert f"accepted as before {other.sum()}" in kept
    again = told(cells, "again = ag.open_run(folder.path)")
    assert "Run tutorial: not finished" in again
    assert f"loss {loss:.8f}" in again
    params = ag.load_params(folder.path / "params.yaml")
    assert (params.run, params.seed, params.source.n_users) == ("tutorial", 20231013, 200)


def test_what_the_tutorial_rejects_for_all_its_applause_divides_the_sides(tutorial):
    """The lesson: accepted ones are helpful to both planted camps, these are not."""
    cells, cwd, *_ = tutorial
    folder = ag.open_run(cwd / "outputs" / "tutorial")
    planted = ag.simulate(20231013, ag.World(200)).guidelines.set_index("guideline_id")["kind"]
    scores = folder.constitution().scores.set_index("guideline_id")
    kind = planted.loc[scores.index]
    accepted = scores["verdict"] == "accepted"
    liked = (scores["helpful_rate"] >= 0.8) & ~accepted
    assert (kind[accepted] == "shared").mean() > 0.9
    assert (kind[liked] == "divisive").mean() > 0.9
    text = told(cells, 'liked = liked.sort_values("intercept")')
    assert text.count("needs more than 0.375") == 8


def test_the_other_notebooks_go_on_from_the_tutorial(tutorial, tmp_path):
    _, cwd, *_ = tutorial
    given = {"run": "tutorial", "out": str(cwd / "outputs")}
    source = notebook_source("publish")
    inprocess.execute("publish", source, tmp_path, given, timeout=60.0, say=lambda _: None)
    assert (cwd / "outputs" / "tutorial" / "report" / "index.html").exists()
