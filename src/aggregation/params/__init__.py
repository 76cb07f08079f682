"""The parameter file: schema, strict loading, and the reference generated from the schema."""

from aggregation.params.loading import dump, load_params, parse_values, sections
from aggregation.params.reference import reference
from aggregation.params.schema import (
    DemographicsSection,
    DiagnosticsSection,
    Params,
    PlatformFileSource,
    PlatformSource,
    PolisSource,
    PublishSection,
    RatingsSection,
    RuleSection,
    SimulatedSource,
    Source,
    TableSource,
    TrainSection,
)

__all__ = [
    "DemographicsSection",
    "DiagnosticsSection",
    "Params",
    "PlatformFileSource",
    "PlatformSource",
    "PolisSource",
    "PublishSection",
    "RatingsSection",
    "RuleSection",
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
