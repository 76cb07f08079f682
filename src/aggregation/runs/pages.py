"""Pages: what the folders of runs give to the pages of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from aggregation.errors import RunError, unwritable
from aggregation.files import atomic_write, read_if_any, read_json
from aggregation.report.run_list import HEADING, run_list_page
from aggregation.runs.folder import RunFolder
from aggregation.runs.stages import STAGES, page
from aggregation.runs.summary import summary


def write_page(path: Path, stage: str, stages: list[str]) -> None:
    """Render a stage's page in the run's folder `path`; it links to those of `stages`."""
    import nbformat

    from aggregation.report.notebook_pages import notebook_page  # loads nbconvert

    notebook = nbformat.read(path / "notebooks" / f"{stage}.ipynb", as_version=4)
    simulated = read_json(path / "data" / "ingest.json")["about"]["simulated"]
    html = notebook_page(notebook, stage, stages, run=path.name, simulated=simulated)
    with atomic_write(path / page(stage)) as partial:
        partial.write_text(html, encoding="utf-8")


def stages_shown(folder: RunFolder) -> list[str]:
    """Stages that have a page: those with an executed notebook, and publish, which is at work."""
    notebooks = folder.path / "notebooks"
    return [s for s in STAGES if s == "publish" or (notebooks / f"{s}.ipynb").is_file()]


def demographics_counts(folder: RunFolder) -> list[dict[str, Any]] | None:
    """The records of demographics/counts.json; None where there is none."""
    name = "demographics/counts.json"
    return folder.read_json(name) if (folder.path / name).exists() else None


def write_run_list(out: Path) -> Path:
    """Write `out`/index.html: every run in `out`, by name, and those that failed; return its path.

    Files of a run that cannot be read leave gaps. Raises RunError if the page cannot be written,
    or would take the place of something else.
    """
    check_place(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        found = [*out.glob("[!.]*/params.yaml"), *out.glob(".*.partial/*/params.yaml")]
        folders = sorted((p.parent for p in found), key=lambda p: (p.name, p))
        with atomic_write(out / "index.html") as partial:
            html = run_list_page(_row(folder, out) for folder in folders)
            partial.write_text(html, encoding="utf-8")
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
