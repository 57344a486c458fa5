"""What a strategy does after each step of the optimiser happens in training, before anything is saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from tests.lit.fabricate import Episodes, module, trainer

from fss.finetune.layers.factorise import factored_layers
from fss.finetune.svf_bounded import SVFBounded
from fss.lit.callbacks.finetuning import BackboneFinetune


@pytest.mark.parametrize("epsilon", [0.0, 100.0])
def test_bounded_values_are_in_the_checkpoint(epsilon: float, tmp_path: Path) -> None:
    """An interval of width zero keeps S where it was; a wide one lets the same training move it."""
    keep = ModelCheckpoint(dirpath=tmp_path / "ck", save_last=True)
    net = module()
    run = trainer(tmp_path, BackboneFinetune(SVFBounded(epsilon=epsilon)), keep, epochs=1, enable_checkpointing=True)
    run.fit(net, datamodule=Episodes(2))
    stored = torch.load(tmp_path / "ck" / "last.ckpt", weights_only=True)["state_dict"]
    layers = list(factored_layers(net.model.backbone, (2, 3, 4)))
    assert layers
    for layer in layers:
        initial = layer.get_buffer("low") * (1 + epsilon)
        assert torch.allclose(layer.S, initial, rtol=1e-6, atol=0) == (epsilon == 0.0)
    names = [n for n in stored if n.endswith(".S")]
    assert len(names) == len(layers)
    assert all(torch.equal(stored[n], net.state_dict()[n]) for n in names)
