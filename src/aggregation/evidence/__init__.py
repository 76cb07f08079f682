"""Evidence: what supports each decision, one module a measure.

A measure is a function of ratings, fit and scores that gives a table, or scores with more columns.
"""
