"""Compose configurations of ``conf/`` and resolve them into plain values."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

from fss.config.backbone_facts import RELEASED_VIEW, SIZES, VIEW, nearest_side, support_view
from fss.config.checks import check
from fss.config.identity import slug
from fss.config.places import CONF, groups
from fss.errors import FssError

if TYPE_CHECKING:
    from omegaconf import DictConfig

LEARNER = "base_learner"
"""The choice of ``method`` that is no few-shot head."""


def choices(group: str) -> list[str]:
    """List what can be chosen in a group: the names of its files, but for those that only others build on.

    Args:
        group: folder of ``conf/``, such as ``data``.

    Returns:
        Names in alphabetical order; none if the folder is missing.
    """
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if not path.stem.startswith("_"))


def heads() -> list[str]:
    """List the few-shot heads: what can be chosen for ``method`` but for base learners, in alphabetical order."""
    return [name for name in choices("method") if name != LEARNER]


def plain(cfg: DictConfig, backbone: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Resolve a configuration into plain values, without Hydra's own node.

    Args:
        cfg: composed configuration.
        backbone: for ``eval.py``, whose configuration has none: sizes follow it.

    Returns:
        Nested dictionaries and lists.
    """
    from omegaconf import OmegaConf, open_dict

    keys = [str(k) for k in cfg if k != "hydra"]
    copied = OmegaConf.masked_copy(cfg, keys)
    if backbone is not None:
        with open_dict(copied):
            copied["backbone"] = dict(backbone)
    content = OmegaConf.to_container(copied, resolve=True)
    assert isinstance(content, dict)
    return {str(k): v for k, v in content.items() if k in keys}


def prepare_hydra(complete: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> None:
    """Make our resolvers known to OmegaConf, and let Hydra's errors through to :func:`friendly` (idempotent).

    ``${fss.slug:}`` is the name of a run, ``${fss.size:473}`` the allowed side of the backbone's input that is nearest
    to 473, ``${fss.support_view:}`` the view of the supports that the backbone can serve, and ``${fss.heads:}`` every
    head, separated by commas.

    From then on, whatever is composed from ``conf/`` is checked for options that nothing reads.

    Args:
        complete: adds to a resolved configuration what its identity depends on besides the options.
    """
    from omegaconf import OmegaConf

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")

    def resolve(*, _root_: DictConfig) -> str:
        config = plain(_root_)
        check(config)  # before files are looked at, which needs more libraries
        return slug(config if complete is None else complete(config))

    OmegaConf.register_new_resolver("fss.slug", resolve, replace=True)
    OmegaConf.register_new_resolver("fss.size", _size, replace=True)
    OmegaConf.register_new_resolver("fss.support_view", _view, replace=True)
    OmegaConf.register_new_resolver("fss.heads", lambda: ",".join(heads()), replace=True)
    _check_what_is_composed()


def _size(wanted: int, *, _root_: DictConfig) -> int:
    backbone = _backbone(_root_)
    return wanted if backbone is None else nearest_side(backbone, wanted)


def _view(*, _root_: DictConfig) -> str:
    backbone = _backbone(_root_)
    return RELEASED_VIEW if backbone is None else support_view(backbone)


def _backbone(root: DictConfig) -> dict[str, Any] | None:
    """Return the backbone's group; only what describes it is resolved, unless the class must be asked.

    Without one (``eval.py``, whose backbone stands in the checkpoint) nothing is known yet.
    """
    from omegaconf import OmegaConf

    node = OmegaConf.select(root, "backbone")
    if node is None:
        return None
    known = {key: OmegaConf.select(node, key) for key in (SIZES, VIEW)}
    if known[SIZES] is None:
        found = OmegaConf.to_container(node, resolve=True)
        assert isinstance(found, dict)
        return {str(key): value for key, value in found.items()}
    return {key: OmegaConf.to_container(v, resolve=True) if OmegaConf.is_config(v) else v for key, v in known.items()}


def _check_what_is_composed() -> None:
    """Let Hydra check typed options wherever it composes: for a program, a run of a sweep, or a plan."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.errors import ConfigCompositionException
    from hydra.types import RunMode

    from fss.config.typed_keys import choosing, explain_unknown, refuse_unknown

    unchecked = ConfigLoaderImpl.load_configuration
    if hasattr(unchecked, "__wrapped__"):
        return

    @wraps(unchecked)
    def load(
        self: ConfigLoaderImpl, config_name: str | None, overrides: list[str], run_mode: RunMode, *more: Any, **kw: Any
    ) -> DictConfig:
        ours = str(CONF) in [str(source.path) for source in self.get_sources()]
        try:
            cfg = unchecked(self, config_name, overrides, run_mode, *more, **kw)
        except ConfigCompositionException:
            if ours and (without := choosing(overrides, groups())) != overrides:
                explain_unknown(unchecked(self, config_name, without, run_mode, *more, **kw), overrides)
            raise
        if ours:
            refuse_unknown(cfg, overrides, run_mode is RunMode.MULTIRUN)
        return cfg

    ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]


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
        raise FssError(f"{CONF} holds no config.yaml: fss was not installed whole. Install it again: pip install .")
    from hydra import compose, initialize_config_dir

    prepare_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="fss"):
        config = plain(compose("config", overrides=list(overrides)))
    check(config)
    return config
