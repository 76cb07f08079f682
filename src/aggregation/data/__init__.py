"""Data: a deliberation's tables as read, how raw tables become them, and simulated ones."""
