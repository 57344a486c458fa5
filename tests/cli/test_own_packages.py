"""Classes of a user's own package: found through PYTHONPATH, built from a checkpoint only where they are trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.instantiate import make
from fss.model.checkpoint import refuse_strangers

STRATEGY = """
from fss.finetune.bias import Bias

class Mine(Bias):
    name = "mine"
"""


def node(target: str) -> dict[str, object]:
    return {"name": "mine", "_target_": target, "stages": [2]}


def test_a_package_that_python_does_not_find_is_answered_with_the_variable() -> None:
    with pytest.raises(FssError, match=r"export PYTHONPATH=FOLDER, the one that holds absent_package\."):
        make("finetune", node("absent_package.mine.Mine"), Strategy)


def test_a_missing_module_of_ours_is_no_matter_of_paths() -> None:
    with pytest.raises(FssError) as caught:
        make("finetune", node("fss.finetune.absent.Mine"), Strategy)
    assert "PYTHONPATH" not in str(caught.value)


def test_a_package_on_the_path_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_package_of_a_test.py").write_text(STRATEGY)
    monkeypatch.syspath_prepend(str(tmp_path))
    built = make("finetune", node("own_package_of_a_test.Mine"), Strategy)
    assert (built.name, built.stages) == ("mine", (2,))


def test_a_checkpoint_with_it_says_how_it_is_trusted_by_each_program() -> None:
    nodes = {"finetune": node("my_fss.gain.Gain")}
    with pytest.raises(FssError) as caught:
        refuse_strangers(Path("best.ckpt"), nodes)
    for words in ('fss.load(path, trusted=["my_fss"])', "eval.py trusted=[my_fss]", "fss predict --trust my_fss"):
        assert words in str(caught.value)
    refuse_strangers(Path("best.ckpt"), nodes, trusted=["my_fss"])
    with pytest.raises(FssError, match="not part of fss"):
        refuse_strangers(Path("best.ckpt"), nodes, trusted=["my"])
