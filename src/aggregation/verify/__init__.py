"""Verify: a run recomputed by other means, run again, or compared with another run."""
