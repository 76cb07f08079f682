"""Params: the parameter file, its schema, its strict loading, and its reference."""
