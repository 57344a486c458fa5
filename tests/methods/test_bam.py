"""BAM's head, and a model whose base branch shares what is frozen. Its numbers: tests/golden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.methods.fakes import inputs, tiny
from torch import Tensor

from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.freeze import Freeze
from fss.finetune.full import Full
from fss.finetune.svf import SVF
from fss.methods.bam import BAM
from fss.methods.base_learner import BaseLearner
from fss.model.companion import BaseBranch
from fss.model.segmenter import FewShotSegmenter

CLASSES = 6


def model(shot: int = 1, dropout: bool = True, **more: object) -> FewShotSegmenter:
    own, frozen = tiny(), tiny()
    torch.manual_seed(1)
    companion = BaseBranch(frozen, BaseLearner(frozen.channels, CLASSES, width=8), dropout)
    head = BAM(own.channels, width=8, shot=shot, **more)  # type: ignore[arg-type]
    return FewShotSegmenter(own, head, companion).eval()


def counted(net: FewShotSegmenter) -> Counter[str]:
    """Count the images that go through every stage of both backbones."""
    assert net.companion is not None
    images: Counter[str] = Counter()
    for name, backbone in (("own", net.backbone), ("base", net.companion.backbone)):
        for index in range(5):
            stage = backbone.stage(index)

            def note(x: Tensor, key: str = f"{name}{index}", forward: Any = stage.forward) -> Any:
                images[key] += len(x)
                return forward(x)

            stage.forward = note  # a hook would end the sharing
    return images


CASES: list[tuple[Callable[[], Strategy], int]] = [
    (Freeze, 5),
    (SVF, 2),
    (lambda: SVF(stages=(3, 4)), 3),
    (lambda: SVF(stages=(4,)), 4),
    (lambda: Full(stages=(2, 3, 4)), 2),
    (lambda: Full(stages=(0, 1, 2, 3, 4)), 0),
]


@pytest.mark.parametrize(("strategy", "shared"), CASES)
@pytest.mark.parametrize("shot", [1, 3])
def test_shared_stages_run_once(strategy: Callable[[], Strategy], shared: int, shot: int) -> None:
    net = model(shot)
    strategy().apply(net.backbone)
    given = inputs(2, shot)
    images = counted(net)
    with torch.no_grad():
        once = net.head_output(*given)
    assert [images[f"own{i}"] for i in range(5)] == [2 * (1 + shot)] * 5
    assert [images[f"base{i}"] for i in range(5)] == [0] * shared + [2] * (5 - shared)
    net._shared = lambda own, base: 0  # type: ignore[assignment]
    with torch.no_grad():
        twice = net.head_output(*given)
    assert images["base0"] == 2 + 2 * (shared == 0)
    for name in ("meta", "base"):
        assert torch.allclose(once.branch_logits[name], twice.branch_logits[name], atol=1e-5)
    assert torch.allclose(once.logits, twice.logits, atol=1e-5)


def test_a_change_ends_the_sharing() -> None:
    net = model()
    Freeze().apply(net.backbone)
    assert net.companion is not None
    assert net._shared(net.backbone, net.companion.backbone) == 5
    with torch.no_grad():
        net.backbone.stage(3)[0].conv1.weight[0, 0, 0, 0] += 1
    assert net._shared(net.backbone, net.companion.backbone) == 3
    net.backbone.load_state_dict(net.companion.backbone.state_dict())
    assert net._shared(net.backbone, net.companion.backbone) == 5
    net.companion.backbone.stage(1)[0].conv2.dilation = (2, 2)
    net.backbone.stage(4)[0].conv1.weight.requires_grad_(True)
    assert net._shared(net.backbone, net.companion.backbone) == 1
    net.backbone.norm_mode = "train"
    assert net._shared(net.backbone.train(), net.companion.backbone) == 0


def written_through_data(net: Any) -> None:
    net.backbone.stage(3)[0].conv1.weight.data[0, 0, 0, 0] += 1


def swapped_through_data(net: Any) -> None:
    net.backbone.stage(3)[0].bn1.running_mean.data = net.backbone.stage(3)[0].bn1.running_mean + 1


def written_by_numpy(net: Any) -> None:
    net.companion.backbone.stage(3)[0].bn2.bias.detach().numpy()[0] += 1


def listened(net: Any) -> None:
    net.backbone.stage(3)[0].conv1.register_forward_hook(lambda _, inputs, output: 2 * output)


def dropping(net: Any) -> None:
    for backbone in (net.backbone, net.companion.backbone):
        backbone.stage(3)[0].relu = torch.nn.Dropout(0.5)
    net.train()


def hidden_buffer(net: Any) -> None:
    for value, backbone in enumerate((net.backbone, net.companion.backbone)):
        backbone.stage(3)[0].register_buffer("scale", torch.tensor(float(value)), persistent=False)


@pytest.mark.parametrize(
    "change", [written_through_data, swapped_through_data, written_by_numpy, listened, dropping, hidden_buffer]
)
def test_no_change_is_missed(change: Callable[[Any], None]) -> None:
    """Neither version nor identity of a tensor tells of the first three."""
    net = model()
    Freeze().apply(net.backbone)
    assert net.companion is not None
    assert net._shared(net.backbone, net.companion.backbone) == 5
    change(net)
    assert net._shared(net.backbone, net.companion.backbone) == 3


@pytest.mark.parametrize("strategy", [Freeze, SVF, Full])
def test_nothing_moves_in_the_base_branch(strategy: Callable[[], Strategy]) -> None:
    net = model()
    strategy().apply(net.backbone)
    assert net.companion is not None
    before = {k: v.clone() for k, v in net.companion.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.5, weight_decay=0.1)
    net.train()
    for _ in range(2):
        out = net.head_output(*inputs(2, 1), extras={"base_index": torch.tensor([0, 4])})
        assert not out.branch_logits["base"].requires_grad
        optimiser.zero_grad()
        out.logits.square().mean().backward()
        optimiser.step()
    assert all(p.grad is None for p in net.companion.parameters())
    assert before.keys() == net.companion.state_dict().keys()
    assert all(torch.equal(v, before[k]) for k, v in net.companion.state_dict().items())
    assert not net.companion.backbone.training


@pytest.mark.parametrize("dropout", [True, False])
def test_dropout_of_the_base_head(dropout: bool) -> None:
    net = model(dropout=dropout)
    assert net.companion is not None
    net.companion.head.cls[3].p = 0.9
    query = inputs(2, 1)[0]
    quiet = net.companion.base_logits(query)
    assert torch.equal(quiet, net.companion.base_logits(query))
    net.train()
    torch.manual_seed(0)
    assert torch.equal(quiet, net.companion.base_logits(query)) is not dropout
    net.eval()
    assert torch.equal(quiet, net.companion.base_logits(query))


def test_new_ensemble_is_the_meta_learner() -> None:
    """Both merges start as their first input: probabilities of the meta learner, whatever psi and base learner say."""
    net = model()
    with torch.no_grad():
        out = net.head_output(*inputs(2, 1))
    assert torch.allclose(out.logits, torch.softmax(out.branch_logits["meta"], dim=1), atol=1e-6)


def test_ensemble_by_hand() -> None:
    head = BAM((4, 4, 8, 8, 8), width=4).eval()
    with torch.no_grad():
        head.gram_merge.weight.copy_(torch.tensor([0.5, 2.0]).view(1, 2, 1, 1))
        head.cls_merge.weight.copy_(torch.tensor([3.0, -1.0]).view(1, 2, 1, 1))
    meta = torch.tensor([[0.8, 0.2]]).log()[..., None, None]
    out = head._ensemble(meta, torch.full((1, 1, 1, 1), 0.6), torch.tensor([0.25]))
    foreground = 0.5 * 0.2 + 2 * 0.25
    background = 3 * (0.5 * 0.8 + 2 * 0.25) - 0.6
    assert out.flatten().tolist() == pytest.approx([background, foreground], abs=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_own_class_does_not_count_where_it_is_a_base_class(training: bool) -> None:
    """In training and in validation on base classes alike; a novel class has no channel."""
    net = model().train(training)
    extras = {"base_index": torch.tensor([1, -1])}
    base = torch.randn(2, CLASSES, 3, 3)
    shares = torch.softmax(base, dim=1)
    total = shares[:, 1:].sum(dim=1, keepdim=True)
    assert isinstance(net.head, BAM)
    seen = net.head._any_base(base, extras, base)
    assert torch.allclose(seen[0, 0], total[0, 0] - shares[0, 2], atol=1e-6)
    assert torch.equal(seen[1], total[1])
    net.head.exclude_own = False
    kept = net.head._any_base(base, extras, base)
    assert torch.equal(kept, total if training else seen), "an option of training only"
    if not training:
        assert torch.equal(net.head._any_base(base, {}, base), total), "a prediction"


@pytest.mark.parametrize("training", [True, False])
def test_a_sure_head_is_right_about_a_base_class_in_validation_too(training: bool) -> None:
    """Meta learner and base learner are sure of the object: all of it is foreground, and nothing else is."""
    head = BAM((4, 4, 8, 8, 8), width=4).train(training)
    with torch.no_grad():
        head.cls_merge.weight.copy_(torch.tensor([1.0, 1.5]).view(1, 2, 1, 1))
    label = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 4, 1)
    meta = 20 * torch.cat([1 - label, label], dim=1)
    base = 20 * torch.cat([1 - label, torch.zeros_like(label), label], dim=1)
    any_base = head._any_base(base, {"base_index": torch.tensor([1])}, meta)
    scores = head._ensemble(meta, any_base, torch.zeros(1))
    assert torch.equal(scores.argmax(dim=1), label[:, 0].long())


def test_query_equal_to_support_has_no_style_distance() -> None:
    net = model(3)
    query, _, labels = inputs(2, 3)
    with torch.no_grad():
        features = net._features(query, query[:, None].expand(-1, 3, -1, -1, -1), labels, {})
    assert isinstance(net.head, BAM)
    psi = net.head._style_distance(features)
    assert torch.allclose(psi, torch.zeros(2, 3), atol=1e-6)
    assert torch.allclose(net.head._shot_weights(psi).sum(dim=1), torch.ones(2))


def test_order_of_supports_does_not_matter() -> None:
    net = model(3)
    query, supports, labels = inputs(2, 3)
    labels[:, 1, :8] = 1
    with torch.no_grad():
        assert torch.allclose(net(query, supports, labels), net(query, supports.flip(1), labels.flip(1)), atol=1e-5)


def test_uniform_mask_and_empty_mask_are_finite_with_gradients() -> None:
    query, supports, labels = inputs(2, 2)
    for value in (0, 1):
        net = model(2)
        SVF().apply(net.backbone)
        net.train()
        out = net.head_output(
            query, supports, torch.full_like(labels, value), extras={"base_index": torch.tensor([0, 1])}
        )
        out.logits.square().mean().backward()
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        assert gradients
        assert all(bool(g.isfinite().all()) for g in gradients)


def test_psi_reaches_singular_values() -> None:
    net = model()
    SVF(stages=(2,)).apply(net.backbone)
    features = net._features(*inputs(2, 1), {})
    assert isinstance(net.head, BAM)
    net.head._style_distance(features).sum().backward()
    assert all(
        float(p.grad.abs().max()) > 0 for p in net.backbone.parameters() if p.requires_grad and p.grad is not None
    )
    assert any(p.grad is not None for p in net.backbone.parameters())


@pytest.mark.parametrize(("trained", "given"), [(1, 5), (5, 1), (5, 2)])
def test_another_number_of_supports_is_refused(trained: int, given: int) -> None:
    with pytest.raises(FssError, match=f"weighs {trained} support.*method=bam shot={given}"):
        model(trained)(*inputs(1, given))


def test_without_a_base_learner() -> None:
    net = model()
    with pytest.raises(FssError, match="base_logits"):
        FewShotSegmenter(net.backbone, net.head)(*inputs(1, 1))


def test_training_needs_the_episodes_class() -> None:
    with pytest.raises(FssError, match="base_index"):
        model().train()(*inputs(1, 1))


@pytest.mark.parametrize(("shot", "count"), [(1, 4_917_254), (5, 4_917_254 + 27)])
def test_size_in_the_paper(shot: int, count: int) -> None:
    """methods.md 7.4 and 8.5."""
    with torch.device("meta"):
        head = BAM((128, 256, 512, 1024, 2048), shot=shot)
    assert sum(p.numel() for p in head.parameters()) == count


@pytest.mark.parametrize("gain", [1.0, 4.0])
@pytest.mark.parametrize("object_there", [True, False])
def test_a_sure_head_is_sure(monkeypatch: pytest.MonkeyPatch, object_there: bool, gain: float) -> None:
    """Its scores are linear in probabilities already: another softmax used to end at 0.73 and 0.27."""
    net = model()
    assert isinstance(net.head, BAM)
    net.head.gram_merge.weight.data.copy_(torch.tensor([gain, 0.0]).view(1, 2, 1, 1))
    monkeypatch.setattr(net.head, "_any_base", lambda base, extras, meta: torch.zeros_like(meta[:, :1]))
    sure = torch.tensor([-50.0, 50.0] if object_there else [50.0, -50.0]).view(1, 2, 1, 1)
    monkeypatch.setattr(net.head, "decode", lambda query, *_: sure.expand(len(query), 2, 5, 5))
    with torch.no_grad():
        scores = net(*inputs(1, 1))
    assert torch.allclose(net.probability(scores, 1), torch.tensor(float(object_there)), atol=1e-6)


def test_probabilities_agree_with_the_decision() -> None:
    scores = torch.randn(64, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    scores[0] = 0.0
    found = model().probability(scores, 1)
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(found > 0.5, scores[:, 1] > scores[:, 0])
    assert (found[0] == 0.5).all()
    both = torch.tensor([0.3, 0.9]).view(1, 2, 1, 1)
    assert torch.allclose(model().probability(both, 1), torch.tensor(0.75))
