"""The tables of the pages, by the name of their block: each function reads result files and yields the lines of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from page_gpu import gpu_estimate, gpu_measured, gpu_memory, gpu_network, gpu_parity
from page_looks import looks
from page_markdown import head, machine, number, row
from page_ray import RAY_TABLES
from page_reliability import RELIABILITY_TABLES
from page_results import Contender, NotMeasured, Results, quiet_share, time_ratio
from page_rewrites import rewrites
from page_scale import capacity, fleet
from page_settings import settings_table
from page_targets import TARGETS
from solo_models import arithmetic
from solo_models.sizes import size_text
from solo_models.spec import ModelSpec, Variant

NETWORKS: dict[str, tuple[str, Variant]] = {
    "SOLO R50": ("bench_solo_r50", "solo"),
    "Decoupled SOLO R50": ("bench_decoupled_solo_r50", "decoupled"),
    "Decoupled SOLO Light R50": ("bench_decoupled_solo_light_r50", "decoupled_light"),
}
OTHERS = {
    "SOLO R50, candidates on levels 2 to 4 only": "bench_solo_r50_coarse",
    "SOLO R50, image of 1920x1080": "bench_solo_r50_1080p",
    "demo model": "bench_demo",
}
STAGES = ("decode", "preprocess", "categories", "towers", "masks", "nms", "encode")
ACCURACY = {
    "demo_person_ap": ("fp32", "onnxruntime"),
    "demo_person_ap_openvino": ("fp32", "openvino"),
    "demo_person_ap_fp16": ("fp16", "onnxruntime"),
    "demo_person_ap_int8": ("int8", "onnxruntime"),
    "demo_person_ap_openvino_bf16": ("bf16", "openvino"),
    "demo_person_ap_openvino_int8": ("int8", "openvino"),
}
RECORDED = (
    *(file for file, _ in NETWORKS.values()),
    *("bench_solo_r50_coarse", "bench_solo_r50_1080p", "bench_engine_solo_r50", "bench_demo", "bench_demo_server"),
    *("algebra", "growth_solo_r50", *ACCURACY),
)
PADDED_HW = (512, 704)  # of an image of 640x480 at 852x512
MEASURED_LATER = "not measured yet"

Lines = Iterator[str]


def targets(results: Results) -> Lines:
    """Targets and results."""
    yield from head("", "target", "measured", "met")
    notes = []
    for target in TARGETS:
        try:
            value, figure = target.found(results)
        except NotMeasured:
            yield row(target.what, target.wanted, MEASURED_LATER, "")
            continue
        yield row(target.what, target.wanted, figure, "yes" if target.holds(value) else "**no**")
        if not target.holds(value):
            notes.append(f"- {target.what}: {target.unreached}.")
    if notes:
        yield from ("", "Not met:", "", *notes)


def stages(results: Results) -> Lines:
    """Median milliseconds of each stage of ours, then of the peers."""
    files = {name: file for name, (file, _) in NETWORKS.items()} | OTHERS
    yield from head("", "total", *STAGES, "CPU s", "MiB")
    for name, file in files.items():
        try:
            for contender in (c for c in results.contenders(file) if c.precision):
                yield row(f"{name}, {_how(contender)}", *_stage_cells(contender, STAGES))
        except NotMeasured:
            yield row(name, MEASURED_LATER, *[""] * (len(STAGES) + 2))
    theirs = ("decode", "preprocess", "backbone", "neck", "categories", "towers", "after_towers")
    yield from ("", *head("stock mmdet", "total", *(s.replace("_", " ") for s in theirs), "CPU s", "MiB"))
    for name, file in files.items():
        try:
            yield row(name, *_stage_cells(results.peer(file, "mmdet"), theirs))
        except NotMeasured:
            continue  # the demo model has none


def work(_: Results) -> Lines:
    """GFLOP per image by part: the full head, and the part of it that is needed. Counted, not measured."""
    yield from head(
        "GFLOP at 704x512", "backbone", "neck", "category branch", "mask towers", "last mask convolution", "all"
    )
    for name, (_, variant) in NETWORKS.items():
        spec = _spec(variant)
        yield row(f"{name}: the full head", *_parts(arithmetic.reference(spec, PADDED_HW)))
        yield row("needed, all levels", *_parts(arithmetic.needed(spec, PADDED_HW)))
        yield row("needed, levels 2 to 4", *_parts(arithmetic.needed(spec, PADDED_HW, levels=(2, 3, 4))))


def roofline(results: Results) -> Lines:
    """The network alone, relative to the best matrix product of the same run."""
    content = results.read("bench_engine_solo_r50")
    best = content["best_matmul_gflop_per_s"]
    yield f"Best float32 matrix product of the run: {best:.0f} GFLOP/s on {content['hardware']['cores']} cores."
    yield ""
    yield from head(
        "SOLO R50, " + size_text(content["settings"]["padded_hw"]),
        "GFLOP",
        "at the best rate",
        "measured",
        "GFLOP/s",
        "of the best rate",
    )
    for entry in content["contenders"]:
        for rate in entry["batches"][0]["rates"]:
            ideal = f"{rate['gflop'] / best * 1e3:.0f} ms"
            share = f"{100 * rate['share']:.0f} %"
            part = f"**{rate['part']}**" if rate["part"] == "total" else rate["part"]
            yield row(
                f"{part}, {_precision(entry)}",
                number(rate["gflop"]),
                ideal,
                f"{number(rate['ms'])} ms",
                f"{rate['gflop_per_s']:.0f}",
                share,
            )


def growth(results: Results) -> Lines:
    """One table for each parameter that was changed."""
    for i, (title, table) in enumerate(results.read("growth_solo_r50")["tables"].items()):
        yield from [""] * min(i, 1)
        columns = list(dict.fromkeys(column for figures in table.values() for column in figures))
        yield from head(title, *columns)
        for name, figures in table.items():
            yield row(name, *(number(figures[column]) if column in figures else "" for column in columns))


def processors(results: Results) -> Lines:
    """The head as a graph and as compiled kernels, on each measured processor."""
    yield from head("processor", "engine, precision, head", "categories", "mask towers", "score difference")
    for measured in results.read("processor")["machines"]:
        for name, figures in measured["contenders"].items():
            times = (f"{number(figures['categories_ms'])} ms", f"{number(figures['towers_ms'])} ms")
            yield row(machine(measured["hardware"]), name, *times, f"{figures['score_difference']:g}")


def engines(results: Results) -> Lines:
    """Our engines and precisions side by side."""
    yield from head("bytes to RLE", "engine", "median", "images/s", "relative to fp32", "memory")
    for name, file in {**{n: f for n, (f, _) in NETWORKS.items()}, "demo model": "bench_demo"}.items():
        try:
            exact = results.ours(file, "fp32")
            for c in (c for c in results.contenders(file) if c.precision):
                gain = "" if c.precision == "fp32" else f"{exact.median_ms / c.median_ms:.2f}x"
                speed = (f"{number(c.median_ms)} ms", f"{c.figures['fps']:.2f}", gain)
                yield row(f"{name}, {c.precision}", c.engine, *speed, f"{c.figures['peak_rss_mib']:.0f} MiB")
        except NotMeasured:
            yield row(name, MEASURED_LATER, "", "", "", "")


def accuracy(results: Results) -> Lines:
    """Mask AP of the demo model in each precision and on each engine, with its speed if measured."""
    yield from head("demo model", "mask AP", "AP50", "AP large", "images/s")
    for file, (precision, engine) in ACCURACY.items():
        name = f"{precision} on {engine}"
        try:
            mask = results.read(file)["mask"]
        except NotMeasured:
            yield row(name, MEASURED_LATER, "", "", "")
            continue
        yield row(
            name, *(f"{100 * mask[key]:.1f}" for key in ("AP", "AP50", "AP_large")), _speed(results, precision, engine)
        )


def server(results: Results) -> Lines:
    """The demo model under load."""
    content = results.read("bench_demo_server")
    yield from head("load", "responses/s", "p50", "p90", "p99", "errors", "server CPU s", "MiB")
    for point in content["points"]:
        closed = f"{point['level']:g} caller{'' if point['level'] == 1 else 's'}, closed loop"
        name = closed if point["loop"] == "closed" else f"{point['level']:g} requests/s, open loop"
        times = ["" if point[p] is None else f"{number(point[p])} ms" for p in ("p50_ms", "p90_ms", "p99_ms")]
        errors = ", ".join(f"{count} {code}" for code, count in point["errors"].items()) or "0"
        yield row(name, f"{point['throughput']:.1f}", *times, errors, number(point["cpu_s"]), f"{point['rss_mib']:.0f}")


def summary(results: Results) -> Lines:
    """For the README: ours against stock mmdet."""
    yield from head("bytes to RLE, 704x512", "stock mmdet", "ours, fp32", "ours, int8", "memory: mmdet", "fp32", "int8")
    for name, (file, _) in NETWORKS.items():
        try:
            theirs, found = results.peer(file, "mmdet"), [results.ours(file, p) for p in ("fp32", "int8")]
        except NotMeasured:
            yield row(name, MEASURED_LATER, *[""] * 5)
            continue
        times = [f"{number(c.median_ms)} ms ({time_ratio(theirs, c)[0]:.1f}x)" for c in found]
        memory = [f"{c.figures['peak_rss_mib']:.0f} MiB" for c in (theirs, *found)]
        yield row(name, f"{number(theirs.median_ms)} ms", *times, *memory)


def demo(results: Results) -> Lines:
    """For the README: the demo model's speed and accuracy."""
    yield from head("demo model", "mask AP", "AP50", "AP large", "images/s", "p50", "p99", "memory")
    for file, precision in (("demo_person_ap", "fp32"), ("demo_person_ap_openvino_int8", "int8")):
        try:
            mask, ours = results.read(file)["mask"], results.ours("bench_demo", precision)
        except NotMeasured:
            yield row(precision, MEASURED_LATER, *[""] * 6)
            continue
        ap = [f"{100 * mask[key]:.1f}" for key in ("AP", "AP50", "AP_large")]
        times = [f"{ours.figures['fps']:.1f}", *(f"{number(ours.figures[key])} ms" for key in ("median_ms", "p99_ms"))]
        yield row(f"{precision}, {ours.engine}", *ap, *times, f"{ours.figures['peak_rss_mib']:.0f} MiB")


