"""Segmenting a user's own images: geometry at any size, masks of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fss.data.user_images import read_own_image, read_own_mask
from fss.errors import DataError, FssError
from fss.predictor import Predictor
from fss.reports.overlay import overlay


class Bright(nn.Module):
    """Calls bright query pixels the object, and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, query: Tensor, images: Tensor, masks: Tensor) -> Tensor:
        self.seen = (query, images, masks)
        score = 10 * query[:, :1]
        return torch.cat([-score, score], dim=1)


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


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_black_and_white_in_every_mode(tmp_path: Path, mode: str) -> None:
    Image.fromarray(255 * mask(20, 30)).convert(mode).save(tmp_path / "m.png")
    assert (read_own_mask(tmp_path / "m.png") == mask(20, 30)).all()


def test_index_masks(tmp_path: Path) -> None:
    indices = np.array([[0, 0, 3], [3, 255, 7]], np.uint8)
    path = tmp_path / "m.png"
    Image.fromarray(indices).save(path)
    assert read_own_mask(path, 3).tolist() == [[0, 0, 1], [1, 255, 0]]
    with pytest.raises(DataError, match=r"holds the values \[0, 3, 7, 255\]. Say which one is the object with --value"):
        read_own_mask(path)
    with pytest.raises(DataError, match="no pixel of value 9"):
        read_own_mask(path, 9)
    Image.fromarray(np.where(indices == 7, 0, indices).astype(np.uint8)).save(path)
    assert read_own_mask(path).tolist() == [[0, 0, 1], [1, 255, 0]], "255 beside one other value means ignore"
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)
    with pytest.raises(DataError, match="empty"):
        read_own_mask(path)


def test_photographs_are_turned_as_a_viewer_does(tmp_path: Path) -> None:
    image = Image.fromarray(make_image(20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    image.save(tmp_path / "p.jpg", exif=exif)
    assert read_own_image(tmp_path / "p.jpg").shape == (30, 20, 3)


def test_damaged_and_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no image"):
        read_own_image(tmp_path / "x.jpg")
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8no image")
    with pytest.raises(DataError, match="damaged or no image"):
        read_own_image(tmp_path / "x.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(DataError, match="has colours"):
        read_own_mask(tmp_path / "c.png")


def test_overlay() -> None:
    photo = np.full((80, 120, 3), 100, np.uint8)
    drawn = overlay(photo, mask(80, 120))
    assert drawn.shape == photo.shape
    assert (drawn[0, 0] == 60).all(), "the rest is darker"
    red, _, blue = drawn[30, 45].tolist()
    assert red > blue + 40, "the object is orange"
    assert (overlay(photo, np.zeros((80, 120), np.uint8)) == 60).all()
