"""Figures 4 and 5: what the singular components that grew and fell most respond to, on test images."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from fss.commands import typed
from fss.reports.correlation import Numbers, mean_energy
from fss.reports.figures.base import Column, Drawn, FigureKind, ReportError, Run
from fss.reports.figures.image_tiles import bare, outline, resized, shape
from fss.reports.figures.recordings import AGAIN, recorded
from fss.reports.figures.style import canvas, style

FILE = "components.npz"
EXPERIMENT = "figure06"
COMMAND = typed(f"experiment={EXPERIMENT}")
NEEDS = f"a recorded run of a strategy that trains singular values: {COMMAND}"
_ROWS = 4
_TILE = 1.03
_DARKEST = 0.08


@dataclass(frozen=True)
class Components:
    """A run's recording of its singular components; see :class:`fss.lit.callbacks.components.ComponentRecorder`.

    Attributes:
        run: the recorded run.
        arrays: content of the file.
    """

    run: Run
    arrays: dict[str, NDArray[Any]]

    @property
    def layers(self) -> dict[str, int]:
        """Convolution -> kernel size."""
        names, kernels = self.arrays["layers"].tolist(), self.arrays["kernels"].tolist()
        return dict(zip(names, kernels, strict=True))

    def before(self, layer: str) -> Numbers:
        """Singular values before training, (R,)."""
        return self.arrays[f"before:{layer}"].astype(np.float64)

    def after(self, layer: str) -> Numbers:
        """Singular values of the tested weights, in the same order, (R,)."""
        return self.arrays[f"after:{layer}"].astype(np.float64)

    def energy(self, layer: str) -> Numbers:
        """Foreground energy of each component in each image, (N, R); NaN where undefined."""
        return self.arrays[f"energy:{layer}"].astype(np.float64)


def load_components(runs: Sequence[Run]) -> list[Components]:
    """Read the component recordings of runs.

    Args:
        runs: runs with or without a recording.

    Returns:
        One per recorded run; SVF and the baseline, which the paper shows, come first.

    Raises:
        ReportError: no run has a recording, or a file is damaged.
    """
    recorded_runs = sorted(recorded(runs, FILE, COMMAND), key=preference)
    return [_load(run.recording / FILE, run) for run in recorded_runs]


def preference(run: Run) -> tuple[bool, bool]:
    """Return a sort key that puts runs of the paper's setting (SVF, baseline) first.

    Args:
        run: any run.
    """
    return (run.key.get("finetune") != "svf", run.key.get("method") != "baseline")


def _load(path: Path, run: Run) -> Components:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        for name in arrays["layers"].tolist():
            sizes = {arrays[f"{kind}:{name}"].shape[-1] for kind in ("before", "after", "energy")}
            if len(sizes) > 1:
                raise ValueError(f"arrays of {name} differ in length")
        for name in ("kernels", "shown", "image", "mask", "image_episode", "image_class", "episode"):
            arrays[name]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ReportError(f"{path} is damaged ({error}). {AGAIN}") from error
    return Components(run, arrays)


def _draw(runs: Sequence[Run], kernel: int) -> Drawn:
    """Draw the extreme components of the last convolution of a kernel size whose maps were recorded."""
    for found in load_components(runs):
        layers = [n for n in found.arrays["shown"].tolist() if found.layers[n] == kernel]
        if layers and len(found.arrays["image"]):
            return _figure(found, layers[-1])
    raise ReportError(
        f"no recording has maps of a {kernel}x{kernel} convolution. The last one of stage 3 is recorded where there is "
        "one (a 1x1 convolution needs backbone=resnet50 or larger), its singular values train (finetune.stages with 3) "
        f"and recording.maps is above 0. Make such a run with: {COMMAND}"
    )


def _figure(found: Components, layer: str) -> Drawn:
    change = found.after(layer) - found.before(layer)
    roles = extremes(change)
    count = min(_ROWS, len(found.arrays["image"]))
    heights = [shape(mask) for mask in found.arrays["mask"][:count]]
    figure = canvas(columns=2, height=0.25 + sum(_TILE * height + 0.04 for height in heights))
    with style():
        axes = figure.subplots(count, 1 + 2 * len(roles), squeeze=False, height_ratios=heights)
        for row in range(count):
            _image(axes[row, 0], found, row)
            for number, component in enumerate(roles.values()):
                _maps(axes[row, 1 + 2 * number : 3 + 2 * number], found, layer, component, row)
        axes[0, 0].set_title("image, object", fontsize=7)
        for number, (role, component) in enumerate(roles.items()):
            axes[0, 1 + 2 * number].set_title(f"{role}: no. {component}", fontsize=7, loc="left")
            axes[0, 2 + 2 * number].set_title(_values(found, layer, component), fontsize=7, loc="right")
    return Drawn(figure, _data(found, layer, roles, count), _caption(found, layer, roles, count))


def extremes(change: Numbers) -> dict[str, int]:
    """Find the components that fell and grew most, labelled by what they really did.

    Args:
        change: change of every component, (R,).

    Returns:
        Label -> index of the component.
    """
    least, most = int(change.argmin()), int(change.argmax())
    return {
        "fell most" if change[least] < 0 else "grew least": least,
        "grew most" if change[most] > 0 else "fell least": most,
    }


def _values(found: Components, layer: str, component: int) -> str:
    before, after = found.before(layer)[component], found.after(layer)[component]
    first, last = f"{before:.3g}", f"{after:.3g}"
    return f"S {first} → {last}" if first != last else f"S {first} {after - before:+.1g}"


def _image(ax: Axes, found: Components, row: int) -> None:
    """Show an image with the outline of its object."""
    ax.imshow(found.arrays["image"][row], interpolation="antialiased")
    bare(ax, found.arrays["mask"][row])
    outline(ax, found.arrays["mask"][row] == 1)
    ax.set_ylabel(str(found.arrays["image_class"][row]).replace("_", " "), fontsize=6)


def _maps(axes: NDArray[Any], found: Components, layer: str, component: int, row: int) -> None:
    """Show the image weighted by a component's map, and the map alone: bright is strong in both."""
    mask, image = found.arrays["mask"][row], found.arrays["image"][row]
    position = found.arrays[f"index:{layer}"].tolist().index(component)
    strength = found.arrays[f"map:{layer}"][row, position].astype(np.float64)
    strength /= max(float(strength.max()), 1e-12)
    light = _DARKEST + (1 - _DARKEST) * resized(strength, (mask.shape[0], mask.shape[1])) ** 2
    axes[0].imshow((image * light[..., None]).astype(np.uint8), interpolation="antialiased")
    sides = (-0.5, mask.shape[1] - 0.5, mask.shape[0] - 0.5, -0.5)
    axes[1].imshow(strength, cmap="gray", vmin=0, vmax=1, extent=sides, interpolation="nearest")
    for ax in axes:
        bare(ax, mask)
        outline(ax, mask == 1)


