"""A run that goes on stays one run; what is made of a run's files; what is absent without W&B."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wandb
from tests.lit import fabricate
from tests.reports.fabricate_runs import write_previews, write_run
from tests.tracking.wandb_file import read_all
from tests.tracking.wandb_life import life, logger

from fss.config.compose import composed
from fss.finetune.freeze import Freeze
from fss.finetune.svf import SVF
from fss.finetune.svf_residual import SVFResidual
from fss.results import load_result
from fss.tracking.labels import labels
from fss.tracking.loggers import build_loggers, recorders, wandb_id
from fss.tracking.media import CLASS_COLUMNS, base_identity, base_learner, class_table, images, legal
from fss.tracking.recorder import spectra, spectrum_table
from fss.tracking.wandb_run import finish


def test_a_continued_run_stays_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "own"))
    for _ in range(2):
        life(tmp_path / "run", logger(tmp_path / "run"), epochs=2)
        finish()
    wandb.teardown()  # waits until the files are closed
    first, second = read_all(tmp_path / "run")
    assert first.run.run_id == second.run.run_id == "abc123"
    assert first.run.resume
    assert second.run.resume, "W&B goes on with a run that it knows"
    assert first.column("train/loss_total") == second.column("train/loss_total")
    assert len(first.column("train/loss_total")) == 8
    assert (first.run.run_group, first.run.job_type, list(first.run.tags)) == ("group", "svf", ["a", "b"])
    assert first.exit_code == second.exit_code == 0


def test_runs_of_a_table_are_grouped_by_it() -> None:
    config = composed(["finetune=svf", "+size=smoke"])
    assert labels(config, "table05").group == "table05"
    assert labels(config).group == "smoke"
    base = composed(["method=base_learner"])
    assert labels(base).job_type == "base_learner"
    assert labels(base).config["tables"] == {}


def test_disabled_means_absent(tmp_path: Path) -> None:
    node = {"csv": True, "tensorboard": False, "wandb": "disabled", "project": "fss"}
    made = build_loggers(node, tmp_path, "name", {})
    assert [type(one).__name__ for one in made] == ["History"]
    assert recorders(made, "name") == []
    assert not (tmp_path / "wandb_id").exists()


def test_ids_are_kept_for_continued_runs_only(tmp_path: Path) -> None:
    first = wandb_id(tmp_path, new=True)
    assert wandb_id(tmp_path, new=False) == first
    assert wandb_id(tmp_path, new=True) != first


def test_spectra_are_those_of_the_trained_values() -> None:
    counts = {}
    for name, strategy in (("svf", SVF((3, 4))), ("residual", SVFResidual((2,))), ("freeze", Freeze()),
                           ("vectors", SVF((4,), factors=("U", "V")))):  # fmt: skip
        module = fabricate.module()
        strategy.apply(module.model.backbone)
        counts[name] = {stage: len(layers) for stage, layers in spectra(module).items()}
    assert counts["svf"].keys() == {3, 4}
    assert counts["residual"].keys() == {2}
    assert counts["freeze"] == counts["vectors"] == {}, "no singular value trains"


def test_changes_are_relative_to_the_pretrained_values() -> None:
    before = {3: {"layer3.conv": np.array([4.0, 2.0, 1.0])}}
    table = spectrum_table(before, {3: {"layer3.conv": np.array([5.0, 2.0, 0.5])}})
    assert table.data == [["layer3.conv", 3, 3, pytest.approx(25.0), pytest.approx(25.0), pytest.approx(-50.0)]]


def test_the_table_of_classes(tmp_path: Path) -> None:
    scores = {"ring": 25.0, "star": None, "dot": 50.0}
    known = {
        "scores__class_intervals": {"ring": [25.0, 25.0], "star": [float("nan")] * 2, "dot": [0.0, 100.0]},
        "scores__class_episodes": {"ring": 2, "star": 0, "dot": 2},
    }
    result = load_result(write_run(tmp_path / "run", scores__per_class=scores, **known))
    table = class_table(result)
    assert table.columns == CLASS_COLUMNS
    ring, star, dot = table.data
    assert ring == ["ring", 25.0, 25.0, 25.0, 2]
    assert star == ["star", None, None, None, 0]
    assert dot == ["dot", 50.0, 0.0, 100.0, 2]
    bare = load_result(write_run(tmp_path / "bare", scores__per_class=scores))
    assert class_table(bare).data[0] == ["ring", 25.0, None, None, None]


def test_masks_name_what_is_ignored(tmp_path: Path) -> None:
    write_previews(tmp_path)
    shown = images(tmp_path / "previews.npz")
    kept = np.load(tmp_path / "previews.npz")
    assert (kept["truth"] == 255).any()
    assert len(shown["test/episodes"]) == len(shown["test/supports"]) == 4
    for i, image in enumerate(shown["test/episodes"]):
        assert image._masks.keys() == {"truth", "prediction"}
        labels = image._masks["truth"]._val["class_labels"]
        assert labels == {0: "background", 1: kept["class_name"][i], 255: "ignored"}


def test_a_base_learner_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"values")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/other.ckpt").write_bytes(b"values")
    (tmp_path / "c.ckpt").write_bytes(b"other values")
    identity = "f" * 64
    here, moved, other = (
        base_learner(base_identity(identity, tmp_path / path), {}) for path in ("a.ckpt", "b/other.ckpt", "c.ckpt")
    )
    assert (here.name, here.digest) == (moved.name, moved.digest)
    assert other.digest != here.digest


def test_names_of_artifacts() -> None:
    assert legal("tuned-baseline-resnet50 (1)/x:y") == "tuned-baseline-resnet50--1--x-y"
    assert len(legal("n" * 300)) == 128


def test_the_light_parts_import_no_wandb() -> None:
    code = (
        "import sys, fss.cli.main, fss.tracking.labels, fss.tracking.wandb_run, fss.runs.train\n"
        "print(json.dumps([m for m in ('wandb', 'wandb_workspaces', 'torch') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", f"import json\n{code}"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