def parity(results: Results) -> Lines:
    """For the README: agreement with stock mmdet."""
    yield from head("", "instances matched one to one", "lowest mask IoU", "largest score difference")
    files = {
        "SOLO R50": "parity_solo_r50",
        "Decoupled SOLO R50": "parity_decoupled_solo_r50",
        "Decoupled SOLO Light R50": "parity_decoupled_solo_light_r50",
    }
    for name, file in files.items():
        found = results.read(file)
        yield row(
            name,
            f"{found['matched']} of {found['instances']}",
            f"{found['min_iou']:.4f}",
            f"{found['max_score_difference']:.1e}",
        )


def runs(results: Results) -> Lines:
    """The command of each result file."""
    yield from head("file", "command", "commit", "CPU of other processes")
    machines = {}
    for name in RECORDED:
        try:
            content = results.read(name)
        except NotMeasured as problem:
            yield row(f"`{problem}`", MEASURED_LATER, "", "")
            continue
        share = quiet_share(content) if name.startswith("bench") else None
        used = "" if share is None else f"{100 * share:.0f} %"
        link = f"[{name}.json](../benchmarks/results/{name}.json)"
        yield row(link, f"`{content['command']}`", str(content.get("commit")), used)
        machines[_machine(content)] = None
    yield from ("", *machines)


