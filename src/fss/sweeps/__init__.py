"""Sweeps over many runs: the grid, its progress, time estimates, and failed runs."""
