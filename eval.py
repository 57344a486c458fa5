"""Test any checkpoint, with any shot: ``python eval.py ckpt=multirun/.../best.ckpt shot=5``."""

from fss.cli.checkout import refuse_mixture
from fss.cli.friendly import friendly

if __name__ == "__main__":
    friendly(refuse_mixture)(__file__)
    from fss.cli.eval import main

    friendly(main)()
