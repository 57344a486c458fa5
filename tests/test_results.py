"""Result files: what is read, and that a bad file is named."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from tests.reports.fabricate_runs import content, write_run

from fss.results import ReportError, UnfinishedRunError, find_results, load_result


def test_reads_every_field(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", key__seed=3)
    result = load_result(path)
    assert result.path == path
    assert result.folder == tmp_path / "run"
    assert result.key.finetune == "svf"
    assert result.key.seed == 3
    assert result.key.experiment is None
    assert result.scores.miou_interval == (38.5, 41.5)
    assert result.scores.fb_iou == 65.0
    assert isinstance(result.scores.fb_iou, float)
    assert result.scores.per_class == {"ring_stripes": 40.0, "star_dots": None}
    assert result.parameters.per_layer == {"layer2.0.conv1.S": 64}
    assert result.cost.memory_kind == "saved_for_backward"
    assert result.files["previews"] == "previews.npz"


def test_a_test_only_run_has_no_training_time(tmp_path: Path) -> None:
    assert load_result(write_run(tmp_path / "run", cost__train_seconds=None)).cost.train_seconds is None


def test_what_was_not_measured_is_none(tmp_path: Path) -> None:
    nan = float("nan")
    scores = load_result(
        write_run(tmp_path / "run", scores__miou_interval=[nan, nan], scores__per_class={"cat": nan, "dog": 2})
    ).scores
    assert scores.miou_interval is None
    assert scores.fb_iou_interval == (64.0, 66.0)
    assert scores.per_class == {"cat": None, "dog": 2.0}


def test_unknown_keys_are_ignored(tmp_path: Path) -> None:
    assert load_result(write_run(tmp_path / "run", remark="x", key__extra=1)).key.fold == 0


@pytest.mark.parametrize("end", range(0, 900, 75))
def test_a_truncated_file_is_named(tmp_path: Path, end: int) -> None:
    path = write_run(tmp_path / "run")
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(ReportError, match=r"run/result\.json is damaged"):
        load_result(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version is 2"),
        ({"scores__miou": "40"}, r"scores\.miou is '40', expected a finite number"),
        ({"scores__miou": float("nan")}, r"scores\.miou is nan"),
        ({"scores__miou": None}, r"scores\.miou is None"),
        ({"scores__miou": True}, r"scores\.miou is True"),
        ({"scores__miou_interval": [1.0]}, r"scores\.miou_interval is \[1\.0\]"),
        ({"scores__miou_interval": [1.0, None]}, r"scores\.miou_interval\[1\] is None"),
        ({"scores__per_class": {"cat": "x"}}, r"scores\.per_class\.cat is 'x'"),
        ({"key__fold": 0.5}, r"key\.fold is 0\.5, expected int"),
        ({"key": None}, "key must be an object"),
        ({"selection__rule": "best"}, r"selection\.rule is 'best'"),
        ({"cost__memory_kind": None}, r"cost\.memory_kind is None, expected 'saved_for_backward' or 'cuda'"),
        ({"commit": 5}, "commit is 5"),
    ],
)
def test_a_malformed_value_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write_run(tmp_path / "run", **change)
    with pytest.raises(ReportError, match=rf"run/result\.json: {message}"):
        load_result(path)


@pytest.mark.parametrize("name", [k for k in content() if k not in ("schema_version", "status")])
def test_a_missing_part_is_named(tmp_path: Path, name: str) -> None:
    path = write_run(tmp_path / "run")
    whole = json.loads(path.read_text())
    del whole[name]
    path.write_text(json.dumps(whole))
    with pytest.raises(ReportError, match=f"{name} is missing"):
        load_result(path)


def test_no_object_no_file_and_no_text(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with pytest.raises(ReportError, match="cannot read"):
        load_result(path)
    path.write_text("[1]")
    with pytest.raises(ReportError, match="found list"):
        load_result(path)
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(ReportError, match="damaged"):
        load_result(path)


def test_find_results(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_run(tmp_path / "b", key__finetune="full")
    write_run(tmp_path / "a" / "deep")
    with pytest.raises(UnfinishedRunError, match="'running'"):
        load_result(write_run(tmp_path / "c", status="running"))
    with caplog.at_level(logging.WARNING):
        assert [r.key.finetune for r in find_results(tmp_path)] == ["svf", "full"]
    assert "c/result.json" in caplog.text
    (tmp_path / "b/result.json").write_text("{")
    with pytest.raises(ReportError, match=r"b/result\.json"):
        find_results(tmp_path)
    with pytest.raises(ReportError, match="no folder"):
        find_results(tmp_path / "nowhere")
