"""Tables between the parameter names of the releases and ours, usable in both directions."""

from __future__ import annotations

from dataclasses import dataclass

from fss.errors import FssError

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class KeyMap:
    """Prefix pairs between a release and this package.

    Attributes:
        pairs: (release prefix, our prefix); the first matching pair renames a key.
        unused: release prefixes of tensors that nothing reads.
        repeated: (prefix, original) of tensors that the release stores a second time under another name.
        shared: (our prefix, our original) of tensors that we store twice and the release once.
    """

    pairs: Pairs
    unused: tuple[str, ...] = ()
    repeated: Pairs = ()
    shared: Pairs = ()


STAGES = range(5)
BACKBONE: Pairs = tuple((f"layer{i}.", f"backbone.layer{i}.") for i in STAGES)
"""Stages have the same names."""

META_HEAD: Pairs = (
    ("down_query.", "head.down_query."),
    ("down_supp.", "head.down_supp."),
    ("init_merge.", "head.init_merge."),
    ("ASPP_meta.layer6_", "head.aspp.branches."),
    ("res1_meta.", "head.res1."),
    ("res2_meta.", "head.res2."),
    ("cls_meta.", "head.cls."),
)
"""The head that baseline and BAM share."""

PFENET_HEAD: Pairs = (
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
"""PFENet's release and the SVF release use the same names."""

BAM_HEAD: Pairs = (
    *META_HEAD,
    ("gram_merge.", "head.gram_merge."),
    ("cls_merge.", "head.cls_merge."),
    ("kshot_rw.", "head.kshot_rw."),
    ("learner_base.0.", "companion.head.ppm."),
    ("learner_base.1.", "companion.head.cls."),
)
"""BAM's meta learner and the head of its frozen base learner."""

BASE_BACKBONE: Pairs = tuple((f"layer{i}p.", f"companion.backbone.layer{i}.") for i in STAGES)
"""The SVF release stores the base branch's backbone separately."""

PSPNET_HEAD: Pairs = (("ppm.", "head.ppm."), ("cls.", "head.cls."))

FACTORS = ((".vector_S", ".S"), (".conv_U.weight", ".U"), (".conv_U.bias", ".bias"), (".conv_V.weight", ".V"))
"""Suffixes of a decomposed convolution; the release keeps S as [1, R, 1, 1] and U as [Co, R, 1, 1]."""

_PFENET = KeyMap(BACKBONE + PFENET_HEAD)
_PSPNET = KeyMap(BACKBONE + PSPNET_HEAD, repeated=tuple((f"encoder.{i}.", f"layer{i}.") for i in STAGES))
KEYMAPS: dict[tuple[str, str], KeyMap] = {
    ("svf", "baseline"): KeyMap(BACKBONE + META_HEAD, unused=("kshot_rw.",)),
    ("svf", "pfenet"): _PFENET,
    ("svf", "bam"): KeyMap(BACKBONE + BAM_HEAD + BASE_BACKBONE),
    ("svf", "base_learner"): _PSPNET,
    ("pfenet", "pfenet"): _PFENET,
    ("bam", "bam"): KeyMap(BACKBONE + BAM_HEAD, shared=(("companion.backbone.", "backbone."),)),
    ("bam", "base_learner"): _PSPNET,
}
"""(release, method) -> its table."""


def keymap(source: str, method: str) -> KeyMap:
    """Look up a table.

    Args:
        source: the release: ``svf``, ``pfenet`` or ``bam``.
        method: the method.

    Returns:
        The table.

    Raises:
        FssError: if the release has no such method.
    """
    if (source, method) not in KEYMAPS:
        known = ", ".join(f"--source {s} --method {m}" for s, m in KEYMAPS)
        raise FssError(f"--source {source} has no method {method}. Known: {known}")
    return KEYMAPS[source, method]


def unread_shapes(source: str, method: str, shot: int) -> dict[str, tuple[int, ...]]:
    """List tensors that a release saves although nothing reads them.

    Args:
        source: the release.
        method: the method.
        shot: number of supports.

    Returns:
        Release name -> shape: the SVF release's baseline contains BAM's network for weighing several supports.
    """
    if (source, method) != ("svf", "baseline") or shot == 1:
        return {}
    return {
        "kshot_rw.0.weight": (2, shot, 1, 1),
        "kshot_rw.0.bias": (2,),
        "kshot_rw.2.weight": (shot, 2, 1, 1),
        "kshot_rw.2.bias": (shot,),
    }
