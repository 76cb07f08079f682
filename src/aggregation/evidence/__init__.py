"""Evidence: what supports each decision; one module a measure, each ratings and fit -> table."""
