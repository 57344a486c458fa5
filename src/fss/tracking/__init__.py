"""Loggers of a run and what W&B shows of it: labels, media, dashboards."""
