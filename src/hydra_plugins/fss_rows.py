"""Hydra sweeper over rows (``override /hydra/sweeper: rows``); Hydra finds plugins only in this package."""

# No postponed annotations: Hydra imports this file outside sys.modules, where a dataclass would look them up.
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from fss.commands import program
from fss.errors import FssError
from fss.sweeps.expansion import expand


@dataclass
class RowsConf:
    """Settings of the sweeper: the rows, and the grid that every row runs on."""

    _target_: str = "hydra_plugins.fss_rows.RowSweeper"
    rows: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/sweeper", name="rows", node=RowsConf, provider="fss")


def _only_sweeps(name: str) -> str:
    raise FssError(
        f"experiment={name} is a sweep of many runs: add -m, as {program()} -m experiment={name}. "
        f"One row, one fold: {program()} -m experiment={name} +row=ROW fold=0"
    )


OmegaConf.register_new_resolver("fss.only_sweeps", _only_sweeps, replace=True)


class RowSweeper(Sweeper):
    """Sweeper over a list of rows, see :func:`fss.sweeps.expansion.expand`, with any launcher.

    Attributes:
        rows: name -> options as on a command line.
        params: option -> values that every row runs with.
    """

    def __init__(self, rows: dict[str, str], params: dict[str, str]) -> None:
        """Store what to run.

        Args:
            rows: name -> options as on a command line.
            params: option -> values that every row runs with.
        """
        self.rows = rows
        self.params = params
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Build the launcher.

        Args:
            hydra_context: Hydra's context, with its config loader.
            task_function: program to run.
            config: composed configuration of the sweep.
        """
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Launch every run of the sweep.

        Args:
            arguments: the user's command line.

        Returns:
            What the launcher returns.
        """
        assert self.launcher is not None
        assert self.hydra_context is not None
        assert self.config is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        jobs = expand(self.rows, self.params, arguments, parser.parse_overrides)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        results = self.launcher.launch(jobs, initial_job_idx=0)
        for result in results:
            _ = result.return_value  # raises the exception of a failed run
        return [results]
