"""fss convert as a program: what it writes is tested and loaded, and wrong files are answered."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.golden.released import weights
from tests.golden.tables import state
from tests.programs import call
from torch import Tensor
from typer.testing import CliRunner

import fss
from fss.cli.main import app
from fss.errors import FssError
from fss.methods.releases import Released

VGG = ("--backbone", "vgg16")
BASELINE = ("--source", "svf", "--method", "baseline", *VGG)
EXAMPLES = [("svf", "baseline", "freeze"), ("pfenet", "pfenet", "freeze"), ("svf", "bam", "svf")]


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def small() -> dict[str, Tensor]:
    """Return the baseline's tensors on VGG, one value each, so that their file is small."""
    return {k: torch.tensor(0.5).expand(shape) for k, shape in state("svf", "baseline", "vgg16").items()}


def run(folder: Path, content: object, *options: str) -> tuple[int, str]:
    """Convert a file of this content within this process; return exit code and output."""
    torch.save(content, folder / "release.pth")
    done = CliRunner().invoke(app, ["convert", str(folder / "release.pth"), "--out", str(folder / "x.ckpt"), *options])
    assert (done.exit_code == 0) == (folder / "x.ckpt").exists()
    assert not list(folder.glob(".*"))
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.parametrize(("source", "method", "finetune"), EXAMPLES)
def test_eval_and_load_take_the_converted_file(source: str, method: str, finetune: str, home: Path) -> None:
    released = Released(source, method, "vgg16", "pascal", 1, finetune, 2)
    values = {k: v.float() if v.is_floating_point() else v for k, v in weights(released).items()}
    torch.save({"epoch": 1, "state_dict": values}, home / "release.pth")
    options = ("--source", source, "--method", method, *VGG, "--finetune", finetune, "--fold", "2")
    code, text = call(home, "fss", "convert", "release.pth", *options, "--out", "x.ckpt")
    assert (code, "python eval.py ckpt=x.ckpt" in text) == (0, True), text
    given = ("data=shapes", "data.size=65", "test_episodes=2", "trainer=cpu", "workers=0", "previews=1")
    code, text = call(home, "eval.py", "ckpt=x.ckpt", *given, f"out=tested-{method}")
    assert code == 0, text
    result = json.loads((home / f"tested-{method}/result.json").read_text())
    assert 0 <= result["scores"]["miou"] <= 100
    assert result["config"]["backbone"]["weights"].startswith("release.pth, SHA-256 ")
    model = fss.load(home / "x.ckpt")
    for backbone in ("backbone.", *(["companion.backbone."] if method == "bam" else [])):
        assert (
            f"{backbone}layer4.0.{'S' if finetune == 'svf' and backbone == 'backbone.' else 'weight'}"
            in model.state_dict()
        )
    with torch.no_grad():
        assert model(torch.rand(1, 3, 65, 65), torch.rand(1, 1, 3, 65, 65), torch.ones(1, 1, 65, 65)).isfinite().all()
    code, text = call(home, "fss", "convert", "x.ckpt", "--to-release", "--out", "back.pth")
    assert code == 0, text
    back = torch.load(home / "back.pth", weights_only=True)["state_dict"]
    assert list(back) == list(values)
    assert all(torch.equal(v, values[k]) for k, v in back.items())
    for name in ("release.pth", "x.ckpt", "back.pth"):
        (home / name).unlink()


def test_all_wrong_keys_are_listed_at_once(tmp_path: Path) -> None:
    tensors = small()
    del tensors["res1_meta.0.weight"], tensors["layer0.0.bias"]
    tensors |= {"stranger": torch.zeros(1), "layer9.0.weight": torch.zeros(1), "cls_meta.3.bias": torch.zeros(3)}
    code, text = run(tmp_path, tensors, *BASELINE)
    assert code == 2
    assert "unknown (2): stranger, layer9.0.weight" in text
    assert "missing (2): layer0.0.bias, res1_meta.0.weight" in text
    assert "other shape (1): cls_meta.3.bias [3] instead of [2]" in text
    assert "Fetch it again" in text


