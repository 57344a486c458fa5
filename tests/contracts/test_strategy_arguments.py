"""Wrong options of strategies are answered: what was given, what is allowed."""

from __future__ import annotations

import pytest
from tests.contracts.declared import BAD_OPTIONS, KINDS
from tests.contracts.strategies import node, tiny

from fss.errors import FssError
from fss.model.build import build_strategy


@pytest.mark.parametrize(("name", "option", "text"), BAD_OPTIONS)
def test_bad_options_are_named(name: str, option: str, text: str) -> None:
    given = node(name, option)
    with pytest.raises(FssError, match=text):
        build_strategy(given).apply(tiny(kind=KINDS[name][0]))


def test_there_are_bad_options() -> None:
    assert len(BAD_OPTIONS) >= 18
