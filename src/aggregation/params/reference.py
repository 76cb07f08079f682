"""Reference: docs/parameters.md, generated from the schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aggregation.params import schema
from aggregation.params.schema import Params, Section


def reference() -> str:
    """docs/parameters.md, from the schema."""
    lines = [
        "# Parameters",
        "",
        "Generated from `aggregation.params` by `make docs`; a test keeps it true.",
        "One YAML file (1.2) per run. Unknown keys, wrong types, values out of range, duplicate",
        "keys and keys that look like secrets are refused before anything runs.",
        "`--set train.starts=16` changes one on the command line.",
        "",
        *_rows(Params, "", "A run"),
    ]
    titles = {
        schema.SimulatedSource: "source: {kind: simulated}",
        schema.PlatformFileSource: "source: {kind: platform-file}",
        schema.PlatformSource: "source: {kind: platform}",
        schema.PolisSource: "source: {kind: polis}",
        schema.TableSource: "source: {kind: table}",
        schema.RatingColumns: "source.columns, for kind table",
        schema.GuidelineColumns: "source.guideline_columns, for kind table",
        schema.RatingsSection: "ratings",
        schema.TrainSection: "train",
        schema.DiagnosticsSection: "diagnostics",
        schema.RuleSection: "rule",
        schema.DemographicsSection: "demographics",
        schema.PublishSection: "publish",
    }
    for section, title in titles.items():
        lines += _rows(section, section.__doc__ or "", f"`{title}`")
    return "\n".join(lines) + "\n"


def _rows(section: type[Section], about: str, title: str) -> list[str]:
    head = [f"## {title}", ""] + ([about, ""] if about else [])
    table = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, spec in section.model_json_schema()["properties"].items():
        field = section.model_fields[name]
        default = field.get_default()
        shown = (
            "required" if field.is_required() else "" if isinstance(default, Section) else default
        )
        if isinstance(shown, list):
            shown = f"[{', '.join(shown)}]"
        if shown is None or isinstance(shown, bool):
            shown = {None: "null", True: "true", False: "false"}[shown]
        shown = f"`{shown}`" if shown not in ("", "required") else shown
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        table.append(f"| `{name}` | {_type(spec)} | {shown} | {meaning} |")
    return [*head, *table, ""]


def _type(spec: Mapping[str, Any]) -> str:
    if "enum" in spec:
        return ", ".join(f"`{v}`" for v in spec["enum"])
    if "const" in spec:
        return f"`{spec['const']}`"
    if "anyOf" in spec:
        return " or ".join(_type(s) for s in spec["anyOf"])
    if "$ref" in spec or "oneOf" in spec:
        return "section"
    bounds = {
        "minimum": ">=",
        "exclusiveMinimum": ">",
        "maximum": "<=",
        "exclusiveMaximum": "<",
    }
    limits = [f"{sign} {spec[k]:,}" for k, sign in bounds.items() if k in spec]
    return " ".join([str(spec.get("type", "")), ", ".join(limits)]).strip()
