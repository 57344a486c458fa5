"""Every facility of FeatureSpec is served by the model, whatever the head."""

from __future__ import annotations

import pytest
import torch
from tests.methods.fakes import Affine, Recorder, SupportSign, episode, inputs, tiny
from torch import nn

from fss.errors import FssError
from fss.model.segmenter import FewShotSegmenter
from fss.types import FeatureSpec, HeadOutput


def model(head: Recorder | SupportSign) -> FewShotSegmenter:
    return FewShotSegmenter(tiny(), head).eval()


@pytest.mark.parametrize("shots", [1, 5])
def test_logits_have_the_size_of_the_query(shots: int) -> None:
    out = model(Recorder())(*inputs(2, shots))
    assert out.shape == (2, 2, 33, 33)


def test_align_corners_is_the_heads() -> None:
    head = Recorder()
    net = model(head)
    given = inputs()
    one = net(*given)
    head.align_corners = False  # type: ignore[misc]
    assert not torch.allclose(one, net(*given))


def test_query_label_only_if_asked_for_and_in_training() -> None:
    for needs in (False, True):
        head = Recorder(FeatureSpec(stages=(2,), needs_query_label=needs))
        net = model(head)
        batch = episode()
        net.run_episode(batch)
        net.train()
        net.run_episode(batch)
        net(*inputs())
        assert head.calls[0].query_label is None, "never at test time"
        assert (head.calls[1].query_label is batch.query_label) == needs
        assert head.calls[2].query_label is None


def test_declared_extras_and_no_others() -> None:
    head = Recorder(FeatureSpec(stages=(2,), extras=frozenset({"class_index", "boundary"})))
    boundary = torch.ones(2, 33, 33)
    batch = episode(extras={"boundary": boundary, "base_label": torch.zeros(2)})
    model(head).run_episode(batch)
    assert set(head.calls[0].extras) == {"class_index", "boundary"}
    assert head.calls[0].extras["boundary"] is boundary
    assert head.calls[0].extras["class_index"] is batch.class_index


def test_missing_extra_is_named() -> None:
    head = Recorder(FeatureSpec(stages=(2,), extras=frozenset({"boundary"})))
    with pytest.raises(FssError, match=r"Recorder needs \['boundary'\]"):
        model(head).run_episode(episode())


def test_refinement_feeds_the_state_back_at_test_time_only() -> None:
    head = Recorder(FeatureSpec(stages=(2,), extras=frozenset({"previous_prediction"})), rounds=3)
    net = model(head)
    net(*inputs())
    assert len(head.calls) == 3
    assert "previous_prediction" not in head.calls[0].extras
    for round_, state in ((1, 1.0), (2, 2.0)):
        assert float(head.calls[round_].extras["previous_prediction"].unique()) == state
    head.calls.clear()
    net.train()
    net(*inputs())
    assert len(head.calls) == 1


def test_refinement_in_training_if_the_head_asks_for_it() -> None:
    head = Recorder(FeatureSpec(stages=(2,), extras=frozenset({"previous_prediction"})))
    head.training_rounds = 2  # type: ignore[misc]
    net = model(head)
    net(*inputs())
    assert len(head.calls) == 1
    net.train()
    net(*inputs())
    assert len(head.calls) == 3
    assert float(head.calls[2].extras["previous_prediction"].unique()) == 2.0


def test_refinement_ends_without_a_state() -> None:
    head = Recorder(rounds=3)
    forward = head.forward

    def stateless(features):  # type: ignore[no-untyped-def]
        output = forward(features)
        output.state = None
        return output

    head.forward = stateless  # type: ignore[method-assign]
    model(head)(*inputs())
    assert len(head.calls) == 1


def test_every_support_votes() -> None:
    """Two of five supports say foreground, the largest number in the image: all of it is foreground."""
    head = SupportSign()
    net = FewShotSegmenter(Affine(), head).eval()
    supports = torch.tensor([1.0, -1, -1, 1, -1]).reshape(1, 5, 1, 1, 1).expand(1, 5, 3, 8, 8)
    query, labels = torch.zeros(1, 3, 8, 8), torch.ones(1, 5, 8, 8)
    out = net(query, supports, labels)
    assert head.shots == [1, 1, 1, 1, 1]
    assert int(out.argmax(1).sum()) == 64
    assert torch.equal(net.probability(out, 5), torch.ones(1, 8, 8))
    none = net(query, -supports.abs(), labels)
    assert int(none.argmax(1).sum()) == 0
    assert torch.equal(net.probability(none, 5), torch.zeros(1, 8, 8))
    one = torch.full((1, 2, 8, 8), 0.4)
    assert torch.equal(net.probability(one, 1), one.softmax(1)[:, 1]), "one support gives the head's logits"


def test_the_mean_of_logits_is_the_default() -> None:
    head = Recorder(FeatureSpec(stages=(2,), shot_rule="each"))
    net = model(head)
    query, supports, labels = inputs(2, 3)
    merged = net.head_output(query, supports, labels)
    alone = [net.head_output(query, supports[:, k : k + 1], labels[:, k : k + 1]).logits for k in range(3)]
    assert torch.allclose(merged.logits, torch.stack(alone).mean(0), atol=1e-6)
    assert len(merged.shots) == 3
    assert torch.equal(net.probability(merged.logits, 3), merged.logits.softmax(1)[:, 1])


