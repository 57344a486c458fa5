"""All bad inputs in one table."""

from __future__ import annotations

from tests.cli import bad_backbones, bad_data, bad_images, bad_options, bad_runs, bad_typed

CASES = (
    *bad_options.GROUPS,
    *bad_options.OPTIONS,
    *bad_options.TESTS,
    *bad_options.COMMANDS,
    *bad_typed.KEYS,
    *bad_typed.LATE,
    *bad_backbones.CASES,
    *bad_data.FOLDERS,
    *bad_data.LISTED,
    *bad_data.FILES,
    *bad_images.LISTED,
    *bad_images.READ,
    *bad_images.SUPPORTED,
    *bad_data.ANNOTATIONS,
    *bad_data.ARCHIVES,
    *bad_runs.WEIGHTS,
    *bad_runs.LEARNERS,
    *bad_runs.TESTED,
    *bad_runs.RESUMED,
    *bad_runs.REPLAYED,
    *bad_runs.REPORTED,
    *bad_runs.PREDICTED,
    *bad_runs.DISKS,
)
