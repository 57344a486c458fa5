"""BAM and its base learner reproduce the outputs and losses of both releases in float64."""

from __future__ import annotations

import pytest
import torch
from tests.golden.bam_released import BASE_INDEX, PSPNET, bam, base_label, fill, fill_bam, pspnet
from tests.golden.released import digest, inputs
from torch import nn

from fss.backbones.resnet import ResNet
from fss.backbones.vgg import VGG
from fss.finetune.svf import SVF
from fss.methods.base_learner import BaseLearner, ManyWaySegmenter
from fss.nn.resize import up

VECTORS: dict[tuple[str, bool, int], dict[str, list[float]]] = {
    ("resnet50", False, 1): {
        "final": [-1.28422436e-01, 1.37373548e-01, -2.64342622e-01, 7.00126743e-03, -2.64952682e-01, 1.10352021e-02],
        "meta": [1.04897992e-01, 9.28395651e-02, 1.65214498e-01, 4.16112608e-02, 2.02150277e-01, -3.76876212e-02],
        "base": [7.03296564e-02, 3.53194126e-01, 4.82378088e-02, 1.39230261e-02, 6.52590466e-02, 1.09649274e-01],
    },
    ("resnet50", False, 5): {
        "final": [-1.28557496e-01, 1.37318380e-01, -2.64471374e-01, 6.70313256e-03, -2.65001644e-01, 1.09420857e-02],
        "meta": [1.04816793e-01, 9.26601383e-02, 1.64722375e-01, 4.26298729e-02, 2.02021566e-01, -3.74949709e-02],
        "base": [7.03296564e-02, 3.53194126e-01, 4.82378088e-02, 1.39230261e-02, 6.52590466e-02, 1.09649274e-01],
    },
    ("resnet50", True, 1): {
        "final": [-1.31753968e-01, 1.35200035e-01, -2.69296061e-01, 3.34700621e-03, -2.65580435e-01, 2.96967576e-03],
        "meta": [4.96761150e-02, 1.29305723e-01, 1.80843313e-01, -8.27362255e-02, 1.98169999e-01, -8.73564693e-02],
        "base": [8.17734706e-02, 3.78403971e-01, -1.00805394e-02, 4.17695740e-01, 4.01394667e-01, 7.38419992e-02],
    },
    ("resnet50", True, 5): {
        "final": [-1.31888033e-01, 1.35129073e-01, -2.69667911e-01, 2.48878009e-03, -2.65323183e-01, 3.43083194e-03],
        "meta": [4.94432353e-02, 1.28800203e-01, 1.79970387e-01, -8.22427504e-02, 1.97313329e-01, -8.72420156e-02],
        "base": [8.17734706e-02, 3.78403971e-01, -1.00805394e-02, 4.17695740e-01, 4.01394667e-01, 7.38419992e-02],
    },
    ("vgg16", False, 1): {
        "final": [-1.90388506e-01, 2.44230119e-01, -4.40455495e-01, 6.00072655e-02, -4.38514054e-01, 6.02498426e-02],
        "meta": [1.38190176e00, 1.07615363e00, 2.05865886e00, 5.14374570e-01, 2.77995581e00, 4.60812324e-02],
        "base": [-1.74300980e-02, 5.01048707e-01, 4.47640904e-01, -6.53913119e-03, 4.75105065e-02, 3.95620156e-01],
    },
    ("vgg16", False, 5): {
        "final": [-1.90367728e-01, 2.44107489e-01, -4.42138116e-01, 5.76479918e-02, -4.36620726e-01, 6.21852787e-02],
        "meta": [1.37880110e00, 1.07320860e00, 2.06162893e00, 5.13571374e-01, 2.75006951e00, 4.80301690e-02],
        "base": [-1.74300980e-02, 5.01048707e-01, 4.47640904e-01, -6.53913119e-03, 4.75105065e-02, 3.95620156e-01],
    },
    ("vgg16", True, 1): {
        "final": [-2.01728365e-01, 1.91119654e-01, -4.22479913e-01, -3.59840456e-02, -3.49163772e-01, 5.46859042e-02],
        "meta": [1.90007643e00, 6.01511971e-01, 2.19374448e00, 2.75462097e00, 1.59400731e00, 5.82694808e-01],
        "base": [2.27888415e-01, 8.00523404e-01, 5.15889499e-01, -1.45915754e-02, 2.47192625e-01, 3.07153806e-01],
    },
    ("vgg16", True, 5): {
        "final": [-1.99982042e-01, 1.91300873e-01, -4.20600174e-01, -3.36108667e-02, -3.47962296e-01, 5.57845004e-02],
        "meta": [1.89884382e00, 6.00353818e-01, 2.19455023e00, 2.74748246e00, 1.58986473e00, 5.75371218e-01],
        "base": [2.27888415e-01, 8.00523404e-01, 5.15889499e-01, -1.45915754e-02, 2.47192625e-01, 3.07153806e-01],
    },
}
LOSSES: dict[tuple[str, bool, int], list[float]] = {
    ("resnet50", False, 1): [7.72613920e-01, 6.41352051e-01, 2.83141472e00],
    ("resnet50", False, 5): [7.72575907e-01, 6.41426723e-01, 2.83141472e00],
    ("resnet50", True, 1): [7.70450598e-01, 6.29267997e-01, 2.83850430e00],
    ("resnet50", True, 5): [7.70399750e-01, 6.29510595e-01, 2.83850430e00],
    ("vgg16", False, 1): [8.51916973e-01, 5.80144961e-01, 2.90253033e00],
    ("vgg16", False, 5): [8.51850693e-01, 5.78913285e-01, 2.90253033e00],
    ("vgg16", True, 1): [8.15516294e-01, 6.87174110e-01, 3.22800501e00],
    ("vgg16", True, 5): [8.15893514e-01, 6.85004029e-01, 3.22800501e00],
}
BASE_LEARNER = {
    "resnet50": [-1.07463161e-01, 2.69206097e-01, -3.57418000e-01, -6.23433126e-02, -2.12563149e-01, 9.24353958e-02],
    "vgg16": [-3.99442976e-01, 8.55060928e-01, -3.33969061e-01, -4.87155727e-02, 1.59893887e-01, 2.96900581e-01],
}
KEYS = {  # methods.md 8.5
    ("resnet50", False): (383, 387),
    ("resnet50", True): (823, 827),
    ("vgg16", False): (144, 148),
    ("vgg16", True): (261, 265),
}
PRINTED = 2e-8  # nine digits


