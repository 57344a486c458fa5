"""Measurements: ``make bench``. Ratios are taken within one run; no test asserts a time."""
