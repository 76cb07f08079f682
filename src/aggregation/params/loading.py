"""Loading: a parameter file read strictly, with errors that name file, line, key and remedy."""

from __future__ import annotations

import difflib
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
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

CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
"""Where one word of a camelCase name ends and the next begins."""

MAX_BYTES, MAX_VALUES = 1_000_000, 100_000
"""Size of a parameter file, and of its values written out: aliases stand for any number."""

TAKE_OUT = "looks like a secret: take it out and put it into the environment"

Loc = tuple[str, ...]
"""Keys from the top of the file down to a value."""


def load_params(path: str | Path, changes: Sequence[str] = ()) -> Params:
    """Read a parameter file; `changes` are texts such as `train.starts=16`.

    Raises ParameterError naming file, line, key, and the nearest valid name.
    """
    path = Path(path)
    text = _text(path)
    values, marks = _parse(text, str(path)), _parse(text, str(path), marked=True)
    if not isinstance(values, dict):
        raise ParameterError(f"{path}: holds no parameters: begin with `run: a-name`")
    changed = _change(values, changes)

    def place(loc: Loc) -> str:
        if any(loc[:end] in changed for end in range(1, len(loc) + 1)):
            return "--set"
        line = _line(marks, loc)
        return f"{path}, line {line}" if line else str(path)

    params = _validated(Params, values, place, texts=changed)
    try:
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
    return [json.dumps(value, ensure_ascii=False) for value in _parse(f"[{text}]", where)]


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():  # a pipe or a device may have no end
            raise ParameterError(f"{path}: is no file: give a parameter file (YAML)")
        if path.stat().st_size > MAX_BYTES:
            raise ParameterError(f"{path}: is larger than {MAX_BYTES:,} bytes: is it the data?")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ParameterError(
            f"{path}: cannot be read ({error.strerror or error}): check the path"
        ) from None
    except UnicodeDecodeError:
        raise ParameterError(f"{path}: is not UTF-8 text: save it as UTF-8") from None


def _parse(text: str, where: str, *, marked: bool = False) -> Any:
    """The YAML values; `marked`: with the lines of their keys."""
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
        if n > MAX_VALUES:
            raise ParameterError(
                f"{where}: a YAML alias stands for itself, or for more than {MAX_VALUES:,} values: "
                "take it out"
            )
        if isinstance(value, int) and value.bit_length() > 64:
            raise ParameterError(f"{where}: holds a number of more than 64 bits: mend it")
    return found


def _line(marks: Any, loc: Loc) -> int | None:
    line = None
    for step in loc:
        key = (
            next((k for k in marks if str(k) == step), None)
            if isinstance(marks, CommentedMap)
            else None
        )
        if key is None:
            break
        line = marks.lc.key(key)[0] + 1
        marks = marks[key]
    return line


def _change(values: dict[str, Any], changes: Sequence[str]) -> dict[Loc, str]:
    """Make the changes in `values`; the keys and sections that they brought -> the text given."""
    brought: dict[Loc, str] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise ParameterError(f"--set {key}: write it as key=value, such as train.starts=16")
        loc = tuple(key.strip().split("."))
        if _is_secret(loc):  # before its value is parsed: YAML's errors quote parts of it
            raise ParameterError(f"--set: {key}: {TAKE_OUT}")
        at = values
        for depth, step in enumerate(loc[:-1], start=1):
            if step not in at:
                brought[loc[:depth]] = ""
            at = at.setdefault(step, {})
            if not isinstance(at, dict):
                raise ParameterError(f"--set {key}: {'.'.join(loc[:depth])} is no section")
        brought[loc] = text
        at[loc[-1]] = _typed(text, f"--set {key}")
    return brought


def _typed(text: str, where: str) -> Any:
    try:
        return _parse(text, where)
    except ParameterError:
        if text.lstrip().startswith(("{", "[", '"', "'")):  # meant as YAML
            raise
        return text


