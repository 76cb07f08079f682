"""The command, as people run it: in a process of its own, but for its help and what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import inprocess
import pytest
from click.testing import CliRunner

import aggregation
from aggregation import load_params, read
from aggregation.cli import main
from aggregation.data.simulation import World, simulate
from aggregation.runs import runner
from aggregation.runs.runner import run

ROOT = Path(__file__).resolve().parents[1]
COMMAND = Path(sys.executable).with_name("aggregation")


@pytest.fixture
def command(tmp_path):
    def command(*words):
        return subprocess.run([COMMAND, *words], cwd=tmp_path, capture_output=True, text=True)

    return command


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The same words in this process, which need not load everything anew."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def here(*words):
        done = CliRunner().invoke(main, words, prog_name="aggregation")
        if not isinstance(done.exception, SystemExit | None):
            raise done.exception  # what a process would end with a traceback for
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)

    yield here
    signal.signal(signal.SIGTERM, before)


def is_an_error(done):
    return done.returncode != 0 and "Error: " in done.stderr and "Traceback" not in done.stderr


COMMANDS = ("batch", "check", "completion", "diff", "index", "init", "notebooks", "plan", "run")
COMMANDS += ("simulate", "trust", "verify")
HELPS = [["--help"], *([name, "--help"] for name in COMMANDS), ["run", "-h"]]


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_help_shows_an_example_of_files_that_are_there(here, words):
    done = here(*words)
    assert done.returncode == 0
    assert done.stderr == ""
    examples = [line for line in done.stdout.splitlines() if line.startswith("    aggregation ")]
    assert any(words[0] in example for example in examples) or words == ["--help"]
    named = {word for example in examples for word in example.split() if "params/" in word}
    none = ("completion", "diff", "index", "init", "notebooks", "plan", "verify")
    assert named or words[0] in none
    assert all((ROOT / name).is_file() for name in named)


def test_every_command_is_in_the_help(command):
    text = command("--help").stdout
    assert all(f"\n  {name} " in text for name in COMMANDS)


def test_version_is_that_of_the_package(command):
    done = command("--version")
    assert done.returncode == 0
    assert done.stdout.strip().endswith(aggregation.__version__)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "none.yaml"], "none.yaml: cannot be read (No such file or directory)"),
        (["run", "."], "is a directory"),
        (["rn", "x.yaml"], "No such command 'rn'"),
        (["run", "x.yaml", "--until", "trian"], "'trian' is not one of 'ingest', 'train'"),
        (["simulate", "no/such/folder/x.json"], "x.json: cannot be written (No such file"),
        (["simulate", "x.json", "--seed", "-1"], "-1 is not in the range"),
        (["batch"], "Missing argument 'PARAMS...'"),
        (["batch", "x.yaml", "-j", "0"], "0 is not in the range x>=1"),
        (["batch", "x.yaml"], "x.yaml: cannot be read (No such file or directory)"),
        (["run", "x.yaml", "--timeout", "0"], "0.0 is not in the range x>0"),
        (["index", "none"], "Directory 'none' does not exist"),
        (["diff", "none", "other"], "none: there is no params.yaml, so it is no run's folder"),
        (["completion", "cmd"], "'cmd' is not one of 'bash', 'zsh', 'fish'"),
    ],
)
def test_a_wrong_call_is_told_without_a_traceback(here, tmp_path, words, told):
    done = here(*words)
    assert is_an_error(done)
    assert told in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_parameters_that_are_refused_leave_nothing_behind(command, tmp_path):
    (tmp_path / "p.yaml").write_text("run: a\nsource: {kind: simulated}\nsede: 1\n")
    done = command("run", "p.yaml", "--set", "train.startz=2")
    assert is_an_error(done)
    assert "p.yaml, line 3: sede: unknown key: did you mean 'seed'?" in done.stderr
    assert "--set: train.startz: unknown key: did you mean 'starts'?" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["p.yaml"]


def test_simulate_writes_the_same_json_for_the_same_seed(here, tmp_path):
    for name in ("a.json", "b.json"):
        done = here("simulate", name, "--seed", "7", "--users", "30")
        assert done.returncode == 0, done.stderr
    text = (tmp_path / "a.json").read_bytes()
    assert text == (tmp_path / "b.json").read_bytes()
    assert json.loads(text) == simulate(7, World(30)).export != simulate(8, World(30)).export


def test_simulate_takes_the_settings_of_a_world(here, tmp_path):
    done = here("simulate", "a.json", "--set", "n_guidelines=7", "--users", "30")
    assert f"{tmp_path}" not in done.stderr
    assert len(json.loads((tmp_path / "a.json").read_bytes())["guidelines"]) == 7
    done = here("simulate", "b.json", "--set", "camps=9", "--set", "axis=1")
    assert is_an_error(done)
    assert "source.camps: must be less than or equal to 5, not 9" in done.stderr
    assert "source.axis: unknown key: did you mean 'axes'?" in done.stderr


def test_what_simulate_writes_can_be_read_as_the_platforms_export(here, tmp_path):
    done = here("simulate", "export.json", "--users", "30")
    change = f"source.path={tmp_path / 'export.json'}"
    params = load_params(ROOT / "params" / "platform-file.yaml", [change])
    dataset = read(params.source, params.ratings, params.seed)
    assert dataset.ratings["user_id"].nunique() == 30
    assert f"{len(dataset.ratings):,} ratings by 30 simulated users" in done.stdout


def test_bash_completes_the_commands_words():
    """In a real bash, by the function that the printed script defines."""
    script = rf"""
        eval "$({COMMAND} completion bash)"
        COMP_WORDS=(aggregation run x.yaml --until tr); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        $(complete -p aggregation | sed 's/.*-F \([^ ]*\) .*/\1/') aggregation
        echo "${{COMPREPLY[@]}}"
    """
    env = os.environ | {"PATH": f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=env)
    assert done.stdout.split() == ["train"], done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_of_their_own(here, shell):
    done = here("completion", shell)
    assert done.returncode == 0
    assert f"{shell}_complete" in done.stdout


def test_the_difference_of_two_runs_as_text_json_and_page(here, tmp_path):
    params = tmp_path / "p.yaml"
    params.write_text(
        "run: a\nseed: 7\nsource: {kind: simulated, n_users: 40}\n"
        "train: {starts: 2, max_starts: 2, moves: false}\n"
    )
    options = {"until": "diagnostics", "say": lambda _: None, "execute": inprocess.execute}
    run(params, out="outputs", **options)
    shutil.copytree(tmp_path / "outputs" / "a", tmp_path / "others" / "a")
    run(params, out="others", changes=["rule.min_intercept=0.5"], **options)
    done = here("diff", "outputs/a", "outputs/a")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    done = here("diff", "outputs/a", "others/a", "--page", "page.html")
    assert "rule.min_intercept: 0.375 -> 0.5" in done.stdout
    assert "No longer accepted:" in done.stdout
    assert done.stdout.splitlines()[-1] == "Page: page.html"
    assert "limit 0.375" in (tmp_path / "page.html").read_text("utf-8")
    told = json.loads(here("diff", "outputs/a", "others/a", "--json").stdout)
    assert told["verdicts"]["lost"] > 0


# evidence


def test_a_plan_is_a_table_an_answer_and_a_figure(here, tmp_path):
    words = ("--users", "80", "--users", "200", "--ratings", "25", "--guidelines", "30")
    done = here("plan", *words, "--figure", "plan.png")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["users", "ratings_each", "guidelines"]
    assert [line.split()[0] for line in lines[1:3]] == ["80", "200"]
    assert "people who rate 25 guidelines each decide" in done.stdout
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    assert "80 users with 25 ratings each ..." in done.stderr
    none = here("plan", "--users", "20", "--ratings", "2", "--guidelines", "60")
    assert "None of these sizes decides 90%" in none.stdout
    assert is_an_error(here("plan", "--rule", "no-such"))


@pytest.mark.slow
def test_trust_measures_a_rule_on_given_data(here, tmp_path):
    text = "run: small\nsource: {kind: simulated, n_users: 40}\nrule: {name: robust}\n"
    (tmp_path / "p.yaml").write_text(text)
    fast = ("--rule", "robust", "--set", "train={starts: 2, max_starts: 2, moves: false}")
    for change, accepts in (("rule.min_raters=1000", False), ("rule.min_raters=2", True)):
        done = here("trust", "p.yaml", *fast, "--set", change, "--worlds", "1")
        assert done.returncode == 0, done.stderr
        rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
        assert list(rows)[0] == "robust"  # noqa: RUF015
        assert (float(rows["accepted"][0]) > 0) is accepts
        assert (rows["accounts_21"] != ["none"]) is accepts
        assert (float(rows["f1"][0]) > 0.5) is accepts
    assert "junk and random raters ..." in done.stderr
    assert is_an_error(here("trust", "p.yaml", "--rule", "no-such"))
    assert is_an_error(here("trust", "there-is-none.yaml"))


# the front door


VOTES = "who;what;vote\n" + "".join(
    f"u{u};g{g};{'Yes' if g < 4 or (u + g) % 2 else 'no'}\n" for u in range(12) for g in range(12)
)


def test_two_commands_lead_from_a_file_to_a_report(here, tmp_path, monkeypatch):
    (tmp_path / "votes.csv").write_text(VOTES)
    monkeypatch.setattr(runner, "run", partial(run, execute=inprocess.execute))
    assert here("init", "votes.csv").returncode == 0
    done = here("run", "--set", "train={starts: 2, max_starts: 2, moves: false}")
    assert done.returncode == 0, done.stderr
    read, decided, *_, report = done.stdout.splitlines()[-3:]
    assert read == "Read:    144 ratings"
    assert decided.startswith("Decided: 4 accepted, 0 undecided, 8 rejected")
    assert report == "Report: outputs/votes/report/index.html"
    assert len(done.stdout.splitlines()) <= 8 + 8  # two lines a stage, and the end
    quiet = here("run", "--quiet", "--set", "train={starts: 2, max_starts: 2, moves: false}")
    assert len(quiet.stdout.splitlines()) <= 8
    assert quiet.stdout.splitlines()[-1] == report
    (tmp_path / "other.csv").write_text(VOTES)
    other = here("run", "--set", "source.path=other.csv")
    assert is_an_error(other)
    assert "outputs/votes: holds a run of other data (votes.csv, now other.csv)" in other.stderr
    assert "--force" in other.stderr


def test_init_replaces_no_file_unasked(here, tmp_path):
    (tmp_path / "votes.csv").write_text(VOTES)
    (tmp_path / "aggregation.yaml").write_text("run: mine\n")
    done = here("init", "votes.csv")
    assert is_an_error(done)
    assert (
        "aggregation.yaml is there already: give --force, or another name with --to" in done.stderr
    )
    assert (tmp_path / "aggregation.yaml").read_text() == "run: mine\n"
    done = here("init", "votes.csv", "--to", "my file.yaml", "--name", "x")
    assert done.stdout.splitlines()[-1].endswith("then: aggregation run 'my file.yaml'")
    assert load_params(tmp_path / "my file.yaml").run == "x"


def test_check_says_what_is_left_out_and_runs_nothing(here, tmp_path):
    rows = VOTES.replace("u3;g1;Yes", "u3;g1;").replace("u4;g1;Yes", ";g1;Yes")
    (tmp_path / "votes.csv").write_text(rows)
    here("init", "votes.csv")
    done = here("check")
    assert done.stdout.splitlines() == [
        "Read:    142 ratings by 12 users of 12 guidelines",
        "Dropped: 1 rating: no user_id",
        "Dropped: 1 rating: no value given",
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["aggregation.yaml", "votes.csv"]
    done = here("check", "--set", "source.columns.value=vot")
    assert is_an_error(done)
    assert "no column 'vot' (for value)" in done.stderr
    assert "perhaps 'vote'" in done.stderr


def test_run_without_a_file_says_how_to_get_one(here, tmp_path):
    done = here("run")
    assert is_an_error(done)
    for way in ("aggregation.yaml", "aggregation init RATINGS", "aggregation run --demo"):
        assert way in done.stderr
    assert not list(tmp_path.iterdir())
    assert "--demo takes no parameter file" in here("run", "--demo", "p.yaml").stderr


def test_notebooks_beside_the_run_are_used_and_named(here, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "run", partial(run, execute=inprocess.execute))
    assert here("notebooks").returncode == 0
    path = tmp_path / "notebooks" / "ingest.ipynb"
    path.write_text(path.read_text().replace("What was asked, of whom", "Mine: what was asked"))
    small = (
        "--set",
        "source.n_users=40",
        "--set",
        "train={starts: 2, max_starts: 2, moves: false}",
    )
    done = here("run", "--demo", *small, "--until", "ingest")
    assert done.returncode == 0, done.stderr
    assert "Notebooks: those in notebooks/" in done.stdout
    made = (tmp_path / "outputs" / "demo" / "notebooks" / "ingest.ipynb").read_text()
    assert "Mine: what was asked" in made
    again = here("notebooks")
    assert is_an_error(again)
    assert "holds ingest.ipynb already" in again.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("source.columns.value=vot", "no column 'vot'"),
        ("source.path=vote.csv", "vote.csv: there is no such file"),
        ("ratings.values={Yes: helpful}", "do not say what these values mean"),
    ],
)
def test_data_that_cannot_be_read_are_told_before_a_kernel_starts(here, tmp_path, change, says):
    (tmp_path / "votes.csv").write_text(VOTES)
    here("init", "votes.csv")
    done = here("run", "--set", change)
    assert is_an_error(done)
    assert says in done.stderr
    assert "notebook" not in done.stderr
    assert not [p for p in tmp_path.glob("outputs/*") if p.is_dir()]
