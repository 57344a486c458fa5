"""Released networks reproduce outputs, losses, gradients and intermediate values in float64, through fss convert."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from tests.zoo import tables

SHEETS = Path(os.environ.get("FSS_SHARED", tables.FOLDER.parents[2] / "shared")) / "reference" / "zoo_vectors"
NETWORKS = {  # every NAME.md has a NAME.py
    path.stem: import_module(f"tests.zoo.{path.stem}")
    for path in sorted(tables.FOLDER.glob("*.md"))
    if path.with_suffix(".py").is_file()
}
CASES = [
    pytest.param(name, variant, marks=[pytest.mark.slow] if variant in module.SLOW else [], id=f"{name} {variant}")
    for name, module in NETWORKS.items()
    for variant in module.VARIANTS
]


def compared(module: ModuleType, variant: str, folder: Path) -> dict[str, float]:
    """Return the deviation of every quantity in the tables."""
    expected = module.expected(variant)
    found = module.measured(module.model(folder, variant), variant)
    return {name: tables.deviation(found[name], values) for name, values in expected.items()}


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_every_number(name: str, variant: str, tmp_path: Path) -> None:
    deviations = compared(NETWORKS[name], variant, tmp_path)
    assert len(deviations) > 5
    assert {n: d for n, d in deviations.items() if not d < tables.PRINTED} == {}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_numbers_are_those_of_the_fact_sheet(name: str) -> None:
    sheet = SHEETS / f"{name}.md"
    if not sheet.is_file():
        pytest.skip(f"no {sheet}; set FSS_SHARED")
    theirs = tables.rows(sheet.read_text())
    assert all(table in theirs for table in tables.of(name))


def test_deviation_is_relative_and_the_largest() -> None:
    assert tables.deviation((1.0, 2.2, 0.011), (1.0, 2.0, 0.01)) == pytest.approx(0.1)
    assert tables.numbers({"a": "`x.1.b` 3.5e-02; total 1.25"}, "a") == (0.035, 1.25)
