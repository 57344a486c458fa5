"""Write a file as a release saves it, convert it, and load it in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

import fss
from fss.checkpoints.release_files import convert_file, export, released_shapes
from fss.checkpoints.release_models import released_config
from fss.methods.releases import Released
from fss.model.segmenter import FewShotSegmenter

Fill = Callable[[str, tuple[int, ...]], Tensor]
"""Name and shape of a released tensor -> its values."""


def state_dict(released: Released, fill: Fill) -> dict[str, Tensor]:
    """Return the tensors of a release's file."""
    return {k: fill(k, shape) for k, shape in released_shapes(released_config(released), released).items()}


def converted(folder: Path, released: Released, fill: Fill) -> FewShotSegmenter:
    """Write the file, convert and load it, and check that it comes back bit by bit; delete the files."""
    theirs, ours, back = folder / "theirs.pth", folder / "ours.ckpt", folder / "back.pth"
    state = state_dict(released, fill)
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, theirs)
    try:
        convert_file(theirs, released, ours)
        export(ours, back, None, False)
        content = torch.load(back, weights_only=True)
        written: Mapping[str, Tensor] = content.get("state_dict", content)
        assert list(written) == [f"module.{k}" for k in state]
        assert all(torch.equal(written[f"module.{k}"], v) for k, v in state.items())
        return fss.load(ours, dtype=torch.float64)
    finally:
        for path in (theirs, ours, back):
            path.unlink(missing_ok=True)


@contextmanager
def training_without_dropout(head: nn.Module) -> Iterator[None]:
    """Put a head into training mode with every probability of dropout at zero."""
    layers = [m for m in head.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)]
    before = [m.p for m in layers]
    for m in layers:
        m.p = 0.0
    head.train()
    try:
        yield
    finally:
        head.eval()
        for m, p in zip(layers, before, strict=True):
            m.p = p


@contextmanager
def listening(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """Collect what modules return, call by call."""
    heard: dict[str, list[Tensor]] = {name: [] for name in modules}
    handles = [
        module.register_forward_hook(lambda _, __, out, name=name: heard[name].append(out.detach().clone()))
        for name, module in modules.items()
    ]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()
