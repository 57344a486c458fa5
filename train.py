"""Train and test one run, or a sweep with -m: ``python train.py method=baseline finetune=svf fold=2``."""

from fss.cli.checkout import refuse_mixture
from fss.cli.friendly import friendly

if __name__ == "__main__":
    friendly(refuse_mixture)(__file__)
    from fss.cli.train import main

    friendly(main)()
