"""Writes ``dashboards/dspyq.json``: what ``panels.py`` states, in Grafana's words.

Run it after a change there: ``python deploy/grafana/dashboard.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from panels import GREEN, ROWS, Panel

TARGET = Path(__file__).parent / "dashboards" / "dspyq.json"
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS = 24


def _mappings(panel: Panel) -> list[dict[str, Any]]:
    named = enumerate(panel.names)
    options = {f"{value:g}": {"text": text, "color": color, "index": index} for index, (value, text, color) in named}
    return [{"type": "value", "options": options}] if options else []


def _thresholds(panel: Panel) -> dict[str, Any]:
    """The first step has no lower end: Grafana writes that as null."""
    steps = panel.steps or [(0, GREEN)]
    listed = [{"value": value if index else None, "color": color} for index, (value, color) in enumerate(steps)]
    return {"mode": "absolute", "steps": listed}


def _defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "mappings": _mappings(panel),
        "thresholds": _thresholds(panel),
        "color": {"mode": "palette-classic"},
    }
    if panel.kind == "timeseries":
        if panel.minimum is not None:
            defaults["min"] = panel.minimum
        defaults["custom"] = {
            "fillOpacity": 25 if panel.stacked else 0,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "thresholdsStyle": {"mode": "line" if panel.steps else "off"},
        }
    elif panel.steps or panel.kind == "stat":
        defaults["color"] = {"mode": "thresholds"}
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    return defaults


def _options(panel: Panel) -> dict[str, Any]:
    match panel.kind:
        case "stat":
            return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
        case "state-timeline":
            return {"legend": {"showLegend": False}, "showValue": "auto"}
        case _:
            legend = {"showLegend": True, "displayMode": "list", "placement": "bottom"}
            return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + index), "datasource": _DATASOURCE, "expr": query, "legendFormat": legend}
        for index, (legend, query) in enumerate(panel.queries.items())
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "targets": targets,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }


def _panels() -> list[dict[str, Any]]:
    """Lay the rows out from left to right and from top to bottom."""
    laid: list[dict[str, Any]] = []
    x = y = 0
    for title, panels in ROWS.items():
        row = {"x": 0, "y": y, "w": _COLUMNS, "h": 1}
        laid.append(
            {"id": len(laid) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": row, "panels": []}
        )
        x, y = 0, y + 1
        height = 4 if panels[0].kind == "stat" else 8
        for panel in panels:
            if x + panel.width > _COLUMNS:
                x, y = 0, y + height
            laid.append(_panel(panel, len(laid) + 1, {"x": x, "y": y, "w": panel.width, "h": height}))
            x += panel.width
        y += height
    return laid


def _choice(name: str, label: str, query: str) -> dict[str, Any]:
    """A variable that holds what a label's values are; all of them at first."""
    everything = {"text": ["All"], "value": ["$__all"]}
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": everything,
    }


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana stores it."""
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    variables = [
        source,
        _choice("model", "Model", "label_values(dspy_circuit_breaker_open, model)"),
        _choice("variant", "Variant", "label_values(dspy_predictions_total, variant)"),
        _choice("metric", "Metric", "label_values(dspy_experiment_effect, metric)"),
    ]
    return {
        "uid": "dspyq",
        "title": "dspyq",
        "tags": ["dspyq"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "templating": {"list": variables},
        "annotations": {"list": []},
        "panels": _panels(),
    }


if __name__ == "__main__":
    TARGET.write_text(json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
