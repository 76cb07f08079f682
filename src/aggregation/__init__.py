"""Finds the guidelines that people who otherwise disagree find helpful.

These names are what notebooks and analysts use. Figures are in `aggregation.plots`, the report in
`aggregation.report`, running notebooks in `aggregation.runs`: they load more, so ask for them.
"""

__version__ = "0.1.0"

from aggregation.data.dataset import Dataset
from aggregation.data.simulation import Simulation, simulate
from aggregation.decisions.constitution import Constitution, select
from aggregation.decisions.payload import body, changes, guards, payload
from aggregation.decisions.rules import ALIGNED_2023, Condition, Rule
from aggregation.decisions.scores import score, with_unrated
from aggregation.decisions.table import overview, table
from aggregation.errors import AggregationError, InputError, ParameterError, RunError
from aggregation.evidence.minima import minima_table
from aggregation.evidence.sides import by_side, perspectives
from aggregation.model.fit import Fit, fit
from aggregation.model.multistart import Settings
from aggregation.model.parameters import (
    ALIGNED,
    COMMUNITY_NOTES,
    Parameters,
    Penalty,
    from_tables,
    loss,
    predict,
)
from aggregation.model.ratings import Ids, Ratings, encode
from aggregation.model.refit import Refits, refit
from aggregation.params.loading import load_params, sections
from aggregation.params.schema import Params
from aggregation.report.display import Table, progress
from aggregation.runs.folder import RunFolder, open_run
from aggregation.services.delivery import deliver
from aggregation.sources import read

__all__ = [
    "ALIGNED",
    "ALIGNED_2023",
    "COMMUNITY_NOTES",
    "AggregationError",
    "Condition",
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
    "body",
    "by_side",
    "changes",
    "deliver",
    "encode",
    "fit",
    "from_tables",
    "guards",
    "load_params",
    "loss",
    "minima_table",
    "open_run",
    "overview",
    "payload",
    "perspectives",
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
