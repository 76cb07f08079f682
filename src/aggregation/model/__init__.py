"""Model: encoded ratings, parameters, loss, and the solver that fits them.

What needs JAX is imported when a fit begins.
"""
