"""The `aggregation` command."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import click

from aggregation import __version__
from aggregation.errors import AggregationError, ParameterError, RunError
from aggregation.runs.stages import STAGES

ENOUGH_DECIDED = 0.9
"""Share of the guidelines from which a size counts as enough."""


PARAMS, DEMO = "aggregation.yaml", "params/demo.yaml"
"""The parameter file that `init` writes and `run` takes by itself; that of the demo."""

INTERRUPTED = threading.Event()
"""Whether this process was told to end."""

STOP_AGAIN = 20
"""Seconds after which a process that was told to end, and goes on, is stopped again."""


class _Group(click.Group):
    """Shows the package's own errors as messages, not as tracebacks."""

    def invoke(self, ctx: click.Context) -> object:
        for stream in (sys.stdout, sys.stderr):  # a terminal may lack what a path or text holds
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")

        INTERRUPTED.clear()

        def interrupt(*_: object) -> None:
            INTERRUPTED.set()
            # Again until the process ends: Python loses what is raised while it frees an object.
            signal.setitimer(signal.ITIMER_REAL, STOP_AGAIN)
            raise KeyboardInterrupt

        before = {signal.SIGALRM: signal.signal(signal.SIGALRM, interrupt)}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # no kernel is left behind
            if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                before[number] = signal.signal(number, interrupt)
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            if INTERRUPTED.is_set():  # libraries may make another error of it
                kept = " What was done is kept: the same command goes on from there."
                runs = ctx.invoked_subcommand in ("run", "batch", "train-distributed")
                click.echo(f"Stopped.{kept if runs else ''}", err=True)
                sys.stdout.flush()
                os._exit(130)  # a socket that was just being opened could hold up a normal end
            if isinstance(error, AggregationError):
                raise click.ClickException(str(error)) from None
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)


def _say(text: str) -> None:
    """Print a line; where nobody reads any more, as after `| head`, work goes on in silence."""
    try:
        click.echo(text)
    except BrokenPipeError:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, sys.stdout.fileno())
        os.close(silence)


