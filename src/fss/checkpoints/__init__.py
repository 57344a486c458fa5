"""Checkpoints of releases: key names, conversion both ways, conventions; files of tuned values."""
