"""Every step against a formula written with plain OpenCV or NumPy, as the release computes it in float32."""

import random

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from albumentations.pytorch import ToTensorV2
from benchmarks.data import float32_pipeline
from tests.data.fabricate import make_image

from fss.data import eval_transform as E
from fss.data import train_transform as T
from fss.data.normalisation import Normalise, mean_colour
from fss.data.options import TransformOptions
from fss.errors import DataError
from fss.types import InputSpec

MEAN = np.array([0.485, 0.456, 0.406]) * 255
STD = np.array([0.229, 0.224, 0.225]) * 255
IMAGENET = InputSpec()
GREY = (124, 116, 104)
OTHER = InputSpec(mean=(0.5, 0.4, 0.481), std=(0.5, 0.26, 0.31), step=14, offset=0)


def _noise(shape=(90, 130)):
    return np.random.default_rng(1).integers(0, 256, (*shape, 3)).astype(np.uint8)


def _label(shape=(90, 130)):
    label = np.zeros(shape, np.uint8)
    label[20:60, 30:90] = 1
    label[60:63] = 255
    return label


def _bilinear(image, x, y):
    """Sample an image at real positions, border repeated."""
    h, w = image.shape[:2]
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[None, :, None], (y - y0)[:, None, None]
    pick = lambda yy, xx: image[np.clip(yy, 0, h - 1)][:, np.clip(xx, 0, w - 1)].astype(float)  # noqa: E731
    top = pick(y0, x0) * (1 - fx) + pick(y0, x0 + 1) * fx
    bottom = pick(y0 + 1, x0) * (1 - fx) + pick(y0 + 1, x0 + 1) * fx
    return top * (1 - fy) + bottom * fy


@pytest.mark.parametrize("factor", [0.9, 0.937, 1.0, 1.083, 1.25])
def test_scale_steps_by_one_over_factor(factor):
    image, label = _noise(), _label()
    step = T.RandomScale(factor, factor)
    scaled, mask = step.apply(image, factor=factor), step.apply_to_mask(label, factor=factor)
    h, w = round(90 * factor), round(130 * factor)
    assert scaled.shape == (h, w, 3)
    expected = _bilinear(image, (np.arange(w) + 0.5) / factor - 0.5, (np.arange(h) + 0.5) / factor - 0.5)
    assert np.abs(scaled - expected).max() <= 1.01
    rows = np.minimum(np.floor(np.arange(h) / factor).astype(int), 89)
    cols = np.minimum(np.floor(np.arange(w) / factor).astype(int), 129)
    assert np.array_equal(mask, label[rows][:, cols])


def test_rotation_turns_about_the_half_size_with_mean_border():
    image, label = _noise(), _label()
    step = T.RandomRotate(10, GREY, p=1.0)
    step.set_random_seed(3)
    matrix = step.get_params_dependent_on_data({"shape": image.shape}, {})["matrix"]
    angle = 10 * (2 * random.Random(3).random() - 1)
    a, b = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    cx, cy = 65.0, 45.0
    assert np.allclose(matrix, [[a, b, (1 - a) * cx - b * cy], [-b, a, b * cx + (1 - a) * cy]])
    out = step.apply(image, matrix=matrix)
    border = {"borderMode": cv2.BORDER_CONSTANT, "borderValue": tuple(MEAN)}
    released = cv2.warpAffine(image.astype(np.float32), matrix, (130, 90), flags=cv2.INTER_LINEAR, **border)
    assert np.abs(out - released).max() <= 1.01
    assert np.abs(step.apply(np.full_like(image, 9), matrix=matrix)[0, 0].astype(int) - (124, 116, 104)).max() == 0
    mask = step.apply_to_mask(label, matrix=matrix)
    assert set(np.unique(mask)) == {0, 1, 255}
    assert mask[0, 0] == 255


@pytest.mark.parametrize("shape", [(90, 130), (64, 64), (375, 500), (201, 97)])
def test_rotation_with_a_fourth_channel_gives_the_same_grey_levels(shape):
    rng = np.random.default_rng(shape[0])
    noise = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    for image in (noise, cv2.GaussianBlur(noise, (0, 0), 4)):
        for angle in (-10, -3.3, 0, 0.01, 7):
            matrix = cv2.getRotationMatrix2D((shape[1] / 2, shape[0] / 2), angle, 1)
            border = {"borderMode": cv2.BORDER_CONSTANT, "borderValue": GREY}
            three = cv2.warpAffine(image, matrix, shape[::-1], flags=cv2.INTER_LINEAR, **border)
            turned = T.RandomRotate(10, GREY, p=1.0).apply(image, matrix=matrix)
            assert turned.shape == image.shape
            assert (turned == three).all()


