"""Loader processes that would find no shared memory are refused before a training waits for ever."""

from __future__ import annotations

import pytest

from fss.errors import FssError
from fss.runs import shared_memory
from fss.runs.shared_memory import batch_bytes, check_shared_memory, free_bytes


def test_bytes_of_a_batch() -> None:
    """8 episodes of two images at 473: (12 + 1) bytes a pixel."""
    assert batch_bytes(8, 1, 473) == 8 * 2 * 473 * 473 * 13


def test_too_little_is_refused_with_the_number_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: 64 << 20)  # what docker gives
    check_shared_memory(8, 1, 97, 4)
    check_shared_memory(8, 1, 473, 0)
    with pytest.raises(FssError, match=r"workers=4 need .* 64 MiB free\. Give workers=0.*--shm-size"):
        check_shared_memory(8, 1, 473, 4)
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: 200 << 20)
    with pytest.raises(FssError, match="Give workers=2,"):
        check_shared_memory(8, 1, 473, 4)


def test_systems_without_the_folder_are_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "SHM", shared_memory.SHM / "absent")
    assert free_bytes() is None
    check_shared_memory(8, 5, 641, 64)
