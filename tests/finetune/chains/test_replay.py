"""What being computed again must not change, and where it must not happen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.finetune.chains.comparing import kept, lean, results, tuned
from tests.finetune.chains.sample_blocks import ConvNeXt, Inverted, Mlp, Transformer
from tests.finetune.chains.test_fuse import TIGHT, far
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fss.finetune.chains.blocks import way
from fss.finetune.chains.replay import Plan
from fss.finetune.layers.factored import SVFLinear

SHAPE = (2, 9, 8)


def tokens() -> Tensor:
    return torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def plan_of(net: Any) -> Plan:
    (plan,) = net[0]._lean.plans.values()
    assert plan is not None
    return plan  # type: ignore[no-any-return]


def compare(plain: nn.Module, expected: str, x: Tensor | None = None) -> Any:
    """Compare a balanced copy with its original; return the copy."""
    made, x = lean(plain, "balanced"), tokens() if x is None else x
    for _ in range(2):
        assert all(far(a, b) < TIGHT for a, b in zip(results(made, x), results(plain, x), strict=True))
    assert way(made[0]) == expected
    return made


class Scaled(Mlp):
    """The input's values scale the output."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 + x.square())


class Masked(Mlp):
    """Only the sign of the input's values counts, which hides NaN."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (x > 0)


class Tailed(Mlp):
    """The output of the last layer counts."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


def test_the_input_is_kept_only_where_its_values_count() -> None:
    torch.manual_seed(0)
    assert plan_of(compare(tuned(Mlp(8)), "again")) == Plan((True, True), False, 1)
    assert plan_of(compare(tuned(Tailed(8)), "again")) == Plan((True, True), False, None)
    for block in (Scaled(8), Masked(8)):
        assert plan_of(compare(tuned(block), "again")).needs_input
    assert plan_of(compare(tuned(Transformer()), "again")).needs_input


@pytest.mark.parametrize("shown", ["gamma", "norm"])
def test_other_values_may_train(shown: str) -> None:
    torch.manual_seed(0)
    plain = tuned(ConvNeXt())
    trained = plain[0].gamma if shown == "gamma" else plain[0].norm.weight
    trained.requires_grad_(True)
    made = compare(plain, "again", torch.randn(2, 8, 5, 5, dtype=torch.float64))
    assert (plan_of(made).skip is None) == (shown == "gamma"), "LayerScale reads what it scales"


def test_arguments_are_given_again() -> None:
    torch.manual_seed(0)
    plain = tuned(Transformer())
    made, bias = lean(plain, "balanced"), torch.randn(9, 9, dtype=torch.float64)
    one, other = tokens().requires_grad_(), tokens().requires_grad_()
    made[0](one, bias=bias).square().sum().backward()
    plain[0](other, bias).square().sum().backward()
    assert way(made[0]) == "again"
    assert one.grad is not None
    assert other.grad is not None
    assert far(one.grad, other.grad) < TIGHT
    bias.requires_grad_(True)
    made[0](tokens(), bias).square().sum().backward()
    assert way(made[0]) == "as before", "the gradient of an argument would be lost"
    assert bias.grad is not None


def test_dropout_draws_the_same_numbers_again() -> None:
    torch.manual_seed(0)
    plain = tuned(Transformer())
    plain[0].mlp.drop.p = 0.5
    made, found = lean(plain, "balanced"), []
    for net in (plain, made, made):
        torch.manual_seed(5)
        found.append(results(net, tokens()))
        found[-1].append(torch.rand(3))
    assert way(made[0]) == "again"
    assert all(far(a, b) < TIGHT for one in found[1:] for a, b in zip(one, found[0], strict=True))


def test_a_chain_does_not_skip_dropout() -> None:
    torch.manual_seed(0)
    plain = tuned(Inverted(6, 6, 1))
    plain[0].bn1.drop = nn.Dropout(0.5)
    made = lean(plain, "balanced")
    made(torch.randn(2, 6, 9, 9, dtype=torch.float64))
    assert way(made[0]) == "again"
    made.eval()
    made(torch.randn(2, 6, 9, 9, dtype=torch.float64))
    assert way(made[0]) == "chain"


