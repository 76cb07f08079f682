"""Loading of the parameter file: strict, with the line and the nearest valid name in each error."""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from aggregation.errors import ParameterError
from aggregation.params.schema import DEFAULT_VALUES, SOURCES, Params

SECRET = re.compile(r"(^|[_-])(api_?key|key|token|secret|password|passwd|bearer|authorization)s?$", re.I)
"""Names that look like a secret's; `values` and `columns`, whose names are the data's, are exempt."""


def load_params(path: str | Path, changes: Sequence[str] = ()) -> Params:
    """Read a parameter file; `changes` are texts such as `train.starts=16`.

    Raises ParameterError naming file, line, key, and the nearest valid name.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ParameterError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise ParameterError(f"{path}: is not UTF-8 text: save it as UTF-8") from None
    values, marks = _parse(text, str(path)), _parse(text, str(path), marked=True)
    if not isinstance(values, dict):
        raise ParameterError(f"{path}: holds no parameters: begin with `run: a-name`")
    overrides: set[tuple[str, ...]] = set()
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise ParameterError(f"--set {key}: write it as key=value, such as train.starts=16")
        steps = tuple(key.strip().split("."))
        overrides.add(steps)
        at = values
        for step in steps[:-1]:
            at = at.setdefault(step, {}) if isinstance(at, dict) else at
        if not isinstance(at, dict):
            raise ParameterError(f"--set {key}: {'.'.join(steps[:-1])} is no section")
        at[steps[-1]] = _parse(value, f"--set {key}")

    def place(loc: tuple[str, ...]) -> str:
        for end in range(len(loc), 0, -1):
            if loc[:end] in overrides:
                return "--set"
        line = _line(marks, loc)
        return f"{path}, line {line}" if line else str(path)

    return _validated(Params, values, place)


def sections(**given: Any) -> SimpleNamespace:
    """Validate some sections on their own, as a notebook's parameters cell has them.

    `sections(seed=1, train={...}).train` is a TrainSection. Raises ParameterError.
    """
    model = {name: (field.annotation, field) for name, field in Params.model_fields.items()}
    unknown = [name for name in given if name not in model]
    if unknown:
        raise ParameterError(f"parameters: {unknown[0]}: unknown{_nearest(unknown[0], model)}")
    checked = {
        name: _validated(Annotated[model[name]], value, lambda _: "parameters", (name,))
        for name, value in given.items()
    }
    return SimpleNamespace(**checked)


def dump(params: Params) -> str:
    """The complete parameters as YAML."""
    out = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[attr-defined]
    yaml.dump(params.model_dump(), out)
    return out.getvalue()


def _parse(text: str, where: str, marked: bool = False) -> Any:
    yaml = YAML(typ="rt" if marked else "safe", pure=True)
    try:
        return yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = (error.problem or "is no YAML").splitlines()[0]
        problem = problem.partition(" with value ")[0]  # a value may be a secret
        raise ParameterError(f"{where}{line}: {problem}") from None
    except (YAMLError, RecursionError, ValueError) as error:
        raise ParameterError(f"{where}: is no YAML ({type(error).__name__})") from None


def _line(marks: Any, loc: tuple[str, ...]) -> int | None:
    line = None
    for step in loc:
        if not isinstance(marks, CommentedMap):
            break
        key = next((k for k in marks if str(k) == step), None)
        if key is None:
            break
        line = marks.lc.key(key)[0] + 1
        marks = marks[key]
    return line


def _validated(schema: Any, values: Any, place: Any, prefix: tuple[str, ...] = ()) -> Any:
    """`values` under `schema`, or a ParameterError with one line for each thing that is wrong."""
    problems = [
        f"{place(loc)}: {'.'.join(loc)}: looks like a secret: take it out of the file and put it "
        "into the environment or .env (see .env.example)"
        for loc in _secrets(values, prefix)
    ]
    adapter = TypeAdapter(schema)
    try:
        checked = adapter.validate_python(values)
    except ValidationError as error:
        if not problems:
            for item in error.errors(include_url=False, include_context=True):
                loc = prefix + tuple(str(step) for step in item["loc"])
                loc = tuple(s for k, s in enumerate(loc) if not _is_tag(loc, k))
                line = f"{place(loc)}: {'.'.join(loc)}: {_problem(item, loc)}"
                if line not in problems:
                    problems.append(line)
    if problems:
        raise ParameterError("\n".join(problems))
    return checked  # pyright: ignore[reportPossiblyUnbound]


def _is_tag(loc: tuple[str, ...], k: int) -> bool:
    """Steps that pydantic adds for the branch of a union that it tried."""
    if loc[0] == "source":
        return k == 1 and loc[1] in DEFAULT_VALUES
    return k == 3 and loc[:2] == ("ratings", "values")


def _problem(item: Any, loc: tuple[str, ...]) -> str:
    kind = item["type"]
    if kind == "extra_forbidden":
        return f"unknown key{_nearest(loc[-1], _names_beside(loc))}"
    if kind == "missing":
        return "is missing: add it"
    value = "" if kind.startswith("union_tag_not") else f", not {item['input']!r:.80}"
    if kind == "union_tag_not_found":
        return "`kind` is missing: one of " + ", ".join(DEFAULT_VALUES)
    if kind == "union_tag_invalid":
        found = str(item["ctx"]["tag"])
        return f"kind {found!r} is unknown{_nearest(found, DEFAULT_VALUES)}"
    if kind == "string_pattern_mismatch":
        return f"must be letters, digits, `_`, `-` or `.`{value}"
    return item["msg"][:1].lower() + item["msg"][1:].replace("Input should be ", "") + value


def _names_beside(loc: tuple[str, ...]) -> list[str]:
    """Valid names at the place of an unknown key."""
    model: Any = Params
    for step in loc[:-1]:
        if step == "source" and model is Params:
            return sorted({name for kind in SOURCES for name in kind.model_fields})
        field = getattr(model, "model_fields", {}).get(step)
        model = getattr(field, "annotation", None)
    return list(getattr(model, "model_fields", {}))


def _nearest(name: str, valid: Any) -> str:
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else ": it can be " + ", ".join(valid)


def _secrets(values: Any, prefix: tuple[str, ...]) -> list[tuple[str, ...]]:
    if not isinstance(values, Mapping) or prefix[-1:] in (("values",), ("columns",)):
        return []
    found = []
    for key, value in values.items():
        loc = (*prefix, str(key))
        found += [loc] if SECRET.search(str(key)) else []
        found += _secrets(value, loc)
    return found
