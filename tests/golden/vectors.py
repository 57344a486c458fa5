"""The test vectors of the released models, read from vectors.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fss.methods.releases import Released

FILE = Path(__file__).with_name("vectors.md")
BACKBONES = {"r50": "resnet50", "VGG": "vgg16"}
METHODS = {"baseline": "baseline", "PFENet": "pfenet", "BAM": "bam", "PSPNet base learner": "base_learner"}
SOURCES = {"SVF": "svf", "PFENet": "pfenet", "BAM": "bam"}
_LABEL = re.compile(
    r"(?P<method>[A-Za-z ]+?)( \((?P<source>\w+) repo\))?(?P<svf> \+ SVF)? (?P<backbone>r50|VGG)( K=(?P<shot>\d))?"
    r"( (?P<output>final|meta|base))?"
)
Digest = tuple[float, ...]
PRINTED = 6e-9
"""Largest relative deviation that may be: the vectors have nine digits."""


@dataclass(frozen=True)
class Vector:
    """What one released model gives for the inputs of ``released.py``.

    Attributes:
        released: the model.
        outputs: name -> mean, standard deviation and four values; the prediction is ``final``.
        losses: in the release's order; none for the base learner.
    """

    released: Released
    outputs: dict[str, Digest]
    losses: Digest

    @property
    def id(self) -> str:
        r = self.released
        return f"{r.source}-{r.method}-{r.backbone}-{r.shot}-{r.finetune}"


def tables(text: str) -> list[dict[str, Digest]]:
    """Read all Markdown tables of numbers: label -> numbers of its row."""
    found: list[dict[str, Digest]] = []
    inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        label, *cells = (c.strip() for c in line.strip().strip("|").split("|"))
        if not inside:
            found.append({})
            inside = True
        elif not label.startswith("--"):
            found[-1][label] = tuple(float(v) for c in cells for v in c.split(","))
    return found


def read(label: str) -> tuple[Released, str]:
    """Return the model that a label names, and which of its outputs."""
    m = _LABEL.fullmatch(label)
    assert m is not None, label
    method = METHODS[m["method"]]
    source = SOURCES[m["source"]] if m["source"] else {"baseline": "svf", "base_learner": "bam"}[method]
    finetune = "svf" if m["svf"] else "freeze"
    model = Released(source, method, BACKBONES[m["backbone"]], "pascal", int(m["shot"] or 1), finetune, 0)
    return model, m["output"] or "final"


def vectors() -> Iterator[Vector]:
    """Yield every model of the file."""
    rows, losses, _ = tables(FILE.read_text())
    outputs: dict[Released, dict[str, Digest]] = {}
    for label, digest in rows.items():
        model, name = read(label)
        outputs.setdefault(model, {})[name] = digest
    terms = {read(label)[0]: values for label, values in losses.items()}
    assert terms.keys() <= outputs.keys()
    for model, digests in outputs.items():
        yield Vector(model, digests, terms.get(model, ()))


def decomposed() -> dict[str, Digest]:
    """Return the outputs of the decomposed baseline by backbone."""
    return {BACKBONES[label]: digest for label, digest in tables(FILE.read_text())[2].items()}
