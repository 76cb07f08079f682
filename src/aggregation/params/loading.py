"""Loading: a parameter file read strictly, with errors that name file, line, key and remedy."""

from __future__ import annotations

import difflib
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from stat import S_ISREG
from types import SimpleNamespace
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode

from aggregation.data.simulation import World
from aggregation.errors import ParameterError
from aggregation.params.schema import Params, Section, places

SECRET = re.compile("key|token|secret|passw|passphrase|bearer|authoriz|credential", re.IGNORECASE)
"""Names of keys that look like a secret's. No key of the schema does."""

MAX_BYTES, MAX_VALUES = 1_000_000, 100_000
"""Size of a parameter file, and of its values with all aliases written out."""

REMEDIES = {
    "missing": "is missing: add it",
    "invalid_key": "is no key: is there a decimal comma? Write 0.5",
    "string_pattern_mismatch": "must be letters, digits, `_`, `-` or `.`",
}
"""What to say for some of pydantic's types of errors."""

Loc = tuple[str, ...]
"""Keys from the top of the file down to a value."""


def load_params(
    path: str | Path, changes: Sequence[str] = (), schema: type[Params] = Params
) -> Params:
    """Read a parameter file; `changes` are texts such as `train.starts=16`.

    Raises ParameterError naming file, line, key, and the nearest valid name.
    """
    where = str(path)
    values, node = _parse(_text(Path(path)), where)
    if not isinstance(values, dict):
        raise ParameterError(f"{where}: holds no parameters: begin with `run: a-name`")
    given = _apply(changes, values)
    for item in _errors(schema, values):
        text = given.get(loc := _loc(item), "null").strip()
        if item["type"] == "string_type" and text != "null":  # 2024 is a text where one is wanted
            reduce(getitem, loc[:-1], values)[loc[-1]] = text

    def place(loc: Loc) -> str:
        by_set = any(loc[: len(key)] == key[: len(loc)] for key in given)
        return "--set" if by_set else _line(where, node, loc)

    return _validated(schema, values, place)


def sections(**given: Any) -> SimpleNamespace:
    """Validate some sections on their own, as a notebook's parameters cell has them.

    `sections(seed=1, train={...}).train` is a TrainSection. Raises ParameterError.
    """
    required = {"run": "any", "source": {"kind": "simulated"}}
    params = _validated(Params, required | given, lambda _: "parameters")
    return SimpleNamespace(**{name: getattr(params, name) for name in given})


def simulated_world(n_users: int, changes: Sequence[str] = ()) -> World:
    """The settings of a simulated deliberation; `changes` are texts such as `camps=2`.

    Raises ParameterError.
    """
    source: dict[str, Any] = {"kind": "simulated", "n_users": n_users}
    _apply(changes, source)
    params = _validated(Params, {"run": "any", "source": source}, lambda _: "--set")
    return params.source.world()


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
    found, _ = _parse(f"[{text}]", where)
    return [json.dumps(value, ensure_ascii=False, default=str) for value in found]


def _text(path: Path) -> str:
    try:
        about = path.stat()
        if not S_ISREG(about.st_mode) or about.st_size > MAX_BYTES:  # a pipe may have no end
            raise ParameterError(f"{path}: is no file of less than 1 MB: give a parameter file")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        why = error.strerror or error
        raise ParameterError(f"{path}: cannot be read ({why}): check the path") from None
    except UnicodeDecodeError:
        raise ParameterError(f"{path}: is not UTF-8 text: save it as UTF-8") from None


