"""Errors that people see. Each message says what is wrong, where, and what to do.

AggregationError
├── InputError        the data: a file, a table, a record
├── ParameterError    the parameter file or a --set
└── RunError          a run: its folder, a stage that failed, a fit that did not converge
"""


class AggregationError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(AggregationError):
    """Data that cannot be used as it is."""


class ParameterError(AggregationError):
    """Parameters that the schema refuses."""


class RunError(AggregationError):
    """A run that cannot go on."""
