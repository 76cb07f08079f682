"""The names of the package, each loaded when it is first asked for. See `__init__.py`."""

__version__: str

from .data.dataset import Dataset as Dataset
from .data.simulation import Simulation as Simulation, World as World, simulate as simulate
from .decisions.constitution import Constitution as Constitution, select as select
from .decisions.payload import (
    body as body,
    changes as changes,
    guards as guards,
    payload as payload,
)
from .decisions.rules import (
    ALIGNED_2023 as ALIGNED_2023,
    ROBUST as ROBUST,
    Condition as Condition,
    Rule as Rule,
)
from .decisions.scores import score as score, with_unrated as with_unrated
from .decisions.table import (
    as_markdown as as_markdown,
    numbered as numbered,
    overview as overview,
    table as table,
)
from .errors import (
    AggregationError as AggregationError,
    InputError as InputError,
    ParameterError as ParameterError,
    RunError as RunError,
)
from .evidence.collect import Evidence as Evidence, collect as collect
from .evidence.minima import minima_table as minima_table
from .evidence.sides import by_side as by_side, perspectives as perspectives
from .model.estimator import BridgingModel as BridgingModel
from .model.fit import Fit as Fit, fit as fit
from .model.multistart import Settings as Settings
from .model.parameters import (
    ALIGNED as ALIGNED,
    COMMUNITY_NOTES as COMMUNITY_NOTES,
    Parameters as Parameters,
    Penalty as Penalty,
    from_tables as from_tables,
    loss as loss,
    predict as predict,
    reindex as reindex,
)
from .model.ratings import Ids as Ids, Ratings as Ratings, append as append, encode as encode
from .model.refit import Refits as Refits, refit as refit
from .params.loading import load_params as load_params, sections as sections
from .params.schema import Params as Params
from .report.deliberation import (
    Deliberation as Deliberation,
    deliberate as deliberate,
    example as example,
)
from .report.display import Table as Table, progress as progress, steps as steps
from .runs.folder import RunFolder as RunFolder, open_run as open_run
from .services.delivery import deliver as deliver
from .sources import read as read
