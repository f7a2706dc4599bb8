"""Everything that our code uses of TensorRT's Python API is in 10.4.0, the last for V100, and still in TensorRT for RTX 1.7.

The latter has what TensorRT 11 keeps: no weak precision flags, no implicit batches, no calibrators.
"""

import ast
from pathlib import Path
from typing import Any

import pytest
import solo_server.backends.gpu.tensorrt
import tensorrt_rtx
from api import problems, uses
from bindings_10_4 import import_bindings

FOLDER = Path(next(iter(solo_server.backends.gpu.tensorrt.__path__)))
OBJECTS = {  # which class the variables of each file hold
    "build.py": {
        "builder": "Builder",
        "parser": "OnnxParser",
        "error": "ParserError",
        "config": "IBuilderConfig",
        "profile": "IOptimizationProfile",
        "times": "ITimingCache",
        "runtime": "Runtime",
    },
    "engine.py": {
        "_runtime": "Runtime",
        "_engine": "ICudaEngine",
        "engine": "ICudaEngine",
        "_context": "IExecutionContext",
        "context": "IExecutionContext",
    },
}
FILES = sorted(path.name for path in FOLDER.glob("*.py") if "trt." in path.read_text())


@pytest.fixture(scope="module", params=["10.4.0", "rtx"])
def trt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if request.param == "rtx":
        return tensorrt_rtx
    return import_bindings(tmp_path_factory.mktemp("tensorrt"))


def test_the_bindings_are_those_of_10_4(tmp_path_factory: pytest.TempPathFactory) -> None:
    trt = import_bindings(tmp_path_factory.mktemp("tensorrt"))
    assert trt.__version__ == "10.4.0"


@pytest.mark.parametrize("name", FILES)
def test_all_that_we_use_is_there(trt: Any, name: str) -> None:
    assert problems(trt, (FOLDER / name).read_text(), OBJECTS.get(name, {})) == []


@pytest.mark.parametrize("name", OBJECTS)
def test_every_variable_that_is_listed_is_used(name: str) -> None:
    """Otherwise a renamed variable would no longer be checked."""
    classes = {use.path[0] for use in uses((FOLDER / name).read_text(), OBJECTS[name])}
    assert classes >= set(OBJECTS[name].values())


def test_the_builder_and_its_variables_are_looked_at() -> None:
    found = {".".join(use.path) for use in uses((FOLDER / "build.py").read_text(), OBJECTS["build.py"])}
    assert found >= {"Builder", "Builder.create_network", "IBuilderConfig.progress_monitor", "ITimingCache.serialize"}
    assert found >= {"ParserError.node_operator", "MemoryPoolType.WORKSPACE", "ILogger.Severity.ERROR"}


@pytest.mark.parametrize("flag", ["STRONGLY_TYPED"])
def test_flags_that_we_ask_for_by_name_are_there(trt: Any, flag: str) -> None:
    assert hasattr(trt.NetworkDefinitionCreationFlag, flag)
    assert f'"{flag}"' in (FOLDER / "build.py").read_text()


def test_types_that_we_ask_for_by_name_are_there(trt: Any) -> None:
    names = set()
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DTYPES":
                names |= set(ast.literal_eval(node.value).values())
    assert {name for name in names if not hasattr(trt.DataType, name)} == set()
    assert {"UINT8", "INT64", "FLOAT"} <= set(trt.DataType.__members__)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("config.max_workspace_size = 1", "there is no max_workspace_size"),
        ("config.set_flag(trt.BuilderFlag.FP23)", "BuilderFlag.FP23: there is no FP23"),
        ("config.set_timing_cache(x)", "takes"),
        ("config.set_timing_cache(x, ignore=True)", "takes"),
        ("builder.create_network(1, 2)", "takes"),
        ("builder.max_threads()", "signature cannot be read"),
        ("parser.num_errors = 1", "cannot be set"),
        ("trt.Builder()", "takes"),
        ("class L(trt.ILogger):\n def log(self, severity, message): pass", "its parameters are"),
        ("class L(trt.ILogger):\n def write(self, severity, msg): pass", "no write to override"),
    ],
)
def test_what_is_not_there_is_found(trt: Any, source: str, complaint: str) -> None:
    (found,) = problems(trt, source, OBJECTS["build.py"])
    assert complaint in found


@pytest.mark.parametrize(
    "source",
    [
        "config.set_timing_cache(x, False)",
        "config.set_timing_cache(x, ignore_mismatch=True)",
        "builder.create_network()",
        "builder.create_network(flags=1)",
        "trt.ILogger.__init__(self)",
        "class L(trt.ILogger):\n def log(self, severity, msg): pass",
        "config.progress_monitor = x",
    ],
)
def test_what_is_there_is_not_complained_of(trt: Any, source: str) -> None:
    assert problems(trt, source, OBJECTS["build.py"]) == []


def test_weak_precision_flags_are_not_used() -> None:
    """TensorRT 11 has none of them."""
    for path in FOLDER.glob("*.py"):
        assert "BuilderFlag.FP16" not in path.read_text()
        assert "BuilderFlag.INT8" not in path.read_text()