def test_blur_is_the_binomial_table():
    image = _noise()
    k = np.array([1, 4, 6, 4, 1]) / 16
    padded = np.pad(image.astype(float), ((2, 2), (2, 2), (0, 0)), mode="reflect")
    expected = sum(k[i] * k[j] * padded[i : i + 90, j : j + 130] for i in range(5) for j in range(5))
    assert np.abs(T.BinomialBlur().apply(image) - expected).max() <= 0.501


def test_flip_mirrors_columns():
    assert np.array_equal(T.Flip().apply(_noise()), _noise()[:, ::-1])


def test_small_images_are_padded_with_mean_and_ignored():
    image, label = _noise((90, 131)), _label((90, 131))
    out = A.Compose([T.PadRandomCrop(161, GREY)])(image=image, mask=label)
    top, left = 71 // 2, 30 // 2
    assert np.array_equal(out["image"][top : top + 90, left : left + 131], image)
    assert np.array_equal(out["mask"][top : top + 90, left : left + 131], label)
    assert (out["image"][:top] == (124, 116, 104)).all()
    outside = np.ones((161, 161), bool)
    outside[top : top + 90, left : left + 131] = False
    assert (out["mask"][outside] == 255).all()


def test_crop_keeps_85_percent_of_the_foreground_where_it_can():
    label = np.zeros((200, 200), np.uint8)
    label[150:170, 150:170] = 1
    image = np.zeros((200, 200, 3), np.uint8)
    crop = A.Compose([T.PadRandomCrop(97, GREY)])
    kept, tops = [], set()
    for seed in range(200):
        crop.set_random_state(np.random.default_rng(0), random.Random(seed))
        params = crop.transforms[0].get_params_dependent_on_data({"shape": image.shape}, {"mask": label})
        tops.add(params["top"])
        kept.append(label[params["top"] : params["top"] + 97, params["left"] : params["left"] + 97].sum() / 400)
    assert np.mean(np.array(kept) >= 0.85) > 0.92  # one draw holds it with p of about 0.1, 32 draws with 0.97
    assert len(tops) > 20


def test_crop_gives_up_after_31_redraws():
    label = np.ones((200, 200), np.uint8)
    step = T.PadRandomCrop(97, GREY)
    step.py_random = random.Random(0)
    calls = []
    step.py_random.randint = lambda a, b: calls.append((a, b)) or a
    step.get_params_dependent_on_data({"shape": label.shape}, {"mask": label})
    assert calls == [(0, 103)] * 64


def test_steps_do_not_share_their_decisions():
    """Compose.set_random_seed would make rotation, blur and flip happen together or not at all."""
    pipeline = T.train_transform(TransformOptions(size=97), IMAGENET)._compose
    image, label = make_image(0), _label((96, 128))
    seen = set()
    for seed in range(60):
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        pipeline(image=image, mask=label)
        steps = pipeline.transforms
        seen.add(tuple(bool(s.params) for s in (steps[1], steps[2], steps[3])))
    assert len(seen) == 8


def test_training_is_a_function_of_the_seed():
    one, two = (
        T.train_transform(TransformOptions(size=97), IMAGENET),
        T.train_transform(TransformOptions(size=97), IMAGENET),
    )
    image, label = make_image(0), _label((96, 128))
    a = one(image, label, 5)
    one(image, label, 6)
    for x, y in zip(a, one(image, label, 5), strict=True):
        assert torch.equal(x, y)
    assert torch.equal(a[0], two(image, label, 5)[0])
    assert not torch.equal(a[0], one(image, label, 6)[0])
    assert a[0].shape == (3, 97, 97)
    assert (a[0].dtype, a[1].dtype, a[1].shape) == (torch.float32, torch.uint8, (97, 97))


def test_scale_factors_are_uniform():
    step = T.RandomScale(0.8, 1.25)
    step.set_random_seed(1)
    factors = np.array([step.get_params()["factor"] for _ in range(4000)])
    assert factors.min() >= 0.8
    assert factors.max() <= 1.25
    assert abs(factors.mean() - 1.025) < 0.01
    assert abs(factors.std() - 0.45 / 12**0.5) < 0.005


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((375, 500), 473, (352, 472)),
        ((333, 500), 473, (312, 472)),
        ((500, 500), 473, (472, 472)),
        ((480, 640), 473, (352, 472)),
        ((640, 480), 641, (640, 480)),
        ((500, 375), 417, (416, 312)),
        ((500, 500), 476, (476, 476)),
        ((375, 500), 476, (352, 476)),
        ((640, 480), 480, (480, 360)),
    ],
)
def test_test_geometry(shape, size, expected):
    assert E.resized_shape(*shape, size) == expected


