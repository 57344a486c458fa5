"""Compose configurations of ``conf/`` and resolve them into plain values."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fss.config.checks import check
from fss.config.identity import slug
from fss.errors import FssError

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONF = Path(__file__).resolve().parents[3] / "conf"
"""Folder of the configuration groups."""


def choices(group: str) -> list[str]:
    """List what can be chosen in a group: the names of its files, but for those that only others build on.

    Args:
        group: folder of ``conf/``, such as ``data``.

    Returns:
        Names in alphabetical order; none if the folder is missing.
    """
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if not path.stem.startswith("_"))


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Resolve a configuration into plain values, without Hydra's own node.

    Args:
        cfg: composed configuration.

    Returns:
        Nested dictionaries and lists.
    """
    from omegaconf import OmegaConf

    keys = [str(k) for k in cfg if k != "hydra"]
    content = OmegaConf.to_container(OmegaConf.masked_copy(cfg, keys), resolve=True)
    assert isinstance(content, dict)
    return {str(k): v for k, v in content.items()}


def prepare_hydra(complete: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> None:
    """Make ``${fss.slug:}`` known to OmegaConf, and let Hydra's errors through to :func:`friendly` (idempotent).

    Args:
        complete: adds to a resolved configuration what its identity depends on besides the options.
    """
    from omegaconf import OmegaConf

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")

    def resolve(*, _root_: DictConfig) -> str:
        config = plain(_root_) if complete is None else complete(plain(_root_))
        check(config)
        return slug(config)

    OmegaConf.register_new_resolver("fss.slug", resolve, replace=True)


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """Compose a configuration outside of Hydra's own programs.

    Args:
        overrides: options as after ``python train.py``.

    Returns:
        Resolved, plain values.

    Raises:
        FssError: if the folder conf/ is not beside the package, or a value is wrong.
    """
    if not (CONF / "config.yaml").is_file():
        raise FssError(f"{CONF} holds no config.yaml: run fss from a clone of the repository (pip install -e .)")
    from hydra import compose, initialize_config_dir

    prepare_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="fss"):
        config = plain(compose("config", overrides=list(overrides)))
    check(config)
    return config
