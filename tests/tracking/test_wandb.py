"""Runs that are logged to W&B offline, read back from W&B's own files; and W&B that cannot be reached."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.programs import TINY, Program, call
from tests.tracking.wandb_file import read_all

from fss.results import Result, load_result
from fss.tracking.labels import cell

SMOKE = ("+size=smoke", "finetune=svf", "logger=default", "logger.wandb=offline", "fold=1")


class Logged:
    """A finished run with its W&B file."""

    def __init__(self, folder: Path) -> None:
        (self.file,) = read_all(folder)
        self.folder: Path = folder
        self.result: Result = load_result(folder / "result.json")


def train(home: Path, *options: str) -> None:
    running = Program(home, "train.py", *SMOKE, *options, environment={"WANDB_SILENT": "true"})
    assert running.wait(900) == 0, running.text()  # long, for machines that do much else


@pytest.fixture(scope="module")
def run(home: Path) -> Logged:
    train(home, "data.epochs=2", "data.val_episodes=6", "selection=novel", "group=alone")
    (folder,) = (home / "multirun/alone").iterdir()
    return Logged(folder)


@pytest.fixture(scope="module")
def logged(home: Path, run: Logged) -> dict[str, Logged]:
    """A baseline; and a BAM with its base learner, two runs of one process."""
    train(home, "method=bam")
    runs = [run, *(Logged(path.parent) for path in (home / "multirun/smoke").glob("*/result.json"))]
    found = {run.result.key.method: run for run in runs}
    assert len(runs) == len(found) == 3
    return found


def test_every_run_is_one_of_its_own(logged: dict[str, Logged]) -> None:
    assert {name: run.file.run.display_name for name, run in logged.items()} == {
        name: run.folder.name for name, run in logged.items()
    }
    assert len({run.file.run.run_id for run in logged.values()}) == 3
    for run in logged.values():
        assert run.file.run.run_id == (run.folder / "wandb_id").read_text()
        assert run.file.exit_code == 0
        assert run.file.run.project == "fss"


def test_groups_job_types_and_tags(logged: dict[str, Logged]) -> None:
    baseline, bam, base = (logged[name].file.run for name in ("baseline", "bam", "base_learner"))
    assert [r.run_group for r in (baseline, bam, base)] == ["alone", "smoke", "smoke"]
    assert (baseline.job_type, bam.job_type, base.job_type) == ("svf", "svf", "base_learner")
    assert {"baseline", "resnet50", "svf", "shapes", "fold-1", "shot-1", "toy"} <= set(baseline.tags)
    assert {"table01", "table05", "table10", "table24"} <= set(baseline.tags), "every table that needs the run"
    assert "table01" in bam.tags
    assert "table05" not in bam.tags
    assert not [tag for tag in base.tags if tag.startswith("table")]


def test_the_configuration_is_the_resolved_one(run: Logged) -> None:
    config = {k: v for k, v in run.file.config.items() if k != "_wandb"}
    tables, shared = config.pop("tables"), config.pop("cell")
    expected = json.loads(json.dumps(run.result.config))
    assert expected["recipe"].pop("optimizers") == {}  # wandb leaves out what is empty
    assert config == expected
    assert "${" not in json.dumps(config)
    assert (tables["table05"], tables["table08"]) == ("t05r06 SVF", "t08r03 SVF")
    assert shared == cell(run.result.config)
    for key, value in (("fold", 3), ("seed", 7)):
        assert cell({**run.result.config, key: value}) == shared
    assert cell({**run.result.config, "shot": 5}) != shared


def scalars_of_csv(folder: Path) -> set[tuple[int, str, float]]:
    with open(folder / "csv/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        (int(row["step"]), name, float(np.float32(value)))
        for row in rows
        for name, value in row.items()
        if value and name not in ("step", "epoch")
    }


def test_csv_tensorboard_and_wandb_hold_the_same_scalars(run: Logged) -> None:
    of_csv = scalars_of_csv(run.folder)
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    names = [name for name in events.Tags()["scalars"] if name not in ("epoch", "hp_metric")]
    of_board = {(e.step, name, float(np.float32(e.value))) for name in names for e in events.Scalars(name)}
    of_wandb = {
        (row["trainer/global_step"], name, float(np.float32(value)))
        for row in run.file.history
        for name, value in row.items()
        if name.startswith(("train/", "val/", "test/")) and isinstance(value, float | int)
    }
    assert of_board == of_csv
    assert of_wandb == of_csv
    assert {"train/loss_total", "train/miou", "val/miou", "val/loss", "test/miou"} <= {name for _, name, _ in of_csv}
    assert sum(name == "val/miou" for _, name, _ in of_csv) == 2


def test_the_summary_keeps_the_best_of_each_direction(run: Logged) -> None:
    file = run.file
    assert file.summary["train/loss_total"] == {"min": min(file.column("train/loss_total"))}
    assert file.summary["val/loss"] == {"min": min(file.column("val/loss"))}
    scores = [name for name in file.summary if name.startswith("val/") and name != "val/loss"]
    assert len(scores) == 2 + 5
    for name in [*scores, "train/miou", "train/fb_iou"]:
        assert file.summary[name] == {"max": max(file.column(name))}, name
    assert file.summary["test/miou"] == pytest.approx(run.result.scores.miou, abs=1e-4)
    assert file.summary["tables/table05"] == run.result.scores.miou
    assert file.summary["tables/table03"] == run.result.scores.fb_iou, "that table prints FB-IoU"
    assert file.summary["trained_values"] == run.result.parameters.backbone_trainable
    assert run.result.scores.miou_interval is not None
    interval = (file.summary["test/miou_low"], file.summary["test/miou_high"])
    assert interval == pytest.approx(run.result.scores.miou_interval)
    assert file.metrics["val/*"].step_metric == "epoch"
    assert file.metrics["train/loss*"].step_metric == "trainer/global_step"


def test_images_have_masks_with_class_names(run: Logged) -> None:
    (shown,) = run.file.column("test/episodes")
    (supports,) = run.file.column("test/supports")
    kept = np.load(run.folder / "previews.npz")
    assert shown["count"] == supports["count"] == len(kept["index"]) == 3
    for i, masks in enumerate(shown["all_masks"]):
        assert masks.keys() == {"truth", "prediction"}
        assert kept["class_name"][i] in shown["captions"][i]
        for name in masks:
            mask = np.asarray(Image.open(run.file.folder / masks[name]["path"]))
            assert np.array_equal(mask, kept[name][i]), "class indices, not colours"
        image = np.asarray(Image.open(run.file.folder / shown["filenames"][i]).convert("RGB"))
        assert np.array_equal(image, kept["query"][i]), "no mask is painted into the image"
    for i, masks in enumerate(supports["all_masks"]):
        mask = np.asarray(Image.open(run.file.folder / masks["support"]["path"]))
        assert np.array_equal(mask, kept["support_mask"][i])
    labels = run.file.config["_wandb"]["mask/class_labels"]
    named = [entry["value"] for key, entry in labels.items() if "episodes" in key]
    assert named
    assert all(value["0"] == "background" and value["1"] in run.result.scores.per_class for value in named)


def test_the_table_of_classes(run: Logged) -> None:
    rows = run.file.table("test/classes")
    assert {row["class"]: row["IoU"] for row in rows} == pytest.approx(run.result.scores.per_class)
    assert sum(row["episodes"] or 0 for row in rows) == run.result.episodes.count
    for row in rows:
        assert row["episodes"] is None or row["low"] <= row["IoU"] + 1e-9 <= row["high"] + 2e-9


def test_spectra_of_every_stage_and_layer(run: Logged) -> None:
    tuned = torch.load(run.folder / "tuned.pt", weights_only=True)["values"]
    rows = {row["layer"]: row for row in run.file.table("test/spectra")}
    assert {f"{layer}.S": row["values"] for layer, row in rows.items()} == {k: len(v) for k, v in tuned.items()}
    assert {row["stage"] for row in rows.values()} == {2, 3, 4}
    assert any(row["mean change %"] > 0 for row in rows.values())
    for stage in (2, 3, 4):
        courses = run.file.column(f"spectrum/stage{stage}_change_percent")
        assert len(courses) == 1 + 2, "before training, and after each epoch"
        values = sum(row["values"] for row in rows.values() if row["stage"] == stage)
        assert [sum(course["values"]) for course in courses] == [values] * 3
        assert sum(count > 0 for count in courses[0]["values"]) == 1, "no change yet: one bin around zero"
        assert courses[0]["bins"][0] < 0 < courses[0]["bins"][-1]
        assert courses[0]["bins"] != courses[2]["bins"], "the values moved"


def test_tuned_values_are_an_artifact(run: Logged) -> None:
    found = run.file.artifact("tuned-values")
    (entry,) = found.manifest.contents
    assert (entry.path, entry.size) == ("tuned.pt", (run.folder / "tuned.pt").stat().st_size)
    assert Path(entry.local_path).read_bytes() == (run.folder / "tuned.pt").read_bytes()
    facts = json.loads(found.metadata)
    assert facts["identity"] == run.result.identity
    assert facts["trained_values"] == run.result.parameters.backbone_trainable
    assert facts["base_learner"] is None
    assert found.name == f"tuned-{run.folder.name}"
    assert not found.use_after_commit


def test_lineage_leads_to_the_base_learner(logged: dict[str, Logged]) -> None:
    made = logged["base_learner"].file.artifact("base-learner")
    used = logged["bam"].file.artifact("base-learner")
    assert (made.use_after_commit, used.use_after_commit) == (False, True), "put out by one run, taken in by the other"
    assert (made.name, made.digest) == (used.name, used.digest), "W&B knows it as one artifact"
    facts = json.loads(logged["bam"].file.artifact("tuned-values").metadata)
    assert facts["base_learner"]["identity"] == logged["base_learner"].result.identity
    assert not [a for a in logged["baseline"].file.artifacts if a.type == "base-learner"]


def test_what_waits_for_its_upload_lies_with_its_run(logged: dict[str, Logged]) -> None:
    for run in logged.values():
        for artifact in run.file.artifacts:
            for entry in artifact.manifest.contents:
                assert run.folder in Path(entry.local_path).parents


@pytest.fixture(scope="module")
def unreachable(home: Path) -> tuple[Path, str]:
    environment = {
        "WANDB_MODE": "online", "WANDB_BASE_URL": "http://127.0.0.1:1", "WANDB_API_KEY": "a" * 40,
        "WANDB_INIT_TIMEOUT": "1", "WANDB_SILENT": "true",
    }  # fmt: skip
    options = (*TINY, "debug=one_batch", "group=unreachable", "logger.wandb=auto")
    code, text = call(home, "train.py", *options, environment=environment)
    assert code == 0, text
    (folder,) = (home / "multirun/unreachable").iterdir()
    return folder, text


def test_a_run_without_network_is_logged_offline(unreachable: tuple[Path, str]) -> None:
    folder, text = unreachable
    result = load_result(folder / "result.json")
    (file,) = read_all(folder)
    (path,) = [p for p in (folder / "wandb").iterdir() if p.is_dir() and "run-" in p.name]
    assert path.name.startswith("offline-run-"), "nothing is left of the attempt"
    assert file.summary["test/miou"] == pytest.approx(result.scores.miou, abs=1e-4)
    assert file.exit_code == 0
    assert text.count("W&B cannot be used") == 1
    assert f"wandb sync {path}" in text
    assert "Traceback" not in text


def test_no_link_leads_nowhere(unreachable: tuple[Path, str]) -> None:
    folder, _ = unreachable
    links: list[Any] = [p for p in (folder / "wandb").iterdir() if p.is_symlink()]
    assert all(link.exists() for link in links)
