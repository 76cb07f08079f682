"""Pages: the pages that are made from the folders of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aggregation.errors import RunError, unwritable
from aggregation.files import read_if_any, read_json, write
from aggregation.report.index import index_page
from aggregation.report.run_list import HEADING, run_list_page
from aggregation.runs.folder import Run, RunFolder
from aggregation.runs.stages import STAGES, page
from aggregation.runs.summary import summary

ABOUT = ("run", "title", "question", "participants", "attribution")
"""Parameters that the report shows as they are."""

COUNTS = "demographics/counts.json"


def write_page(path: Path, stage: str, stages: list[str]) -> None:
    """Render a stage's page in the run's folder `path`; it links to those of `stages`."""
    import nbformat

    from aggregation.report.notebook_pages import notebook_page  # loads nbconvert

    notebook = nbformat.read(path / "notebooks" / f"{stage}.ipynb", as_version=4)
    simulated = read_json(path / "data" / "ingest.json")["about"]["simulated"]
    html = notebook_page(notebook, stage, stages, run=path.name, simulated=simulated)
    write(path / page(stage), html)


def stages_shown(folder: RunFolder) -> list[str]:
    """Stages that have a page: those with an executed notebook, and publish, which is at work."""
    notebooks = folder.path / "notebooks"
    return [s for s in STAGES if s == "publish" or (notebooks / f"{s}.ipynb").is_file()]


def report_page(folder: RunFolder, made: Run, given: Any, stages: Sequence[str] = ()) -> str:
    """The report of a run: what `made` holds, told as the parameters `given` say.

    `stages` have pages beside it, to which it links. Raises RunError where diagnostics has not run.
    """
    from aggregation import __version__

    if made.evidence is None or made.minima is None or "sides" not in made.evidence.summary:
        raise RunError(
            f"{folder.path}: has no evidence that this version knows: run the diagnostics notebook"
        )
    return index_page(
        *(made.dataset, made.ratings, made.ids, made.fit, made.evidence.constitution, made.minima),
        made.evidence.summary,
        **{name: getattr(given, name) for name in ABOUT},
        near_misses=given.diagnostics.near_misses,
        language=given.report.language,
        markdown_texts=given.report.markdown,
        demographics=folder.read_json(COUNTS) if (folder.path / COUNTS).exists() else None,
        stages=stages,
        version=__version__,
    )


def write_run_list(out: Path) -> Path:
    """Write `out`/index.html, every run in `out` and those that failed, and return its path.

    The newest come first. Files of a run that cannot be read leave gaps. Raises RunError if the
    page cannot be written, or would take the place of something else.
    """
    check_place(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        found = [*out.glob("[!.]*/params.yaml"), *out.glob(".*.partial/*/params.yaml")]
        rows = [_row(p.parent, out) for p in sorted(found, key=lambda p: (p.parent.name, p))]
        rows.sort(key=lambda row: row["started"], reverse=True)
        write(out / "index.html", run_list_page(rows))
    except OSError as error:
        raise unwritable(out, error) from None
    return out / "index.html"


def check_place(out: Path) -> None:
    """Raise RunError where `out` is a run's own folder, or holds another index.html."""
    if (out / "params.yaml").is_file():
        raise RunError(f"{out} is a run's folder: give the one that holds it")
    index = out / "index.html"
    if index.is_file() and HEADING not in index.read_text("utf-8", "replace"):
        raise RunError(f"{index}: lists no runs: move it, or give another folder")


def _row(folder: Path, out: Path) -> dict[str, Any]:
    at = quote(folder.relative_to(out).as_posix())
    failed = sorted(p.name for p in folder.glob("notebooks/*.failed.ipynb"))
    started = str(read_if_any(folder / "timing.json").get("started", ""))
    return (
        summary(folder)
        | {
            "link": f"{at}/report/index.html" if (folder / "report/index.html").is_file() else "",
            "failed": [  # not the error itself, which may name a user
                {"stage": n.partition(".")[0], "link": f"{at}/notebooks/{quote(n)}"} for n in failed
            ],
            "started": started[:16].replace("T", " "),
        }
    )
