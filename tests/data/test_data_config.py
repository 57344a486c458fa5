"""Sizes and scales that the papers state; what every data set must have: tests/contracts/test_data_sets.py."""

from pathlib import Path

import pytest
import yaml

CONF = Path(__file__).resolve().parents[2] / "conf" / "data"
SIZES = {"pascal": (473, 0.9, 1.1), "coco": (641, 0.8, 1.25), "shapes": (129, 0.9, 1.1)}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_scales(name):
    node = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    size, low, high = SIZES[name]
    assert (node["size"], node["scale_min"], node["scale_max"]) == (f"${{fss.size:{size}}}", low, high)
