"""Reference: docs/parameters.md, generated from the schema."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from itertools import pairwise
from typing import Any

from aggregation.params.schema import Params, Section, places

INTRODUCTION = """# Parameters

Generated from `aggregation.params` by `make docs`; a test keeps it true.
One YAML file (1.2) per run. Unknown keys, wrong types, values out of range, duplicate
keys and keys that look like secrets are refused before anything runs.
`--set train.starts=16` changes one on the command line.
"""

BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def reference(schema: type[Section] = Params) -> str:
    """docs/parameters.md: a table for each section of the schema."""
    return "\n".join([INTRODUCTION, *(_table(at, part) for at, part in places(schema).items())])


def _table(at: tuple[str, ...], section: type[Section]) -> str:
    specs, docs = section.model_json_schema()["properties"], _docstrings(section)
    rows = [
        f"| `{key}` | {_type(specs[key])} | {_default(specs[key])} | "
        f"{' '.join(docs.get(key, field.description or '').split())} |"
        for key, field in section.model_fields.items()
    ]
    title = ", ".join(f"`{step}`" for step in at) or "A run"
    head = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    return "\n".join([f"## {title}", "", inspect.getdoc(section) or "", "", *head, *rows, ""])


def _docstrings(section: type[Section]) -> dict[str, str]:
    """The docstrings below the keys of a section, its bases among them."""
    docs: dict[str, str] = {}
    for base in reversed(section.__mro__[: section.__mro__.index(Section)]):
        written = getattr(sys.modules[base.__module__], base.__name__)
        (definition,) = ast.parse(inspect.getsource(written)).body
        for field, doc in pairwise(definition.body):  # type: ignore[attr-defined]
            if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr):
                docs[ast.unparse(field.target)] = ast.literal_eval(doc.value)
    return docs


def _default(spec: Any) -> str:
    value = spec.get("default")
    if "default" not in spec:
        return "required"
    shown = value if isinstance(value, str) else json.dumps(value)
    return "" if value == "" or isinstance(value, dict) else f"`{shown}`"


def _type(spec: Any) -> str:
    if "enum" in spec:
        return ", ".join(f"`{v}`" for v in spec["enum"])
    if "const" in spec:
        return f"`{spec['const']}`"
    if "anyOf" in spec:
        return " or ".join(map(_type, spec["anyOf"]))
    if "$ref" in spec or "oneOf" in spec:
        return "section"
    limits = [f"{sign} {spec[key]:,}" for key, sign in BOUNDS.items() if key in spec]
    return " ".join([str(spec.get("type", "")), ", ".join(limits)]).strip()
