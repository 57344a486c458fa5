"""Loggers and W&B: labels, media, dashboards."""
