"""JSON reader: a large file of JSON, value by value, in little more memory than one value takes."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from aggregation.errors import InputError
from aggregation.sources.readers import read_text

BLOCK = 1 << 20
"""Characters read at once: far more than a record has, far fewer than a file."""
NOT_BLANK = re.compile(r"[^ \t\n\r]")


@contextmanager
def open_json(path: Path) -> Iterator[JsonReader]:
    """A reader at the beginning of the file. Raises InputError, as all of its methods do."""
    try:
        file = path.open(encoding="utf-8-sig", newline="")
    except (OSError, ValueError):
        read_text(path)  # says why
        raise
    with file:
        yield JsonReader(file, path)


class JsonReader:
    """Reads forward only. Objects are walked by `fields`, lists by `items`, to any depth.

    A key that occurs twice in an object is an error, wherever it is.
    """

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file, self._path = file, path
        self._text, self._at = "", 0  # a window of the file, and the place in it
        self._passed = 0  # characters before the window
        self._decoder = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_object)

    def kind(self) -> str:
        """The first character of what comes next, such as `{`; empty at the end of the file."""
        while True:
            found = NOT_BLANK.search(self._text, self._at)
            if found:
                self._at = found.start()
                return found[0]
            self._at = len(self._text)
            if not self._more():
                return ""

    def value(self) -> Any:
        """The value that comes next, whole."""
        self.kind()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                place = self._passed + error.pos
                if not self._more():
                    raise self._broken(error.msg, place) from None
            except _TwiceError as error:
                raise self._twice(str(error)) from None
            except (RecursionError, ValueError) as error:
                message = f"{self._path}: is no usable JSON ({error}): download it again"
                raise InputError(message) from None
            else:
                # A number may go on behind the window, and `1e+` is read as 1: three characters
                # more tell.
                if end + 3 > len(self._text) and self._more():
                    continue
                self._at = end
                return value

    def fields(self) -> Iterator[str]:
        """The keys of the object that comes next. Read the value of each before the next key."""
        seen: set[str] = set()
        self._take("{", "Expecting value")
        more = self.kind() != "}"
        while more:
            if self.kind() != '"':
                raise self._broken("Expecting property name enclosed in double quotes")
            key = self.value()
            if key in seen:
                raise self._twice(key)
            seen.add(key)
            self._take(":", "Expecting ':' delimiter")
            yield key
            more = self._goes_on("}")
        self._take("}", "Expecting ',' delimiter")

    def items(self) -> Iterator[Any]:
        """The items of the list that comes next."""
        self._take("[", "Expecting value")
        more = self.kind() != "]"
        while more:
            yield self.value()
            more = self._goes_on("]")
        self._take("]", "Expecting ',' delimiter")

    def end(self) -> None:
        """Nothing may come any more."""
        if self.kind():
            raise self._broken("Extra data")

    def _goes_on(self, close: str) -> bool:
        if self.kind() == close:
            return False
        self._take(",", "Expecting ',' delimiter")
        return True

    def _take(self, character: str, message: str) -> None:
        if self.kind() != character:
            raise self._broken(message)
        self._at += 1

    def _more(self) -> bool:
        """Let go of what has been read, take in as much again as is left. False at the end.

        Doubling keeps a value of any length linear in time.
        """
        rest = self._text[self._at :]
        try:
            block = self._file.read(max(BLOCK, len(rest)))
        except (OSError, ValueError):
            read_text(self._path)  # says why
            raise
        if not block:
            return False  # and the window stays: places in it are still in use
        self._passed += self._at
        self._text, self._at = rest + block, 0
        return True

    def _broken(self, message: str, place: int | None = None) -> InputError:
        place = self._passed + self._at if place is None else place
        return InputError(
            f"{self._where(place)}: is no whole JSON ({message}): download the export again"
        )

    def _twice(self, key: str) -> InputError:
        place = self._where(self._passed + self._at)
        return InputError(
            f"{place}: the key {reprlib.repr(key)} occurs twice in one object: keep one of them"
        )

    def _where(self, place: int) -> str:
        found = json.JSONDecodeError("", read_text(self._path), place)
        return f"{self._path}, line {found.lineno}, column {found.colno}"


class _TwiceError(ValueError):
    """A key of an object that occurs again."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for k, key in enumerate(keys) if key in keys[:k]))
    return record


def _no_constant(name: str) -> float:
    raise ValueError(f"it holds {name}, which is no JSON number")
