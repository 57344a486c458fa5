"""The baseline reproduces the outputs and losses of the SVF release in float64."""

from __future__ import annotations

import pytest
import torch
from tests.golden.released import baseline, digest, fill, inputs

from fss.finetune.svf import SVF

# mean, std, out[0,0,0,0], out[0,1,80,80], out[1,0,37,120], out[1,1,160,5]; then the training loss.
VECTORS = {
    (1, False): (
        [1.05059735e-01, 9.23117517e-02, 1.67122946e-01, 4.50293243e-02, 2.03256056e-01, -4.15591775e-02],
        6.41514128e-01,
    ),
    (5, False): (
        [3.21505241e-01, 2.98588482e-01, 3.83887715e-01, 5.13135686e-02, 6.61342325e-01, -9.86450067e-02],
        5.69975158e-01,
    ),
    (1, True): (
        [4.97742561e-02, 1.28871108e-01, 1.84256658e-01, -8.07127974e-02, 1.97582784e-01, -8.84016988e-02],
        6.29587244e-01,
    ),
    (5, True): (
        [2.23287278e-01, 4.86829849e-01, 5.19748114e-01, -1.49783685e-01, 7.74432574e-01, -1.80324381e-01],
        5.36642903e-01,
    ),
}
DECOMPOSED = [1.04671996e-01, 9.21961469e-02, 1.68191641e-01, 4.71070597e-02, 2.03616288e-01, -4.15194292e-02]
PRINTED = 1e-8  # the vectors have nine digits


@pytest.mark.parametrize(("shots", "svf"), VECTORS)
def test_output_and_loss(shots: int, svf: bool) -> None:
    model = baseline()
    if svf:
        SVF(rank_rounding=4).apply(model.backbone)
    released = fill(model, "baseline")
    assert len(released) == (459 if svf else 349)
    given = inputs(shots)
    expected, expected_loss = VECTORS[shots, svf]
    with torch.no_grad():
        out = model(given.query, given.supports, given.support_labels)
        head = model.head_output(given.query, given.supports, given.support_labels)
        loss = model.head.loss(head, {"query": given.query_label})["main"]
    assert digest(out) == pytest.approx(expected, abs=PRINTED)
    assert float(loss) == pytest.approx(expected_loss, abs=PRINTED)


def test_truncated_decomposition_as_released() -> None:
    model = baseline()
    fill(model, "baseline")
    given = inputs(1)
    with torch.no_grad():
        plain = model(given.query, given.supports, given.support_labels)
        report = SVF(rank_rounding=4).apply(model.backbone)
        out = model(given.query, given.supports, given.support_labels)
    assert report.notes == ["layer0.0: rank 27 truncated to 24"]
    # the release keeps the factors in float32 even in a float64 model
    assert digest(out) == pytest.approx(DECOMPOSED, abs=1e-7)
    assert float((out - plain).abs().max()) == pytest.approx(6.0e-3, abs=5e-5)


def test_exact_decomposition_changes_nothing() -> None:
    model = baseline()
    fill(model, "baseline")
    given = inputs(1)
    with torch.no_grad():
        plain = model(given.query, given.supports, given.support_labels)
        SVF(stages=(0, 1, 2, 3, 4)).apply(model.backbone)
        out = model(given.query, given.supports, given.support_labels)
    assert float((out - plain).abs().max()) < 1e-12


def test_dilation_variant_matters() -> None:
    """The wrong variant loads silently, so the vectors must notice it."""
    model = baseline(dilation="uniform")
    fill(model, "baseline")
    given = inputs(1)
    with torch.no_grad():
        out = model(given.query, given.supports, given.support_labels)
    assert digest(out) != pytest.approx(VECTORS[1, False][0], abs=1e-3)
