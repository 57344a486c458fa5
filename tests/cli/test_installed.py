"""A wheel does what a checkout does: built, installed where no checkout is seen, and used from an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from tests.programs import TINY

ROOT = Path(__file__).resolve().parents[2]
RUN = ("experiment=figure06", "+size=smoke", "backbone=resnet18", "data.test_episodes=4", "recording.episodes=2")


class Installed:
    """An environment with the wheel; dependencies are seen, the checkout is not.

    Args:
        folder: where to make it.
    """

    def __init__(self, folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        wheel = ["wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", str(folder)]
        subprocess.run([*pip, *wheel], check=True, timeout=120)
        (built,) = folder.glob("*.whl")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True, timeout=60)
        python = folder / "env/bin/python"
        install = ["--python", str(python), "install", "-q", "--no-deps", "--no-index", str(built)]
        subprocess.run([*pip, *install], check=True, timeout=120)
        (site,) = (folder / "env/lib").glob("python*/site-packages")
        site.joinpath("dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # its own .pth are not read
        self.bin, self.home = folder / "env/bin", folder / "home"
        self.home.mkdir()

    def __call__(self, program: str, *arguments: str, code: int = 0) -> str:
        """Run a program in the empty folder; return what it printed."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        environment |= {
            "FSS_CACHE": str(self.home / "cache"),
            "WANDB_MODE": "disabled",
            "NO_ALBUMENTATIONS_UPDATE": "1",
        }
        command = [self.bin / program, *arguments]
        done = subprocess.run(command, cwd=self.home, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    pytest.importorskip("hatchling", reason="the wheel is built with it")
    pytest.importorskip("pip", reason="it builds and installs the wheel")
    return Installed(tmp_path_factory.mktemp("installed"))


def test_the_checkout_is_not_importable(installed: Installed) -> None:
    code = "import fss, hydra_plugins.fss_rows as p, fss.config.places as c; print(fss.__file__, p.__file__, c.CONF)"
    for path in installed("python", "-c", code).split():
        assert installed.bin.parent in Path(path).parents, path


def test_it_trains_tests_reports_and_draws_from_an_empty_folder(installed: Installed) -> None:
    installed("fss", "data", "shapes", "--train", "60", "--val", "40", "--pretrain-per-class", "1")
    installed("fss", "train", *RUN)
    (run,) = (installed.home / "multirun/smoke").iterdir()
    assert (run / "result.json").is_file()
    installed("fss", "eval", f"ckpt={run / 'checkpoints/last.ckpt'}", "trainer=cpu", "test_episodes=4", "shot=2")
    assert list(run.glob("eval-2shot-*/result.json"))
    assert run.name.split("-")[2] in installed("fss", "report", "multirun/smoke")
    installed("fss", "figure", "6", "--runs", "multirun/smoke", "--out", "drawn")
    assert (installed.home / "drawn/figure06.pdf").stat().st_size > 1000
    assert not list(installed.home.glob("*/.hydra")), "runs go below multirun/"
    assert {p.name for p in installed.home.iterdir()} <= {"cache", "data", "drawn", "multirun"}


@pytest.mark.slow
def test_it_trains_and_tests_on_several_devices(installed: Installed) -> None:
    """Lightning starts the other processes from what the command says it is, here a file of the package."""
    if not (installed.home / "data/shapes").is_dir():
        installed("fss", "data", "shapes", "--train", "60", "--val", "40", "--pretrain-per-class", "1")
    short = ("data.epochs=1", "trainer.limit_train_batches=2", "data.test_episodes=5", "data.val_episodes=4")
    printed = installed("fss", "train", *TINY, *short, "trainer.devices=2", "recipe.batch_size=2", "group=two")
    assert printed.count("Fine-tuning svf") == 1
    (run,) = (installed.home / "multirun/two").iterdir()
    assert json.loads((run / "result.json").read_text())["episodes"]["count"] == 5
    installed("fss", "eval", f"ckpt={run / 'checkpoints/last.ckpt'}", "trainer=cpu", "trainer.devices=2", "shot=2")
    (tested,) = run.glob("eval-2shot-*/result.json")
    assert json.loads(tested.read_text())["episodes"]["count"] == 5


def test_hints_name_the_commands_that_there_are(installed: Installed) -> None:
    assert "as fss train -m experiment=table05" in installed("fss", "train", "experiment=table05", code=2)
    assert "All options: fss train --help" in installed("fss", "train", "sise=smoke", code=2)
    assert "All options: fss eval --help" in installed("fss", "eval", "ckpt=a", "shots=5", code=2)
    assert "fss train -m experiment=table05 +size=smoke" in installed(
        "fss", "sweep", "plan", "experiment=table05", "+size=smoke"
    )
    assert "finetune: adapter, bias" in installed("fss", "train", "--help")