def test_test_transform_equals_the_release():
    image, label = _noise((75, 100)), _label((75, 100))
    out, mask = E.eval_transform(TransformOptions(size=97), IMAGENET)(image, label, 0)
    h, w = 72, 96
    x, y = (np.arange(w) + 0.5) * 100 / w - 0.5, (np.arange(h) + 0.5) * 75 / h - 0.5
    canvas = np.zeros((97, 97, 3))
    canvas[:h, :w] = _bilinear(image, x, y)
    assert np.abs(out.numpy().transpose(1, 2, 0) - (canvas - MEAN) / STD).max() < 1e-4
    assert np.allclose(out[:, 96, 96], -MEAN / STD, atol=1e-6)
    expected = np.full((97, 97), 255, np.uint8)
    rows = np.floor(np.arange(h) * (75 / h)).astype(int)
    cols = np.floor(np.arange(w) * (100 / w)).astype(int)
    expected[:h, :w] = label[rows][:, cols]
    assert np.array_equal(mask.numpy(), expected)


@pytest.mark.parametrize(
    "wrong", [{"size": 9}, {"size": 97.0}, {"scale_min": 0.0}, {"scale_max": 0.5}, {"rotate": -1.0}]
)
def test_wrong_options(wrong):
    with pytest.raises(DataError, match="not allowed"):
        TransformOptions(**wrong)


@pytest.mark.parametrize("images", [IMAGENET, OTHER], ids=["imagenet", "other"])
def test_the_border_has_the_mean_colour_of_the_backbone(images):
    """What lies outside of an image is zero after normalisation, up to half a grey level."""
    assert mean_colour(IMAGENET) == GREY
    image, label = make_image(0), _label((96, 128))
    out, mask = T.train_transform(TransformOptions(size=196, scale_max=0.95), images)(image, label, 3)
    border = out[:, :20].flatten(1)
    assert bool((mask[:20] == 255).all())
    assert bool((border.abs().amax(1) <= 0.5 / 255 / torch.tensor(images.std) + 1e-6).all())


@pytest.mark.parametrize("images", [IMAGENET, OTHER], ids=["imagenet", "other"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_last_step_equals_albumentations_bit_for_bit(dtype, images):
    image = _noise().astype(dtype) + (0 if dtype == np.uint8 else np.float32(0.3))
    plain = A.Compose([A.Normalize(mean=images.mean, std=images.std), ToTensorV2()])(image=image)["image"]
    out = Normalise(images)(image)
    assert out.is_contiguous()
    assert torch.equal(out, plain)


class PaddedCrop(T.PadRandomCrop):
    """The rule as it is written: the whole image is padded, then searched and cut."""

    def get_params_dependent_on_data(self, params, data):
        h, w = params["shape"][:2]
        high, wide = max(self.size - h, 0), max(self.size - w, 0)
        pads = [(high // 2, high - high // 2), (wide // 2, wide - wide // 2)]
        label = np.pad(data["mask"], pads, constant_values=255)
        for _ in range(32):
            top = self.py_random.randint(0, label.shape[0] - self.size)
            left = self.py_random.randint(0, label.shape[1] - self.size)
            cut = label[top : top + self.size, left : left + self.size]
            if (cut == 1).sum() >= 0.85 * (label == 1).sum():
                break
        return {"top": top, "left": left, "pads": pads}

    def apply(self, img, top, left, pads, **params):
        padded = np.stack([np.pad(img[..., k], pads, constant_values=c) for k, c in enumerate(GREY)], axis=-1)
        return padded[top : top + self.size, left : left + self.size]

    def apply_to_mask(self, mask, top, left, pads, **params):
        return np.pad(mask, pads, constant_values=255)[top : top + self.size, left : left + self.size]


@pytest.mark.parametrize("shape", [(90, 130), (130, 90), (60, 70), (97, 97), (200, 180)])
def test_the_crop_equals_padding_the_whole_image(shape):
    image, label = _noise(shape), _label(shape)
    for seed in range(12):
        outs = []
        for crop in (T.PadRandomCrop(97, GREY), PaddedCrop(97, GREY)):
            pipeline = A.Compose([crop], additional_targets={"more": "mask"})
            pipeline.set_random_state(np.random.default_rng(0), random.Random(seed))
            outs.append(pipeline(image=image, mask=label, more=label + 2))
        for name in ("image", "mask", "more"):
            assert np.array_equal(outs[0][name], outs[1][name])


def test_training_stays_near_the_float32_pipeline():
    """Scale, rotation and blur together: each rounds to grey levels, and OpenCV's 8-bit kernels have coarse weights."""
    image, label = make_image(0), _label((96, 128))
    pipeline = T.train_transform(TransformOptions(size=97), IMAGENET)
    off = []
    for seed in range(16):
        out, mask = pipeline(image, label, seed)
        draws = random.Random(seed)
        draws.random()  # Compose itself draws once
        expected, cut = float32_pipeline(image, label, draws, 97, TransformOptions(size=97))
        assert torch.equal(mask.long(), cut)
        off.append((out - expected).abs() * torch.tensor(STD[:, None, None]))
    assert float(torch.stack(off).max()) <= 3.0
    assert float(torch.stack(off).mean()) <= 0.5
