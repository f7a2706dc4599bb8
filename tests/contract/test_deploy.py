"""Dashboard, alert rules and docs/operations.md use existing metrics, and the page lists all of them."""

import ast
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prometheus_client import values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from solo_server.commands import serve, serve_arguments
from solo_server.commands.serve import WRITING_SECONDS
from solo_server.exit_codes import ENGINE_HUNG, FAILED, GPU_LOST, MEANINGS, NO_CLUSTER, REFUSED
from solo_server.observability.logs import Access
from solo_server.observability.metrics import Metrics
from solo_server.observability.multiprocess import (
    FOLDER,
    SupervisorMetrics,
    WorkerMetrics,
    count_as_worker,
    metrics_folder,
)
from solo_server.processes import supervisor, supervisor_main
from solo_server.service import service
from solo_server.settings import Settings
from support.paths import ROOT
from support.small_app import MODEL

DASHBOARD = json.loads((ROOT / "deploy/grafana/solo.json").read_text())
ALERTS = (ROOT / "deploy/alerts.yml").read_text()
NGINX = (ROOT / "deploy/nginx.conf").read_text()
UNIT = (ROOT / "deploy/solo.service").read_text()
PAGE = (ROOT / "docs/operations.md").read_text()
OF_PROMETHEUS = {"job", "instance", "le"}
SELECTOR = re.compile(r"\b((?:solo|process)_[a-z_]+)\b(?:\{([^}]*)\})?")


def families() -> list[Metric]:
    """Every family of metrics, each with a sample."""
    metrics = Metrics(lambda: [MODEL])
    metrics.begun()
    metrics.ended(Access("POST", "/segment", 200, "ok", 1.0, 1, 1, 1, 1))
    metrics.frame("ok")
    metrics.refused("overloaded", "queue_full")
    metrics.batched("tiny", 1, 1.0)
    metrics.answered("tiny", "ok", 1.0, 1, {"decode": 1.0})
    metrics.fold()
    return list(metrics.registry.collect())


def families_of_workers() -> list[Metric]:
    """Further families of a server with several workers, without labels."""
    with pytest.MonkeyPatch.context() as patch, metrics_folder() as folder:
        patch.setattr(values, "ValueClass", values.ValueClass)
        patch.setenv(FOLDER, folder)
        SupervisorMetrics(folder, 2)
        count_as_worker(0)
        WorkerMetrics().update(ready=True)
        found = list(MultiProcessCollector(None, folder).collect())  # type: ignore[no-untyped-call]
        values.close_all_multiprocess_files()  # type: ignore[no-untyped-call]
    return [family for family in found if family.name.startswith("solo_worker")]


def labels_by_name() -> dict[str, set[str]]:
    """The labels of every sample, by its name."""
    found: dict[str, set[str]] = {}
    for family in [*families(), *families_of_workers()]:
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions() -> list[str]:
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    drawn = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return drawn + re.findall(r"expr: (?:>-\n((?:          .*\n)+)|(.*))", ALERTS)


def flat() -> list[str]:
    return [e if isinstance(e, str) else "".join(e) for e in expressions()]


def test_there_are_expressions_to_check() -> None:
    assert len([e for e in flat() if "solo_" in e or "process_" in e]) > 40
    assert len(re.findall(r"- alert:", ALERTS)) == len(re.findall(r"expr:", ALERTS)) >= 6


@pytest.mark.parametrize("expression", flat())
def test_every_metric_and_label_of_an_expression_exists(expression: str) -> None:
    known = labels_by_name()
    for name, selector in SELECTOR.findall(expression):
        assert name in known
        used = set(re.findall(r"(\w+)\s*[=!]~?", selector))
        assert used <= known[name] | OF_PROMETHEUS, name
    for open_, close in ("()", "{}", "[]"):
        assert expression.count(open_) == expression.count(close)


@pytest.mark.parametrize("expression", [e for e in flat() if " by (" in e])
def test_labels_in_by_clauses_exist(expression: str) -> None:
    known = labels_by_name()
    available = set().union(*(known[name] for name, _ in SELECTOR.findall(expression))) | OF_PROMETHEUS
    for group in re.findall(r" by \(([^)]*)\)", expression):
        assert {label.strip() for label in group.split(",")} <= available