def test_a_prefix_on_some_names_only_is_no_prefix(tmp_path: Path) -> None:
    tensors = small()
    tensors["module.cls_meta.3.bias"] = tensors.pop("cls_meta.3.bias")
    code, text = run(tmp_path, tensors, *BASELINE)
    assert code == 2
    assert "unknown (1): module.cls_meta.3.bias" in text
    assert "missing (1): cls_meta.3.bias" in text


FILES = {
    "--backbone vgg16": ("svf", "baseline", "vgg16", 1, False),
    "--backbone resnet101": ("svf", "baseline", "resnet101", 1, False),
    "--method pfenet": ("svf", "pfenet", "resnet50", 1, False),
    "--source svf --method bam": ("svf", "bam", "resnet50", 1, False),
    "--source bam --method bam": ("bam", "bam", "resnet50", 1, False),
    "--method base_learner": ("svf", "base_learner", "resnet50", 1, False),
    "--shot 5": ("svf", "baseline", "resnet50", 5, False),
    "--finetune svf": ("svf", "baseline", "resnet50", 1, True),
    "--backbone vgg16 --shot 5 --finetune svf": ("svf", "baseline", "vgg16", 5, True),
}


@pytest.mark.parametrize("needed", FILES)
def test_the_options_that_a_file_needs_are_named(needed: str, tmp_path: Path) -> None:
    """Whatever is said of a file, following the answer converts it."""
    tensors = {k: torch.tensor(0.5).expand(shape) for k, shape in state(*FILES[needed]).items()}  # type: ignore[arg-type]
    wrong = ["--source", "pfenet" if "bam" in needed else "svf"]
    wrong += ["--method", "pfenet" if "bam" in needed else "baseline"]
    code, text = run(tmp_path, tensors, *wrong)
    assert code == 2
    assert f"it needs {needed}." in text.replace("--source svf --method base_learner", "--method base_learner")
    assert run(tmp_path, tensors, *wrong, *needed.split())[0] == 0  # the last of two options counts


def test_classes_tell_the_data_set(tmp_path: Path) -> None:
    tensors = {k: torch.tensor(0.5).expand(v) for k, v in state("bam", "bam", "vgg16", classes=61).items()}
    options = ("--source", "bam", "--method", "bam", *VGG)
    code, text = run(tmp_path, tensors, *options)
    assert code == 2
    assert "it needs --data coco." in text
    assert run(tmp_path, tensors, *options, "--data", "coco")[0] == 0


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "release.pth"
    torch.save({"state_dict": small(), "more": Payload(marker)}, path, _use_new_zipfile_serialization=zipped)
    done = CliRunner().invoke(app, ["convert", str(path), "--out", str(tmp_path / "x.ckpt"), *BASELINE])
    assert done.exit_code == 2
    assert "it holds pickled code, which is never run" in " ".join(done.output.split())
    done = CliRunner().invoke(app, ["convert", str(path), "--to-release", "--out", str(tmp_path / "back.pth")])
    assert done.exit_code == 2
    with pytest.raises(FssError, match="never run"):
        fss.load(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["release.pth"]
    torch.load(path, weights_only=False)
    assert marker.exists(), "the payload itself works"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "holds no state dict"),
        ({"state_dict": {}}, "holds no state dict"),
        ({"epoch": 3}, "holds no state dict"),
        (pickle.dumps([1]), "holds no state dict"),
    ],
)
def test_files_without_tensors(content: object, said: str, tmp_path: Path) -> None:
    code, text = run(tmp_path, content, *BASELINE)
    assert code == 2
    assert said in text
    assert "Give a .pth file of a release" in text


