"""Weights of timm's networks: files in timm's names, in the authors' and in ours; what is missing, damaged or gated."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fss.backbones.weights import WeightsError
from fss.model.build import build_backbone

timm = pytest.importorskip("timm", reason="needs fss[timm]")

from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from fss.backbones import timm_backbone, timm_weights  # noqa: E402
from fss.backbones.staged import StagedModule  # noqa: E402

VIT: dict[str, Any] = {"depth": 4, "embed_dim": 32, "num_heads": 2}
SMALL: dict[str, dict[str, Any]] = {
    "convnext_atto": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
    "resnet18": {"layers": [1, 1, 1, 1], "stem_width": 8},
    "mobilenetv3_small_100": {},
    "vit_small_patch14_dinov2": VIT,
    "vit_small_patch16_dinov3": {**VIT, "embed_dim": 64},
}


def node(name: str, weights: object) -> dict[str, Any]:
    target = "fss.backbones.timm_backbone.TimmBackbone"
    return {"_target_": target, "name": "timm", "model": name, "arguments": SMALL[name], "weights": str(weights)}


def network(name: str, **more: Any) -> torch.nn.Module:
    torch.manual_seed(9)
    found: torch.nn.Module = timm.create_model(name, pretrained=False, **{**SMALL[name], **more})
    return found


def holds(backbone: StagedModule, state: dict[str, Tensor], but: str = "-") -> bool:
    """Tell whether a backbone has the values of a classifier, whatever their names."""
    theirs = [v for k, v in state.items() if but not in k]
    values = [v for k, v in backbone.state_dict().items() if but not in k]
    return all(any(v.shape == t.shape and torch.equal(v, t) for t in theirs) for v in values)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_file_of_a_classifier_loads(name: str, ending: str, tmp_path: Path) -> None:
    state = {k: v.contiguous() for k, v in network(name).state_dict().items()}
    file = tmp_path / f"w.{ending}"
    save_file(state, file) if ending == "safetensors" else torch.save(state, file)
    torch.manual_seed(0)
    backbone = build_backbone(node(name, file))
    assert holds(backbone, state)
    torch.manual_seed(9)
    assert not holds(build_backbone(node(name, "none")), {k: v + 1 for k, v in state.items()})


def test_position_embeddings_of_another_side_are_resized(tmp_path: Path) -> None:
    name = "vit_small_patch14_dinov2"
    state = network(name, img_size=112).state_dict()
    torch.save(state, tmp_path / "w.pth")
    backbone = build_backbone(node(name, tmp_path / "w.pth"))
    assert state["pos_embed"].shape[1] == 64 + 1
    assert backbone.get_parameter("layer0.model.pos_embed").shape[1] == 37 * 37 + 1
    assert holds(backbone, state, but="pos_embed")


def test_our_own_names_load(tmp_path: Path) -> None:
    name = "vit_small_patch16_dinov3"
    torch.manual_seed(9)
    state = build_backbone(node(name, "none")).state_dict()
    torch.save(state, tmp_path / "own.pth")
    torch.manual_seed(0)
    backbone = build_backbone(node(name, tmp_path / "own.pth"))
    assert all(torch.equal(v, state[k]) for k, v in backbone.state_dict().items())
    del state["layer2.blocks_1.attn.proj.weight"]
    torch.save(state, tmp_path / "own.pth")
    with pytest.raises(WeightsError, match=r"missing: \['layer2\.blocks_1\.attn\.proj\.weight'\] \(1\)"):
        build_backbone(node(name, tmp_path / "own.pth"))


@pytest.mark.parametrize("name", ["resnet18", "vit_small_patch14_dinov2", "mobilenetv3_small_100"])
def test_a_file_that_lacks_a_tensor_is_refused(name: str, tmp_path: Path) -> None:
    """timm itself would leave it at random."""
    state = network(name).state_dict()
    gone = next(k for k in reversed(state) if k.endswith(".weight") and not k.startswith(("head", "fc", "class", "norm",
                "conv_head", "bn2")))  # fmt: skip
    torch.save({k: v for k, v in state.items() if k != gone}, tmp_path / "w.pth")
    with pytest.raises(
        WeightsError, match=rf"w\.pth does not fit {name}\S+ (it lacks 1 of \d+|Error.*Missing)"
    ) as caught:
        build_backbone(node(name, tmp_path / "w.pth"))
    assert gone.rpartition(".")[0].rpartition(".")[2] in str(caught.value)


@pytest.mark.parametrize(
    ("name", "other"), [("resnet18", "convnext_atto"), ("convnext_atto", "vit_small_patch14_dinov2")]
)
def test_weights_of_another_network_are_refused(name: str, other: str, tmp_path: Path) -> None:
    torch.save(network(other).state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=rf"w\.pth does not fit {name}.*Give weights of {name}, or start at random"):
        build_backbone(node(name, tmp_path / "w.pth"))


def test_other_shapes_are_refused(tmp_path: Path) -> None:
    torch.save(network("convnext_atto", dims=[8, 8, 16, 32]).state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth does not fit convnext_atto"):
        build_backbone(node("convnext_atto", tmp_path / "w.pth"))


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize("file", ["w.pth", "w.safetensors"])
def test_damaged_and_hostile_files(file: str, tmp_path: Path) -> None:
    torch.save({"conv1.weight": Hostile(tmp_path / "owned")}, tmp_path / file)
    with pytest.raises(WeightsError, match="is no readable weight file"):
        build_backbone(node("resnet18", tmp_path / file))
    assert not (tmp_path / "owned").exists()
    (tmp_path / file).write_bytes(b"<html>404</html>")
    with pytest.raises(WeightsError, match="is no readable weight file"):
        build_backbone(node("resnet18", tmp_path / file))
    with pytest.raises(WeightsError, match=r"nowhere\.pth is not a file\. Allowed: none, hub, or the path"):
        build_backbone(node("resnet18", "nowhere.pth"))


@pytest.mark.parametrize("word", ["hub", "imagenet"])
def test_published_weights_are_named_with_their_hash(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = network("resnet18").state_dict()
    file = tmp_path / "model.safetensors"
    save_file(state, file)
    asked: list[tuple[str, str, bool]] = []

    def download(repository: str, name: str, local_files_only: bool) -> str:
        asked.append((repository, name, local_files_only))
        if local_files_only:
            raise LocalEntryNotFoundError("not in the cache")
        return str(file)

    monkeypatch.setattr(timm_weights, "hf_hub_download", download)
    backbone = build_backbone(node("resnet18", word))
    assert holds(backbone, state)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert backbone.notes == (f"weights: resnet18.a1_in1k of timm {timm.__version__}, SHA-256 {digest}",)
    assert asked[-1] == ("timm/resnet18.a1_in1k", "model.safetensors", False)


def response() -> Any:
    import httpx

    return httpx.Response(403, request=httpx.Request("HEAD", "https://example.org"))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            lambda: GatedRepoError("403 Client Error", response=response()),
            r"vit_small_patch16_dinov3\.lvd1689m are gated: accept their licence at https://huggingface\.co/timm/\S+ "
            r"then log in with hf auth login.*hf download timm/\S+ model\.safetensors --local-dir weights/\S+, and",
        ),
        (
            lambda: LocalEntryNotFoundError("Please check your connection."),
            r"not in the cache and could not be downloaded: Please check your connection\. On a machine with a "
            r"connection, fetch them by hand: hf download .*backbone\.weights=weights/\S+/model\.safetensors",
        ),
        (lambda: OSError("no space left"), r"could not be downloaded: no space left"),
        (lambda: EntryNotFoundError("404"), r"holds none of model\.safetensors, pytorch_model\.bin\. Give a file"),
    ],
)
def test_what_cannot_be_downloaded(error: Any, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise error()

    monkeypatch.setattr(timm_weights, "hf_hub_download", refuse)
    with pytest.raises(WeightsError, match=text) as caught:
        build_backbone(node("vit_small_patch16_dinov3", "hub"))
    assert "\n" not in str(caught.value)


def test_networks_that_nobody_published() -> None:
    with pytest.raises(WeightsError, match=r"publishes no weights of resnetv2_50d\S* on the hub: start at random"):
        timm_weights.fetch("resnetv2_50d.untrained")
    with pytest.raises(WeightsError, match=r"of gcvit_base\.in1k on the hub: fetch https://\S+ and give it"):
        timm_weights.fetch("gcvit_base.in1k")


def test_the_watch_ends_with_the_loading(tmp_path: Path) -> None:
    before = torch.nn.Module.load_state_dict
    torch.save(network("resnet18").state_dict(), tmp_path / "w.pth")
    build_backbone(node("resnet18", tmp_path / "w.pth"))
    assert torch.nn.Module.load_state_dict is before
    assert timm_backbone.TimmBackbone.load_state_dict is before