def test_trial_runs_leave_nothing_behind() -> None:
    torch.manual_seed(0)

    class Counting(Mlp):
        def __init__(self) -> None:
            super().__init__(8)
            self.register_buffer("runs", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.runs += 1
            return super().forward(x)

    made = lean(tuned(Counting()), "balanced")
    state = torch.get_rng_state()
    made(tokens()).sum().backward()
    assert torch.equal(state, torch.get_rng_state())
    assert float(made[0].runs) == 1
    assert way(made[0]) == "as before", "a second run would move the buffer again"
    assert [n for n, p in made.named_parameters() if p.grad is not None] == ["0.fc1.S", "0.fc2.S"]


class InPlace(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.relu_())


class Pair(Mlp):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


def test_blocks_that_cannot_be_computed_again_run_as_before() -> None:
    torch.manual_seed(0)
    plain = tuned(InPlace(8))
    made = lean(plain, "balanced")
    for x in (tokens(), tokens().requires_grad_()):
        a, b = made(x * 1.0), plain(x * 1.0)
        assert far(a, b) < TIGHT
        made.zero_grad()
        plain.zero_grad()
        a.sum().backward()
        b.sum().backward()
        assert far(made[0].fc1.S.grad, plain[0].fc1.S.grad) < TIGHT
    made = lean(tuned(Pair(8)), "balanced")
    assert isinstance(made(tokens()), tuple)
    assert way(made[0]) == "as before"


def test_hooks_within_are_called_once() -> None:
    torch.manual_seed(0)
    made = lean(tuned(Transformer()), "balanced")
    calls: list[str] = []
    made[0].mlp.act.register_forward_hook(lambda *_: calls.append("within"))
    made[0].register_forward_hook(lambda *_: calls.append("block"))
    made(tokens()).sum().backward()
    assert calls == ["within", "block"]
    assert way(made[0]) == "as before"
    assert way(made[0].attn) == "again", "what the hook does not touch is lean nevertheless"


def test_gradient_hooks_are_called_once() -> None:
    torch.manual_seed(0)
    made = lean(tuned(Transformer()), "balanced")
    calls: list[Tensor] = []
    made[0].mlp.fc1.S.register_hook(calls.append)
    made(tokens()).sum().backward()
    assert len(calls) == 1


def test_a_second_backward_pass() -> None:
    torch.manual_seed(0)
    made = lean(tuned(Transformer()), "balanced")
    y = made(tokens()).sum()
    first = torch.autograd.grad(y, made[0].mlp.fc1.S, retain_graph=True)
    again = torch.autograd.grad(y, made[0].mlp.fc1.S)
    assert torch.equal(first[0], again[0])
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y, made[0].mlp.fc1.S)
    (g,) = torch.autograd.grad(made(tokens()).sum(), made[0].mlp.fc1.S, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
        g.sum().backward()


def test_values_that_changed_in_between_are_noticed() -> None:
    torch.manual_seed(0)
    made = lean(tuned(Transformer()), "balanced")
    y = made(tokens()).sum()
    with torch.no_grad():
        made[0].mlp.fc1.S.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_another_number_of_calls_is_noticed() -> None:
    torch.manual_seed(0)

    class Wavering(Mlp):
        twice = False

        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return super().forward(y) if self.twice else y

    made = lean(tuned(Wavering(8)), "balanced")
    made(tokens())
    made[0].twice = True
    with pytest.raises(RuntimeError, match=r"4 times, but 2 times .* finetune\.memory=plain"):
        made(tokens())


def test_a_gain_of_one_is_no_reason_for_a_chain() -> None:
    """A factor that is 1 at first does not show in the output."""
    torch.manual_seed(0)

    class Gained(Inverted):
        def __init__(self) -> None:
            super().__init__(6, 6, 1)
            self.gain = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            y = self.bn3(self.conv_pwl(self.bn2(self.conv_dw(self.bn1(self.conv_pw(x))))))
            z: Tensor = x + self.gain * y
            return z

    plain, x = tuned(Gained()), torch.randn(2, 6, 9, 9, dtype=torch.float64)
    made = compare(plain, "again", x)
    for net in (plain, made):
        net[0].gain.data.fill_(3.0)
    assert all(far(a, b) < TIGHT for a, b in zip(results(made, x), results(plain, x), strict=True))


def test_a_chain_that_stops_being_exact() -> None:
    torch.manual_seed(0)
    plain, x = tuned(Inverted(6, 6, 1)), torch.randn(2, 6, 9, 9, dtype=torch.float64)
    made = compare(plain, "chain", x)
    for net in (plain, made):
        net[0].bn2.weight.requires_grad_(True)
    assert all(far(a, b) < TIGHT for a, b in zip(results(made, x), results(plain, x), strict=True))
    assert way(made[0]) == "again"
    made[0].bn2.training = True  # what train() does where the strategy does not hold it
    made(x)
    assert way(made[0]) == "as before", "batch norm would move its statistics twice"


def test_a_chain_whose_layers_are_replaced() -> None:
    torch.manual_seed(0)
    plain, x = tuned(Inverted(6, 6, 1)), torch.randn(2, 6, 9, 9, dtype=torch.float64)
    made = compare(plain, "chain", x)
    for net in (plain, made):
        net[0].bn2.act = nn.Hardswish()
        net[0].conv_pw.V.requires_grad_(True)
    assert all(far(a, b) < TIGHT for a, b in zip(results(made, x), results(plain, x), strict=True))
    assert way(made[0]) == "again"


def test_another_shape_is_looked_at_anew() -> None:
    torch.manual_seed(0)

    class Odd(Inverted):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y if x.shape[-1] % 2 else 2 * y

    plain = tuned(Odd(6, 6, 1))
    made = lean(plain, "balanced")
    for side, expected in ((9, "chain"), (8, "again")):
        x = torch.randn(1, 6, 9, side, dtype=torch.float64)
        assert all(far(a, b) < TIGHT for a, b in zip(results(made, x), results(plain, x), strict=True))
        assert way(made[0]) == expected


def test_activation_checkpointing_around_a_block() -> None:
    torch.manual_seed(0)
    made, x = lean(tuned(Transformer()), "balanced"), tokens().requires_grad_()
    S = made[0].mlp.fc1.S
    (wanted,) = torch.autograd.grad(made(x).square().sum(), S)
    (found,) = torch.autograd.grad(checkpoint(made, x, use_reentrant=False).square().sum(), S)
    assert torch.equal(found, wanted)


def test_compiled_and_traced_blocks_run_as_before() -> None:
    torch.manual_seed(0)
    made, x = lean(tuned(Mlp(8)), "balanced"), tokens()
    wanted = results(made, x)
    found = results(torch.compile(made, backend="aot_eager"), x)
    assert all(far(a, b) < TIGHT for a, b in zip(found, wanted, strict=False))
    traced = torch.jit.trace(made, x)  # type: ignore[no-untyped-call]
    assert far(traced(x), made(x)) < TIGHT


def test_a_linear_layer_keeps_one_map() -> None:
    torch.manual_seed(0)
    plain = tuned(nn.Sequential(nn.Linear(8, 32)))
    made = lean(plain, "fast")
    assert isinstance(made[0][0], SVFLinear)
    x = tokens().requires_grad_()
    assert kept(made, x) == kept(plain, x) == 2 * 9 * 8 * 8, "V x of 8 components in float64"
