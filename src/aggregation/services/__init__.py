"""Services: the platform and Prolific over HTTP, with someone's production keys.

Keys and addresses come from the environment or from `.env` in the working directory, by
python-decouple, and go nowhere but into the header of a request.
"""

from __future__ import annotations

from pathlib import Path

from decouple import Config, RepositoryEmpty, RepositoryEnv


def setting(name: str) -> str:
    """The environment's value of `name`, else that of `.env` in the working directory, else ""."""
    file = Path(".env")
    repository = RepositoryEnv(str(file)) if file.is_file() else RepositoryEmpty()
    return str(Config(repository)(name, default="")).strip()
