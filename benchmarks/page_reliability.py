"""The tables of benchmarks/reliability.md: the targets of issue 6, and each part of `reliability.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from page_markdown import head, machine, number, row
from page_results import ABSOLUTE_PATH, BadResult, NotMeasured, Results

FILE = "reliability"
MEASURED_LATER = "not measured yet"
CONTENDERS = {
    "http": "over HTTP",
    "run_to_completion": "in process, run to completion",
    "overlapped": "in process, overlapped",
    "one_by_one": "in process, one by one",
}
LOADS = {
    "closed_8": "8 callers",
    "closed_1": "1 caller",
    "open_15": "15 requests/s",
    "service_8": "the service in process, 8 callers",
    "bare_8": "uvicorn alone, 8 callers",
}

Part = dict[str, Any]
Lines = Iterator[str]


@dataclass(frozen=True, slots=True)
class Goal:
    """A target for one figure. found: from its part, whether the target is met, and the figure as text."""

    what: str
    wanted: str
    part: str
    found: Callable[[Part], tuple[bool, str]]


def part_of(results: Results, name: str) -> Part:
    """One part.

    Raises:
        NotMeasured: it is missing, or was not run.
        BadResult: it is from a quick run, or its command contains a path of some machine.
    """
    part: Part | None = results.read(FILE)["parts"].get(name)
    if part is None:
        raise NotMeasured(f"{FILE}.json: {name}")
    if part["quick"]:
        raise BadResult(f"{FILE}.json: {name}: a quick run, only for trying it out; measure again without --quick")
    if ABSOLUTE_PATH.search(part["command"]):
        raise BadResult(f"{FILE}.json: {name}: command: contains an absolute path")
    if "not_run" in part:
        raise NotMeasured(f"{FILE}.json: {name}: {part['not_run']}")
    return part


def reliability_goals(results: Results) -> Lines:
    """Targets and results."""
    yield from head("", "target", "measured", "met")
    for goal in GOALS:
        try:
            is_met, figure = goal.found(part_of(results, goal.part) if goal.part else _fuzz(results))
        except NotMeasured:
            yield row(goal.what, goal.wanted, MEASURED_LATER, "")
            continue
        yield row(goal.what, goal.wanted, figure, "yes" if is_met else "**no**")


def reliability_closed(results: Results) -> Lines:
    """Images/s and processor time of each contender."""
    part = part_of(results, "closed")
    yield from head("", "images/s, median (rounds)", "CPU ms per image", "HTTP relative to it")
    for key, name in CONTENDERS.items():
        ratio = _percents(part["ratios"][key]) if key in part["ratios"] else ""
        yield row(name, _spread(part["per_s"][key]), _spread(part["cpu_ms"][key]), ratio)
    yield from (
        "",
        f"In addition the load generator used {_spread(part['generator_cpu_ms'])} ms of processor time per image.",
    )


def reliability_cpu(results: Results) -> Lines:
    """The cost of a request to the stub."""
    part = part_of(results, "http_cpu")
    yield from head("load", "CPU ms per request, median (rounds)")
    for key, name in LOADS.items():
        yield row(name, _spread(part["ms_a_request"][key], 3))
    yield from ("", f"An idle server uses {part['idle_ms_a_second']} ms of processor time per second.")


def reliability_open(results: Results) -> Lines:
    """The low constant rate."""
    part = part_of(results, "trickle")
    yield from head("requests", "p50", "p95", "p99", "longest", "p99 / p50", "sent late, p99", "errors")
    times = [f"{number(part[key])} ms" for key in ("p50_ms", "p95_ms", "p99_ms", "max_ms")]
    late = f"{number(part['late_ms']['p99'])} ms"
    yield row(str(part["requests"]), *times, f"{part['ratio']:.2f}", late, _counts(part["errors"]) or "0")


def reliability_overload(results: Results) -> Lines:
    """Overload: four times the capacity."""
    part = part_of(results, "overload")
    capacity = part["capacity"]
    yield from head("", "")
    yield row("capacity before, after", f"{capacity['before']:.1f}, {capacity['after']:.1f} images/s")
    yield row("requests", f"{part['requests']}, {part['rate']:.1f} per second")
    yield row("responses", _counts(part["answers"]))
    yield row("200 responses per second", f"{part['goodput']:.1f}")
    yield row("200 responses, p50, p99, longest", _tails(part["good_ms"]))
    yield row("refusals, p50, p99, longest", _tails(part["refused_ms"]))
    yield row("sent late, p50, p99, longest", _tails(part["late_ms"]))
    yield row("processor time: server, generator", f"{part['server_cpu_s']:.1f} s, {part['generator_cpu_s']:.1f} s")


def reliability_side_by_side(results: Results) -> Lines:
    """All three servers, with each number of workers."""
    part = part_of(results, "side_by_side")
    yield from head("", "callers", "images/s, median (rounds)", "p50", "p99", "CPU ms per image", "MiB", "errors")
    for label, found in part["contenders"].items():
        for level in (key for key in found if key.isdecimal()):
            load = found[level]
            times = [f"{number(load['ms'][key])} ms" for key in ("p50", "p99")]
            cost = (number(load["cpu_ms"]), f"{found['peak_rss_mib']:.0f}", str(load["errors"]))
            yield row(label, level, _spread(load["per_s"]), *times, *cost)
    peers = ", ".join(f"{name} {version}" for name, version in part["peers"].items())
    yield from ("", f"WORKERSxCORES for each; all returned the same instances. {peers}.")


def reliability_soak(results: Results) -> Lines:
    """Memory by number of images."""
    part = part_of(results, "soak")
    every, rss_mib = part["every"], part["rss_mib"]
    yield from head("images", "MiB")
    for index in range(9, len(rss_mib), 10):
        yield row(str((index + 1) * every), f"{rss_mib[index]:.1f}")
    summary = f"{part['count']} images of {part['sizes']} sizes in {part['elapsed_s'] / 60:.0f} minutes"
    yield from ("", f"{summary}: {_counts(part['statuses'])}; at the end {part['growth_at_end_percent']:+.1f} %.")


def reliability_faults(results: Results) -> Lines:
    """SIGTERM and kill -9."""
    part = part_of(results, "faults")
    stopped, killed = part["terminated"], part["worker_killed"]
    yield from head("", "")
    outcome = f"{stopped['accepted']} accepted, {stopped['answered']} answered, {stopped['lost']} lost"
    yield row(f"SIGTERM, {stopped['rounds']} times, {stopped['callers']} callers", outcome)
    yield row("exit statuses", ", ".join(map(str, stopped["exit_statuses"])))
    if "not_run" in killed:
        yield row("kill -9 of one of two workers", f"not run: {killed['not_run']}")
        return
    yield row(
        f"kill -9 of one of {killed['workers']} workers, {killed['callers']} callers", _counts(killed["outcomes"])
    )
    yield row("new process after", f"{killed['new_process_after_s']} s")
    back = killed["full_speed_after_s"]
    yield row("back at 90 % of the earlier rate after", "not within the run" if back is None else f"{back:g} s")


def reliability_event_loop(results: Results) -> Lines:
    """How late a task wakes up."""
    part = part_of(results, "event_loop")
    yield from head("", "wake-ups", "p50", "p99", "p99.9", "longest")
    for key, name in (("loaded", f"{part['callers']} callers"), ("idle", "idle")):
        for kind, title in (("busy_ms", "computing"), ("late_ms", "computing or waiting for a core")):
            times = [f"{part[key][kind][p]:.2f} ms" for p in ("p50", "p99", "p99.9", "max")]
            yield row(f"{name}: {title}", str(part[key]["wake_ups"]), *times)


def reliability_fuzz(results: Results) -> Lines:
    """Generated requests and broken images."""
    found = _fuzz(results)
    yield from head("", "sent", "faults", "slowest", "responses")
    requests, names = found["requests"], {"whole_images": "whole images", "broken_images": "broken images"}
    faults = str(len(requests["failures"]))
    yield row("requests by schemathesis", str(requests["count"]), faults, f"{requests['slowest_s']} s", "")
    for key, name in names.items():
        kind = found[key]
        yield row(name, str(kind["count"]), str(kind["faults"]), f"{kind['slowest_s']} s", _counts(kind["answers"]))
    peak = ", ".join(f"{value:.0f} ({key.replace('_', ' ')})" for key, value in found["peak_mb"].items())
    yield from ("", f"Peak resident memory in MiB: {peak}.")


def reliability_runs(results: Results) -> Lines:
    """The command of each part."""
    yield from head("part", "command", "commit", "date", "CPU of other processes before")
    parts = results.read(FILE)["parts"]
    for name in parts:
        part = part_of(results, name)
        share = "" if part["others_before"] is None else f"{100 * part['others_before']:.0f} %"
        yield row(name, f"`{part['command']}`", str(part["commit"]), part["date"][:10], share)
    part = next(iter(parts.values()))
    versions = ", ".join(f"{name} {version}" for name, version in part["versions"].items())
    yield from ("", f"{machine(part['hardware'])}; {versions}.")


def _ratio(part: Part) -> tuple[bool, str]:
    ratio = part["ratios"]["run_to_completion"]
    return ratio["median"] >= 0.95, f"{_percents(ratio)}"


def _cpu(part: Part) -> tuple[bool, str]:
    added = part["http_adds_ms"]
    return added["median"] <= 0.5, f"{_spread(added, 2)} ms"


def _trickle(part: Part) -> tuple[bool, str]:
    figure = f"{part['ratio']:.2f} ({number(part['p99_ms'])} ms, {number(part['p50_ms'])} ms)"
    return part["ratio"] <= 1.5 and not part["errors"], figure


def _in_time(part: Part) -> tuple[bool, str]:
    share = part["in_time_share"] or 0.0
    return share == 1.0, f"{part['in_time']} of {part['accepted']} within {part['deadline_ms']} ms"


def _goodput(part: Part) -> tuple[bool, str]:
    return part["goodput_share"] >= 0.9, f"{100 * part['goodput_share']:.0f} %"


def _refusals(part: Part) -> tuple[bool, str]:
    p99 = part["refused_ms"]["p99"]
    figure = f"{part['others']} others; refusals p99 {number(p99)} ms" if p99 is not None else "nothing was refused"
    return part["others"] == 0 and p99 is not None and p99 <= 50, figure


def _no_500(part: Part) -> tuple[bool, str]:
    return part["server_errors"] == 0, str(part["server_errors"])


def _rates(part: Part) -> tuple[bool, str]:
    figure = ", ".join(f"{name} {_percents(ratio)}" for name, ratio in part["ratio"].items())
    return all(ratio["median"] >= 1 for ratio in part["ratio"].values()), figure


def _p99(part: Part) -> tuple[bool, str]:
    figure = ", ".join(f"{name} {ratio:.2f}x" for name, ratio in part["p99_ratio"].items())
    return all(ratio <= 1 for ratio in part["p99_ratio"].values()), figure


def _growth(part: Part) -> tuple[bool, str]:
    return part["growth_percent"] <= 3, f"{part['growth_percent']:.1f} %"


def _terminated(part: Part) -> tuple[bool, str]:
    stopped = part["terminated"]
    missing = stopped["accepted"] - stopped["answered"]
    return missing == 0 and set(stopped["exit_statuses"]) == {0}, f"{missing} of {stopped['accepted']} not answered"


def _killed(part: Part) -> tuple[bool, str]:
    killed = part["worker_killed"]
    if "not_run" in killed:
        raise NotMeasured(killed["not_run"])
    lost = sum(killed["outcomes"].values()) - killed["outcomes"].get("ok", 0)
    replaced = killed["new_process_after_s"]
    figure = f"replaced after {replaced} s; {lost} of {sum(killed['outcomes'].values())} requests lost"
    return killed["supervisor_goes_on"] and replaced is not None and lost <= killed["callers"], figure


def _loop(part: Part) -> tuple[bool, str]:
    busy, late = part["loaded"]["busy_ms"], part["loaded"]["late_ms"]
    figure = f"{number(busy['max'])} ms (p99.9 {number(busy['p99.9'])} ms; with waiting for a core: {number(late['p99.9'])} ms)"
    return busy["max"] <= 5, figure


def _fuzzed(part: Part) -> tuple[bool, str]:
    requests, kinds = part["requests"], [part["whole_images"], part["broken_images"]]
    faults = len(requests["failures"]) + sum(kind["faults"] for kind in kinds)
    slowest = max(found["slowest_s"] for found in (requests, *kinds))
    sent = requests["count"] + sum(kind["count"] for kind in kinds)
    return faults == 0 and slowest <= 5 and not part["server_ended"], f"{faults} faults of {sent}, slowest {slowest} s"


GOALS = (
    Goal("closed loop, 8 callers: images/s relative to in process", ">= 95 %", "closed", _ratio),
    Goal("HTTP: processor time added per request", "<= 0.5 ms", "http_cpu", _cpu),
    Goal("trickle, 5 requests/s: p99 / p50", "<= 1.5", "trickle", _trickle),
    Goal("overload, 4x capacity: accepted requests answered in time", "all", "overload", _in_time),
    Goal("overload: 200 responses relative to capacity", ">= 90 %", "overload", _goodput),
    Goal("overload: all others are 503; their p99", "<= 50 ms", "overload", _refusals),
    Goal("overload: 500 responses", "0", "overload", _no_500),
    Goal("images/s relative to LitServe and BentoML, 8 callers", ">= 100 %", "side_by_side", _rates),
    Goal("p99 relative to theirs, 8 callers", "<= 1x", "side_by_side", _p99),
    Goal("soak: growth of resident memory after the first 1,000 of 10,000 images", "<= 3 %", "soak", _growth),
    Goal("SIGTERM under load: accepted requests not answered", "0", "faults", _terminated),
    Goal("kill -9 of one of two workers: the server continues and replaces it", "yes", "faults", _killed),
    Goal("event loop: longest blocked time", "<= 5 ms", "event_loop", _loop),
    Goal("fuzz: no 500, no crash, nothing over 5 s", "0 faults", "", _fuzzed),
)


def _fuzz(results: Results) -> Part:
    return results.read("fuzz")


def _spread(found: Part, digits: int = 1) -> str:
    return f"{found['median']:.{digits}f} ({found['min']:.{digits}f} to {found['max']:.{digits}f})"


def _percents(found: Part) -> str:
    return f"{100 * found['median']:.0f} % ({100 * found['min']:.0f} to {100 * found['max']:.0f})"


def _tails(found: Part) -> str:
    return ", ".join(f"{number(value)} ms" for value in found.values() if value is not None)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


RELIABILITY_TABLES = (
    *(reliability_goals, reliability_closed, reliability_cpu, reliability_open, reliability_overload),
    *(reliability_side_by_side, reliability_soak, reliability_faults, reliability_event_loop, reliability_fuzz),
    reliability_runs,
)
