"""Sweeps through submitit: the SLURM launcher composes, and its local sibling runs."""

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
