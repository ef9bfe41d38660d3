"""What was measured, as a table and as JSON."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table

from bench.model import OURS, Cell, Figure

PACKAGES = ("starburst-cloud", "obstore", "numpy", "joblib", "ray", "dask", "distributed")


class Report:
    """Cells by figure and contender, with the verdict on each limit."""

    def __init__(self, figures: list[Figure], cells: list[Cell], *, repeat: int) -> None:
        self.figures = figures
        self.cells = cells
        self.repeat = repeat

    def of(self, figure: Figure) -> list[Cell]:
        """The cells of one figure: ours first, then the rivals, fastest first, then those that failed."""
        cells = [cell for cell in self.cells if cell.figure == figure.key]
        return sorted(cells, key=lambda c: (c.contender != OURS, not c.samples, c.median if c.samples else 0))

    def verdict(self, figure: Figure) -> str:
        """``OK``, ``over``, ``failed``, or empty where nothing of ours was limited or measured."""
        medians = {cell.contender: cell.median for cell in self.of(figure) if cell.samples}
        if figure.limit is None or not any(cell.contender == OURS for cell in self.of(figure)):
            return ""
        if OURS not in medians:
            return "failed"
        limit = figure.limit.value(medians)
        if limit is None:
            return f"no {figure.limit.rival}"
        return "OK" if medians[OURS] <= limit else "over"

    def table(self) -> Table:
        """One row for each contender, grouped by figure."""
        table = Table(title=f"median of {self.repeat}", title_justify="left")
        table.add_column("figure")
        table.add_column("contender")
        for title in ("median", "min", "max", "MAD", "n"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("limit")
        table.add_column("")
        for figure in self.figures:
            for row, cell in enumerate(self.of(figure)):
                numbers = (
                    (cell.median, min(cell.samples), max(cell.samples), cell.mad) if cell.samples else ()
                )
                shown = [_number(number) for number in numbers] or ["-"] * 4
                shown.append(str(len(cell.samples)))
                ours = cell.contender == OURS
                table.add_row(
                    f"{figure.title} [{figure.unit}]".replace("[", r"\[") if row == 0 else "",
                    f"[bold]{cell.contender}[/bold]" if ours else cell.contender,
                    *shown,
                    self._limit(figure) if ours else "",
                    _coloured(self.verdict(figure)) if ours else "",
                )
            table.add_section()
        return table

    def _limit(self, figure: Figure) -> str:
        if figure.limit is None:
            return ""
        medians = {cell.contender: cell.median for cell in self.of(figure) if cell.samples}
        value = figure.limit.value(medians)
        shown = str(figure.limit)
        if figure.limit.rival is not None and value is not None:
            shown += f" = {_number(value)}"
        return f"{shown} (aim: {figure.aim})" if figure.aim else shown

    def errors(self) -> list[str]:
        """One line for each contender and reason that gave no number, or fewer than it should."""
        by_reason: dict[tuple[str, str], list[str]] = {}
        for cell in self.cells:
            if cell.error:
                by_reason.setdefault((cell.contender, cell.error), []).append(cell.figure)
        return [f"{who} ({', '.join(what)}): {why}" for (who, why), what in by_reason.items()]

    def as_json(self) -> dict[str, Any]:
        """Everything, with the machine it was measured on."""
        return {
            "version": 1,
            "machine": machine(),
            "repeat": self.repeat,
            "figures": [
                {
                    "key": figure.key,
                    "title": figure.title,
                    "unit": figure.unit,
                    "limit": self._limit(figure),
                    "verdict": self.verdict(figure),
                    "contenders": {cell.contender: _cell_json(cell) for cell in self.of(figure)},
                }
                for figure in self.figures
            ],
        }


def machine() -> dict[str, Any]:
    """What a reader needs in order to judge the numbers."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": platform.system(),
        "kernel": platform.release(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "memory_bytes": psutil.virtual_memory().total,
        "python": sys.version.split()[0],
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    if not cell.samples:
        return {"error": cell.error}
    noise = {"median": cell.median, "min": min(cell.samples), "max": max(cell.samples), "mad": cell.mad}
    return noise | {"samples": cell.samples} | ({"error": cell.error} if cell.error else {})


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"


def _coloured(verdict: str) -> str:
    colour = {"OK": "green", "": "white"}.get(verdict, "red")
    return f"[{colour}]{verdict}[/{colour}]"
