"""The baseline reproduces the outputs and losses of the SVF release in float64, through fss convert and fss.load."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.golden.released import baseline, converted, digest, fill, inputs, run

from fss.cli.conventions import Released
from fss.finetune.svf import SVF

# mean, std, out[0,0,0,0], out[0,1,80,80], out[1,0,37,120], out[1,1,160,5]; then the training loss.
VECTORS = {
    ("resnet50", 1, False): (
        [1.05059735e-01, 9.23117517e-02, 1.67122946e-01, 4.50293243e-02, 2.03256056e-01, -4.15591775e-02],
        6.41514128e-01,
    ),
    ("resnet50", 5, False): (
        [3.21505241e-01, 2.98588482e-01, 3.83887715e-01, 5.13135686e-02, 6.61342325e-01, -9.86450067e-02],
        5.69975158e-01,
    ),
    ("resnet50", 1, True): (
        [4.97742561e-02, 1.28871108e-01, 1.84256658e-01, -8.07127974e-02, 1.97582784e-01, -8.84016988e-02],
        6.29587244e-01,
    ),
    ("resnet50", 5, True): (
        [2.23287278e-01, 4.86829849e-01, 5.19748114e-01, -1.49783685e-01, 7.74432574e-01, -1.80324381e-01],
        5.36642903e-01,
    ),
    ("vgg16", 1, False): (
        [1.38190176e00, 1.07615363e00, 2.05865886e00, 5.14374570e-01, 2.77995581e00, 4.60812324e-02],
        5.80144961e-01,
    ),
    ("vgg16", 5, False): (
        [3.59925450e00, 3.65908123e00, 6.63244061e00, 7.94296593e-01, 8.11293873e00, -2.67501921e00],
        1.55512648e00,
    ),
    ("vgg16", 1, True): (
        [1.90007643e00, 6.01511971e-01, 2.19374448e00, 2.75462097e00, 1.59400731e00, 5.82694808e-01],
        6.87174110e-01,
    ),
    ("vgg16", 5, True): (
        [5.48686807e00, 2.25151503e00, 6.10127345e00, 5.73547381e00, 5.53914289e00, 1.23331684e00],
        6.70870267e-01,
    ),
}
# methods.md 8.5: entries of the state dict, and parameters of the model without kshot_rw, which nothing reads
SIZES = {
    ("resnet50", 1, False): (349, 28_549_058),
    ("resnet50", 5, False): (353, 28_549_058),
    ("resnet50", 1, True): (459, 33_748_514),
    ("resnet50", 5, True): (463, 33_748_514),
    ("vgg16", 1, False): (110, 19_247_170),
    ("vgg16", 5, False): (114, 19_247_170),
    ("vgg16", 1, True): (136, 21_058_146),
    ("vgg16", 5, True): (140, 21_058_146),
}
DECOMPOSED = {
    "resnet50": [1.04671996e-01, 9.21961469e-02, 1.68191641e-01, 4.71070597e-02, 2.03616288e-01, -4.15194292e-02],
    "vgg16": [1.36114110e00, 1.06491120e00, 2.04025150e00, 4.62573871e-01, 2.68063698e00, 3.11809870e-02],
}
CHANGE = {"resnet50": (6.0e-3, 5e-5), "vgg16": (2.1e-1, 5e-3)}
PRINTED = 1e-8  # the vectors have nine digits


@pytest.mark.parametrize(("backbone", "shots", "svf"), VECTORS)
def test_output_and_loss(backbone: str, shots: int, svf: bool, tmp_path: Path) -> None:
    released = Released("svf", "baseline", backbone, "pascal", shots, "svf" if svf else "freeze", 0)
    model, state = converted(tmp_path, released)
    parameters = sum(p.numel() for p in model.parameters())
    assert (len(state), parameters) == SIZES[backbone, shots, svf]
    expected, expected_loss = VECTORS[backbone, shots, svf]
    out, losses = run(model, shots)
    assert out == pytest.approx(expected, abs=PRINTED)
    assert losses["main"] == pytest.approx(expected_loss, abs=PRINTED)


@pytest.mark.parametrize("backbone", DECOMPOSED)
def test_truncated_decomposition_as_released(backbone: str) -> None:
    model = baseline(vgg=backbone == "vgg16")
    fill(model, "baseline")
    given = inputs(1)
    with torch.no_grad():
        plain = model(given.query, given.supports, given.support_labels)
        report = SVF(rank_rounding=4).apply(model.backbone)
        out = model(given.query, given.supports, given.support_labels)
    assert report.notes == ["layer0.0: rank 27 truncated to 24"]
    # the release keeps the factors in float32 even in a float64 model
    assert digest(out) == pytest.approx(DECOMPOSED[backbone], abs=1e-7 if backbone == "resnet50" else 1e-6)
    expected, tolerance = CHANGE[backbone]
    assert float((out - plain).abs().max()) == pytest.approx(expected, abs=tolerance)


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
    assert digest(out) != pytest.approx(VECTORS["resnet50", 1, False][0], abs=1e-3)
