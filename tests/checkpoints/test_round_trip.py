"""Release -> ours -> release is the identity: names, order, values, shapes and types."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.golden.tables import Shapes, state
from torch import Tensor

from fss.checkpoints.release_files import convert_file, export
from fss.methods.releases import Released

CASES = [
    ("svf", "baseline", "freeze"),
    ("svf", "baseline", "svf"),
    ("svf", "pfenet", "freeze"),
    ("svf", "pfenet", "svf"),
    ("svf", "bam", "freeze"),
    ("svf", "bam", "svf"),
    ("svf", "base_learner", "freeze"),
    ("pfenet", "pfenet", "freeze"),
    ("bam", "bam", "freeze"),
    ("bam", "base_learner", "freeze"),
]
TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def numbered(shapes: Shapes) -> dict[str, Tensor]:
    """Give every name a value and a type of its own, in an order of its own; expanded, a file of them is small."""
    tensors = {}
    for number, (key, shape) in enumerate(reversed(shapes.items())):
        counted = key.endswith("num_batches_tracked")
        kind = torch.long if counted else TYPES[number % len(TYPES)]
        tensors[key] = torch.tensor(number % 251, dtype=kind).expand(shape)
    for key in tensors:
        if key.startswith("encoder."):  # stored twice
            tensors[key] = tensors[f"layer{key.removeprefix('encoder.')}"]
    return {k: tensors[k] for k in reversed(shapes)}


def round_trip(folder: Path, tensors: dict[str, Tensor], released: Released, prefix: str = "") -> dict[str, Tensor]:
    """Convert and convert back; return the tensors of the second file, without the prefix that the first one had."""
    torch.save({"epoch": 3, "state_dict": {prefix + k: v for k, v in tensors.items()}}, folder / "release.pth")
    convert_file(folder / "release.pth", released, folder / "ours.ckpt")
    export(folder / "ours.ckpt", folder / "back.pth", None, merge=False)
    content = torch.load(folder / "back.pth", weights_only=True)
    assert content["epoch"] == 3
    assert all(k.startswith(prefix) for k in content["state_dict"])
    return {k.removeprefix(prefix): v for k, v in content["state_dict"].items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Tell whether names, their order, types, shapes and values are equal."""
    return list(a) == list(b) and all(v.dtype == b[k].dtype and torch.equal(v, b[k]) for k, v in a.items())


def made(source: str, method: str, finetune: str, backbone: str, shot: int) -> tuple[dict[str, Tensor], Released]:
    released = Released(source, method, backbone, "pascal", shot, finetune, 1)
    return numbered(state(source, method, backbone, shot, finetune == "svf")), released


@pytest.mark.parametrize(
    ("backbone", "prefix"),
    [
        ("resnet50", "module."),
        ("vgg16", ""),
        pytest.param("resnet50", "", marks=pytest.mark.slow),
        pytest.param("vgg16", "module.", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(("source", "method", "finetune"), CASES)
def test_identity(source: str, method: str, finetune: str, backbone: str, prefix: str, tmp_path: Path) -> None:
    tensors, released = made(source, method, finetune, backbone, shot=5 if prefix else 1)
    assert same(round_trip(tmp_path, tensors, released, prefix), tensors)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet101", "resnet152"])
@pytest.mark.parametrize(("source", "method", "finetune"), CASES)
def test_identity_of_deep_backbones(source: str, method: str, finetune: str, backbone: str, tmp_path: Path) -> None:
    tensors, released = made(source, method, finetune, backbone, shot=5)
    assert same(round_trip(tmp_path, tensors, released), tensors)


def test_real_values_of_a_truncated_stem(tmp_path: Path) -> None:
    """Factors keep every value through both changes of shape; bare state dicts and old files are read too."""
    tensors, released = made("svf", "baseline", "svf", "vgg16", 1)
    generator = torch.Generator().manual_seed(0)
    for key in list(tensors):
        if key.startswith(("layer0", "layer4")) and tensors[key].is_floating_point():
            tensors[key] = torch.randn(tensors[key].shape, generator=generator)
    assert tensors["layer0.0.vector_S"].shape == (1, 24, 1, 1)
    torch.save(tensors, tmp_path / "release.pth", _use_new_zipfile_serialization=False)
    convert_file(tmp_path / "release.pth", released, tmp_path / "ours.ckpt")
    export(tmp_path / "ours.ckpt", tmp_path / "back.pth", None, merge=False)
    assert same(torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"], tensors)


def test_a_difference_would_be_noticed() -> None:
    one = {"a": torch.ones(2), "b": torch.zeros(1)}
    assert same(one, dict(one))
    assert not same(one, {"b": one["b"], "a": one["a"]})
    assert not same(one, {**one, "b": torch.zeros(1, dtype=torch.float64)})
    assert not same(one, {**one, "a": torch.tensor([1.0, 2.0])})
    assert not same(one, {**one, "a": torch.ones(1, 2)})


@pytest.mark.parametrize("method", ["bam", "base_learner"])
def test_the_two_releases_of_one_model_exchange_files(method: str, tmp_path: Path) -> None:
    """BAM's own file becomes one for the SVF release, whose second backbone is a copy of the first, and comes back."""
    tensors, released = made("bam", method, "freeze", "vgg16", 1)
    torch.save(tensors, tmp_path / "release.pth")
    convert_file(tmp_path / "release.pth", released, tmp_path / "ours.ckpt")
    export(tmp_path / "ours.ckpt", tmp_path / "svf.pth", "svf", merge=False)
    theirs = torch.load(tmp_path / "svf.pth", weights_only=True)["state_dict"]
    assert {k: tuple(v.shape) for k, v in theirs.items()} == state("svf", method, "vgg16", 1)
    if method == "bam":
        assert torch.equal(theirs["layer2p.3.weight"], tensors["layer2.3.weight"])
    torch.save(theirs, tmp_path / "theirs.pth")
    convert_file(tmp_path / "theirs.pth", replace(released, source="svf"), tmp_path / "second.ckpt")
    export(tmp_path / "second.ckpt", tmp_path / "back.pth", "bam", merge=False)
    back = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    assert back.keys() == tensors.keys()
    assert all(torch.equal(v, tensors[k]) for k, v in back.items())
