"""Decisions: scores, rules, the constitution, and the payload that is published."""
