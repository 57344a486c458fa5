"""A whole test through Lightning and the data module gives the same rows with the feature cache as without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from tests.model.episodes import build, counted
from torch import Tensor

from fss.data.datamodule import FewShotDataModule
from fss.data.episodes.options import EpisodeOptions, IndexOptions
from fss.data.epoch_sampler import EpisodeIndexSampler
from fss.data.options import LoaderOptions, TransformOptions
from fss.data.shapes.write import write_shapes
from fss.data.sources.shapes import ShapesSource
from fss.errors import FssError
from fss.finetune.layers.factored import SVFConv2d
from fss.finetune.svf import SVF
from fss.lit.callbacks.feature_caching import FeatureCaching
from fss.lit.episodic import EpisodicModule
from fss.lit.optim import Recipe
from fss.methods.baseline import Baseline
from fss.types import EpisodeFeatures, HeadOutput, InputSpec


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "shapes"
    write_shapes(folder, 0, train=1, val=40, pretrain_per_class=1, workers=1)
    return folder


def module() -> EpisodicModule:
    names = [str(i) for i in range(5)]
    model = build("baseline", 1, torch.float64)
    return EpisodicModule(model, Recipe(optimizer=torch.optim.SGD), names, names, names).double()  # type: ignore[arg-type]


def data(root: Path, size: int, group_by_image: bool) -> FewShotDataModule:
    return FewShotDataModule(
        ShapesSource(root), InputSpec(), 0, 1, transforms=TransformOptions(size=65), index=IndexOptions(min_area=150),
        episodes=EpisodeOptions(test_episodes=30, sampler="release"),
        loader=LoaderOptions(test_batch_size=size, workers=0, group_by_image=group_by_image, progress=False),
    )  # fmt: skip


def trainer(folder: Path, megabytes: int, **limits: int) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, precision="64-true",
        use_distributed_sampler=False, default_root_dir=folder, callbacks=[FeatureCaching(megabytes)],
        enable_checkpointing=False, **limits,
    )  # fmt: skip


def rows(folder: Path, tested: EpisodicModule, drawn: FewShotDataModule, megabytes: int, **limits: int) -> Tensor:
    trainer(folder, megabytes, **limits).test(tested, datamodule=drawn, verbose=False)
    return tested.test_rows


def test_rows_are_equal_and_less_is_computed(root: Path, tmp_path: Path) -> None:
    tested = module()
    seen = counted(tested.model)
    plain = rows(tmp_path, tested, data(root, 1, False), 0)
    before = seen[0]
    ours = rows(tmp_path, tested, data(root, 4, True), 64)
    assert torch.equal(ours, plain)
    assert plain[:, 0].tolist() == list(range(30))
    drawn = data(root, 1, False).streams.test
    images = {n for i in range(30) for n in (drawn.draw(0, i).query, *drawn.draw(0, i).supports)}
    compared = 2  # query and support of the first episode, without the cache
    assert (before, seen[0] - before) == (60, len(images) + compared)
    assert len(images) < 45
    assert tested.model._cache is None, "freed at the end"


def test_a_tuned_backbone_is_merged_for_the_test_and_the_model_is_not(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = module()
    strategy = SVF()
    strategy.apply(tested.model.backbone)  # type: ignore[arg-type]
    tested.double()
    with torch.no_grad():
        for p in strategy.trainable(tested.model.backbone):  # type: ignore[arg-type]
            p.mul_(1 + 0.2 * torch.randn_like(p))
    plain = rows(tmp_path, tested, data(root, 1, False), 0)
    layer = tested.model.backbone.stage(4)[0].conv1
    assert isinstance(layer, SVFConv2d)
    with monkeypatch.context() as patch:
        patch.setattr("fss.lit.callbacks.feature_caching.check_cache", lambda *_: None)  # it runs the model itself
        patch.setattr("fss.finetune.chains.links.chain", None)  # no factored layer runs
        patch.setattr(SVFConv2d, "forward", None)
        ours = rows(tmp_path, tested, data(root, 4, True), 64)
    assert torch.equal(ours, plain)
    assert tested.model.backbone.stage(4)[0].conv1 is layer
    assert not [k for k in tested.state_dict() if "cache" in k.lower()]


def test_only_the_first_episodes_are_the_first_ones_still(root: Path, tmp_path: Path) -> None:
    tested = module()
    ours = rows(tmp_path, tested, data(root, 4, True), 64, limit_test_batches=2)
    assert ours[:, 0].tolist() == list(range(8))


class Weighed(Baseline):
    """Overrides what is computed, and inherits the encodings."""

    def forward(self, features: EpisodeFeatures) -> HeadOutput:
        output = Baseline.forward(self, features)
        return replace(output, logits=output.logits.flip(1))


def test_a_head_that_overrides_forward_is_tested_with_it(root: Path, tmp_path: Path) -> None:
    tested = module()
    parent = rows(tmp_path, tested, data(root, 1, False), 64)
    tested.model.head.__class__ = Weighed
    plain = rows(tmp_path, tested, data(root, 1, False), 0)
    assert torch.equal(rows(tmp_path, tested, data(root, 4, True), 64), plain)
    assert not torch.equal(plain, parent)


class Wrong(Baseline):
    """Brings all four methods, which do not agree."""

    forward = Weighed.forward  # type: ignore[assignment]
    encode_query = Baseline.encode_query
    encode_support = Baseline.encode_support
    forward_encoded = Baseline.forward_encoded


@pytest.mark.parametrize("stage", ["test", "validate"])
def test_encodings_that_give_other_scores_end_the_pass_at_once(stage: str, root: Path, tmp_path: Path) -> None:
    tested = module()
    tested.model.head.__class__ = Wrong
    steps: list[int] = []
    tested.test_step = tested.validation_step = lambda *_: steps.append(1)  # type: ignore[assignment]
    run = getattr(trainer(tmp_path, 64), stage)
    with pytest.raises(FssError, match=r"Wrong\.forward_encoded gives other scores .* feature_cache_mb=0"):
        run(tested, datamodule=data(root, 1, False), verbose=False)
    assert not steps
    assert not tested.model.caches, "freed"


@pytest.mark.parametrize("world", [1, 3])
def test_processes_keep_their_episodes_in_an_order_that_suits_the_memory(root: Path, world: int) -> None:
    module = data(root, 1, True)
    module.setup("test")
    draws, order = module.streams.test, module._order(module.streams.test, "test")
    assert order is not None
    assert sorted(order) == list(range(30))
    keys = [(draws.draw(0, i).class_id, draws.draw(0, i).query) for i in order]
    assert keys == sorted(keys)
    assert keys != [(draws.draw(0, i).class_id, draws.draw(0, i).query) for i in range(30)]
    shares = [list(EpisodeIndexSampler(30, world, rank, world, order=order)) for rank in range(world)]
    for rank, share in enumerate(shares):
        assert sorted(i for _, i in share) == list(range(rank, 30, world))
