"""Runs: one folder per run, its stages, notebooks executed by papermill, and many runs at once."""
