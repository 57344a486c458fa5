"""PFENet reproduces the outputs and losses of both releases in float64, through fss convert and fss.load."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.golden.released import converted, run

from fss.cli.conventions import Released

# (release, backbone, shots, decomposed): mean, std, out[0,0,0,0], out[0,1,80,80], out[1,0,37,120], out[1,1,160,5];
# then main and auxiliary loss.
VECTORS: dict[tuple[str, str, int, bool], tuple[list[float], tuple[float, float]]] = {
    ("svf", "resnet50", 1, False): (
        [-2.85921191e-01, 1.18419575e-01, -6.68719475e-02, -4.39388703e-01, -1.94642910e-01, -1.75876676e-02],
        (6.59566564e-01, 7.05415363e-01),
    ),
    ("svf", "resnet50", 5, False): (
        [-2.86010990e-01, 1.19231274e-01, -6.47429605e-02, -4.42842548e-01, -1.93661746e-01, -1.71334941e-02],
        (6.59124660e-01, 7.05489644e-01),
    ),
    ("svf", "resnet50", 1, True): (
        [-2.79468540e-01, 7.28321857e-02, -6.52141898e-02, -3.41141553e-01, -3.13136474e-01, 1.97405606e-02],
        (7.05068628e-01, 7.07679790e-01),
    ),
    ("svf", "resnet50", 5, True): (
        [-2.78584956e-01, 7.27315426e-02, -6.38416020e-02, -3.38435778e-01, -3.12778914e-01, 1.92511654e-02],
        (7.05509063e-01, 7.07513715e-01),
    ),
    ("svf", "vgg16", 1, False): (
        [-4.41617120e00, 4.63648220e00, -2.60543770e00, -4.13665649e00, -7.44200230e00, 3.14775426e00],
        (5.81753035e00, 2.11284251e00),
    ),
    ("svf", "vgg16", 5, False): (
        [-4.37207703e00, 4.62208112e00, -2.60040150e00, -4.10346065e00, -7.35608953e00, 3.17711117e00],
        (5.80468512e00, 2.11530162e00),
    ),
    ("svf", "vgg16", 1, True): (
        [-5.98733624e00, 5.06406525e00, -7.58293540e-01, -7.15540205e00, -8.67558150e00, 2.88043830e00],
        (4.76006156e00, 3.21092975e00),
    ),
    ("svf", "vgg16", 5, True): (
        [-5.96715597e00, 5.06388793e00, -7.66992840e-01, -7.10523163e00, -8.67075443e00, 2.82636742e00],
        (4.77444037e00, 3.20562141e00),
    ),
    ("pfenet", "resnet50", 1, False): (
        [-2.87846761e-01, 1.18977001e-01, -6.47513961e-02, -4.39623623e-01, -1.92795093e-01, -1.72124742e-02],
        (6.59422345e-01, 7.05129081e-01),
    ),
    ("pfenet", "resnet50", 5, False): (
        [-2.87403140e-01, 1.19793624e-01, -6.29531977e-02, -4.43863213e-01, -1.92184729e-01, -1.61719643e-02],
        (6.58917597e-01, 7.05435288e-01),
    ),
    ("pfenet", "vgg16", 1, False): (
        [-4.41617120e00, 4.63648220e00, -2.60543770e00, -4.13665649e00, -7.44200230e00, 3.14775426e00],
        (5.81753035e00, 2.11284251e00),
    ),
    ("pfenet", "vgg16", 5, False): (
        [-4.37207703e00, 4.62208112e00, -2.60040150e00, -4.10346065e00, -7.35608953e00, 3.17711117e00],
        (5.80468512e00, 2.11530162e00),
    ),
}
# methods.md 8.5: entries of the state dict, and parameters
SIZES = {
    ("resnet50", False): (365, 34_448_842),
    ("resnet50", True): (475, 39_648_298),
    ("vgg16", False): (126, 25_146_954),
    ("vgg16", True): (152, 26_957_930),
}
PRINTED = 1e-8  # the vectors have nine digits
# five shots take long; one of them runs always
CASES = [
    pytest.param(*key, marks=pytest.mark.slow) if key[2] == 5 and key != ("svf", "resnet50", 5, True) else key
    for key in VECTORS
]


@pytest.mark.parametrize(("source", "backbone", "shots", "svf"), CASES)
def test_output_and_losses(source: str, backbone: str, shots: int, svf: bool, tmp_path: Path) -> None:
    released = Released(source, "pfenet", backbone, "pascal", shots, "svf" if svf else "freeze", 0)
    model, state = converted(tmp_path, released, prefix="module.")
    parameters = sum(p.numel() for p in model.parameters())
    assert (len(state), parameters) == SIZES[backbone, svf]
    expected, (main, aux) = VECTORS[source, backbone, shots, svf]
    out, losses = run(model, shots)
    assert out == pytest.approx(expected, abs=PRINTED)
    assert losses["main"] == pytest.approx(main, abs=PRINTED)
    assert sum(losses[f"aux{i}"] for i in range(1, 5)) / 4 == pytest.approx(aux, abs=PRINTED)
    assert losses["total"] == pytest.approx(main + aux, abs=2 * PRINTED)
