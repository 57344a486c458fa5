"""Sweeps through submitit and joblib: the SLURM launcher composes, its local sibling and joblib run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from tests.programs import TINY, call

from fss.config.compose import prepare_hydra

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.mark.parametrize("launcher", ["submitit_slurm", "submitit_local"])
def test_launcher_composes(launcher: str) -> None:
    prepare_hydra()
    asked = [f"hydra/launcher={launcher}", "hydra.launcher.timeout_min=600"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=asked, return_hydra_config=True)
    assert config.hydra.launcher.timeout_min == 600
    assert "submitit" in config.hydra.launcher._target_


@pytest.mark.slow
def test_local_sweep(home: Path) -> None:
    asked = ("-m", "hydra/launcher=submitit_local", *TINY, "logger=none", "debug=one_batch", "finetune=freeze,svf")
    code, text = call(home, "train.py", *asked)
    assert code == 0, text
    found = [json.loads(p.read_text())["key"]["finetune"] for p in home.glob("multirun/debug/*/result.json")]
    assert sorted(found) == ["freeze", "svf"]


def loads_in_its_own_processes() -> list[int]:
    from torch.utils.data import DataLoader

    from fss.runs.processes.companions import together

    with together():
        return [int(n) for n in DataLoader(range(3), batch_size=None, num_workers=2)]  # type: ignore[arg-type]


def test_a_process_of_joblib_starts_loaders() -> None:
    """``'Process' object has no attribute 'env'`` before: joblib's way of starting processes was the loaders', too."""
    joblib = pytest.importorskip("joblib", reason="joblib comes with hydra-joblib-launcher, which is optional")
    tasks = [joblib.delayed(loads_in_its_own_processes)()] * 3  # two of them in one process
    assert joblib.Parallel(n_jobs=2, backend="loky")(tasks) == [[0, 1, 2]] * 3


@pytest.mark.slow
def test_a_sweep_of_joblib_counts_its_failures(home: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="hydra-joblib-launcher is not installed")
    few = ("data.epochs=1", "trainer.limit_train_batches=3", "data.test_episodes=4", "data.val_episodes=4")
    asked = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *TINY, "logger=none", *few, "workers=2")
    code, text = call(home, "train.py", *asked, "group=joblib", "recipe.batch_size=2", "recipe.optimizer.lr=1e30,0.01")
    assert code == 2, text
    assert "1 of this sweep's runs failed; the others are done" in text
    assert "The training diverged" in text
    assert len(list(home.glob("multirun/joblib/*/result.json"))) == 1
    assert len(list(home.glob("multirun/joblib/*/failed.json"))) == 1
    assert not list(home.glob("multirun/joblib/*/.claim-*"))
    assert all(path.read_text() for path in home.glob("multirun/joblib/*/train.log"))
