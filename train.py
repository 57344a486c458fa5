"""Train and test one run, or a sweep with -m: ``python train.py method=baseline finetune=svf fold=2``."""

import hydra
from omegaconf import DictConfig

from fss.cli.checkout import refuse_mixture
from fss.cli.friendly import friendly
from fss.config.base_learner import completed
from fss.config.compose import prepare_hydra

prepare_hydra(completed)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
@friendly
def main(cfg: DictConfig) -> float:
    """Import the heavy part only when the configuration composes."""
    from fss.runs.train import run

    return run(cfg)


if __name__ == "__main__":
    friendly(refuse_mixture)(__file__)
    friendly(main)()
