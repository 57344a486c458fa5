"""What the test file of a strategy says of it: found by the strategy's name, so that a new strategy edits no list.

tests/finetune/test_NAME.py must hold ``trained(network) -> Counts``, the closed form of what the strategy trains with
its default options. It may hold

    VARIANTS             id -> options of a further form that meets the contract too
    BAD_OPTIONS          option -> what the error must say, as a regular expression
    BACKBONES            kinds of tests/contracts/strategies.py that it serves; ("resnet18", "vgg16") by default. On
                         others of these two it must say that there is nothing to train, and ``trained`` returns {}
    CHANGES_THE_NETWORK  True if its formula is not W at the start
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from tests.contracts.closed_forms import Counts, Network
from tests.contracts.strategies import NAMES, node

from fss.finetune.base import Strategy
from fss.model.build import build_strategy

FOLDER = Path(__file__).resolve().parents[1] / "finetune"
MISSING = (
    "tests/finetune/test_{0}.py must say what finetune={0} trains, layer by layer, in a function "
    "`def trained(network: Network) -> Counts`. See tests/contracts/closed_forms.py and any file beside it."
)


def declaring(name: str) -> ModuleType | None:
    """The test file of a strategy, or None."""
    if not (FOLDER / f"test_{name}.py").is_file():
        return None
    return importlib.import_module(f"tests.finetune.test_{name}")


def closed_form(name: str) -> Callable[[Network], Counts]:
    """What a strategy trains; the test that asks fails if its file does not say it."""
    trained: Callable[[Network], Counts] | None = getattr(declaring(name), "trained", None)
    assert trained is not None, MISSING.format(name)
    return trained


def _further_forms() -> dict[str, tuple[str, tuple[str, ...]]]:
    found = {}
    for name in NAMES:
        for variant, options in getattr(declaring(name), "VARIANTS", {}).items():
            found[variant] = (name, tuple(options))
    return found


VARIANTS = {name: (name, ()) for name in NAMES} | _further_forms()
"""Every strategy with its default options, and its further forms: id -> (yaml, options)."""
BAD_OPTIONS = [(name, *bad) for name in NAMES for bad in getattr(declaring(name), "BAD_OPTIONS", {}).items()]
"""(yaml, option, what the error says)."""
CONVOLUTIONAL = ("resnet18", "vgg16")
KINDS: dict[str, tuple[str, ...]] = {name: getattr(declaring(name), "BACKBONES", CONVOLUTIONAL) for name in NAMES}
"""Strategy -> backbones that have what it trains."""
CHANGES_THE_NETWORK = {name for name in NAMES if getattr(declaring(name), "CHANGES_THE_NETWORK", False)}


def make(variant: str) -> Strategy:
    """A strategy in one of its forms."""
    name, options = VARIANTS[variant]
    return build_strategy(node(name, *options))
