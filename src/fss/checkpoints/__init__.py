"""Checkpoints of the releases (key names, configurations, conversion both ways), and files of tuned values."""
