"""Services: the platform and Prolific over HTTP, with someone's production keys.

Keys and addresses come from the environment or from `.env` in the working directory, by
python-decouple, and go nowhere but into the header of a request.
"""

from __future__ import annotations

from pathlib import Path

from decouple import Config, RepositoryEmpty, RepositoryEnv

from aggregation.errors import ParameterError


def setting(name: str) -> str:
    """The environment's value of `name`, else that of `.env` in the working directory, else ""."""
    file = Path(".env")
    try:
        repository = RepositoryEnv(str(file), "utf-8-sig") if file.is_file() else RepositoryEmpty()
    except (OSError, UnicodeDecodeError):
        repository = None  # the error holds the file's text, so it must not be raised from here
    if repository is None:
        raise ParameterError(".env: cannot be read as UTF-8 text: save it as UTF-8")
    return str(Config(repository)(name, default="")).strip()
