"""What the documentation prints is what happens."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import inprocess
import pytest
from click.testing import CliRunner
from loopback import Loopback
from ruamel.yaml import YAML

from aggregation import World, sections, simulate
from aggregation.cli import main
from aggregation.runs.runner import run

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DATA = ROOT / "docs" / "data.md"
BLOCK = re.compile(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page, kind):
    """Words after the kind, and the text, of each block of a kind in a page."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(words, text) for name, words, text in found if name == kind]


@pytest.fixture
def _data(tmp_path, monkeypatch):
    """A folder with the files that docs/data.md prints."""
    monkeypatch.chdir(tmp_path)
    for name, text in blocks(DATA, "csv"):
        Path(name).write_text(text, encoding="utf-8")


CONSOLE = [text for _, text in blocks(DATA, "console")]


@pytest.mark.parametrize("text", CONSOLE, ids=lambda text: text.splitlines()[0])
@pytest.mark.usefixtures("_data")
def test_every_shape_of_data_is_read_as_printed(monkeypatch, text):
    command, expected = text.removeprefix("$ aggregation ").split("\n", 1)
    words = shlex.split(command)
    monkeypatch.setattr(sys, "argv", ["aggregation", *words])
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.output == expected
    again = CliRunner().invoke(main, ["check"], catch_exceptions=False)
    told = [line for line in expected.splitlines() if line.startswith(("Read", "Dropped", "Doubt"))]
    assert again.output.splitlines() == told


def test_there_are_five_shapes():
    assert len(CONSOLE) == 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    codes = [code for _, code in blocks(page, "python")]
    if any("outputs/demo" in code for code in codes):
        small = ["seed=7", "source.n_users=40", "train={starts: 2, max_starts: 2, moves: false}"]
        run(
            ROOT / "params/demo.yaml",
            changes=small,
            until="diagnostics",
            say=lambda _: None,
            execute=inprocess.execute,
        )
    for code in codes:
        exec(compile(code, page.name, "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_yaml_blocks_are_valid_parameters(page):
    for _, text in blocks(page, "yaml"):
        sections(**YAML(typ="safe", pure=True).load(text))


COMMAND = re.compile(r"aggregation ([a-z][a-z-]*)((?: [^\n#`|&()]*)?)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_that_is_printed_exists(page):
    for _, text in [*blocks(page, "sh"), *blocks(page, "console"), *blocks(page, "bash")]:
        for name, words in COMMAND.findall(text):
            command = main.commands.get(name)
            assert command is not None, f"{page.name}: aggregation {name}"
            known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
            given = {word.partition("=")[0] for word in words.split() if word.startswith("-")}
            assert given <= known | {"--help"}, f"{page.name}: aggregation {name}{words}"


KEY = "a-key-of-nobody"
TRAIN = "train: {starts: 2, max_starts: 2, moves: false}\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory, data):
    """A project as the pages speak of it, with small deliberations and the runs they compare."""
    place = tmp_path_factory.mktemp("docs") / "project"
    shutil.copytree(ROOT / "params", place / "params")
    demo, platform = place / "params" / "demo.yaml", place / "params" / "platform.yaml"
    demo.write_text(
        "run: demo\nseed: 7\nsource: {kind: simulated, n_users: 40}\n" + TRAIN, encoding="utf-8"
    )
    platform.write_text(platform.read_text("utf-8") + TRAIN, encoding="utf-8")
    (place.parent / "openData").symlink_to(data / "polis")
    for name, copied in (("ratings", "ratings"), ("items", "texts")):
        (text,) = [text for words, text in blocks(DATA, "csv") if words == f"{name}.csv"]
        (place / f"{copied}.csv").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, Loopback(simulate(7, World(40)).export, KEY) as web:
        patch.chdir(place)
        patch.setattr("aggregation.runs.executor.Executor", lambda _: inprocess.execute)
        patch.setenv("AGGREGATION_PLATFORM_KEY", KEY)
        patch.setenv("AGGREGATION_PLATFORM_URL", web.url)
        for name in ("demo", "mine", "more-starts"):
            run(demo, changes=[f"run={name}"], say=str, execute=inprocess.execute)
        yield place


def commands(page):
    """The lines of a page's sh blocks that begin with `aggregation`, without their remarks."""
    lines = "".join(text for _, text in blocks(page, "sh")).splitlines()
    return [
        shlex.split(line, comments=True)[1:] for line in lines if line.startswith("aggregation ")
    ]


WITH_COMMANDS = [page for page in PAGES if commands(page)]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.name)
def test_commands_of_sh_blocks_run_in_their_order(page, project, monkeypatch):
    (project / "aggregation.yaml").unlink(missing_ok=True)  # written by `init` on another page
    for words in commands(page):
        monkeypatch.setattr(sys, "argv", ["aggregation", *words])
        done = CliRunner().invoke(main, words, catch_exceptions=False)
        assert done.exit_code == 0, f"aggregation {shlex.join(words)}: {done.output}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_make_targets_that_are_printed_exist():
    made = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, text=True, check=True)
    known = {line.split()[0] for line in made.stdout.splitlines() if "\t" in line}
    for page in PAGES:
        for _, text in blocks(page, "sh"):
            wanted = set(re.findall(r"^make ([a-z]+)", text, re.MULTILINE))
            assert wanted <= known, page.name


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_outside(tmp_path):
    docs, site = shutil.copytree(ROOT / "docs", tmp_path / "docs"), tmp_path / "site"
    words = ["-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", docs, site]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in ("index", "data", "method", "parameters", "python", "notebooks/train"):
        html = (site / f"{page}.html").read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)"', html)
        loaded += re.findall(r'<link[^>]* rel="stylesheet"[^>]* href="([^"]+)"', html)
        assert loaded
        assert not [address for address in loaded if "//" in address]
    method = (site / "method.html").read_text(encoding="utf-8")
    assert method.count("<math") > 60
    assert not re.findall(r"\\(?:sum|frac|lambda)\b", method)
    assert "Find the guidelines that people who otherwise disagree" in (
        (site / "python.html").read_text(encoding="utf-8")
    )
