"""Test any checkpoint, with any shot: ``python eval.py ckpt=multirun/.../best.ckpt shot=5``."""

import hydra
from omegaconf import DictConfig

from fss.cli.checkout import refuse_mixture
from fss.cli.friendly import friendly
from fss.config.compose import prepare_hydra

prepare_hydra()


@hydra.main(version_base="1.3", config_path="conf", config_name="eval")
@friendly
def main(cfg: DictConfig) -> float:
    """Import the heavy part only when the configuration composes."""
    from fss.runs.test import run

    return run(cfg)


if __name__ == "__main__":
    friendly(refuse_mixture)(__file__)
    friendly(main)()