def test_counters_are_never_shown_without_a_rate() -> None:
    for expression in flat():
        for name in re.findall(r"\b(?:solo|process)_\w+?(?:_total|_sum|_count|_bucket)\b", expression):
            assert re.search(rf"(rate|increase)\({name}\b", expression), expression


def test_panels_of_the_dashboard_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({p["id"] for p in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_the_dashboard_has_its_rows() -> None:
    rows = [p["title"] for p in DASHBOARD["panels"] if p["type"] == "row"]
    assert rows == [
        "Traffic and outcomes",
        "Latency by stage",
        "Queue and batches",
        "Refusals by reason",
        "Process",
        "Model",
    ]


def test_the_page_lists_exactly_the_metrics_with_their_labels() -> None:
    rows = re.findall(r"^\| `((?:solo|process)_\w+)(?:\{([\w,]*)\})?` \| (\w+) \|", PAGE, re.MULTILINE)
    documented = {name: (kind, {label for label in labels.split(",") if label}) for name, labels, kind in rows}
    there = {}
    for family in families():
        labels = set().union(*(s.labels for s in family.samples)) - {"le"}
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        kind = "gauge" if family.type == "info" else family.type
        there[family.name + suffix] = (kind, labels)
    assert documented == there


def test_metrics_of_workers_are_in_dashboard_alerts_and_page() -> None:
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families_of_workers()}
    assert names == {"solo_workers", "solo_workers_ready", "solo_worker_restarts_total"}
    drawn = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    for name in names:
        pattern = re.compile(rf"\b{name}\b")
        assert any(pattern.search(expression) for expression in drawn), name
        assert pattern.search(ALERTS), name
        assert f"| `{name}` |" in PAGE


def test_the_page_lists_every_alert() -> None:
    for alert in re.findall(r"- alert: (\w+)", ALERTS):
        assert f"`{alert}`" in PAGE


def test_the_page_lists_exactly_the_reasons_and_exit_statuses() -> None:
    refusals = PAGE.split("| reason of `solo_refused_total` | meaning |")[1].split("\n\n")[0]
    documented = re.findall(r"^\| `(\w+)` \|", refusals, re.MULTILINE)
    assert sorted(documented) == sorted(
        [
            *service._UNREADY,
            "queue_full",
            "deadline_near",
            "pixels_full",
            "masks_full",
            "bodies_full",
            "connections_full",
            "streams_full",
            "connection",
        ]
    )
    statuses = PAGE.split("| exit status | why |")[1].split("\n\n")[0]
    ours = [0, FAILED, REFUSED, NO_CLUSTER, ENGINE_HUNG, GPU_LOST]
    assert re.findall(r"^\| (\d+)", statuses, re.MULTILINE) == [*map(str, ours), "137"]
    assert list(MEANINGS) == ours[1:]


@pytest.mark.parametrize("module", [serve, serve_arguments, supervisor_main, supervisor])
def test_exit_statuses_are_written_in_one_place(module: ModuleType) -> None:
    nodes = ast.walk(ast.parse(Path(str(module.__file__)).read_text()))
    constants = {node.value for node in nodes if isinstance(node, ast.Constant) and type(node.value) is int}
    assert not constants & {ENGINE_HUNG, GPU_LOST}


def number(pattern: str, text: str) -> int:
    (found,) = re.findall(pattern, text, re.MULTILINE)
    return int(found)


def test_nginx_lets_the_server_refuse_requests_itself_and_closes_connections_first() -> None:
    settings = Settings()
    assert settings.max_body_bytes < number(r"client_max_body_size +(\d+)m;", NGINX) << 20
    assert settings.request_timeout_ms < number(r"^    proxy_read_timeout +(\d+)s;", NGINX) * 1000
    assert settings.keep_alive_s < number(r"^        proxy_read_timeout +(\d+)s;", NGINX)  # of streams
    assert settings.keep_alive_s > number(r"^ +keepalive_timeout +(\d+)s;", NGINX)


def test_systemd_waits_for_responses_and_does_not_restart_after_a_wrong_setting() -> None:
    assert number(r"^TimeoutStopSec=(\d+)$", UNIT) >= Settings().drain_seconds + WRITING_SECONDS + 10
    assert number(r"^RestartPreventExitStatus=(\d+)$", UNIT) == 2
    assert "Restart=on-failure\n" in UNIT
