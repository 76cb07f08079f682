"""Report: figures, tables and pages.

Import its modules singly: they load Matplotlib or nbconvert.
"""
