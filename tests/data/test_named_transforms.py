"""Transforms that protocols name: a square, other ones for query and supports, and back to the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from fss.backbones.resnet import ResNet
from fss.data.datamodule import FewShotDataModule
from fss.data.episodes.options import EpisodeOptions
from fss.data.eval_transform import EvalTransform, FixedTransform
from fss.data.named_transforms import fixed_transform, named_transform
from fss.data.options import LoaderOptions, TransformOptions
from fss.data.sources.voc import VocSource
from fss.data.transforms.square import SquareTransform
from fss.data.transforms.stretch import StretchTransform
from fss.episode_protocol import EpisodeProtocol, transform_names
from fss.errors import DataError, FssError

IMAGES = ResNet.input
OPTIONS = TransformOptions(size=64)


def test_square_is_torchvisions_resize_of_an_image_of_pillow() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (75, 120, 3), dtype=np.uint8)
    steps = v2.Compose(
        [
            v2.Resize((64, 64)),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGES.mean, IMAGES.std),
        ]
    )
    found, _ = SquareTransform(64, IMAGES)(image, np.zeros((75, 120), np.uint8))
    assert torch.allclose(found, steps(Image.fromarray(image)), atol=1e-5)


def test_labels_take_the_pixel_at_or_before_each_point() -> None:
    """Of 5 columns onto 4: 0, 1, 2, 3 (floor of 1.25 i); of 3 rows: 0, 0, 1, 2."""
    label = np.arange(15, dtype=np.uint8).reshape(3, 5)
    transform = SquareTransform(4, IMAGES)
    _, one, two = transform.with_more(np.zeros((3, 5, 3), np.uint8), label, label + 100)
    expected = [[0, 1, 2, 3], [0, 1, 2, 3], [5, 6, 7, 8], [10, 11, 12, 13]]
    assert one.tolist() == expected
    assert torch.equal(two, one + 100)
    assert transform.filled(3, 5) == (4, 4)


def test_stretch_reads_pixels_at_their_centres_without_averaging() -> None:
    """Of 8 columns onto 2 the image takes the means of 1, 2 and of 5, 6, the label 0 and 4."""
    image = np.tile(np.arange(0, 80, 10, dtype=np.uint8)[None, :, None], (4, 1, 3))
    label = np.tile(np.arange(8, dtype=np.uint8), (4, 1))
    found, small, more = StretchTransform(2, IMAGES).with_more(image, label, label + 100)
    grey = (found * torch.tensor(IMAGES.std)[:, None, None] + torch.tensor(IMAGES.mean)[:, None, None]) * 255
    assert torch.allclose(grey[:, 0], torch.tensor([15.0, 55.0]).expand(3, 2), atol=1e-3)
    assert small.tolist() == [[0, 4], [0, 4]]
    assert torch.equal(more, small + 100)
    assert isinstance(StretchTransform(2, IMAGES), FixedTransform)


def test_stretch_in_training_keeps_the_whole_image() -> None:
    """Nothing is cropped or padded: with no rotation the label has the same shares, mirrored or not."""
    label = np.zeros((40, 100), np.uint8)
    label[:, :25] = 1
    image = np.repeat(label[..., None] * 200, 3, axis=2)
    transform = named_transform("stretch_augment", TransformOptions(size=64, rotate=0.0), IMAGES)
    sides = set()
    for seed in range(12):
        found, small = transform(image, label, seed)
        assert float((small == 1).float().mean()) == pytest.approx(0.25, abs=0.02)
        assert bool((found[0][small == 1].mean() > found[0][small == 0].mean() + 1).all())
        sides.add(bool(small[0, 0]))
        assert torch.equal(transform(image, label, seed)[0], found)
    assert sides == {True, False}
    turned = named_transform("stretch_augment", TransformOptions(size=64, rotate=30.0), IMAGES)
    assert any(bool((turned(image, label, seed)[1] == 255).any()) for seed in range(6)), "corners of a rotated image"
    plain = named_transform("stretch_augment", TransformOptions(size=64, augment=False), IMAGES)
    assert isinstance(plain, StretchTransform)


def test_names() -> None:
    assert transform_names()[:2] == ("augment", "pad")
    assert "square" in transform_names()
    for name in transform_names():
        found = named_transform(name, OPTIONS, IMAGES)
        image, label = found(np.zeros((50, 90, 3), np.uint8), np.ones((50, 90), np.uint8), 3)
        assert image.shape == (3, 64, 64)
        assert label.shape == (64, 64)
    assert isinstance(fixed_transform("pad", OPTIONS, IMAGES), EvalTransform)
    assert isinstance(SquareTransform(64, IMAGES), FixedTransform)
    with pytest.raises(DataError, match=r"protocol\.test=augment is not possible: it is random"):
        fixed_transform("augment", OPTIONS, IMAGES)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"query": "crop"}, r"protocol\.query=crop is not known: choose one of augment, pad, square"),
        ({"ignored": "drop"}, r"protocol\.ignored=drop is not known: choose one of ignore, background, foreground"),
        ({"scoring": "large"}, r"protocol\.scoring=large is not known: choose one of original, network"),
    ],
)
def test_wrong_values(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(FssError, match=said):
        EpisodeProtocol(**wrong)  # type: ignore[arg-type]


def module(root: Path, augment: bool = True, **protocol: str) -> FewShotDataModule:
    return FewShotDataModule(
        VocSource(root),
        IMAGES,
        fold=0,
        transforms=TransformOptions(size=65, augment=augment),
        loader=LoaderOptions(batch_size=2, workers=0, progress=False),
        protocol=EpisodeProtocol(**protocol),  # type: ignore[arg-type]
    )


def test_query_and_supports_may_differ(voc: VocSource) -> None:
    """A square of a grey image has no border, which the labels of padded ones have."""
    given = module(voc.root, query="square", support="pad", test="square")
    given.setup("fit")
    episode = next(iter(given.train_dataloader()))
    assert not bool((episode.query_label[:, -1] == 255).all(dim=1).any())
    assert bool((episode.support_labels[:, :, -1] == 255).all())
    assert given.test_transform.fit == "square"
    assert [type(t).__name__ for t in given._transforms(True)] == ["SquareTransform", "EvalTransform"]
    assert [type(t).__name__ for t in given._transforms(False)] == ["SquareTransform"] * 2
    plain = module(voc.root, augment=False, query="augment", test="square")
    assert [type(t).__name__ for t in plain._transforms(True)] == ["SquareTransform"] * 2


def test_seeds_of_heads(voc: VocSource) -> None:
    """Those of a test follow the seed of the test, those of training seed and epoch."""

    def seeds(split: str, seed: int, test_seed: int, epoch: int = 0) -> list[int]:
        made = FewShotDataModule(
            VocSource(voc.root),
            IMAGES,
            fold=0,
            seed=seed,
            transforms=TransformOptions(size=65),
            episodes=EpisodeOptions(test_episodes=3, test_seed=test_seed),
            loader=LoaderOptions(batch_size=1, workers=0, progress=False),
        )
        dataset = getattr(made, f"{split}_dataloader")().dataset
        return [dataset[epoch, i].seed for i in range(3)]

    assert len(set(seeds("test", 1, 1))) == 3
    assert seeds("test", 1, 1) == seeds("test", 2, 1) == seeds("test", 1, 1, epoch=4)
    assert seeds("test", 1, 1) != seeds("test", 1, 2)
    assert seeds("train", 1, 1) == seeds("train", 1, 2)
    assert not set(seeds("train", 1, 1)) & {*seeds("train", 2, 1), *seeds("train", 1, 1, epoch=1), *seeds("test", 1, 1)}
