"""The processes of a run: how they end, and that they end together."""
