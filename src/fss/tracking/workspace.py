"""Builds the wandb-workspaces objects of a dashboard from plain values; they validate every name and type."""

from __future__ import annotations

from typing import Any

import wandb_workspaces.reports.v2 as reports
import wandb_workspaces.workspaces as workspaces

from fss.errors import FssError, first_line
from fss.tracking.dashboard import FORMAT

_WORKSPACES = (
    "Workspace", "WorkspaceSettings", "RunsetSettings", "Section", "SectionLayoutSettings", "SectionPanelSettings",
)  # fmt: skip
_REPORTS = (
    "Report", "Runset", "PanelGrid", "Layout", "Config", "Metric", "SummaryMetric", "BarPlot", "LinePlot",
    "ScatterPlot", "ScalarChart", "MediaBrowser",
    "RunComparer", "WeavePanelSummaryTable", "MarkdownPanel", "ParallelCoordinatesPlot",
    "ParallelCoordinatesPlotColumn", "ParameterImportancePlot", "H1", "H2", "H3", "P", "MarkdownBlock",
    "TableOfContents", "HorizontalRule",
)  # fmt: skip
CLASSES: dict[str, Any] = {
    **{name: getattr(workspaces, name) for name in _WORKSPACES},
    **{name: getattr(reports, name) for name in _REPORTS},
}
"""Classes that a specification may name."""


def dashboard(specification: dict[str, Any], source: str) -> tuple[Any, Any]:
    """Build a workspace and a report; makes no request.

    Args:
        specification: see :func:`fss.tracking.dashboard.specification`.
        source: where the specification comes from, for messages.

    Returns:
        The workspace and the report of wandb-workspaces, unsaved.

    Raises:
        FssError: if the format is another one, or wandb-workspaces rejects a part.
    """
    if specification.get("format") != FORMAT or not {"workspace", "report"} <= specification.keys():
        raise FssError(
            f"{source} is no specification of a dashboard of format {FORMAT}: write one with "
            "fss wandb dashboard --entity ENTITY --project PROJECT --out FILE"
        )
    workspace = build(specification["workspace"], source)
    report = build(specification["report"], source)
    if not isinstance(workspace, CLASSES["Workspace"]) or not isinstance(report, CLASSES["Report"]):
        raise FssError(f"{source}: give a Workspace as workspace and a Report as report, e.g. by writing it anew.")
    return workspace, report


def build(node: Any, where: str) -> Any:
    """Turn plain values into objects.

    Args:
        node: ``{"BarPlot": {...}}`` becomes a BarPlot with these arguments; lists are built item by item, other values
            stay.
        where: position in the specification, for messages.

    Returns:
        The object.

    Raises:
        FssError: if wandb-workspaces rejects a name or a value.
    """
    if isinstance(node, list):
        return [build(item, f"{where}[{i}]") for i, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    ((name, arguments),) = node.items() if len(node) == 1 else (("", None),)
    if name not in CLASSES or not isinstance(arguments, dict):
        raise FssError(
            f"{where}: {', '.join(node) or 'an empty object'} is no part of a dashboard: give one of "
            f"{', '.join(sorted(CLASSES))} with its arguments."
        )
    made = {key: build(value, f"{where}.{name}.{key}") for key, value in arguments.items()}
    try:
        return CLASSES[name](**made)
    except (ValueError, TypeError) as error:  # pydantic's ValidationError is a ValueError
        raise FssError(f"{where}.{name}: wandb-workspaces refuses it: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    found = error.errors()[0] if hasattr(error, "errors") else None  # pydantic's
    return first_line(error) if found is None else f"{'.'.join(map(str, found['loc']))}: {found['msg']}"
