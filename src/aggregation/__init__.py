"""Finds the guidelines that people who otherwise disagree find helpful.

What notebooks and analysts use is named in `__init__.pyi`, and loaded when it is first asked for,
so that the command does not wait for what it does not need. Figures are in
`aggregation.report.figures`, the report in `aggregation.report`, running notebooks in
`aggregation.runs`.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
