"""``fss eval``, and ``eval.py`` in a checkout: test any checkpoint, with any shot."""

from __future__ import annotations

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fss.cli.friendly import friendly
from fss.config.compose import plain, prepare_hydra
from fss.config.no_effect import warn_once, without_effect_on_a_test
from fss.config.places import CONF

prepare_hydra()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="eval")
@friendly
def main(cfg: DictConfig) -> float:
    """Test what the command line describes; the heavy part is imported only when it composes.

    Args:
        cfg: composed by Hydra.

    Returns:
        mIoU in percent.
    """
    from fss.runs.processes.companions import together
    from fss.runs.test import run

    warn_once(without_effect_on_a_test(plain(cfg), list(HydraConfig.get().overrides.task)))
    with together():
        return run(cfg)


if __name__ == "__main__":  # as one more process of a test with several devices
    sys.path.pop(0)
    friendly(main)()
