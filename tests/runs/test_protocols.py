"""A run under the protocol of a release: the result states it, and eval.py may replace it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.programs import TINY, call

import fss
from fss.results import load_result


def test_trained_and_tested_under_hsnets_protocol(home: Path) -> None:
    tiny = [word for word in TINY if word.split("=")[0] not in ("method.width", "data.size")]
    chosen = ("method=hsnet", "method.width=8", "protocol=hsnet", "recipe=hsnet", "recipe.batch_size=4")
    more = ("data.size=64", "data.sampler=pairs", "finetune=svf", "group=protocols", "debug=one_batch", "shot=2")
    code, text = call(home, "train.py", *tiny, *chosen, *more)
    assert code == 0, text
    (path,) = home.glob("multirun/protocols/*/result.json")
    result = load_result(path)
    assert result.key.test == "2shot s321 pairs, protocol hsnet"
    assert result.config["protocol"]["scoring"] == "network"
    assert result.episodes.sampler == "pairs"
    assert "method.detach=false: gradients reach the tuned backbone" in path.read_text()
    checkpoint = path.parent / "checkpoints/best.ckpt"
    code, text = call(home, "eval.py", f"ckpt={checkpoint}", "protocol=suite", "test_episodes=2", "trainer=cpu")
    assert code == 0, text
    (tested,) = path.parent.glob("eval-*/result.json")
    assert load_result(tested).key.test == "2shot s321 pairs"
    code, text = call(home, "eval.py", f"ckpt={checkpoint}", "protocol.test=square", "trainer=cpu")
    assert code == 2
    images = [np.zeros((40, 70, 3), np.uint8)] * 2
    mask = np.ones((40, 70), np.uint8)
    found = fss.Predictor.load(checkpoint)(images[0], [(images[1], mask)])
    assert found.mask.shape == (40, 70)
