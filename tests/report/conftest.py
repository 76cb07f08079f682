"""One run whose every text is an attack, its values, its pages, and one browser for them all."""

import csv
import shutil
from pathlib import Path

import browsers
import inprocess
import nbformat
import numpy as np
import pandas as pd
import pytest
from hostile import TEXTS
from prolific_worlds import crowd

from aggregation.decisions.constitution import select
from aggregation.evidence.collect import Evidence
from aggregation.params.loading import load_params
from aggregation.report.comparison import comparison_page
from aggregation.report.index import index_page
from aggregation.report.notebook_pages import notebook_page
from aggregation.runs.folder import RunFolder
from aggregation.runs.pages import report_page, write_run_list
from aggregation.runs.runner import run
from aggregation.services.demographics import clean, counts
from aggregation.verify.compare import compare

HOSTILE = [
    "<script>window.pwned = 1</script>Be kind",
    '"><img src=x onerror="window.pwned = 2">',
    "{{ 7 * 7 }} {% raw %} ${alert(1)}",
    "[Someone asks <b>why</b>]: Answer & explain",
    "كن صادقا \u202eevil\u202c with both scripts",
    "多語言 😀 emoji\nand a second line",
    "a" * 1_000_000,
    "javascript:alert(1) [x](javascript:alert(2)) `code` $x^2$",
]
STAGES = ("ingest", "train", "diagnostics", "publish")


@pytest.fixture(scope="session")
def hostile(tmp_path_factory) -> Path:
    """The run's folder: 40 users; guidelines 0 to 7 bridge, 8 to 23 divide them."""
    folder = tmp_path_factory.mktemp("hostile")
    random = np.random.default_rng(0)
    texts = HOSTILE * 3
    with (folder / "guidelines.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["guideline_id", "text", "topic"])
        topics = [f"<i>topic</i> {k % 2 if k < 16 else 2}" for k in range(len(texts))]
        rows.writerows((f"g{k:02}", text, topics[k]) for k, text in enumerate(texts))
    with (folder / "ratings.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["user_id", "guideline_id", "rating"])
        for u in range(40):
            for k in range(len(texts)):
                likes = 0.97 if k < 8 else 0.9 if (k < 16) == (u < 20) else 0.1
                word = "helpful" if random.random() < likes else "not_helpful"
                rows.writerow([f"participant-secret-{u}", f"g{k:02}", word])
    with (folder / "users.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["user_id", "age"])
        for u in range(40):
            rows.writerow([f"participant-secret-{u}", "<b>old" if u % 2 else "young"])
    (folder / "params.yaml").write_text(
        "run: hostile\n"
        'title: "<script>window.pwned = 3</script>"\n'
        'question: "<img src=x onerror=alert(1)> & why?"\n'
        f"source: {{kind: table, path: '{folder}/ratings.csv', "
        f"guidelines: '{folder}/guidelines.csv', guideline_columns: {{topic: topic}}, "
        f"users: '{folder}/users.csv', user_columns: {{answers: [age]}}}}\n"
        "train: {starts: 2, max_starts: 2, moves: false}\n"
    )
    path = folder / "params.yaml"
    return run(path, out=folder, say=lambda _: None, execute=inprocess.execute)


@pytest.fixture(scope="session")
def values(hostile):
    """What `index_page` takes, by name."""
    loaded = RunFolder(hostile).load()
    names = ("dataset", "ratings", "ids", "fit", "constitution", "minima")
    return {name: getattr(loaded, name) for name in names} | {
        "run": "hostile",
        "summary": loaded.evidence.summary,
        "stages": STAGES,
    }


@pytest.fixture(scope="session")
def notebook(hostile):
    """The executed notebook of training."""
    return nbformat.read(hostile / "notebooks" / "train.ipynb", as_version=4)


@pytest.fixture(scope="session")
def pages(tmp_path_factory, hostile, values, notebook):
    """Every kind of page there is, as files."""
    place = tmp_path_factory.mktemp("pages")
    other = RunFolder(shutil.copytree(hostile, place / "other"))
    scores = other.constitution().scores
    rate = scores["helpful_rate"].where(scores.index > 3, 0.5)  # four are accepted no longer
    judged = select(scores.assign(helpful_rate=rate), values["constitution"].rule)
    other.save_evidence(Evidence(judged, {}), pd.DataFrame())
    people = counts(clean(crowd())).to_dict("records")
    texts = {
        "simulated": notebook_page(notebook, "train", STAGES, run="<b>", simulated=True),
        "people": index_page(**values, demographics=people),
        "comparison": comparison_page(compare(RunFolder(hostile), other)),
    }
    for name, text in texts.items():
        (place / f"{name}.html").write_text(text, "utf-8")
    made = [place / f"{name}.html" for name in texts]
    return [*sorted((hostile / "report").iterdir()), *made, write_run_list(place)]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """A run whose guidelines are those of `hostile.TEXTS`, 30 users on two sides."""
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(1)
    texts = pd.DataFrame({"guideline_id": [f"g{k:02}" for k in range(len(TEXTS))], "text": TEXTS})
    texts.to_parquet(folder / "texts.parquet")
    likes = np.where(np.arange(len(TEXTS)) % 3 == 0, 0.97, 0.0)
    rows = [
        (f"u{u}", f"g{k:02}", "helpful" if random.random() < chance else "not_helpful")
        for u in range(30)
        for k, liked in enumerate(likes)
        for chance in [liked or (0.95 if (k % 3 == 1) == (u < 12) else 0.05)]
    ]
    table = pd.DataFrame(rows, columns=["user_id", "guideline_id", "rating"])
    table.to_csv(folder / "ratings.csv", index=False)
    (folder / "params.yaml").write_text(
        "run: corpus\n"
        f"source: {{kind: table, path: '{folder}/ratings.csv', "
        f"guidelines: '{folder}/texts.parquet'}}\n"
        "train: {starts: 2, max_starts: 2, moves: false}\n"
    )
    path = folder / "params.yaml"
    return run(path, out=folder, say=lambda _: None, execute=inprocess.execute)


@pytest.fixture(scope="session")
def corpus_pages(corpus):
    """The report of `corpus` as the run made it, and in another way: Markdown, in German."""
    folder = RunFolder(corpus)
    given = load_params(corpus / "params.yaml", ["report.markdown=true", "report.language=de"])
    other = corpus.parent / "markdown.html"
    other.write_text(report_page(folder, folder.load(), given), encoding="utf-8")
    return [corpus / "report" / "index.html", corpus / "report" / "publish.html", other]


@pytest.fixture(scope="session")
def browser():
    with browsers.chromium() as chromium:
        yield chromium


@pytest.fixture(scope="session", params=["chromium", "firefox"])
def any_browser(request, tmp_path_factory):
    """Each of the two browsers."""
    if request.param == "chromium":
        yield browsers.Chromium(request.getfixturevalue("browser"))
    else:
        with browsers.firefox(tmp_path_factory.mktemp("firefox")) as firefox:
            yield firefox