def _data(found: Components, layer: str, roles: dict[str, int], count: int) -> dict[str, Column]:
    """List what is shown_episodes, one row per image and component."""
    before, after, energy = found.before(layer), found.after(layer), found.energy(layer)
    episodes = found.arrays["episode"].tolist()
    pairs = [(row, role, component) for row in range(count) for role, component in roles.items()]
    shown_episodes = found.arrays["image_episode"].tolist()
    return {
        "layer": [layer] * len(pairs),
        "episode": [int(shown_episodes[row]) for row, *_ in pairs],
        "class": [str(found.arrays["image_class"][row]) for row, *_ in pairs],
        "role": [role for _, role, _ in pairs],
        "component": [component for *_, component in pairs],
        "s_before": [float(before[c]) for *_, c in pairs],
        "s_after": [float(after[c]) for *_, c in pairs],
        "foreground_energy": [float(energy[episodes.index(shown_episodes[row]), c]) for row, _, c in pairs],
    }


def _caption(found: Components, layer: str, roles: dict[str, int], count: int) -> str:
    energy = mean_energy(found.energy(layer))
    change = found.after(layer) - found.before(layer)
    texts = [
        f"component {c} ({role}: S changed by {change[c]:+.3g}, foreground energy {energy[c]:+.3f} over "
        f"{len(found.arrays['episode'])} images)"
        for role, c in roles.items()
    ]
    if not change.any():
        texts.append("no singular value of this layer changed")
    return (
        f"Two components of {layer}, {found.run.label()}: {'; '.join(texts)}. {count} novel test images, every class "
        "once before any comes twice, objects of at least 5 % of the image first; the image lit by each "
        "component's map, and the map alone: bright where it is strong; and the object's outline. The paper leaves "
        "open how a component becomes a map and what the change is: here a map is the absolute value of the output of "
        "the convolution with V at that index times its singular value, scaled to its largest value in the image, "
        "and the change is S after - S before, not relative to S; nothing keeps S above 0. Components are counted from "
        "0 by pretrained singular value, largest first. Two components prove nothing; the figure called foreground "
        "looks at all of them."
    )


FIGURES = (
    FigureKind("4", "Components that grew and fell most: last 3x3 convolution of layer 3", NEEDS, EXPERIMENT,
               partial(_draw, kernel=3)),
    FigureKind("5", "Components that grew and fell most: last 1x1 convolution of layer 3", NEEDS, EXPERIMENT,
               partial(_draw, kernel=1)),
)  # fmt: skip
