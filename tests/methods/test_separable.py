"""The encoded path is taken only where it belongs to the very ``forward`` of the head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fss.methods.bam import BAM
from fss.methods.baseline import Baseline
from fss.methods.pfenet import PFENet
from fss.methods.separable import SeparableHead, encodes

CHANNELS = (4, 4, 8, 8, 8)


def changed(parent: type[SeparableHead], **methods: Any) -> SeparableHead:
    return type("Mine", (parent,), methods)(CHANNELS, width=4)


def same(self: Any, *given: Any) -> Any:
    return given


@pytest.mark.parametrize("parent", [Baseline, PFENet, BAM])
def test_a_subclass_that_changes_no_computation_keeps_it(parent: type[SeparableHead]) -> None:
    assert encodes(parent(CHANNELS, width=4))  # type: ignore[call-arg,arg-type]
    assert encodes(changed(parent, name="other", criterion=same, loss=same, param_groups=same, helper=same))


@pytest.mark.parametrize(
    ("parent", "method"),
    [
        (Baseline, "forward"), (PFENet, "forward"), (BAM, "forward"), (Baseline, "encode_query"),
        (Baseline, "encode_support"), (PFENet, "forward_encoded"), (Baseline, "decode"), (PFENet, "_enriched"),
        (BAM, "_style_distance"), (BAM, "_any_base"), (BAM, "_excluded"), (Baseline, "__call__"),
    ],
)  # fmt: skip
def test_a_subclass_that_changes_one_does_not(parent: type[SeparableHead], method: str) -> None:
    """Also a method that only ``forward`` uses: BAM's encodings never call ``_style_distance``."""
    assert method in {name for kind in parent.__mro__ for name in vars(kind)}
    head = changed(parent, **{method: same})
    assert not encodes(head)
    below = type("Below", (type(head),), {})
    assert not encodes(below(CHANNELS, width=4))


def test_a_subclass_that_brings_all_four_is_believed() -> None:
    parts = dict.fromkeys(("forward", "encode_query", "encode_support", "forward_encoded"), same)
    assert encodes(changed(BAM, **parts))
    below = type("Below", (type(changed(BAM, **parts)),), {"forward": same})
    assert not encodes(below(CHANNELS, width=4))


def _votes(head: Any) -> None:
    head.spec = replace(head.spec, shot_rule="each")


def _taps(head: Any) -> None:
    head.spec = replace(head.spec, taps=(3,))


def _rounds(head: Any) -> None:
    head.refinement_rounds = 2


def _listened(head: Any) -> None:
    head.register_forward_hook(lambda *_: None)


def _patched(head: Any) -> None:
    head.decode = same


@pytest.mark.parametrize("change", [_votes, _taps, _rounds, _listened, _patched])
def test_what_the_encoded_path_does_not_do_ends_it(change: Callable[[Any], None]) -> None:
    head = Baseline(CHANNELS, width=4)
    assert encodes(head)
    change(head)
    assert not encodes(head)
