"""The parameter file: schema, strict loading, and the reference generated from the schema."""

from aggregation.params.loading import dump, load_params, parse_values, sections
from aggregation.params.reference import reference
from aggregation.params.schema import (
    Params,
    PlatformFileSource,
    PlatformSource,
    PolisSource,
    PublishSection,
    RatingsSection,
    SimulatedSource,
    Source,
    TableSource,
    TrainSection,
)

__all__ = [
    "Params",
    "PlatformFileSource",
    "PlatformSource",
    "PolisSource",
    "PublishSection",
    "RatingsSection",
    "SimulatedSource",
    "Source",
    "TableSource",
    "TrainSection",
    "dump",
    "load_params",
    "parse_values",
    "reference",
    "sections",
]