def _parse(text: str, where: str) -> tuple[Any, Any]:
    """The values of a YAML text, and the node that knows their lines."""
    yaml = YAML(typ="safe", pure=True)
    try:
        node: Any = yaml.compose(text)
        values = node and yaml.constructor.construct_document(node)
        for n, (loc, value) in enumerate(_walk(values)):
            if n > MAX_VALUES or (isinstance(value, int) and value.bit_length() > 64):
                problem = "is too large a number, or an alias for too much: take it out"
                raise ParameterError(f"{_line(where, node, loc)}: {'.'.join(loc)}: {problem}")
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        said = (error.problem or "is no YAML").splitlines()[0]
        said = re.sub(r"( with value |(?<=alias )|(?<=anchor )|(?<=tag )).*", "", said)  # secrets
        raise ParameterError(f"{where}{line}: {_printable(said)}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        kind = type(error).__name__
        raise ParameterError(f"{where}: is no YAML, or stands for itself ({kind})") from None
    return values, node


def _walk(value: Any, loc: Loc = ()) -> Iterator[tuple[Loc, Any]]:
    """Every value within, with its place."""
    yield loc, value
    is_list = isinstance(value, list)
    for key, inner in enumerate(value) if is_list else getattr(value, "items", tuple)():
        yield from _walk(inner, (*loc, str(key)))


def _line(where: str, node: Any, loc: Loc) -> str:
    """File and line of the key at `loc`, or of the nearest one above it."""
    line = ""
    for step in loc:
        pairs = node.value if isinstance(node, MappingNode) else ()
        key, node = next(((k, v) for k, v in pairs if k.value == step), (None, None))
        line = f", line {key.start_mark.line + 1}" if key else line
    return where + line


def _apply(changes: Sequence[str], values: dict[str, Any]) -> dict[Loc, str]:
    """Make the changes in `values`; their keys -> the texts given."""
    given: dict[Loc, str] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        loc = tuple(key.strip().split("."))
        if not equals:
            raise ParameterError(f"--set {key}: write it as key=value, such as train.starts=16")
        at: Any = values
        for step in loc[:-1]:
            at = at.setdefault(step, {}) if isinstance(at, dict) else at
        if not isinstance(at, dict):
            raise ParameterError(f"--set {key}: {'.'.join(loc[:-1])} is no section")
        try:
            at[loc[-1]] = _parse(text, f"--set {key}")[0]
        except ParameterError:
            if text.lstrip().startswith(("{", "[", '"', "'")):  # meant as YAML
                raise
            at[loc[-1]] = text
        given[loc] = text
    return given


def _validated(schema: Any, values: Any, place: Callable[[Loc], str]) -> Any:
    """`values` under `schema`, or a ParameterError with one line for each thing that is wrong."""
    if errors := _errors(schema, values):
        pairs = ((_loc(item), _problem(schema, item)) for item in errors)
        lines = (f"{place(loc)}: {_printable('.'.join(loc))}: {told}" for loc, told in pairs)
        raise ParameterError("\n".join(dict.fromkeys(lines)))
    return schema.model_validate(values)


def _errors(schema: type[Section], values: Any) -> list[Any]:
    try:
        schema.model_validate(values)
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


def _loc(item: Any) -> Loc:
    """Where an error is, without the names that pydantic adds for the members of unions."""
    loc = tuple(map(str, item["loc"]))
    return loc[:1] + loc[2:] if loc[0] in ("source", "rule") else loc[:3]


def _problem(schema: type[Section], item: Any) -> str:
    """What is wrong and what to do."""
    kind, given, at = item["type"], item["input"], tuple(map(str, item["loc"]))
    if kind == "extra_forbidden":
        if SECRET.search(at[-1]):
            return "looks like a secret: take it out and put it into the environment"
        return f"unknown key{_nearest(at[-1], list(places(schema)[at[:-1]].model_fields))}"
    if kind.startswith("union_tag"):
        key, found = item["ctx"]["discriminator"].strip("'"), item["ctx"].get("tag", "")
        valid = [place[-1] for place in places(schema) if place[:-1] == at]
        told = f"{found!r:.80}" if found else "missing"
        return f"{key} is {told}{_nearest(found, valid)}"
    if kind in REMEDIES:
        return REMEDIES[kind]
    message = item["msg"].removeprefix("Value error, ").replace("Input should be ", "must be ")
    if not message.startswith("must be "):
        return message
    if kind.startswith(("model_", "dict_")):
        message = "must be a section, keys and their values"
    if at[:2] == ("ratings", "values"):
        message = "must be helpful, not_helpful, null or a number from 0 to 1"
    if isinstance(given, dict | list):  # it may hold a secret
        return f"{message}, not a {'list' if isinstance(given, list) else 'section'}"
    told = {"None": "null", "True": "true", "False": "false"}.get(repr(given), repr(given))
    remedy = ": put it in quotes" if kind == "string_type" and given is not None else ""
    return f"{message}, not {told:.80}{remedy}"


def _printable(text: str) -> str:
    """The text, cut where it is long; characters that move a terminal's cursor as code."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:200])


def _nearest(name: str, valid: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else ": it can be " + ", ".join(valid)
