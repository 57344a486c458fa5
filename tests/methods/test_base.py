"""Losses of the head contract, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from tests.methods.fakes import Recorder, aux

from fss.types import HeadOutput


def head() -> Recorder:
    return Recorder()


def test_criterion_is_the_mean_over_counted_pixels() -> None:
    """Logits (0, ln 3): foreground probability 3/4. Two pixels of class 1, one of class 0, one ignored."""
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 2, 1, 1).expand(1, 2, 2, 2)
    label = torch.tensor([[[1, 1], [0, 255]]], dtype=torch.uint8)
    expected = (-2 * math.log(3 / 4) - math.log(1 / 4)) / 3
    assert float(head().criterion(logits, label)) == pytest.approx(expected)


def test_criterion_equals_torch_and_does_not_average_per_image() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 5, 5)
    label = torch.randint(0, 2, (3, 5, 5))
    label[0] = 255
    label[1, :4] = 255
    expected = torch.nn.functional.cross_entropy(logits, label, ignore_index=255)
    assert float(head().criterion(logits, label)) == pytest.approx(float(expected))


def test_all_pixels_ignored_is_zero_with_a_graph() -> None:
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = head().criterion(logits, torch.full((1, 3, 3), 255))
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_a_gradient_step_lowers_the_loss() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    label = torch.randint(0, 2, (1, 4, 4))
    losses = []
    for _ in range(20):
        loss = head().criterion(logits, label)
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - 5 * gradient).detach().requires_grad_()
        losses.append(float(loss.detach()))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 2


def test_logits_are_resized_to_the_label() -> None:
    """1-D: background 0, foreground (-2, 2) over 3 pixels is (-2, 0, 2) with aligned corners."""
    output = HeadOutput(torch.tensor([[[[0.0, 0.0]], [[-2.0, 2.0]]]]))
    label = torch.tensor([[[0, 1, 1]]])
    expected = (math.log1p(math.exp(-2)) * 2 + math.log(2)) / 3
    assert float(head().loss(output, {"query": label})["main"]) == pytest.approx(expected)


def test_total_weighs_auxiliary_terms() -> None:
    zero, label = torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 2)
    five = torch.zeros(1, 5, 2, 2)
    output = HeadOutput(
        zero,
        aux_logits=[aux("again", zero, "query", 0.5), aux("base", five, "base", 2.0)],
        aux_losses={"kl": (torch.tensor(3.0), 0.1)},
    )
    terms = head().loss(output, {"query": label, "base": torch.full((1, 4, 4), 4)})
    assert {k: float(v) for k, v in terms.items()} == pytest.approx(
        {
            "main": math.log(2),
            "again": math.log(2),
            "base": math.log(5),
            "kl": 3.0,
            "total": 1.5 * math.log(2) + 2 * math.log(5) + 0.3,
        }
    )


def test_missing_target_is_an_error() -> None:
    output = HeadOutput(torch.zeros(1, 2, 2, 2), aux_logits=[aux("s", torch.zeros(1, 2, 2, 2), "support", 1.0)])
    with pytest.raises(KeyError, match="support"):
        head().loss(output, {"query": torch.ones(1, 2, 2)})


def test_param_groups_hold_what_trains() -> None:
    one = head()
    assert [(g.name, g.lr_factor, len(g.parameters)) for g in one.param_groups()] == [("head", 1.0, 1)]
    one.gain.requires_grad_(False)
    assert one.param_groups()[0].parameters == []
