"""Releases are found through the classes of conf/method, and their tables rename in both directions."""

from __future__ import annotations

import pytest
import torch

from fss.checkpoints.known_releases import known_releases, only_method, release_of
from fss.checkpoints.state_dicts import from_release, to_release
from fss.config.compose import choices
from fss.errors import FssError
from fss.methods.bam import BAM
from fss.methods.releases import KeyMap


def test_every_release_belongs_to_a_head_of_conf() -> None:
    found = known_releases()
    assert {m for _, m in found} <= set(choices("method"))
    assert len(found) >= 7
    assert found["bam", "bam"] is BAM.releases[1]
    assert all(source == release.source for (source, _), release in found.items())


def test_the_method_of_a_source_that_has_one() -> None:
    assert only_method("pfenet") == "pfenet"
    assert only_method("svf") is None
    assert only_method("pspnet") is None
    with pytest.raises(FssError, match=r"--source pspnet is not known\. Known: .*--source bam --method bam, "):
        release_of("pspnet", "bam")


def test_norm_layers_without_a_count() -> None:
    """The release leaves the number of batches out; ours has it, and it comes back without."""
    table = KeyMap((("body.", "backbone.layer1."),), counted=False)
    theirs = {"body.0.bn1.running_mean": torch.zeros(3), "body.0.bn1.running_var": torch.ones(3)}
    ours = from_release(theirs, table)
    assert ours.keys() == {f"backbone.layer1.0.bn1.{n}" for n in ("running_mean", "running_var", "num_batches_tracked")}
    assert ours["backbone.layer1.0.bn1.num_batches_tracked"].dtype == torch.long
    assert to_release(ours, table).keys() == theirs.keys()
    assert "body.0.bn1.num_batches_tracked" not in from_release(theirs, KeyMap((("body.", "x."),)))
