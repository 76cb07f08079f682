"""Errors that people see. Each message says what is wrong, where, and what to do.

AggregationError
├── InputError            the data: a file, a table, a record
├── ParameterError        the parameter file or a --set
├── RunError              a run: its folder, a stage that failed, a fit that did not converge
└── ServiceError          a service on the network
    ├── AccessError           it refuses the key, or there is none
    ├── UnreachableError      no connection, no valid certificate, no answer in time
    ├── BusyError             it says "not now", again and again
    ├── AnswerError           what it answered cannot be used
    └── UnknownOutcomeError   what was sent may have arrived, or not
"""

import errno
from pathlib import Path


class AggregationError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(AggregationError):
    """Data that cannot be used as it is."""


class ParameterError(AggregationError):
    """Parameters that the schema refuses."""


class RunError(AggregationError):
    """A run that cannot go on."""


class ServiceError(AggregationError):
    """A service that did not do what was asked."""


class AccessError(ServiceError):
    """The key is missing, or the service refuses it."""


class UnreachableError(ServiceError):
    """The service cannot be reached, or not in time."""


class BusyError(ServiceError):
    """The service asks to wait, or fails, as often as we tried."""


class AnswerError(ServiceError):
    """An answer that cannot be used."""


class UnknownOutcomeError(ServiceError):
    """Nobody knows whether what was sent arrived."""


def unwritable(path: Path, error: OSError) -> RunError:
    """The error of a run's folder that cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = f"{'free some room, or ' if full else ''}choose another folder with --out"
    where = error.filename or path
    return RunError(f"{where}: cannot be written ({error.strerror or error}): {remedy}")
