"""Decisions that depend on the processor, for processors other than this machine's too."""

import ctypes
from collections.abc import Callable

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir
from solo_server.backends.cpu.kernels.simd_int16 import multiply_pairs
from solo_server.system.processor import Processor, has_bf16, has_pair_products, kernel_target, this_processor

HASWELL = frozenset({"sse2", "avx", "avx2", "fma", "bmi", "bmi2", "f16c"})
SKYLAKE_X = HASWELL | {"avx512f", "avx512bw", "avx512vl"}
ZEN_4 = SKYLAKE_X | {"avx512vnni", "avx512bf16"}
SANDY_BRIDGE = frozenset({"sse2", "avx"})
NEON = frozenset({"neon", "dotprod", "bf16"})


@pytest.mark.parametrize(
    ("machine", "features", "target"),
    [
        ("x86_64", HASWELL, "x86-64-v3"),
        ("AMD64", HASWELL, "x86-64-v3"),
        ("x86_64", SKYLAKE_X, "x86-64-v3"),
        ("x86_64", ZEN_4, "x86-64-v3"),
        ("x86_64", SANDY_BRIDGE, None),
        ("x86_64", HASWELL - {"f16c"}, None),
        ("aarch64", NEON, None),
    ],
)
def test_kernels_are_compiled_for_avx2_if_available(machine: str, features: frozenset[str], target: str | None) -> None:
    assert kernel_target(Processor(machine, features)) == target


@pytest.mark.parametrize(
    ("machine", "features", "expected"),
    [
        ("x86_64", HASWELL, True),
        ("AMD64", ZEN_4, True),
        ("x86_64", SANDY_BRIDGE, False),
        ("arm64", NEON, False),
    ],
)
def test_pairs_are_multiplied_in_one_instruction_with_avx2(
    machine: str, features: frozenset[str], expected: bool
) -> None:
    assert has_pair_products(Processor(machine, features)) is expected


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [(["FP32", "INT8", "BIN", "EXPORT_IMPORT"], False), (["FP32", "INT8", "BF16", "EXPORT_IMPORT"], True), ([], False)],
)
def test_bf16_is_available_if_openvino_says_so(capabilities: list[str], expected: bool) -> None:
    assert has_bf16(capabilities) is expected


def test_this_processor_has_no_feature_that_llvm_denies() -> None:
    denied = {name for name, present in llvm.get_host_cpu_features().items() if not present}
    assert this_processor().features
    assert not this_processor().features & denied


def _products(a: np.ndarray, b: np.ndarray, choose: Callable[[Processor], bool]) -> np.ndarray:
    """`multiply_pairs` as the choice compiles it, run on 16 int16 each: 8 int32."""
    module = ir.Module()
    words, wholes = ir.VectorType(ir.IntType(16), 16), ir.VectorType(ir.IntType(32), 8)
    kind = ir.FunctionType(ir.VoidType(), [words.as_pointer(), words.as_pointer(), wholes.as_pointer()])
    function = ir.Function(module, kind, "pairs")
    builder = ir.IRBuilder(function.append_basic_block())
    x, y = (builder.load(pointer, align=2) for pointer in function.args[:2])
    product = multiply_pairs(builder, x, y, in_one_instruction=choose(this_processor()))
    builder.store(product, function.args[2], align=4)
    builder.ret_void()
    return _run(str(module), a, b)


def _run(text: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    host = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten()
    )
    out = np.zeros(8, np.int32)
    with llvm.create_mcjit_compiler(llvm.parse_assembly(text), host) as engine:
        engine.finalize_object()
        call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)(engine.get_function_address("pairs"))
        call(a.ctypes.data, b.ctypes.data, out.ctypes.data)
    return out


@pytest.mark.parametrize("choose", [has_pair_products, lambda _: False], ids=["as here", "plain"])
def test_both_forms_of_the_products_give_the_same_numbers(choose: Callable[[Processor], bool]) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.integers(-32768, 32768, 16).astype(np.int16) for _ in range(2))
    a[:2], b[:2] = -32768, -32767
    expected = (a.astype(np.int64) * b).reshape(8, 2).sum(1)
    np.testing.assert_array_equal(_products(a, b, choose), ((expected + 2**31) % 2**32 - 2**31).astype(np.int32))
