"""``fss train``, and ``train.py`` in a checkout: train and test one run, or a sweep with ``-m``."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from fss.cli.friendly import friendly
from fss.config.base_learner import completed
from fss.config.compose import prepare_hydra
from fss.config.places import CONF

prepare_hydra(completed)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
@friendly
def main(cfg: DictConfig) -> float:
    """Train and test what the command line describes; the heavy part is imported only when it composes.

    Args:
        cfg: composed by Hydra.

    Returns:
        mIoU in percent, which a Hydra sweeper maximises.
    """
    from fss.runs.processes.companions import together
    from fss.runs.train import run

    with together():
        return run(cfg)


if __name__ == "__main__":  # as one more process of a run with several devices
    sys.path.pop(0)
    friendly(main)()