def test_wrong_options(tmp_path: Path) -> None:
    for options, said in (
        ((), "--source and --method must be given"),
        (
            ("--source", "bam", "--method", "baseline"),
            "--source bam has no method baseline. Known: --source bam --method bam",
        ),
        (("--source", "pfenet", "--method", "pfenet", "--finetune", "svf"), "has no decomposed layers"),
        (("--source", "pspnet"), "--method must be given"),
        (("--source", "pspnet", "--method", "baseline"), "--source pspnet is not known. Known: --source "),
        ((*BASELINE, "--backbone", "resnet18"), "--backbone resnet18 is not in the release svf of baseline"),
        ((*BASELINE, "--data", "shapes"), "--data shapes is not known: choose one of pascal, coco"),
        ((*BASELINE, "--merge"), "--merge goes with --to-release"),
        ((*BASELINE, "--out", str(tmp_path / "release.pth")), "would be lost"),
        ((*BASELINE, "--fold", "4"), "Invalid value for '--fold'"),
    ):
        code, text = run(tmp_path, small(), *options)
        assert code == 2, text
        assert said in text


def test_two_values_under_one_name(tmp_path: Path) -> None:
    tensors = {k: torch.tensor(0.5).expand(v) for k, v in state("bam", "base_learner", "vgg16").items()}
    tensors["encoder.2.3.weight"] = tensors["encoder.2.3.weight"] + 1
    code, text = run(tmp_path, tensors, "--source", "bam", "--method", "base_learner", *VGG)
    assert code == 2
    assert "encoder.2.3.weight and layer2.3.weight must hold the same values, and do not" in text


def back(folder: Path, *options: str) -> tuple[int, str]:
    """Write x.ckpt as a release's file within this process."""
    arguments = ["convert", str(folder / "x.ckpt"), "--to-release", "--out", str(folder / "back.pth"), *options]
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code == 0) == (folder / "back.pth").exists()
    return done.exit_code, " ".join(done.output.split())


def test_merged_factors_are_a_plain_file_of_the_release(tmp_path: Path) -> None:
    shapes = state("svf", "baseline", "vgg16", svf=True)
    generator = torch.Generator().manual_seed(0)
    tensors = {k: torch.tensor(0.5).expand(v) for k, v in shapes.items()}
    stem = {k: torch.randn(v, generator=generator) for k, v in shapes.items() if k.startswith("layer0.0.")}
    assert run(tmp_path, tensors | stem, *BASELINE, "--finetune", "svf")[0] == 0
    code, text = back(tmp_path, "--merge")
    assert code == 0, text
    merged = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    assert {k: tuple(v.shape) for k, v in merged.items()} == state("svf", "baseline", "vgg16")
    left = stem["layer0.0.conv_U.weight"].flatten(1) * stem["layer0.0.vector_S"].flatten()
    expected = (left @ stem["layer0.0.conv_V.weight"].flatten(1)).view(64, 3, 3, 3)
    assert torch.allclose(merged["layer0.0.weight"], expected, atol=1e-5)
    assert torch.equal(merged["layer0.0.bias"], stem["layer0.0.conv_U.bias"])


def test_what_no_release_can_hold_is_refused(tmp_path: Path) -> None:
    shapes = state("svf", "pfenet", "resnet50")
    tensors = {k: torch.tensor(0.5).expand(v) for k, v in shapes.items()}
    assert run(tmp_path, tensors, "--source", "svf", "--method", "pfenet")[0] == 0
    code, text = back(tmp_path, "--source", "pfenet")
    assert code == 2
    assert "backbone.dilation=torchvision, the release has uniform" in text
    assert "Known: --source bam" in back(tmp_path, "--source", "bam")[1]
    content = torch.load(tmp_path / "x.ckpt", weights_only=True)
    del content["fss_release"]  # as if trained here
    torch.save(content, tmp_path / "x.ckpt")
    assert "say for which release" in back(tmp_path)[1]
    content["fss"]["config"]["backbone"]["name"] = "resnet18"
    torch.save(content, tmp_path / "x.ckpt")
    code, text = back(tmp_path, "--source", "svf")
    assert code == 2
    assert (
        "The release svf does not have the backbone resnet18: only models on resnet50, resnet101, resnet152, vgg16"
        in text
    )
