"""Print the largest deviation of every released network from its recorded numbers: python -m tests.zoo.deviations."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.zoo.test_vectors import NETWORKS, compared

if __name__ == "__main__":
    for name in sys.argv[1:] or NETWORKS:
        for variant in NETWORKS[name].VARIANTS:
            with tempfile.TemporaryDirectory() as folder:
                found = compared(NETWORKS[name], variant, Path(folder))
            worst = max(found, key=lambda quantity: found[quantity])
            print(f"{name:10} {variant:24} {len(found):3} quantities, largest {found[worst]:.1e} ({worst})")  # noqa: T201