def _validated(
    schema: Any,
    values: Any,
    place: Callable[[Loc], str],
    prefix: Loc = (),
    texts: Mapping[Loc, str] | None = None,
) -> Any:
    """`values` under `schema`, or a ParameterError with one line for each thing that is wrong.

    `texts`: of values that were given as text; where the schema wants a text, 2024 is one.
    """
    problems = [f"{place(loc)}: {'.'.join(loc)}: {TAKE_OUT}" for loc in _secrets(values, prefix)]
    if problems:
        raise ParameterError("\n".join(problems))
    try:
        return TypeAdapter(schema).validate_python(values)
    except ValidationError as error:
        again = False
        for item in error.errors(include_url=False, include_context=True):
            tagged = prefix + tuple(str(step) for step in item["loc"])
            loc = tuple(s for k, s in enumerate(tagged) if not _is_tag(tagged, k))
            text = (texts or {}).get(loc)
            if item["type"] == "string_type" and text is not None and text.strip() != "null":
                _set_text(values, loc, text.strip())
                again = True
            line = f"{place(loc)}: {'.'.join(loc)}: {_problem(item, loc, tagged)}"
            problems += [line] if line not in problems else []
        if not again:
            raise ParameterError("\n".join(problems)) from None
    return _validated(schema, values, place, prefix)


def _set_text(values: Any, loc: Loc, text: str) -> None:
    for step in loc[:-1]:
        values = values[step]
    values[loc[-1]] = text


def _is_tag(loc: Loc, k: int) -> bool:
    """Steps that pydantic adds for the branch of a union that it tried."""
    if loc[0] == "source":
        return k == 1 and loc[1] in DEFAULT_VALUES
    return k == 3 and loc[:2] == ("ratings", "values")


def _problem(item: Any, loc: Loc, tagged: Loc) -> str:
    kind, given = item["type"], item["input"]
    plain = {None: "null", True: "true", False: "false"}
    told = plain[given] if given is None or isinstance(given, bool) else repr(given)
    value = f", not {told:.80}"
    match kind:
        case "extra_forbidden":
            beside = getattr(_schema(tagged[:-1]), "model_fields", {})
            return f"unknown key{_nearest(loc[-1], beside)}"
        case "missing":
            return "is missing: add it"
        case "string_type" if isinstance(given, int | float):
            value += ": put it in quotes"
        case "value_error":
            return str(item["ctx"]["error"])
        case "invalid_key":
            return "is no key: is there a decimal comma? Write 0.5"
        case "union_tag_not_found":
            return "`kind` is missing: one of " + ", ".join(DEFAULT_VALUES)
        case "union_tag_invalid":
            found = str(item["ctx"]["tag"])
            return f"kind {found!r} is unknown{_nearest(found, DEFAULT_VALUES)}"
        case "string_pattern_mismatch":
            return f"must be letters, digits, `_`, `-` or `.`{value}"
        case "model_type" | "model_attributes_type" | "dict_type" if len(loc) < 3:
            return f"must be a section, keys and their values{value}"
    if loc[:2] == ("ratings", "values") and len(loc) == 3:
        return f"must be helpful, not_helpful, null or a number from 0 to 1{value}"
    message = item["msg"].replace("Input should be ", "must be ")
    return message[:1].lower() + message[1:] + value


def _schema(tagged: Loc) -> Any:
    """Section of the schema at a place; of `X | None` it is X; None: no such place."""
    kinds = {get_args(source.model_fields["kind"].annotation)[0]: source for source in SOURCES}
    model: Any = Params
    for step in tagged:
        field = getattr(model, "model_fields", {}).get(step)
        model = kinds.get(step) if field is None else field.annotation
        others = [one for one in get_args(model) if one is not NoneType]
        model = others[0] if len(others) == 1 and NoneType in get_args(model) else model
    return model


def _nearest(name: str, valid: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else ": it can be " + ", ".join(valid)


def _secrets(values: Any, prefix: Loc) -> list[Loc]:
    """Places of all keys that look like secrets."""
    if isinstance(values, list):
        values = dict(enumerate(values))
    found: list[Loc] = []
    for key, value in values.items() if isinstance(values, Mapping) else ():
        loc = (*prefix, str(key))
        found += [loc] if _is_secret(loc) else []
        found += _secrets(value, loc)
    return found


def _is_secret(loc: Loc) -> bool:
    return SECRET.search(CAMEL.sub("_", loc[-1])) is not None and loc[:-1] != ("ratings", "values")
