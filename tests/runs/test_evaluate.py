"""What eval.py makes of its options and of the configuration of the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from fss.config.compose import plain, prepare_hydra
from fss.data.episodes.release import BAM_TEST_SEEDS
from fss.errors import FssError
from fss.runs import test as evaluate

CONF = Path(__file__).resolve().parents[2] / "conf"


def _compose(name: str, *overrides: str) -> dict[str, Any]:
    prepare_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plain(compose(name, overrides=list(overrides)))


def _merged(*overrides: str, trained: tuple[str, ...] = ()) -> dict[str, Any]:
    return evaluate.merged(_compose("eval", "ckpt=x", *overrides), _compose("config", *trained))


def test_every_seed_has_a_folder_of_its_own() -> None:
    seeds = [f"seed={s}" for s in BAM_TEST_SEEDS]
    names = {evaluate.test_name(_merged(s, f"sampler={r}")) for s in seeds for r in ("stateless", "release")}
    assert len(names) == 10
    assert evaluate.test_name(_merged("seed=365", "shot=5")).startswith("eval-5shot-pascal0-s365-")


def test_the_rule_is_the_training_s_unless_asked() -> None:
    assert _merged()["data"]["sampler"] == "stateless"
    assert _merged(trained=("data.sampler=release",))["data"]["sampler"] == "release"
    assert _merged("sampler=stateless", trained=("data.sampler=release",))["data"]["sampler"] == "stateless"
    assert _merged("seed=365", "sampler=release")["test_seed"] == 365


@pytest.mark.parametrize("asked", ["seed=365", "sampler=release"])
def test_what_is_asked_wins_over_a_list_of_the_training(asked: str) -> None:
    trained = ("data.episodes=list.json",)
    assert _merged(trained=trained)["data"]["episodes"] == "list.json"
    assert _merged(asked, trained=trained)["data"]["episodes"] is None
    assert _merged("seed=365", "episodes=other.json", trained=trained)["data"]["episodes"] == "other.json"


def test_the_shot_asked_wins_over_the_test_shot_of_the_training() -> None:
    merged = _merged("shot=5", trained=("data.test_shot=3",))
    assert (merged["shot"], merged["data"]["test_shot"]) == (5, None)
    assert _merged(trained=("data.test_shot=3",))["data"]["test_shot"] == 3


def test_a_list_and_a_rule_exclude_each_other() -> None:
    with pytest.raises(FssError, match=r"episodes=e\.json and sampler=release exclude each other"):
        _merged("episodes=e.json", "sampler=release")


def test_the_training_s_configuration_is_not_changed() -> None:
    trained = _compose("config")
    evaluate.merged(_compose("eval", "ckpt=x", "sampler=release", "test_episodes=5"), trained)
    assert (trained["data"]["sampler"], trained["data"]["test_episodes"]) == ("stateless", 1000)


def test_another_task_is_another_test() -> None:
    plain, generalised = _merged(), _merged("task=generalised")
    assert "task" not in plain, "tests keep the names of before there were tasks"
    assert evaluate.test_name(generalised).startswith("eval-generalised-1shot-")
    names = {evaluate.test_name(_merged("task=generalised", *o)) for o in ((), ("tau=0.5",), ("merge=base",))}
    assert len(names) == 3


def test_base_labels_of_other_classes_are_not_asked_for() -> None:
    trained = ("method=bam", "finetune=freeze")
    assert _merged(trained=trained)["method"]["wants"]["base_labels"]
    assert not _merged("fold=1", "seen_classes=keep", trained=trained)["method"]["wants"]["base_labels"]
    assert not _merged("data=coco", trained=trained)["method"]["wants"]["base_labels"]
    with pytest.raises(FssError, match="leave fold and data out"):
        _merged("task=generalised", "data=coco", trained=trained)


@pytest.mark.parametrize(
    ("words", "names"),
    [("trusted=[]", []), ("trusted=[my_fss,other]", ["my_fss", "other"]), ("trusted=mine", ["mine"])],
)
def test_packages_of_the_user_s_own_are_named_one_or_several(words: str, names: list[str]) -> None:
    assert evaluate.trusted_names(_compose("eval", "ckpt=x", words)["trusted"]) == names


@pytest.mark.parametrize("given", [3, [""], ["."], {"a": 1}, None])
def test_other_words_of_trust_are_refused(given: object) -> None:
    with pytest.raises(FssError, match=r"trusted=.* is not allowed: give names of Python packages"):
        evaluate.trusted_names(given)