def test_in_training_every_support_has_its_loss() -> None:
    """As if each of them were the only one: the mean of three losses, auxiliary terms included."""
    head = Recorder(FeatureSpec(stages=(2,), shot_rule="each"), aux_losses={"kl": (torch.tensor(3.0), 0.5)})
    net = model(head)
    net.head.train()  # batch norm stays in evaluation mode
    batch = episode(2, 3)
    labels = {"query": batch.query_label}
    terms = head.loss(net.run_episode(batch), labels)
    alone = []
    for k in range(3):
        one = slice(k, k + 1)
        output = net.head_output(batch.query, batch.support_images[:, one], batch.support_labels[:, one])
        alone.append(head.loss(output, labels)["main"])
    assert torch.allclose(terms["main"], torch.stack(alone).mean(), atol=1e-6)
    assert torch.allclose(terms["total"], terms["main"] + 1.5)
    terms["total"].backward()
    assert head.gain.grad is not None
    assert float(head.gain.grad) != 0


def test_a_mask_between_the_points_of_a_map_is_an_error_for_users_alone() -> None:
    head = Recorder(FeatureSpec(stages=(2, 3)))
    query, supports, labels = inputs(2, 2)
    labels[1, 1] = 0
    labels[1, 1, 9:12, 9:12] = 1  # the maps have a point at every eighth pixel
    net = model(head)
    with pytest.raises(FssError, match=r"support 2 covers no point of the feature map of 5 x 5.*Crop"):
        net(query, supports, labels)
    assert net.head_output(query, supports, labels).logits.shape == (2, 2, 5, 5), "as the release in tests"


def test_an_object_may_vanish_in_coarse_taps() -> None:
    """HSNet compares at three resolutions: the finest one must see the object."""
    net = model(Recorder(FeatureSpec(stages=(), taps=(1, 4))))
    net.head.forward = lambda features: HeadOutput(features.query_taps[1][0][:, :2])  # type: ignore[method-assign]
    query, supports, labels = inputs(1, 1)
    labels.zero_()
    labels[:, :, 10:15, 10:15] = 1
    net(query, supports, labels)
    labels.zero_()
    labels[:, :, 10, 10] = 1
    with pytest.raises(FssError, match="feature map of 9 x 9"):
        net(query, supports, labels)


def test_with_one_support_the_rule_does_not_matter() -> None:
    for rule in ("each", "joint"):
        head = SupportSign(rule)
        net = FewShotSegmenter(Affine(), head).eval()
        out = net(torch.zeros(1, 3, 8, 8), torch.full((1, 1, 3, 8, 8), 7.0), torch.ones(1, 1, 8, 8))
        assert torch.allclose(out[0, 1], torch.tensor(7.0))


def test_joint_sees_all_shots() -> None:
    head = SupportSign("joint")
    FewShotSegmenter(Affine(), head)(torch.zeros(1, 3, 8, 8), torch.ones(1, 5, 3, 8, 8), torch.ones(1, 5, 8, 8))
    assert head.shots == [5]


def test_each_support_has_its_taps_and_labels() -> None:
    head = Recorder(FeatureSpec(stages=(2,), taps=(3,), shot_rule="each"))
    query, supports, labels = inputs(2, 3)
    labels[:, 1, :10] = 1
    net = model(head)
    net(query, supports, labels)
    assert len(head.calls) == 3
    for k, call in enumerate(head.calls):
        alone = Recorder(FeatureSpec(stages=(2,), taps=(3,)))
        model(alone)(query, supports[:, k : k + 1], labels[:, k : k + 1])
        assert torch.equal(call.support_labels, labels[:, k : k + 1])
        assert torch.allclose(call.support[2], alone.calls[0].support[2], atol=1e-5)
        for tap, expected in zip(call.support_taps[3], alone.calls[0].support_taps[3], strict=True):
            assert tap.shape[1] == 1
            assert torch.allclose(tap, expected, atol=1e-5)
        assert torch.equal(call.query[2], head.calls[0].query[2])


def test_run_episode_equals_forward() -> None:
    net = model(Recorder())
    batch = episode(2, 2)
    out = net.run_episode(batch)
    direct = net.head_output(batch.query, batch.support_images, batch.support_labels)
    assert torch.equal(out.logits, direct.logits)
    assert out.logits.shape[-1] == 5  # the head's own resolution


@pytest.mark.parametrize(
    ("query", "supports", "masks"),
    [
        ((3, 33, 33), (2, 1, 3, 33, 33), (2, 1, 33, 33)),
        ((2, 3, 33, 33), (2, 3, 33, 33), (2, 1, 33, 33)),
        ((2, 3, 33, 33), (2, 1, 3, 33, 33), (2, 1, 1, 33, 33)),
        ((2, 3, 33, 33), (1, 1, 3, 33, 33), (1, 1, 33, 33)),
        ((2, 3, 33, 33), (2, 2, 3, 33, 33), (2, 1, 33, 33)),
        ((2, 3, 33, 33), (2, 1, 3, 33, 33), (2, 1, 33, 32)),
        ((2, 3, 33, 33), (2, 0, 3, 33, 33), (2, 0, 33, 33)),
    ],
)
def test_wrong_shapes_are_named(query: tuple[int, ...], supports: tuple[int, ...], masks: tuple[int, ...]) -> None:
    with pytest.raises(FssError, match="got query"):
        model(Recorder())(torch.zeros(query), torch.zeros(supports), torch.zeros(masks))


def test_a_module_without_stages_is_refused() -> None:
    with pytest.raises(TypeError, match="Conv2d is no ImageBackbone"):
        FewShotSegmenter(nn.Conv2d(3, 3, 1), Recorder())
