"""Reference: docs/parameters.md, generated from the schema."""

from __future__ import annotations

from typing import Any, get_args

from aggregation.params.schema import SOURCES, Params, Section

INTRODUCTION = """# Parameters

Generated from `aggregation.params` by `make docs`; a test keeps it true.
One YAML file (1.2) per run. Unknown keys, wrong types, values out of range, duplicate
keys and keys that look like secrets are refused before anything runs.
`--set train.starts=16` changes one on the command line.
"""


def reference() -> str:
    """docs/parameters.md: a table for each section of the schema."""
    found = [INTRODUCTION, _table(Params, "A run")]
    for source in SOURCES:
        kind = get_args(source.model_fields["kind"].annotation)[0]
        found.append(_table(source, f"`source: {{kind: {kind}}}`"))
        found += [
            _table(part, f"`source.{name}`, for kind {kind}") for name, part in _parts(source)
        ]
    found += [_table(part, f"`{name}`") for name, part in _parts(Params)]
    return "\n".join(found)


def _parts(section: type[Section]) -> list[tuple[str, type[Section]]]:
    """The sections within a section."""
    kinds = {
        name: [t for t in (field.annotation, *get_args(field.annotation)) if isinstance(t, type)]
        for name, field in section.model_fields.items()
        if name != "source"
    }
    return [(name, t) for name, types in kinds.items() for t in types if issubclass(t, Section)]


def _table(section: type[Section], title: str) -> str:
    about = [] if section is Params else [section.__doc__ or "", ""]
    rows = [
        f"| `{name}` | {_type(spec)} | {_default(section, name)} | "
        f"{' '.join((section.model_fields[name].description or '').split())} |"
        for name, spec in section.model_json_schema()["properties"].items()
    ]
    head = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    return "\n".join([f"## {title}", "", *about, *head, *rows, ""])


def _default(section: type[Section], name: str) -> str:
    field = section.model_fields[name]
    value = field.get_default()
    if field.is_required():
        return "required"
    if isinstance(value, Section) or value == "":
        return ""
    words = {None: "null", True: "true", False: "false"}
    plain = value is None or isinstance(value, bool)
    shown = f"[{', '.join(value)}]" if isinstance(value, list) else str(value)
    return f"`{words[value] if plain else shown}`"


def _type(spec: Any) -> str:
    if "enum" in spec:
        return ", ".join(f"`{v}`" for v in spec["enum"])
    if "const" in spec:
        return f"`{spec['const']}`"
    if "anyOf" in spec:
        return " or ".join(map(_type, spec["anyOf"]))
    if "$ref" in spec or "oneOf" in spec:
        return "section"
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {spec[key]:,}" for key, sign in bounds.items() if key in spec]
    return " ".join([str(spec.get("type", "")), ", ".join(limits)]).strip()
