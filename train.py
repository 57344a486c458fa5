"""Train and test one run, or a sweep with -m: ``python train.py method=baseline finetune=svf fold=2``."""

import hydra
from omegaconf import DictConfig

from fss.cli.base_stage import settled
from fss.cli.edge import friendly, prepare_hydra

prepare_hydra(settled)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
@friendly
def main(cfg: DictConfig) -> float:
    """Import the heavy part only when the configuration composes."""
    from fss.cli.train import run

    return run(cfg)


if __name__ == "__main__":
    friendly(main)()