def _how(contender: Contender) -> str:
    """Precision, and the runtime without its version."""
    return f"{contender.precision} {contender.engine.split()[0]}"


def _precision(entry: dict[str, Any]) -> str:
    return str(entry.get("details", {}).get("precision", entry["name"]))


def _stage_cells(contender: Contender, names: Sequence[str]) -> list[str]:
    figures = contender.figures
    stages_ms = [number(figures["stages_ms"][name]) if name in figures["stages_ms"] else "" for name in names]
    return [number(contender.median_ms), *stages_ms, number(figures["cpu_s"]), f"{figures['peak_rss_mib']:.0f}"]


def _parts(gflop: arithmetic.Arithmetic) -> list[str]:
    parts = (gflop.backbone, gflop.neck, gflop.categories, sum(gflop.towers), gflop.last, gflop.total)
    return [number(part) if part else "" for part in parts]


def _spec(variant: Variant) -> ModelSpec:
    depth = {"head_depth": 4} if variant == "decoupled_light" else {}
    return ModelSpec(variant, "resnet50", tuple(f"class {i}" for i in range(80)), **depth)


def _speed(results: Results, precision: str, engine: str) -> str:
    try:
        return f"{results.ours('bench_demo', precision, engine).figures['fps']:.1f}"
    except NotMeasured:
        return ""


def _machine(content: dict[str, Any]) -> str:
    """Hardware and versions in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    return f"- {machine(content['hardware'])}; {versions}."


TABLES: dict[str, Callable[[Results], Lines]] = {
    table.__name__: table
    for table in (
        *(targets, stages, work, roofline, rewrites, growth, engines, processors, accuracy, server),
        *(summary, demo, parity, runs),
        *(gpu_parity, gpu_measured, gpu_network),
        *(gpu_estimate, gpu_memory),
        *(capacity, fleet),
        looks,
        *RELIABILITY_TABLES,
        *RAY_TABLES,
        settings_table,
    )
}
