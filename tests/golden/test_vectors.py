"""All released models reproduce their outputs and losses in float64, through fss convert and fss.load."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.golden.released import converted, deviation, measure
from tests.golden.vectors import FILE, PRINTED, Vector, tables, vectors

SHEET = Path(os.environ.get("FSS_SHARED", FILE.parents[2].parent / "shared")) / "reference" / "methods.md"
VECTORS = {v.id: v for v in vectors()}
# Some ten seconds each: every model once, both backbones, with and without decomposition; the others under test-all.
FAST = (
    "svf-baseline-resnet50-1-svf",
    "svf-baseline-vgg16-5-freeze",
    "svf-pfenet-resnet50-1-freeze",
    "svf-pfenet-vgg16-1-svf",
    "pfenet-pfenet-resnet50-1-freeze",
    "svf-bam-vgg16-1-svf",
    "bam-bam-vgg16-5-freeze",
    "bam-base_learner-vgg16-1-freeze",
)


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in VECTORS])
def test_outputs_and_losses(name: str, tmp_path: Path) -> None:
    vector = VECTORS[name]
    outputs, losses = measure(converted(tmp_path, vector.released, prefix="module."), vector.released)
    assert outputs.keys() == vector.outputs.keys()
    for output, expected in vector.outputs.items():
        assert deviation(outputs[output], expected) < PRINTED, (output, outputs[output])
    assert deviation(losses, vector.losses) < PRINTED, losses


def test_nothing_is_left_out() -> None:
    """Three methods, two backbones, one and five supports, with and without SVF, and two base learners."""
    assert set(FAST) < VECTORS.keys()
    assert len(VECTORS) == 8 + 8 + 4 + 4 + 4 + 2
    assert sum(len(v.outputs) for v in VECTORS.values()) == 8 + 12 + 3 * 8 + 2
    assert sum(len(v.losses) for v in VECTORS.values()) == 8 + 2 * 12 + 3 * 8
    assert len({v.released for v in VECTORS.values()}) == len(VECTORS)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet50", "vgg16"])
def test_bam_of_the_svf_release_without_svf(backbone: str, tmp_path: Path) -> None:
    """Its second backbone is the first under other names, so it computes what BAM's own release does."""
    own = VECTORS[f"bam-bam-{backbone}-1-freeze"]
    released = replace(own.released, source="svf")
    outputs, losses = measure(converted(tmp_path, released), released)
    assert all(deviation(outputs[n], e) < PRINTED for n, e in own.outputs.items())
    assert deviation(losses, own.losses) < PRINTED


@pytest.mark.slow
def test_the_release_matters(tmp_path: Path) -> None:
    """The wrong dilation loads silently, so the vectors must notice it."""
    right = VECTORS["svf-pfenet-resnet50-1-freeze"]
    wrong = replace(right.released, source="pfenet")
    outputs, _ = measure(converted(tmp_path, wrong), wrong)
    assert deviation(outputs["final"], right.outputs["final"]) > 1e-3


def test_the_numbers_are_those_of_the_fact_sheet() -> None:
    if not SHEET.is_file():
        pytest.skip(f"{SHEET} is not there")
    section = SHEET.read_text().split("\n## 9. ")[1].split("\n## 10. ")[0]
    assert tables(section) == tables(FILE.read_text())


def test_deviation_is_relative_and_the_largest() -> None:
    assert deviation([1.0, 2.2, 0.011], [1.0, 2.0, 0.01]) == pytest.approx(0.1)
    assert deviation([], []) == 0
    assert isinstance(VECTORS[FAST[0]], Vector)
