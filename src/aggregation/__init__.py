"""Finds the guidelines that people who otherwise disagree find helpful.

These names are what notebooks and analysts use. Figures are in `aggregation.plots`, the report in
`aggregation.report`, running notebooks in `aggregation.runs`: they load more, so ask for them.
"""

__version__ = "0.1.0"

from aggregation.constitution import Constitution, Rule, Verdict, score, select
from aggregation.dataset import Dataset
from aggregation.errors import AggregationError, InputError, ParameterError, RunError
from aggregation.evidence import basins, by_side, perspectives, with_unrated
from aggregation.fit import Fit, Refits, fit, refit
from aggregation.folder import RunFolder, open_run
from aggregation.model import (
    ALIGNED,
    COMMUNITY_NOTES,
    Parameters,
    Penalty,
    from_tables,
    loss,
    predict,
)
from aggregation.params import Params, load_params, sections
from aggregation.posting import post
from aggregation.progress import progress
from aggregation.publish import body, changes, guards, overview, payload, table
from aggregation.ratings import Ids, Ratings, encode
from aggregation.search import Settings
from aggregation.simulate import Simulation, simulate
from aggregation.sources import read
from aggregation.tables import Table

__all__ = [
    "ALIGNED",
    "COMMUNITY_NOTES",
    "AggregationError",
    "Constitution",
    "Dataset",
    "Fit",
    "Ids",
    "InputError",
    "ParameterError",
    "Parameters",
    "Params",
    "Penalty",
    "Ratings",
    "Refits",
    "Rule",
    "RunError",
    "RunFolder",
    "Settings",
    "Simulation",
    "Table",
    "Verdict",
    "basins",
    "body",
    "by_side",
    "changes",
    "encode",
    "fit",
    "from_tables",
    "guards",
    "load_params",
    "loss",
    "open_run",
    "overview",
    "payload",
    "perspectives",
    "post",
    "predict",
    "progress",
    "read",
    "refit",
    "score",
    "sections",
    "select",
    "simulate",
    "table",
    "with_unrated",
]
