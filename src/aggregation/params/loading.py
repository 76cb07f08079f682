"""Loading of the parameter file: strict, with the line and the nearest valid name in each error."""

from __future__ import annotations

import difflib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, SimpleNamespace
from typing import Annotated, Any, get_args

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from aggregation.errors import ParameterError
from aggregation.params.schema import DEFAULT_VALUES, SOURCES, Params

SECRET = re.compile(
    r"(^|[_-])(token|secret|password|passwd|passphrase|bearer|authorization|credential)s?([_-]|$)"
    r"|(^|[_-]|api)keys?$",
    re.IGNORECASE,
)
"""Names that look like a secret's. The names in `ratings.values` are the data's, and exempt."""

MOST = 100_000
"""Values of a parameter file, written out. Aliases of aliases stand for any number."""

TAKE_OUT = "looks like a secret: take it out and put it into the environment"

CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
"""Where one word of a camelCase name ends and the next begins."""


def load_params(path: str | Path, changes: Sequence[str] = ()) -> Params:
    """Read a parameter file; `changes` are texts such as `train.starts=16`.

    Raises ParameterError naming file, line, key, and the nearest valid name.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ParameterError(
            f"{path}: cannot be read ({error.strerror or error}): check the path"
        ) from None
    except UnicodeDecodeError:
        raise ParameterError(f"{path}: is not UTF-8 text: save it as UTF-8") from None
    values, marks = _parse(text, str(path)), _parse(text, str(path), marked=True)
    if not isinstance(values, dict):
        raise ParameterError(f"{path}: holds no parameters: begin with `run: a-name`")
    overrides = _set(values, changes)

    def place(loc: tuple[str, ...]) -> str:
        for end in range(len(loc), 0, -1):
            if loc[:end] in overrides:
                return "--set"
        line = _line(marks, loc)
        return f"{path}, line {line}" if line else str(path)

    try:
        params = _validated(Params, values, place)
        json.dumps(params.model_dump(), ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        half = "half of a surrogate pair (such as \\ud800), which no file can hold"
        raise ParameterError(f"{path}: a text holds {half}: remove it") from None
    return params


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


def parse_values(text: str, where: str) -> list[str]:
    """The values of a comma-separated list, each as the text that stands for it in YAML.

    Raises ParameterError, beginning with `where`.
    """
    found = _parse(f"[{text}]", where)
    return [json.dumps(value, ensure_ascii=False) for value in found]


def _set(values: dict[str, Any], changes: Sequence[str]) -> set[tuple[str, ...]]:
    """Make the changes in `values`; return the keys, sections among them, that they brought."""
    brought: set[tuple[str, ...]] = set()
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise ParameterError(f"--set {key}: write it as key=value, such as train.starts=16")
        steps = tuple(key.strip().split("."))
        if _is_secret(steps):  # before its value is parsed: YAML's errors quote parts of it
            raise ParameterError(f"--set: {key}: {TAKE_OUT}")
        at = values
        for depth, step in enumerate(steps[:-1], start=1):
            if step not in at:
                brought.add(steps[:depth])
            at = at.setdefault(step, {})
            if not isinstance(at, dict):
                raise ParameterError(f"--set {key}: {'.'.join(steps[:depth])} is no section")
        brought.add(steps)
        at[steps[-1]] = _typed(value, f"--set {key}", wants_text=_wants_text(steps, values))
    return brought


def _typed(text: str, where: str, *, wants_text: bool) -> Any:
    """The value of a change. Where the schema wants a text, 2024 is one, and so is `a: b`."""
    try:
        value = _parse(text, where)
    except ParameterError:
        if not wants_text:
            raise
        return text
    is_one = isinstance(value, str) or text.strip() == "null"
    return value if is_one or not wants_text else text.strip()


def _wants_text(steps: tuple[str, ...], values: dict[str, Any]) -> bool:
    source = values.get("source")
    kind = source.get("kind") if isinstance(source, dict) else None
    return _schema(steps if steps[0] != "source" else ("source", str(kind), *steps[1:])) is str


def _parse(text: str, where: str, *, marked: bool = False) -> Any:
    yaml = YAML(typ="rt" if marked else "safe", pure=True)
    try:
        found = yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = (error.problem or "is no YAML").splitlines()[0]
        problem = problem.partition(" with value ")[0]  # a value may be a secret
        problem = re.sub(r"\b(alias|anchor|tag) .*", r"\1", problem)
        raise ParameterError(f"{where}{line}: {problem}") from None
    except (YAMLError, RecursionError, ValueError) as error:
        raise ParameterError(f"{where}: is no YAML ({type(error).__name__})") from None
    todo, n = [found], 0
    while todo and not marked:
        value, n = todo.pop(), n + 1
        todo += (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        )
        if n > MOST:
            raise ParameterError(
                f"{where}: a YAML alias stands for itself, or for more than {MOST:,} values: "
                "take it out"
            )
    return found


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
    problems = [f"{place(loc)}: {'.'.join(loc)}: {TAKE_OUT}" for loc in _secrets(values, prefix)]
    checked = None
    try:
        checked = TypeAdapter(schema).validate_python(values)
    except ValidationError as error:
        if not problems:
            for item in error.errors(include_url=False, include_context=True):
                tagged = prefix + tuple(str(step) for step in item["loc"])
                loc = tuple(s for k, s in enumerate(tagged) if not _is_tag(tagged, k))
                line = f"{place(loc)}: {'.'.join(loc)}: {_problem(item, loc, tagged)}"
                if line not in problems:
                    problems.append(line)
    if problems:
        raise ParameterError("\n".join(problems))
    return checked


def _is_tag(loc: tuple[str, ...], k: int) -> bool:
    """Steps that pydantic adds for the branch of a union that it tried."""
    if loc[0] == "source":
        return k == 1 and loc[1] in DEFAULT_VALUES
    return k == 3 and loc[:2] == ("ratings", "values")


def _problem(item: Any, loc: tuple[str, ...], tagged: tuple[str, ...]) -> str:
    kind = item["type"]
    if kind == "extra_forbidden":
        return f"unknown key{_nearest(loc[-1], _names_beside(tagged))}"
    if kind == "missing":
        return "is missing: add it"
    given = item["input"]
    value = "" if kind.startswith("union_tag_not") else f", not {_yaml(given):.80}"
    if kind == "string_type" and isinstance(given, int | float):
        value += ": put it in quotes"
    if kind == "value_error":
        return str(item["ctx"]["error"])
    if kind == "invalid_key":
        return "is no key: is there a decimal comma? Write 0.5"
    if kind == "union_tag_not_found":
        return "`kind` is missing: one of " + ", ".join(DEFAULT_VALUES)
    if kind == "union_tag_invalid":
        found = str(item["ctx"]["tag"])
        return f"kind {found!r} is unknown{_nearest(found, DEFAULT_VALUES)}"
    if kind == "string_pattern_mismatch":
        return f"must be letters, digits, `_`, `-` or `.`{value}"
    if loc[:2] == ("ratings", "values") and len(loc) == 3:
        return f"must be helpful, not_helpful, null or a number from 0 to 1{value}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"must be a section, keys and their values{value}"
    message = item["msg"].replace("Input should be ", "must be ")
    return message[:1].lower() + message[1:] + value


def _yaml(value: Any) -> str:
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else repr(value)


def _names_beside(tagged: tuple[str, ...]) -> list[str]:
    """Valid names at the place of an unknown key."""
    return list(getattr(_schema(tagged[:-1]), "model_fields", {}))


def _schema(tagged: tuple[str, ...]) -> Any:
    """Section or type of the schema at a place; of `X | None` it is X; None: no such place."""
    kinds = {get_args(source.model_fields["kind"].annotation)[0]: source for source in SOURCES}
    model: Any = Params
    for step in tagged:
        field = getattr(model, "model_fields", {}).get(step)
        model = kinds.get(step) if field is None else field.annotation
        others = [one for one in get_args(model) if one is not NoneType]
        model = others[0] if len(others) == 1 and NoneType in get_args(model) else model
    return model


def _nearest(name: str, valid: Any) -> str:
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else ": it can be " + ", ".join(valid)


def _secrets(values: Any, prefix: tuple[str, ...]) -> list[tuple[str, ...]]:
    if isinstance(values, list):
        values = dict(enumerate(values))
    if not isinstance(values, Mapping):
        return []
    found = []
    for key, value in values.items():
        loc = (*prefix, str(key))
        found += [loc] if _is_secret(loc) else []
        found += _secrets(value, loc)
    return found


def _is_secret(loc: tuple[str, ...]) -> bool:
    return SECRET.search(CAMEL.sub("_", loc[-1])) is not None and loc[:-1] != ("ratings", "values")
