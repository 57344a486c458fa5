"""Train and test one run, or a sweep with -m: ``python train.py method=baseline finetune=svf fold=2``."""

import hydra
from omegaconf import DictConfig

from fss.cli.friendly import friendly
from fss.config.base_learner import with_base_learner
from fss.config.compose import prepare_hydra

prepare_hydra(with_base_learner)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
@friendly
def main(cfg: DictConfig) -> float:
    """Import the heavy part only when the configuration composes."""
    from fss.runs.train import run

    return run(cfg)


if __name__ == "__main__":
    friendly(main)()
