"""The foreground statistic, from a constructed network whose answer is known by hand to the figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.reports.figures.looked import write_components
from tests.reports.figures.recordings import SVF, record
from torch import nn

from fss.finetune.chains.components import component_maps, look_inside, tuned_convolutions
from fss.finetune.layers.factored import SVFConv2d
from fss.finetune.layers.geometry import ConvGeometry
from fss.metrics.foreground import foreground_energy
from fss.reports.correlation import Stratum, associate
from fss.reports.figures.base import Drawn, find_runs
from fss.reports.figures.components import load_components
from fss.reports.figures.foreground import FIGURES, changes, strata
from fss.results import ReportError

NAME = "layer3.0"
COUNT = 30
ANGLES = torch.linspace(0, torch.pi / 2, COUNT)


class Known(nn.Module):
    """Stage 0 tells object (channel 0) from background (channel 1); a convolution of stage 3 mixes them by angle.

    Component r responds with cos(angle) on the object and sin(angle) on the background: the first one to the object
    only, the last one to the background only, those in between to both.
    """

    stepwise = True

    channels = (2, 2, 2, 2, 2)
    norm_mode = "eval"

    def __init__(self) -> None:
        super().__init__()
        V = torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)[:, :, None, None]
        S = torch.linspace(2, 1, COUNT)
        conv = SVFConv2d(ConvGeometry((1, 1), (0, 0), (1, 1), 1), torch.randn(4, COUNT), S, V, None)
        self.layer0 = nn.Conv2d(3, 2, 1, bias=False)
        self.layer0.weight.data = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])[:, :, None, None]
        self.layer1, self.layer2, self.layer4 = nn.Identity(), nn.Identity(), nn.Identity()
        self.layer3 = nn.Sequential(conv)

    def stage(self, index: int) -> nn.Module:
        return getattr(self, f"layer{index}")


def labels() -> torch.Tensor:
    made = torch.zeros(6, 8, 8, dtype=torch.uint8)
    for number in range(6):
        made[number, : 2 + number, :3] = 1
    return made


def energies() -> np.ndarray:
    """Energies of the constructed network, measured as the recorder does."""
    net, seen, truth = Known(), {}, labels()
    images = torch.stack([truth == 1, truth != 1, truth == 9], dim=1).float()
    layers = tuned_convolutions(net)
    assert list(layers) == [NAME]
    look_inside(net, images, layers, lambda n, x: seen.update({n: component_maps(layers[n], x)}))
    return foreground_energy(seen[NAME], truth).numpy().astype(float)


def associated(change: np.ndarray, samples: int = 100) -> object:
    return associate([Stratum(NAME, 0, change[None], energies())], samples)[0][1]


def test_energies_are_those_worked_out_by_hand() -> None:
    share = (labels() == 1).double().mean(dim=(1, 2))[:, None]
    strong = share * ANGLES.double().cos() ** 2
    expected = strong / (strong + (1 - share) * ANGLES.double().sin() ** 2) - share
    found = energies()
    assert np.allclose(found, expected.numpy(), atol=1e-5)
    assert np.allclose(found[:, 0], 1 - share[:, 0]), "object only"
    assert np.allclose(found[:, -1], -share[:, 0], atol=1e-5), "background only"


def test_growing_on_the_object_is_plus_one_and_the_reverse_minus_one() -> None:
    growing = np.linspace(0.5, -0.5, COUNT)  # grows where it looks at the object, falls where at the background
    assert associated(growing) == associated(growing)
    for sign in (1, -1):
        one = associated(sign * growing)
        assert one.value == pytest.approx(sign)
        assert (one.low, one.high) == (pytest.approx(sign), pytest.approx(sign))


def test_independent_changes_include_zero() -> None:
    rng, inside = np.random.default_rng(0), 0
    for _ in range(20):
        one = associated(rng.normal(size=COUNT))
        assert one.low <= one.value <= one.high
        inside += one.low <= 0 <= one.high
    assert inside >= 16, "of 20 intervals of 95 %"


def draw(folder: Path) -> Drawn:
    return FIGURES[0].draw(find_runs([folder]))


def test_figure_says_what_the_recording_holds(tmp_path: Path) -> None:
    write_components(tmp_path / "run")
    drawn = draw(tmp_path)
    assert drawn.data["layer"] == ["layer3.5.conv2"] * 8 + ["layer3.5.conv3"] * 8
    assert drawn.data["component"] == [*range(8), *range(8)]
    change = np.array(drawn.data["s_after"]) - np.array(drawn.data["s_before"])
    assert np.allclose(drawn.data["change"], change)
    assert np.allclose(drawn.data["relative_change"], change / drawn.data["s_before"])
    assert np.allclose(drawn.data["foreground_energy"], change / 10)
    assert drawn.data["layer_rho"] == pytest.approx([1] * 16)
    assert "16 components of baseline, svf" in drawn.caption
    assert "+1.00 [+1.00, +1.00] over all layers" in drawn.caption
    assert "over 10 novel test images" in drawn.caption
    assert [label.get_text() for label in drawn.figure.axes[1].get_yticklabels()] == [
        "all layers", "layer3.5.conv3", "layer3.5.conv2",
    ]  # fmt: skip


def test_runs_of_one_setting_are_pooled_and_others_left_out(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_components(tmp_path / name)
    other = write_components(tmp_path / "c")
    record(tmp_path / "d", {**SVF, "name": "svf_residual"})
    (other / "recording" / "components.npz").rename(tmp_path / "d" / "recording" / "components.npz")
    drawn = draw(tmp_path)
    assert set(drawn.data["run"]) == {"a", "b"}
    assert len(strata(load_components(find_runs([tmp_path])))) == 6


def test_a_run_that_did_not_train_is_refused(tmp_path: Path) -> None:
    still = np.linspace(4, 1, 8)
    write_components(tmp_path / "run", **{f"after:layer3.5.conv{i}": still for i in (2, 3)})
    with pytest.raises(ReportError, match=r"no singular value changed .* python train\.py experiment=figure06"):
        draw(tmp_path)


def test_ways_to_measure_the_change() -> None:
    before, after = np.array([2.0, 1.0, 0.0]), np.array([1.0, -3.0, 1.0])
    assert changes(before, after, "absolute").tolist() == [-1, -4, 1]
    assert changes(before, after, "relative").tolist() == [-0.5, -4, 0]
    assert changes(before, after, "magnitude").tolist() == [-1, 2, 1]
