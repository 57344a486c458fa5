"""Sizes and support view follow the backbone; what it cannot take is refused with what it can."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from fss.config.backbone_facts import check_backbone, nearest_side, sides, support_view
from fss.config.checks import check
from fss.config.compose import plain, prepare_hydra
from fss.config.identity import determining, identity
from fss.errors import FssError
from fss.input_spec import InputSpec

CONF = Path(__file__).resolve().parents[2] / "conf"
PATCHES = "backbone.sizes=[14,0]"
ASKED = ("backbone.sizes=null",)
TRANSFORMER = {"name": "vit", "_target_": "tests.model.tokens.Tokens", "weights": "none", "width": 8, "depth": 1}


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    prepare_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="test"):
        yield


@cache
def _composed(overrides: tuple[str, ...], name: str = "config") -> dict[str, Any]:
    return plain(compose(name, overrides=list(overrides)))


def composed(*overrides: str) -> dict[str, Any]:
    return copy.deepcopy(_composed(overrides))


def with_transformer(*overrides: str, **more: Any) -> dict[str, Any]:
    """Resolve a configuration whose backbone is replaced, as a file of a user's own would."""
    cfg = compose("config", overrides=[o for o in overrides if not o.startswith("data.size")])
    return plain(cfg, TRANSFORMER | more)


def test_nearest_sides_and_rules() -> None:
    cnn, vit, any_side = InputSpec(), InputSpec(step=14, offset=0), InputSpec(step=1, offset=0)
    assert [cnn.nearest(s) for s in (473, 472, 470, 469, 468, 1)] == [473, 473, 473, 473, 465, 9]
    assert [vit.nearest(s) for s in (473, 417, 97, 129, 33, 35, 34)] == [476, 420, 98, 126, 28, 42, 28]
    assert any_side.nearest(129) == 129
    assert (cnn.rule, vit.rule, any_side.rule) == ("8n + 1", "multiples of 14", "any")
    assert cnn.around(100) == (97, 105)
    assert cnn.around(97) == (97, 97)
    for images in (cnn, vit, any_side, InputSpec(step=32, offset=1)):
        for side in range(1, 200):
            low, high = images.around(side)
            assert images.allows(low)
            assert images.allows(high)
            assert images.allows(images.nearest(side))
            assert images.allows(side) == (low == high == side)


def test_sides_without_a_rule_of_the_file_are_asked_of_the_class() -> None:
    assert sides({"sizes": [14, 0]}) == InputSpec(step=14, offset=0)
    resnet = composed("backbone=resnet18")["backbone"] | {"sizes": None}
    assert sides(resnet) == InputSpec()
    assert support_view(resnet) == "masked_before_stage4"
    assert nearest_side(TRANSFORMER, 129) == 126
    assert support_view(TRANSFORMER) == "masked_image"
    assert support_view({"sizes": [8, 1]}) == "masked_before_stage4"
    assert support_view({"sizes": [14, 0], "support_view": "masked_image"}) == "masked_image"


@pytest.mark.parametrize("wrong", [7, [8], [8, 9], [0, 0], [8, "1"], [8, True], "8n"])
def test_sizes_that_are_no_rule(wrong: object) -> None:
    with pytest.raises(FssError, match=r"backbone\.sizes=.* is not allowed: .*\[step, offset\]"):
        sides({"sizes": wrong})


@pytest.mark.parametrize(
    ("options", "size", "base"),
    [
        ((), 473, 417),
        (("data=coco",), 641, 417),
        (("data=shapes",), 129, 129),
        ((PATCHES,), 476, 420),
        ((PATCHES, "data=shapes", "+size=smoke"), 28, 126),
        (("backbone.sizes=[16,0]",), 480, 416),
        (("backbone.sizes=[16,0]", "experiment=demo"), 96, 128),
        (("backbone.sizes=[16,0]", "method=base_learner"), 416, 416),
        (("backbone.sizes=[16,0]", "data.size=464"), 464, 416),
        (ASKED, 473, 417),
    ],
)
def test_the_sides_of_a_data_set_follow_the_backbone(options: tuple[str, ...], size: int, base: int) -> None:
    config = composed(*options)
    assert (config["data"]["size"], config["data"]["base"]["size"]) == (size, base)
    assert type(config["data"]["size"]) is int
    check(config)


def test_a_transformer_has_its_sides_and_its_view_by_itself() -> None:
    config = with_transformer("data=shapes")
    assert (config["data"]["size"], config["method"]["support_view"]) == (126, "masked_image")
    check(config)
    assert determining(config)["method"]["support_view"] == "masked_image"
    typed = with_transformer("method.support_view=masked_before_stage4")
    with pytest.raises(FssError, match=r"not possible with backbone=vit.*: type method\.support_view=masked_image"):
        check(typed)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (473, r"data\.size=473 is not allowed: sides of backbone=vit are multiples of 7.*: 469 or 476"),
        (18, "Give one of the nearest: 14 or 21"),
    ],
)
def test_a_side_that_the_backbone_does_not_take_is_refused(size: int, text: str) -> None:
    config = with_transformer()
    config["data"]["size"] = size
    with pytest.raises(FssError, match=text):
        check(config)


def test_an_unknown_view_is_refused() -> None:
    with pytest.raises(FssError, match=r"method\.support_view=before is not known: choose one of masked_before_stage4"):
        check(composed("method.support_view=before"))


def test_what_describes_the_backbone_is_no_part_of_the_identity() -> None:
    """Runs from before have neither key, and the same numbers."""
    config = composed()
    older = copy.deepcopy(config)
    del older["backbone"]["sizes"], older["method"]["support_view"]
    assert identity(config) == identity(older)
    assert identity(composed("method.support_view=masked_image")) != identity(config)


def test_a_test_on_another_data_set_has_the_sides_of_its_checkpoint() -> None:
    cfg = compose("eval", overrides=["ckpt=x", "data=coco"])
    assert plain(cfg)["data"]["size"] == 641
    found = plain(cfg, TRANSFORMER)
    assert (found["data"]["size"], found["data"]["base"]["size"]) == (644, 420)
    assert "backbone" not in found
    assert plain(compose("eval", overrides=["ckpt=x", "data=coco", "data.size=77"]), TRANSFORMER)["data"]["size"] == 77


def test_a_file_that_says_its_sides_spares_importing_torch() -> None:
    code = (
        "import sys\nfrom fss.config.compose import composed\n"
        "config = composed(['data=shapes', 'method=pfenet', 'data.size=97'])\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_the_check_needs_the_class_only_where_the_file_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fss.config.backbone_facts._asked", None)
    check_backbone(composed())
