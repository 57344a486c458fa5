"""Names of the SVF release's parameters and ours, as tables that work both ways."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KeyMap:
    """Prefix pairs between a release and this package.

    Attributes:
        pairs: (release prefix, our prefix); the first pair that fits a key renames it.
        unused: release prefixes of tensors that nothing reads; they are dropped when loading.
    """

    pairs: tuple[tuple[str, str], ...]
    unused: tuple[str, ...] = ()


BACKBONE = tuple((f"layer{i}.", f"backbone.layer{i}.") for i in range(5))
"""Stage names are equal."""

META_HEAD = (
    ("down_query.", "head.down_query."),
    ("down_supp.", "head.down_supp."),
    ("init_merge.", "head.init_merge."),
    ("ASPP_meta.layer6_", "head.aspp.branches."),
    ("res1_meta.", "head.res1."),
    ("res2_meta.", "head.res2."),
    ("cls_meta.", "head.cls."),
)
"""The head that baseline and BAM share."""

PFENET_HEAD = (
    ("down_query.", "head.down_query."),
    ("down_supp.", "head.down_supp."),
    ("init_merge.", "head.enrich.init_merge."),
    ("alpha_conv.", "head.enrich.alpha_conv."),
    ("beta_conv.", "head.enrich.beta_conv."),
    ("inner_cls.", "head.enrich.inner_cls."),
    ("res1.", "head.res1."),
    ("res2.", "head.res2."),
    ("cls.", "head.cls."),
)
"""PFENet's own and the SVF release's have the same names."""

FACTORS = ((".vector_S", ".S"), (".conv_U.weight", ".U"), (".conv_U.bias", ".bias"), (".conv_V.weight", ".V"))
"""Suffixes of a decomposed convolution; the release keeps S as [1, R, 1, 1] and U as [Co, R, 1, 1]."""

KEYMAPS: dict[str, KeyMap] = {
    "baseline": KeyMap(BACKBONE + META_HEAD, unused=("kshot_rw.",)),
    "pfenet": KeyMap(BACKBONE + PFENET_HEAD),
}
"""Method -> its table."""
