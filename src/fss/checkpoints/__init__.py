"""Checkpoints: the releases' key names, conversion both ways, and files of tuned values."""
