"""Names, shapes and sizes that fss convert expects are those of the releases (methods.md section 8)."""

from __future__ import annotations

import pytest
from tests.golden.tables import parameters, resnet, state, vgg

from fss.checkpoints.release_files import released_shapes
from fss.checkpoints.release_models import released_config
from fss.methods.releases import Released

# 8.5: (source, method, SVF) -> entries with ResNet-50 for one and five supports, with VGG; parameters of both
SIZES = {
    ("bam", "base_learner", False): ((692, 692), (214, 214), 46_713_808, 19_714_128),
    ("svf", "base_learner", False): ((692, 692), (214, 214), 46_713_808, 19_714_128),
    ("svf", "baseline", False): ((349, 353), (110, 114), 28_549_058, 19_247_170),
    ("svf", "baseline", True): ((459, 463), (136, 140), 33_748_514, 21_058_146),
    ("pfenet", "pfenet", False): ((365, 365), (126, 126), 34_448_842, 25_146_954),
    ("svf", "pfenet", False): ((365, 365), (126, 126), 34_448_842, 25_146_954),
    ("svf", "pfenet", True): ((475, 475), (152, 152), 39_648_298, 26_957_930),
    ("bam", "bam", False): ((383, 387), (144, 148), 51_631_062, 24_238_166),
    ("svf", "bam", False): ((713, 717), (235, 239), 51_631_062, 24_238_166),
    ("svf", "bam", True): ((823, 827), (261, 265), 80_462_326, 40_772_278),
}
CASES = [(*k, b) for k in SIZES for b in ("resnet50", "vgg16")]
DEEP = [("pfenet", "pfenet", False, "resnet101"), ("bam", "bam", False, "resnet101"), ("svf", "bam", True, "resnet101")]


@pytest.mark.parametrize(("source", "method", "svf", "backbone"), CASES)
def test_entries_and_parameters(source: str, method: str, svf: bool, backbone: str) -> None:
    resnet50, vgg16, large, small = SIZES[source, method, svf]
    for index, shot in enumerate((1, 5)):
        shapes = state(source, method, backbone, shot, svf)
        assert len(shapes) == (resnet50 if backbone == "resnet50" else vgg16)[index]
        weighing = 27 if shot > 1 and method in ("baseline", "bam") else 0
        assert parameters(shapes, svf) - weighing == (large if backbone == "resnet50" else small)


@pytest.mark.parametrize(("source", "method", "svf", "backbone"), CASES + DEEP)
def test_names_and_shapes(source: str, method: str, svf: bool, backbone: str) -> None:
    shot = 5 if method in ("baseline", "bam") else 1
    released = Released(source, method, backbone, "pascal", shot, "svf" if svf else "freeze", 0)
    assert released_shapes(released_config(released), released) == state(source, method, backbone, shot, svf)


@pytest.mark.parametrize(("backbone", "size"), [("resnet50", 46_736_893), ("vgg16", 19_737_213)])
def test_base_learner_of_coco(backbone: str, size: int) -> None:
    released = Released("bam", "base_learner", backbone, "coco", 1, "freeze", 2)
    shapes = released_shapes(released_config(released), released)
    assert shapes == state("bam", "base_learner", backbone, classes=61)
    assert parameters(shapes, False) == size


def test_backbones() -> None:
    """8.1, 8.2 and 7.3."""
    assert (len(resnet("resnet50")), len(vgg())) == (330, 91)
    assert parameters(resnet("resnet50"), False) == 23_631_808
    assert parameters(vgg(), False) == 14_723_136
    for backbone, trained in (("resnet50", 12_544), ("vgg16", 3_840), ("resnet101", 25_600)):
        shapes = state("svf", "baseline", backbone, svf=True)
        ranks = [v[1] for k, v in shapes.items() if k.endswith("vector_S") and int(k[5]) >= 2]
        assert sum(ranks) == trained
