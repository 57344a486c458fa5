"""The runs of a sweep as Hydra would launch them, resolved without starting any."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fss.config.checks import check
from fss.config.compose import plain
from fss.config.identity import slug
from fss.config.no_effect import without_effect
from fss.config.places import CONF
from fss.errors import FssError

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from omegaconf import DictConfig

_PLAIN = ("fold", "shot", "seed", "test_seed")
"""Options that choose no file of ``conf/``; runs that differ only in them are composed once."""


@dataclass(frozen=True)
class Planned:
    """One run of a sweep.

    Attributes:
        words: its options, as Hydra's launcher gets them.
        config: resolved configuration.
        folder: run folder.
        warnings: of its options that others leave without effect, as the run itself will log them.
    """

    words: tuple[str, ...]
    config: dict[str, Any]
    folder: Path
    warnings: tuple[str, ...] = ()


def planned(arguments: Sequence[str]) -> list[Planned]:
    """List the runs of ``python train.py -m`` with these options.

    Args:
        arguments: options as typed.

    Returns:
        The runs, in the order of the sweep; each folder once.

    Raises:
        FssError: an option of a run is invalid.
    """
    from fss.config.base_learner import completed

    with _hydra() as hydra:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        master = hydra.compose_config("config", list(arguments), RunMode.MULTIRUN, with_log_configuration=False)
        composed: dict[tuple[str, ...], DictConfig] = {}
        found: dict[Path, Planned] = {}
        for words in _jobs(hydra, master, arguments):
            key = tuple(word for word in words if word.partition("=")[0] not in _PLAIN)
            if key not in composed:
                composed[key] = hydra.config_loader.load_sweep_config(master, list(words))
            HydraConfig.instance().set_config(composed[key])  # a base learner is composed with the same choices
            config = completed(plain(_with_plain_options(composed[key], words)))
            check(config)
            warnings = tuple(without_effect(config, words, composed[key].hydra.runtime.choices))
            folder = Path("multirun") / str(config["group"]) / slug(config)
            found.setdefault(folder, Planned(tuple(words), config, folder, warnings))
        return list(found.values())


def _jobs(hydra: Hydra, master: DictConfig, arguments: Sequence[str]) -> list[list[str]]:
    """Expand the options as the sweeper does."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from fss.sweeps.expansion import expand

    parser = OverridesParser.create(config_loader=hydra.config_loader)
    sweeper = master.hydra.sweeper
    params = {str(k): str(v) for k, v in (sweeper.get("params") or {}).items()}
    target = str(sweeper.get("_target_"))
    if "rows" in sweeper:
        return expand({str(k): str(v) for k, v in sweeper.rows.items()}, params, arguments, parser.parse_overrides)
    if not target.endswith("BasicSweeper"):
        raise FssError(
            f"The sweeper {target} chooses its runs while it goes: they cannot be listed before. fss sweep knows "
            "hydra/sweeper=basic and rows."
        )
    given = parser.parse_overrides([*(f"{k}={v}" for k, v in params.items()), *arguments])
    return [job for batch in BasicSweeper.split_arguments(given, None) for job in batch]


def _with_plain_options(config: DictConfig, words: Sequence[str]) -> DictConfig:
    """Return a composed configuration with the ``_PLAIN`` options of another run of its row."""
    from omegaconf import OmegaConf, open_dict

    changed = copy.deepcopy(config)
    with open_dict(changed):
        for word in words:
            name, _, value = word.partition("=")
            if name in _PLAIN:
                changed[name] = OmegaConf.create({"v": _number(value)}).v
    return changed


def _number(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text


@contextmanager
def _hydra() -> Iterator[Hydra]:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    from fss.config.base_learner import completed
    from fss.config.compose import prepare_hydra

    if not (CONF / "config.yaml").is_file():
        raise FssError(
            f"There is no {CONF / 'config.yaml'}: fss was not installed whole. Install it again: pip install ."
        )
    prepare_hydra(completed)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        before = HydraConfig.instance().cfg
        try:
            yield hydra
        finally:
            HydraConfig.instance().cfg = before  # the choices of a planned run are nobody else's
