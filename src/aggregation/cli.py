"""The `aggregation` command."""

from __future__ import annotations

import json
from pathlib import Path

import click

from aggregation import __version__
from aggregation.errors import AggregationError, RunError
from aggregation.report.environment import STAGES


class _Group(click.Group):
    """Shows the package's own errors as messages, not as tracebacks."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except AggregationError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Find the guidelines that people who otherwise disagree find helpful.

    \b
    Examples:
      aggregation run params/demo.yaml
      aggregation run params/polis.yaml --set source.path=my-export --set run=mine
      aggregation simulate export.json --seed 7
    """


@main.command()
@click.argument("params", type=click.Path(dir_okay=False))
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a parameter; repeatable."
)
@click.option(
    "--until", type=click.Choice(STAGES), default=STAGES[-1], help="Stop after this stage."
)
@click.option(
    "--out", default="outputs", show_default=True, help="Folder that holds the run folders."
)
@click.option("--offline", is_flag=True, help="Read the platform's export that is saved already.")
def run(params: str, changes: tuple[str, ...], until: str, out: str, offline: bool) -> None:
    """Run the notebooks with the parameters of the file PARAMS.

    Ingest, train, diagnostics and publish, in this order, into OUT/<run>. An earlier run of the
    same name is replaced. docs/parameters.md lists all parameters.

    \b
    Examples:
      aggregation run params/demo.yaml
      aggregation run params/demo.yaml --set train.starts=16 --set run=more-starts
      aggregation run params/polis.yaml --until train --out /tmp/outputs
      aggregation run params/platform.yaml --offline
    """
    changes += ("source.offline=true",) if offline else ()
    from aggregation import runs  # loads papermill, which the other commands do without
    from aggregation.posting import LAST

    folder = runs.run(params, changes=changes, until=until, out=out, say=click.echo)
    report = folder / "report" / "index.html"
    told = folder / LAST
    if told.exists():
        click.echo(told.read_text("utf-8").strip())
    click.echo(f"Report: {report}" if report.exists() else f"Run folder: {folder}")


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
def simulate(file: Path, seed: int, users: int) -> None:
    """Write a simulated deliberation to FILE, as the platform would export it.

    \b
    Example, and how to run it:
      aggregation simulate export.json
      aggregation run params/platform-file.yaml --set source.path=export.json
    """
    from aggregation.simulate import simulate as plant

    export = plant(seed, users).export
    text = json.dumps(export, ensure_ascii=False, indent=1) + "\n"
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{file}: cannot be written ({error.strerror})") from None
    click.echo(f"{file}: {len(export['ratings'] or []):,} ratings by {users:,} simulated users")


if __name__ == "__main__":
    main()
