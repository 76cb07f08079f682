"""Sources: one module per kind of input; `read` makes a Dataset of any of them."""

from __future__ import annotations

from pathlib import Path

from aggregation.data.choices import Choices
from aggregation.data.dataset import Dataset
from aggregation.data.simulation import simulate
from aggregation.evidence.raters import without_flagged
from aggregation.params.schema import (
    CommunityNotesSource,
    PlatformFileSource,
    PlatformSource,
    PolisSource,
    RatingsSection,
    SimulatedSource,
    Source,
    TableSource,
)
from aggregation.sources import platform_download, polis, tabular
from aggregation.sources.platform_export import SIMULATED, read_export


def read(
    source: Source, ratings: RatingsSection, seed: int = 0, raw: Path | None = None
) -> Dataset:
    """Read a deliberation, without flagged users where `ratings` says so.

    `seed` is that of a simulated one; `raw` is the folder in which the platform's export is kept as
    it came. Raises InputError, or ServiceError.
    """
    dataset = _read(source, ratings.choices(source.kind), seed, raw)
    return without_flagged(dataset) if ratings.flagged == "drop" else dataset


def _read(source: Source, choices: Choices, seed: int, raw: Path | None) -> Dataset:
    match source:
        case PolisSource():
            return polis.read(source, choices)
        case PlatformFileSource():
            return platform_download.read(source, choices)
        case PlatformSource():
            from aggregation.sources import platform  # loads requests, for this source alone

            return platform.read(source, choices, raw or Path("source"))
        case TableSource():
            return tabular.read(source, choices)
        case CommunityNotesSource():
            from aggregation.sources import community_notes  # loads polars, for this source alone

            return community_notes.read(source, choices)
        case SimulatedSource():
            export = simulate(seed, source.world()).export
            return read_export(export, choices, "simulated export", SIMULATED)