def backbone(name: str) -> nn.Module:
    if name == "resnet50":
        return ResNet(50, "deep", "uniform")
    return VGG()


FAST = {("resnet50", True, 5), ("vgg16", False, 1)}  # some 20 s each; the others under make test-all


@pytest.mark.parametrize(
    ("name", "svf", "shots"), [k if k in FAST else pytest.param(*k, marks=pytest.mark.slow) for k in VECTORS]
)
def test_outputs_and_losses(name: str, svf: bool, shots: int) -> None:
    model = bam((backbone(name), backbone(name)), shots)
    if svf:
        SVF(rank_rounding=4).apply(model.backbone)
    assert fill_bam(model, svf, name == "vgg16") == KEYS[name, svf][shots > 1]
    given = inputs(shots)
    with torch.no_grad():
        out = model.head_output(given.query, given.supports, given.support_labels)
        maps = {"final": out.logits, **out.extra_predictions}
        for which, expected in VECTORS[name, svf, shots].items():
            assert digest(up(maps[which], 161)) == pytest.approx(expected, abs=PRINTED, rel=PRINTED), which
        model.head.training = True  # the episode's own class is excluded, dropout stays in evaluation mode
        extras = {"base_index": BASE_INDEX}
        trained = model.head_output(given.query, given.supports, given.support_labels, extras=extras)
        terms = model.head.loss(trained, {"query": given.query_label, "base": base_label()})
    losses = [float(terms[n]) for n in ("main", "meta", "base")]
    assert losses == pytest.approx(LOSSES[name, svf, shots], abs=PRINTED)
    assert float(terms["total"]) == pytest.approx(sum(losses), abs=1e-12)


@pytest.mark.parametrize("name", BASE_LEARNER)
def test_base_learner(name: str) -> None:
    model = pspnet(backbone(name))
    released = fill(model, PSPNET, name == "vgg16")
    repeated = sum(k.startswith("layer") for k in released)  # the release saves the backbone twice
    assert len(released) + repeated == {"resnet50": 692, "vgg16": 214}[name]
    with torch.no_grad():
        out = model(inputs(1).query)
    assert out.shape == (2, 16, 161, 161)
    assert digest(out) == pytest.approx(BASE_LEARNER[name], abs=PRINTED, rel=PRINTED)


@pytest.mark.parametrize(("name", "classes", "count"), [("resnet50", 16, 46_713_808), ("resnet50", 61, 46_736_893)])
def test_size_of_the_base_learner(name: str, classes: int, count: int) -> None:
    with torch.device("meta"):
        parts = backbone(name)
        model = ManyWaySegmenter(parts, BaseLearner(parts.channels, classes))
    assert sum(p.numel() for p in model.parameters()) == count
