import pytest
import torch

from fss.finetune.chains.sign_bits import pack, unpack


@pytest.mark.parametrize("shape", [(1,), (8,), (9,), (2, 3, 5, 7), (1, 16, 4, 4), (0,)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_round_trip(shape, layout):
    mask = torch.rand(shape) > 0.4
    if len(shape) == 4:
        mask = mask.contiguous(memory_format=layout)
    bits = pack(mask)
    assert bits.dtype == torch.uint8
    assert bits.numel() == -(-mask.numel() // 8)
    assert torch.equal(unpack(bits, mask.shape, mask.stride()).bool(), mask)


def test_every_byte():
    mask = torch.tensor([[b >> i & 1 for i in range(8)] for b in range(256)], dtype=torch.bool)
    assert torch.equal(unpack(pack(mask), mask.shape, mask.stride()).bool(), mask)
    assert len(set(pack(mask).tolist())) == 256


def test_a_map_with_gaps_is_refused():
    with pytest.raises(ValueError, match="densely"):
        pack((torch.rand(4, 6) > 0.5)[:, ::2])
