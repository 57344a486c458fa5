"""Record the responses of the singular components of tuned convolutions."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from fss.finetune.chains.components import component_maps, last_of_stage, look_inside, tuned_convolutions
from fss.finetune.layers.factored import SVFConv2d
from fss.lit.callbacks.pixels import Denormalise, of_all_processes
from fss.lit.callbacks.recording_folder import RecordingFolder
from fss.lit.episodic import EpisodicModule
from fss.metrics.foreground import foreground_energy
from fss.types import Episode

log = logging.getLogger(__name__)

NAME = "components.npz"
SHOWN_STAGE = 3
"""Stage whose last convolutions the paper's Figures 4 and 5 show."""
_EXTREMES = 3
_LEAST_SHARE = 0.05


@dataclass(frozen=True)
class ComponentOptions:
    """What is recorded.

    Attributes:
        episodes: test episodes over which energies are averaged.
        maps: of these, episodes whose maps are kept; every class once before any twice, episodes whose object covers
            less than a twentieth of the image last.
        layers: convolutions whose maps are kept; empty: the last 3x3 and the last 1x1 of stage 3.
    """

    episodes: int = 32
    maps: int = 6
    layers: tuple[str, ...] = ()


class ComponentRecorder(pl.Callback):
    """Writes ``components.npz`` at the end of the test, for the tested weights.

    ``layers`` names the convolutions whose diagonal trained, ``kernels`` their kernel sizes. Each has the diagonals
    ``before:NAME`` and ``after:NAME`` (R) and the foreground energies ``energy:NAME`` (episodes, R), see
    :func:`fss.metrics.foreground.foreground_energy`. For the convolutions in ``shown``, ``map:NAME`` (M, K, h, w) holds
    the absolute maps of the components ``index:NAME`` (K) that grew and shrank most, absolutely and relatively.
    ``image`` and ``mask`` hold the M images.

    The extra forward passes use no gradients or random numbers, so the result of the run does not change.
    """

    def __init__(
        self, folder: RecordingFolder, options: ComponentOptions, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        """Choose what is recorded.

        Args:
            folder: receives the file.
            options: what is recorded.
            mean: per channel, in [0, 1], to undo the normalisation.
            std: likewise.
        """
        self.folder = folder
        self.options = options
        self._pixels = Denormalise(mean, std)
        self._before: dict[str, NDArray[np.float32]] = {}
        self._layers: dict[str, SVFConv2d] = {}
        self._kept: dict[str, NDArray[np.int64]] = {}
        self._wanted: set[int] = set()
        self._rows: list[dict[str, Any]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Store the pretrained values: layers are swapped already, a checkpoint is not restored yet."""
        if stage == "fit":
            self._before = {n: _numbers(layer.values) for n, layer in _tuned(pl_module).items()}
            if not self._before:
                log.info("No singular values train in this run, so that recording/components.npz is not written.")
                return
            for name in self.options.layers:
                if name not in self._before:
                    examples = ", ".join(list(self._before)[-3:])
                    log.warning("recording.layers: %s is no convolution that is tuned, as %s are.", name, examples)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose episodes and components."""
        self._rows, self._layers = [], {}
        if not self._before:  # nothing trains, or this trainer only tests
            return
        self._layers = _tuned(pl_module)
        total = len(trainer.datamodule.streams.test)  # type: ignore[attr-defined]
        spread = np.linspace(0, total - 1, min(self.options.episodes, total))
        self._wanted = set(spread.round().astype(int).tolist())
        names = [n for n in self.options.layers if n in self._layers]
        self._kept = {
            name: extremes(self._before[name], _numbers(self._layers[name].values))
            for name in names or last_of_stage(self._layers.items(), SHOWN_STAGE)
        }

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Episode,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the wanted images of a batch; they are measured later, outside the measured test time."""
        assert isinstance(pl_module, EpisodicModule)
        for i, index in enumerate(batch.index.tolist()):
            if self._layers and index in self._wanted:
                name = pl_module.class_names["test"][int(batch.class_index[i])]
                query, label = batch.query[i : i + 1].cpu(), batch.query_label[i : i + 1].cpu()
                self._rows.append({"index": index, "class": name, "query": query, "label": label})

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure, and write the file in one process."""
        assert isinstance(pl_module, EpisodicModule)
        measured = [self._measure(pl_module, row) for row in self._rows]
        found = {row["index"]: row for row in of_all_processes(measured)}  # samplers may repeat an episode
        if found and trainer.is_global_zero:
            content = io.BytesIO()
            np.savez_compressed(content, **self._arrays([found[index] for index in sorted(found)]))
            self.folder.write(NAME, content.getvalue())
        self._rows, self._layers = [], {}

    def _measure(self, module: EpisodicModule, kept: dict[str, Any]) -> dict[str, Any]:
        """Measure one image."""
        image, label = kept["query"].to(module.device), kept["label"].to(module.device)
        row: dict[str, Any] = {"index": kept["index"], "class": kept["class"], "energy": {}, "map": {}}

        def see(name: str, x: Tensor) -> None:
            maps = component_maps(self._layers[name], x)
            row["energy"][name] = _numbers(foreground_energy(maps, label)[0])
            if name in self._kept:
                row["map"][name] = _numbers(maps[0, torch.from_numpy(self._kept[name]).to(maps.device)].abs())

        look_inside(module.model.backbone, image, self._layers, see)
        row["image"], row["mask"] = self._pixels(image[0]), label[0].cpu().numpy().astype(np.uint8)
        return row

    def _arrays(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the arrays of the file."""
        arrays: dict[str, Any] = {
            "layers": np.array(list(self._layers)),
            "kernels": np.array([layer.V.shape[-1] for layer in self._layers.values()]),
            "episode": np.array([row["index"] for row in rows]),
            "class_name": np.array([row["class"] for row in rows]),
            "shown": np.array(list(self._kept)),
        }
        for name, layer in self._layers.items():
            arrays[f"before:{name}"] = self._before[name]
            arrays[f"after:{name}"] = _numbers(layer.values)
            arrays[f"energy:{name}"] = np.stack([row["energy"][name] for row in rows])
        chosen = [rows[i] for i in spread_over_classes(rows, self.options.maps)]
        for key in ("image", "mask"):
            arrays[key] = np.array([row[key] for row in chosen])
        arrays["image_episode"] = np.array([row["index"] for row in chosen])
        arrays["image_class"] = np.array([row["class"] for row in chosen])
        for name, index in self._kept.items():
            arrays[f"index:{name}"] = index
            arrays[f"map:{name}"] = np.array([row["map"][name] for row in chosen], np.float16)
        return arrays


def extremes(before: NDArray[Any], after: NDArray[Any], count: int = _EXTREMES) -> NDArray[np.int64]:
    """Find the components that grew and shrank most, absolutely and relative to their value before.

    Args:
        before: singular values, (R,).
        after: likewise.
        count: number of components of each kind.

    Returns:
        Ascending indices without duplicates.
    """
    change = after.astype(np.float64) - before
    relative = change / np.where(np.abs(before) > np.finfo(np.float32).tiny, before, np.inf)
    orders = [np.argsort(values, kind="stable") for values in (change, relative)]
    picked: NDArray[np.int64] = np.unique(np.concatenate([part for o in orders for part in (o[:count], o[-count:])]))
    return picked


def spread_over_classes(rows: list[dict[str, Any]], count: int) -> list[int]:
    """Choose episodes to show: every class once before any twice, episodes with a tiny object last.

    Args:
        rows: with ``class`` and ``mask``.
        count: number of episodes.

    Returns:
        Positions in ``rows``.
    """
    turn: dict[tuple[bool, str], int] = {}
    order = []
    for position, row in enumerate(rows):
        tiny = bool((row["mask"] == 1).mean() < _LEAST_SHARE)
        key = (tiny, row["class"])
        turn[key] = turn.get(key, -1) + 1
        order.append((tiny, turn[key], position))
    return [position for *_, position in sorted(order)[:count]]


def _tuned(module: pl.LightningModule) -> dict[str, SVFConv2d]:
    assert isinstance(module, EpisodicModule)
    return tuned_convolutions(module.model.backbone)


def _numbers(tensor: Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return values.copy()