def _say_or_stop(text: str) -> None:
    """Print a line of a run. If it was told to end, end it: a library may have swallowed that."""
    if INTERRUPTED.is_set():
        raise KeyboardInterrupt
    _say(text)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Find the guidelines that people who otherwise disagree find helpful.

    \b
    Examples:
      aggregation run --demo
      aggregation init ratings.csv texts.csv
      aggregation run
      aggregation run params/polis.yaml --set source.path=my-export --set run=mine
      aggregation batch params/demo.yaml --grid seed=1,2,3 -j 2
      aggregation verify outputs/demo
      aggregation diff outputs/demo outputs/mine
    """


def _set(about: str = "Change a parameter; repeatable.") -> Any:
    return click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help=about)


_until = click.option(
    "--until", type=click.Choice(STAGES), default=STAGES[-1], help="Stop after this stage."
)
_timeout = click.option(
    "--timeout",
    default=6 * 3600.0,
    show_default="6 hours",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="Stop a stage that takes longer.",
)
_out = click.option(
    "--out",
    default="outputs",
    show_default=True,
    type=click.Path(file_okay=False),
    help="Folder that holds the run folders.",
)


@main.command()
@click.argument("params", required=False, type=click.Path(dir_okay=False))
@click.option("--demo", is_flag=True, help="Run a simulated deliberation, without PARAMS.")
@_set()
@click.option(
    "--from", "first", type=click.Choice(STAGES), help="Run this stage and those after it."
)
@_until
@click.option(
    "--force",
    is_flag=True,
    help="Run all stages, whatever holds already, and replace a run of other data.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only the end, and what goes wrong.")
@click.option("-v", "--verbose", is_flag=True, help="Print what each cell of a notebook took.")
@_timeout
@_out
@click.option("--offline", is_flag=True, help="Read the platform's export that is saved already.")
def run(
    params: str | None,
    demo: bool,
    changes: tuple[str, ...],
    first: str | None,
    until: str,
    force: bool,
    quiet: bool,
    verbose: bool,
    timeout: float,
    out: str,
    offline: bool,
) -> None:
    """Run the notebooks with the parameters of the file PARAMS, by default aggregation.yaml.

    Ingest, train, diagnostics and publish, in this order, into OUT/<run>. A stage whose data,
    parameters, notebook and package are those of an earlier run of that name is skipped.
    docs/parameters.md lists all parameters. Notebooks in ./notebooks are used instead of the
    package's own.

    \b
    Examples:
      aggregation run --demo
      aggregation run
      aggregation run params/demo.yaml
      aggregation run params/demo.yaml --set train.starts=16 --set run=more-starts
      aggregation run params/polis.yaml --until train --out /tmp/outputs
      aggregation run params/demo.yaml --from diagnostics
      aggregation run params/platform.yaml --offline
    """
    changes += ("source.offline=true",) if offline else ()
    from aggregation.runs import runner
    from aggregation.runs.provenance import CHECKOUT, project_file
    from aggregation.runs.summary import closing

    if demo and params is not None:
        raise ParameterError("--demo takes no parameter file: leave one of the two out")
    file = str(project_file(DEMO)) if demo else params or PARAMS
    if params is None and not demo and not Path(file).is_file():
        raise ParameterError(
            f"there is no {PARAMS} here: name a parameter file, make one from your ratings with "
            "`aggregation init RATINGS`, or try `aggregation run --demo`"
        )

    def say(text: str) -> None:
        if not quiet and (verbose or "cell " not in text):
            _say_or_stop(text)

    own = [s for s in STAGES if Path("notebooks", f"{s}.ipynb").is_file()]
    if own and Path.cwd() != CHECKOUT:
        say(f"Notebooks: those in notebooks/ ({', '.join(own)})")
    try:
        folder = runner.run(
            file,
            changes=changes,
            first=first,
            until=until,
            force=force,
            timeout=timeout,
            out=out,
            say=say,
        )
    except ParameterError as error:
        if offline and "source.offline: unknown key" in str(error):
            raise ParameterError("--offline is for a source of kind platform") from None
        raise
    for line in closing(folder):
        _say(line)
    report = folder / "report" / "index.html"
    _say(f"Report: {report}" if report.exists() else f"Run folder: {folder}")


@main.command()
@click.argument("ratings", type=click.Path(dir_okay=False))
@click.argument("texts", required=False, type=click.Path(dir_okay=False))
@click.option("--user", help="Column of who rated.")
@click.option("--guideline", help="Column of what was rated.")
@click.option("--rating", help="Column of the rating itself.")
@click.option("--time", help="Column of when.")
@click.option("--threshold", type=float, help="Of a scale: helpful from this number on.")
@click.option("--name", help="Name of the run.  [default: that of the file]")
@click.option("--to", default=PARAMS, show_default=True, help="The parameter file to write.")
@click.option("--force", is_flag=True, help="Write it although it is there.")
def init(
    ratings: str,
    texts: str | None,
    user: str | None,
    guideline: str | None,
    rating: str | None,
    time: str | None,
    threshold: float | None,
    name: str | None,
    to: str,
    force: bool,
) -> None:
    """Look at the file RATINGS, and write a parameter file that reads it.

    Any CSV, Excel or Parquet file: one rating a row, or one person a row and one column a
    guideline. TEXTS is a file with the guidelines' texts, if they are elsewhere.

    \b
    Examples:
      aggregation init ratings.csv
      aggregation init votes.xlsx statements.xlsx
      aggregation init stars.csv --threshold 4
      aggregation init export.csv --user voter --guideline item --rating choice
    """
    from aggregation.sources.guess import guess, parameter_file

    path = Path(to)
    if path.exists() and not force:
        raise ParameterError(f"{path} is there already: give --force, or another name with --to")
    given = {"user": user, "guideline": guideline, "rating": rating, "time": time}
    named = {key: column for key, column in given.items() if column is not None}
    found = guess(Path(ratings), Path(texts) if texts else None, named=named, threshold=threshold)
    stem = re.sub(r"[^\w.-]+", "-", Path(ratings).name.partition(".")[0]).strip("-.") or "mine"
    words = ["aggregation init", *(shlex.quote(w) for w in sys.argv[2:])]
    _write(path, parameter_file(found, name or stem, " ".join(words)))
    for note in found.notes:
        _say(f"Found:   {note}")
    try:
        _tell_data(str(path), ())
    except AggregationError:
        _say(f"Written: {path}. It does not read the file yet:")
        raise
    default = "" if to == PARAMS else f" {shlex.quote(to)}"
    _say(f"Written: {path}. Look at it, then: aggregation run{default}")


@main.command()
@click.argument("params", required=False, type=click.Path(dir_okay=False))
@_set()
def check(params: str | None, changes: tuple[str, ...]) -> None:
    """Read the data of PARAMS (by default aggregation.yaml), and run nothing.

    Says what was read, what is left out and why, and what will be doubted.

    \b
    Examples:
      aggregation check
      aggregation check params/demo.yaml
    """
    _tell_data(params or PARAMS, changes)


def _tell_data(params: str, changes: tuple[str, ...]) -> None:
    """Read the data of a parameter file and say what became of it."""
    from aggregation.data.cards import many
    from aggregation.evidence.warnings import warnings
    from aggregation.model.ratings import encode
    from aggregation.params.loading import load_params
    from aggregation.sources import read

    given = load_params(params, changes)
    if given.source.kind == "platform" and not given.source.offline:
        raise ParameterError("the platform is asked by `aggregation run`: check reads files only")
    dataset = read(given.source, given.ratings, given.seed, Path("outputs") / given.run / "source")
    users, guidelines = (dataset.ratings[k].nunique() for k in ("user_id", "guideline_id"))
    ratings = f"{many(len(dataset.ratings), 'rating')} by {many(users, 'user')}"
    _say(f"Read:    {ratings} of {many(guidelines, 'guideline')}")
    for c in dataset.counts:
        if c.n and c.action in ("dropped", "merged", "note"):
            rows = many(c.n, c.table.removesuffix("s"))
            _say(f"{c.action.capitalize() + ':':8} {rows}: {c.reason}")
    user_block, _ = encode(dataset.ratings)[0].blocks()
    for warning in warnings(dataset, int(user_block.max()) + 1):
        _say(f"Doubt:   {warning}")


@main.command()
@click.argument("folder", default="notebooks", type=click.Path(file_okay=False, path_type=Path))
def notebooks(folder: Path) -> None:
    """Copy the notebooks into FOLDER, to be changed. `aggregation run` takes those of ./notebooks.

    \b
    Example:
      aggregation notebooks
    """
    from aggregation.runs.provenance import project_file

    there = [stage for stage in STAGES if (folder / f"{stage}.ipynb").exists()]
    if there:
        raise RunError(f"{folder}: holds {there[0]}.ipynb already: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for stage in STAGES:
        _write(folder / f"{stage}.ipynb", project_file(f"notebooks/{stage}.ipynb").read_bytes())
    _say(f"Notebooks: {folder}. Runs started beside {folder.name}/ use them.")


@main.command()
@click.argument("params", nargs=-1, required=True, type=click.Path(dir_okay=False))
@click.option(
    "-j", "--jobs", type=click.IntRange(1), help="Runs side by side.  [default: one per core]"
)
@click.option(
    "--grid", multiple=True, metavar="KEY=V,V", help="Run with each of these values; repeatable."
)
@_set("Change a parameter of all runs.")
@_until
@click.option("--force", is_flag=True, help="Run all stages, whatever holds already.")
@_timeout
@_out
@click.pass_context
def batch(
    ctx: click.Context,
    params: tuple[str, ...],
    jobs: int | None,
    grid: tuple[str, ...],
    changes: tuple[str, ...],
    until: str,
    force: bool,
    timeout: float,
    out: str,
) -> None:
    """Run many parameter files PARAMS, some side by side.

    One that fails does not stop the others. What is done is not done again: after Ctrl-C, or a
    failure, the same command goes on. Ends with a table and OUT/index.html. The exit code is 0 if
    all runs are done, 1 if some failed, 130 if they were stopped.

    \b
    Examples:
      aggregation batch params/demo.yaml params/nz-tax.yaml -j 2
      aggregation batch params/demo.yaml --grid train.embedding_penalty=0.01,0.03,0.1
      aggregation batch params/demo.yaml --grid seed=1,2,3 --grid train.starts=8,16
    """
    from aggregation.runs.batch import plan, run_all, table
    from aggregation.runs.pages import check_place, write_run_list

    options = ["--until", until, "--timeout", str(timeout), *(["--force"] if force else [])]
    tasks = plan(params, grid, changes)
    check_place(Path(out).expanduser())
    outcomes = run_all(tasks, jobs or os.cpu_count() or 1, out, options, _say)
    _say("\n" + table(outcomes))
    _say(f"Runs: {write_run_list(Path(out).expanduser())}")
    states = {outcome.state for outcome in outcomes}
    ctx.exit(130 if "stopped" in states else 1 if "failed" in states else 0)


@main.command("train-distributed")
@click.argument("params", type=click.Path(dir_okay=False))
@_set()
@click.option("--cluster", is_flag=True, help="Find the others as Slurm, Kubernetes or MPI tell.")
@click.option("--coordinator", metavar="HOST:PORT", help="Where the first process listens.")
@click.option("--processes", type=click.IntRange(2), help="How many processes there are.")
@click.option("--process", type=click.IntRange(0), help="Which one this is, from 0 on.")
@_out
def train_distributed(
    params: str,
    changes: tuple[str, ...],
    cluster: bool,
    coordinator: str | None,
    processes: int | None,
    process: int | None,
    out: str,
) -> None:
    """Train the model of PARAMS on all devices of one or of many machines.

    Start it once on every machine, with the same parameters and a folder --out that all share. The
    first process makes the data if they are not there, and saves the model; `aggregation run` with
    the same parameters goes on from it. `train.shards` must be a multiple of the number of
    devices; the model has the same bits on any number of them.

    \b
    Examples:
      aggregation train-distributed big.yaml --set train.shards=16
      srun -n 4 aggregation train-distributed big.yaml --cluster
      aggregation train-distributed big.yaml --coordinator host0:4321 --processes 2 --process 0
    """
    from aggregation.model.processes import ALONE
    from aggregation.runs.provenance import jax_platforms

    os.environ["JAX_PLATFORMS"] = jax_platforms()  # as kernels, and as the manifest says
    from aggregation.runs.distributed import join, train

    by_hand = [x is not None for x in (coordinator, processes, process)]
    if any(by_hand) and (cluster or not all(by_hand)):
        raise click.UsageError(
            "give --coordinator, --processes and --process, or --cluster, or none of them"
        )
    together = join(coordinator, processes, process) if cluster or any(by_hand) else ALONE
    try:
        train(params, together, changes=changes, out=out, say=_say_or_stop)
    except Exception as error:
        if together.count == 1:
            raise
        if not isinstance(error, AggregationError):
            traceback.print_exc()
        click.echo(f"Error: process {together.index}: {error}", err=True)
        sys.stdout.flush()
        os._exit(1)  # at a normal end JAX would wait for the others, which wait for this one
    if together.index == 0:
        click.echo(f"Next: aggregation run {shlex.quote(params)}, with the same --set and --out")


@main.command()
@click.argument("out", default="outputs", type=click.Path(exists=True, file_okay=False))
def index(out: str) -> None:
    """Write OUT/index.html, a page that lists the runs in the folder OUT.

    \b
    Example:
      aggregation index outputs/
    """
    from aggregation.runs.pages import write_run_list

    click.echo(f"Runs: {write_run_list(Path(out).expanduser())}")


@main.command()
@click.argument("run", type=click.Path())
@click.option("--page", type=click.Path(dir_okay=False), help="The file. Default: <run>.html")
@_set()
def report(run: str, page: str | None, changes: tuple[str, ...]) -> None:
    """Make the report of the finished RUN again, as one file that can be sent to anybody.

    The run's folder is not changed. With --set it is told in another way, for example in another
    language.

    \b
    Examples:
      aggregation report outputs/demo
      aggregation report outputs/demo --page bericht.html --set report.language=de
    """
    from aggregation.params.loading import load_params
    from aggregation.runs.folder import open_run
    from aggregation.runs.pages import report_page

    folder = open_run(run)
    given = load_params(folder.path / "params.yaml", changes)
    file = Path(page or f"{given.run}.html")
    _write(file, report_page(folder, folder.load(), given))
    click.echo(f"Report: {file}")


@main.command()
@click.argument("before", type=click.Path())
@click.argument("after", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="As JSON, with all guidelines.")
@click.option("--page", type=click.Path(dir_okay=False), help="Also write a page (HTML).")
def diff(before: str, after: str, as_json: bool, page: str | None) -> None:
    """Say what differs between the runs in the folders BEFORE and AFTER, and why.

    Parameters, data, and each guideline whose verdict changed, with the condition that did it.

    \b
    Examples:
      aggregation diff outputs/demo outputs/more-starts
      aggregation diff outputs/demo outputs/more-starts --page diff.html
    """
    from aggregation.report.comparison import comparison_page
    from aggregation.runs.folder import open_run
    from aggregation.verify.compare import compare

    found = compare(open_run(before), open_run(after))
    told = json.dumps(found.as_json(), indent=2, ensure_ascii=False) if as_json else found.text()
    click.echo(told)
    if page is not None:
        _write(Path(page), comparison_page(found, __version__))
        click.echo(f"Page: {page}", err=as_json)


@main.command()
@click.argument("run", type=click.Path())
@click.argument("constitution", required=False, type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--strict", is_flag=True, help="Run everything again: the same bits, not only decisions."
)
@click.pass_context
def verify(ctx: click.Context, run: str, constitution: str | None, strict: bool) -> None:
    """Recompute what the folder RUN claims, from its own data, in another way.

    One line for each claim: it holds, FAILS or is open, since nobody could tell here. With a
    published CONSTITUTION (a JSON file), whether the run's data give it. The exit code is 0 if
    every claim holds, 3 if none fails and some are open, 1 if one fails.

    \b
    Examples:
      aggregation verify outputs/demo
      aggregation verify outputs/demo --strict
      aggregation verify outputs/demo outputs/demo/constitution.json
    """
    from aggregation.runs.folder import open_run
    from aggregation.verify import checks
    from aggregation.verify.rerun import rerun

    folder, found = open_run(run), []
    claims = checks.verify(folder, Path(constitution) if constitution else None, strict=strict)
    for claim in chain(claims, rerun(folder)) if strict else claims:
        click.echo(str(claim))
        found.append(claim.holds)
    click.echo(checks.NOTE if strict else checks.NOTE_WITHOUT_STRICT)
    if False in found:
        click.echo("NOT everything holds.")
        ctx.exit(1)
    if n := found.count(None):
        told = "1 claim is" if n == 1 else f"{n} claims are"
        click.echo(f"Nothing fails, but {told} open: nobody could tell here.")
        ctx.exit(3)
    click.echo("Everything holds.")


@main.command()
@click.argument("params", type=click.Path(dir_okay=False))
@_set()
@click.option("--rule", "only", multiple=True, help="Only this rule; repeatable.  [default: all]")
@click.option(
    "--worlds",
    default=0,
    show_default=True,
    type=click.IntRange(0, 100),
    help="Also judge so many simulated deliberations, where the truth is known.",
)
@_out
def trust(
    params: str, changes: tuple[str, ...], only: tuple[str, ...], worlds: int, out: str
) -> None:
    """Say how each rule holds up on the data of the file PARAMS.

    One column a rule, with the bounds in PARAMS for the rule that it names. Would other people
    decide the same, how many accounts can buy a decision, does junk move it, whom does it leave
    behind? docs/method.md says what each row means. Takes a minute.

    \b
    Examples:
      aggregation trust params/demo.yaml
      aggregation trust params/polis.yaml --set source.path=my-export
      aggregation trust params/demo.yaml --set rule.name=robust --set rule.min_probability=0.9
      aggregation trust params/demo.yaml --worlds 20
    """
    import pandas as pd

    from aggregation.decisions.rules import RULES
    from aggregation.evidence import trust as harness
    from aggregation.evidence.bootstrap import resampled
    from aggregation.model.fit import fit
    from aggregation.model.ratings import encode
    from aggregation.params.loading import load_params
    from aggregation.sources import read

    given = load_params(params, changes)
    rule = given.rule.rule()
    rules = {**RULES, rule.name: rule}
    if unknown := sorted(set(only) - set(rules)):
        raise ParameterError(f"--rule {unknown[0]}: there is no such rule, only {', '.join(rules)}")
    chosen = [rules[name] for name in only or rules if only or resampled(rules[name])]
    with _steps() as callback:
        callback("reading")
        raw = Path(out) / given.run / "source"
        ratings, ids = encode(read(given.source, given.ratings, given.seed, raw).ratings)
        callback("the fit")
        found = fit(ratings, given.train.weights(), given.train.settings(given.seed))
        table = harness.trust(ratings, ids, found, chosen, seed=given.seed, callback=callback)
        if worlds:
            seeds = range(given.seed, given.seed + worlds)
            more = harness.on_worlds(chosen, seeds, callback)
            table = pd.concat([table, more])
    click.echo(table.to_string(float_format="{:.3f}".format, na_rep="none"))


@main.command()
@click.option("--users", multiple=True, type=click.IntRange(10, 100_000), help="Repeatable.")
@click.option(
    "--ratings",
    multiple=True,
    type=click.IntRange(1, 10_000),
    help="Of a user, median; repeatable.",
)
@click.option("--guidelines", default=60, show_default=True, type=click.IntRange(5, 10_000))
@click.option("--rule", default="robust", show_default=True, help="The rule that decides.")
@click.option("--figure", type=click.Path(dir_okay=False), help="Also write a curve (PNG or SVG).")
def plan(
    users: tuple[int, ...],
    ratings: tuple[int, ...],
    guidelines: int,
    rule: str,
    figure: str | None,
) -> None:
    """Rehearse a deliberation: how many people and ratings does it take to decide?

    Five simulated deliberations of each size, judged by the rule. Real people may be more alike, or
    less, than simulated ones.

    \b
    Examples:
      aggregation plan
      aggregation plan --users 150 --users 300 --ratings 15 --guidelines 40
      aggregation plan --figure plan.png
    """
    from aggregation.data.simulation import World
    from aggregation.decisions.rules import RULES
    from aggregation.evidence.bootstrap import resampled
    from aggregation.evidence.planning import plan as rehearse

    if rule not in RULES:
        raise ParameterError(f"--rule {rule}: there is no such rule, only {', '.join(RULES)}")
    if not resampled(RULES[rule]):
        raise ParameterError(f"--rule {rule}: it reads numbers that simulated users do not have")
    sizes = (users or (100, 200, 400, 800), ratings or (10, 20, 40))
    with _steps() as callback:
        table = rehearse(*sizes, World(n_guidelines=guidelines), RULES[rule], callback=callback)
    click.echo(table.to_string(index=False, float_format="{:.2f}".format))
    for row in table.to_dict("records"):
        if row["decided"] >= ENOUGH_DECIDED:
            people, each = f"{row['users']:,} people", f"{row['ratings_each']:,} guidelines each"
            decided = f"{row['decided']:.0%} of {guidelines}, as far as a simulation can tell"
            click.echo(f"\n{people} who rate {each} decide {decided}.")
            break
    else:
        click.echo(f"\nNone of these sizes decides {ENOUGH_DECIDED:.0%} of the guidelines.")
    if figure is not None:
        from aggregation.report.figures import planned

        picture = planned(table)
        svg = Path(figure).suffix.lower() == ".svg"
        _write(Path(figure), picture.svg if svg else picture.png)
        click.echo(f"Figure: {figure}")


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete this command's words.

    \b
    Examples:
      eval "$(aggregation completion bash)"      in ~/.bashrc
      eval "$(aggregation completion zsh)"       in ~/.zshrc
      aggregation completion fish | source       in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None  # noqa: S101  # these three are click's own
    click.echo(made(main, {}, "aggregation", "_AGGREGATION_COMPLETE").source())


@main.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Another seed, another deliberation.",
)
@click.option("--users", default=600, show_default=True, type=click.IntRange(1, 100_000))
@_set("Another setting; repeatable.")
def simulate(file: Path, seed: int, users: int, changes: tuple[str, ...]) -> None:
    """Write a simulated deliberation to FILE, as the platform would export it.

    docs/parameters.md lists the settings, under `source`, `simulated`: the number of camps and
    axes, who is shown what, and users who toss coins or attack.

    \b
    Examples, and how to run one:
      aggregation simulate export.json
      aggregation simulate export.json --set n_guidelines=300 --set coin_tossers=0.1
      aggregation run params/platform-file.yaml --set source.path=export.json
    """
    from aggregation.data.simulation import simulate as plant
    from aggregation.params.loading import simulated_world

    export = plant(seed, simulated_world(users, changes)).export
    _write(file, json.dumps(export, ensure_ascii=False, indent=1) + "\n")
    click.echo(f"{file}: {len(export['ratings'] or []):,} ratings by {users:,} simulated users")


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """A callback that shows the step on a terminal, and in a log a line for each."""
    if sys.stderr.isatty():
        from aggregation.report.display import steps

        with steps() as show:
            yield show
    else:
        yield lambda step: click.echo(f"{step} ...", err=True)


def _write(file: Path, content: str | bytes) -> None:
    try:
        file.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    except OSError as error:
        raise RunError(
            f"{file}: cannot be written ({error.strerror}): choose another place"
        ) from None


if __name__ == "__main__":
    main(prog_name="aggregation")
