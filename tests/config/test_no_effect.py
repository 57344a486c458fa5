"""Options that others leave without effect are warned of, once; options that have one are not."""

from __future__ import annotations

import logging

import pytest
from hydra import compose, initialize_config_dir

from fss.config.compose import plain, prepare_hydra
from fss.config.no_effect import warn_once, without_effect, without_effect_on_a_test
from fss.config.places import CONF

WARNED = {
    "data.base.epochs=5": "data.base.epochs=5 has no effect: it belongs to base learners",
    "experiment=demo data.base.epochs=5": "data.base.epochs=5 has no effect: it belongs to base learners",
    "experiment=demo method=base_learner data.base.epochs=5": (
        "experiment=demo sets data.epochs=2, which is what trains. Type data.epochs=5."
    ),
    "method=base_learner +size=smoke data.base.size=65": "size=smoke sets data.size=33, which is what trains",
    "method=base_learner data.base.epochs=5 data.epochs=7": "no effect beside data.epochs=7, which replaces it",
    "method=bam method.base_learner.checkpoint=a.ckpt data.base.epochs=5": "so that none is trained",
    "method=base_learner data.test_episodes=5": "trained on images, not on episodes",
    "experiment=demo recipe=pfenet": (
        "sets recipe.optimizer.lr=0.05 where recipe=pfenet has 0.025. To have that, type recipe.optimizer.lr=0.025."
    ),
    "finetune=freeze recipe.backbone_lr_factor=3": "finetune=freeze trains no value of the backbone",
    "data.augment=false data.rotate=30": "data.augment=false trains without augmentation",
    "selection=last data.val_episodes=5": "selection=last validates nothing",
    "recording.every=3": "nothing is recorded without recording=on",
    "logger=csv logger.project=mine": "logger.wandb=disabled sends nothing",
    "data.epochs=3 trainer.max_epochs=5": "trainer.max_epochs is what counts",
    "fold=1 fold=2": "fold=1 has no effect: fold=2 comes after it",
    "data=shapes ++data.year=2017": "it belongs to data=coco",
}
SILENT = (
    "experiment=demo finetune=full",
    "experiment=demo backbone=resnet50",
    "experiment=demo recipe=pfenet recipe.optimizer.lr=0.1 recipe.backbone_lr_factor=1",
    "experiment=release_pfenet data.test_episodes=10",
    "method=bam data.base.epochs=5",
    "method=base_learner data.base.epochs=5",
    "backbone.weights=base_learner data.base.epochs=5",
    "+size=smoke recipe=pfenet data.epochs=4",
    "selection=last recording=on recording.every=3 data.val_episodes=4",
    "recording=off",
    "finetune=svf recipe.backbone_lr_factor=3 data.rotate=30 fold=2 shot=5 data.epochs=3",
)


def said(options: str) -> list[str]:
    prepare_hydra()
    words = options.split()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="test"):
        cfg = compose("config", overrides=words, return_hydra_config=True)
        config, choices = plain(cfg), cfg.hydra.runtime.choices
    return without_effect(config, words, choices)


@pytest.mark.parametrize("options", WARNED)
def test_an_option_without_effect_is_named(options: str) -> None:
    assert [s for s in said(options) if WARNED[options] in s], said(options)


@pytest.mark.parametrize("options", SILENT)
def test_an_option_with_an_effect_is_not(options: str) -> None:
    assert said(options) == []


def test_options_of_a_test() -> None:
    asked = {"task": "episodes"}
    words = ["ckpt=a", "tau=0.5", "trainer=cpu", "trainer.precision=64", "trainer.max_steps=3", "data=pascal", "shot=5"]
    found = without_effect_on_a_test(asked, [*words, "data.epochs=3", "data.min_area=5"])
    assert [sentence.split()[0] for sentence in found] == ["tau=0.5", "trainer.max_steps=3", "data.epochs=3"]
    assert without_effect_on_a_test({"task": "generalised"}, ["tau=0.5", "merge=base"]) == []


def test_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            warn_once(["fold=1 has no effect: a sentence of this test."])
    assert caplog.text.count("a sentence of this test") == 1
