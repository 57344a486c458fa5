"""Segmenting a user's own images: geometry at any size, arrays of any kind, objects of any area."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fss.backbones.resnet import ResNet
from fss.errors import FssError
from fss.methods.baseline import Baseline
from fss.model.segmenter import FewShotSegmenter
from fss.predictor import Predictor
from fss.reports.overlay import overlay
from fss.types import InputSpec


class Bright(nn.Module):
    """Calls bright query pixels the object, and remembers what it was given."""

    def __init__(self, images: InputSpec = ResNet.input) -> None:
        super().__init__()
        self.input = images
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, query: Tensor, images: Tensor, masks: Tensor, query_padding: Tensor) -> Tensor:
        self.seen = (query, images, masks)
        score = 10 * query[:, :1]
        return torch.cat([-score, score], dim=1)

    def probability(self, scores: Tensor, shots: int) -> Tensor:
        return scores.softmax(dim=1)[:, 1]


def make_image(height: int, width: int) -> Any:
    made = np.zeros((height, width, 3), np.uint8)
    made[height // 4 : height // 2, width // 4 : width // 2] = 255
    return made


def mask(height: int, width: int) -> Any:
    return (make_image(height, width)[..., 0] > 0).astype(np.uint8)


@pytest.mark.parametrize("shape", [(64, 64), (97, 97), (500, 333), (333, 500), (40, 900), (1200, 1600)])
def test_the_object_is_found_where_it_is(shape: tuple[int, int]) -> None:
    model = Bright()
    found = Predictor(model, 97)(make_image(*shape), [(make_image(50, 60), mask(50, 60))])  # type: ignore[arg-type]
    assert found.mask.shape == found.probability.shape == shape
    assert found.mask.dtype == np.uint8
    assert found.probability.dtype == np.float32
    truth = mask(*shape)
    overlap = (found.mask & truth).sum() / (found.mask | truth).sum()
    assert overlap > 0.8
    rows, columns = np.nonzero(found.mask)
    step = max(shape) / 97
    assert abs(rows.mean() - np.nonzero(truth)[0].mean()) < step
    assert abs(columns.mean() - np.nonzero(truth)[1].mean()) < step


def test_supports_keep_their_order_and_masks() -> None:
    model = Bright()
    empty_corner = mask(60, 60)
    empty_corner[-1] = 255
    Predictor(model, 65)(make_image(9, 9), [(make_image(60, 60), empty_corner), (make_image(30, 60), mask(30, 60))])  # type: ignore[arg-type]
    assert model.seen is not None
    _, images, masks = model.seen
    assert images.shape == (1, 2, 3, 65, 65)
    assert masks.shape == (1, 2, 65, 65)
    assert set(masks.unique().tolist()) == {0, 1, 255}
    assert (masks[0, 1, 33:] == 255).all(), "the lower half of the wide one is padding"


@pytest.mark.parametrize(
    ("supports", "message"),
    [
        ([], "no support"),
        ([(make_image(20, 20), mask(20, 21))], "20 x 20 pixels, its mask 21 x 20"),
        ([(make_image(20, 20), np.zeros((20, 20), np.uint8))], "marks nothing"),
    ],
)
def test_wrong_supports(supports: Any, message: str) -> None:
    with pytest.raises(FssError, match=message):
        Predictor(Bright(), 65)(make_image(20, 20), supports)  # type: ignore[arg-type]


def test_arrays_of_another_kind_are_the_same_image_or_refused() -> None:
    """A grey query used to give an answer from memory that was never written."""
    grey = make_image(60, 80)[..., 0]
    seen = []
    for query in (make_image(60, 80), grey, grey[..., None], make_image(60, 80)[:, :, ::-1]):
        model = Bright()
        Predictor(model, 65)(query, [(grey, mask(60, 80).astype(bool))])  # type: ignore[arg-type]
        assert model.seen is not None
        seen.append([part.clone() for part in model.seen])
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))
    with pytest.raises(FssError, match="The query is of type float64"):
        Predictor(Bright(), 65)(make_image(9, 9) / 255, [])  # type: ignore[arg-type]
    with pytest.raises(FssError, match="Support 1 is no pair"):
        Predictor(Bright(), 65)(grey, (make_image(9, 9), mask(9, 9)))  # type: ignore[arg-type]


def test_an_object_that_vanishes_when_resized_is_an_error() -> None:
    speck = np.zeros((400, 400), np.uint8)
    speck[201, 201] = 1
    with pytest.raises(FssError, match=r"support 1 has 1 of 160000 pixels, of which none is left.* 65 x 65.*Crop"):
        Predictor(Bright(), 65)(make_image(9, 9), [(make_image(400, 400), speck)])  # type: ignore[arg-type]


def test_an_object_between_the_points_of_the_feature_map_is_an_error() -> None:
    """Its prototype used to be zero, and the answer that of no object at all."""
    predictor = Predictor(FewShotSegmenter(ResNet(18, width=8), Baseline((8, 8, 16, 32, 64), width=8)).eval(), 65)
    small = np.zeros((65, 65), np.uint8)
    small[34:37, 34:37] = 1  # the map has a point at every eighth pixel
    with pytest.raises(FssError, match=r"support 2 covers no point of the feature map of 9 x 9.*Crop"):
        predictor(make_image(65, 65), [(make_image(65, 65), mask(65, 65)), (make_image(65, 65), small)])
    small[34:42, 34:42] = 1
    assert predictor(make_image(65, 65), [(make_image(65, 65), small)]).mask.shape == (65, 65)


def test_weights_that_have_diverged_give_no_mask() -> None:
    model = Bright()
    model.probability = lambda scores, shots: scores.softmax(dim=1)[:, 1] * torch.nan  # type: ignore[method-assign]
    with pytest.raises(FssError, match="diverged"):
        Predictor(model, 65)(make_image(9, 9), [(make_image(9, 9), mask(9, 9))])  # type: ignore[arg-type]


def test_images_are_those_of_the_backbone() -> None:
    """Mean, standard deviation and allowed sides come from the model, and the image fills what it can of the canvas."""
    model = Bright(InputSpec(mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2), step=14, offset=0))
    white = np.full((30, 30, 3), 255, np.uint8)
    Predictor(model, 56)(white, [(white, np.ones((30, 30), np.uint8))])  # type: ignore[arg-type]
    assert model.seen is not None
    query, images, masks = model.seen
    for channel, value in enumerate((1.0, 2.4, 3.5)):
        assert torch.allclose(query[:, channel], torch.tensor(value))
        assert torch.allclose(images[:, :, channel], torch.tensor(value))
    assert bool((masks == 1).all()), "no padding"
    with pytest.raises(FssError, match=r"size=65 is not allowed: .*multiples of 14.*: 56 or 70"):
        Predictor(model, 65)  # type: ignore[arg-type]


def test_overlay() -> None:
    photo = np.full((80, 120, 3), 100, np.uint8)
    drawn = overlay(photo, mask(80, 120))
    assert drawn.shape == photo.shape
    assert (drawn[0, 0] == 60).all(), "the rest is darker"
    red, _, blue = drawn[30, 45].tolist()
    assert red > blue + 40, "the object is orange"
    assert (overlay(photo, np.zeros((80, 120), np.uint8)) == 60).all()


@pytest.mark.parametrize("shape", [(64, 64), (333, 500)])
def test_a_model_of_another_protocol_sees_squares(shape: tuple[int, int]) -> None:
    model = Bright()
    predictor = Predictor(model, 97, "square")  # type: ignore[arg-type]
    found = predictor(make_image(*shape), [(make_image(50, 60), mask(50, 60))])
    assert model.seen is not None
    query, _, masks = model.seen
    assert masks.shape == (1, 1, 97, 97)
    assert not bool((masks == 255).any()), "nothing is padded"
    rows, columns = (query[0, 0] > 0).nonzero().unbind(1)
    assert abs(int(rows.min()) - 24) <= 1
    assert abs(int(columns.min()) - 24) <= 1
    truth = mask(*shape)
    assert (found.mask & truth).sum() / (found.mask | truth).sum() > 0.8
    with pytest.raises(FssError, match=r"protocol\.test=augment is not possible"):
        Predictor(model, 97, "augment")  # type: ignore[arg-type]
