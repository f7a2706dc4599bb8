"""Explicit SIMD for numba: eight float32 lanes as one value, with `+`, `-`, `*`, loads and stores on flat arrays.

LLVM maps the lanes to the processor's registers (one of AVX, two of NEON). Used where the compiler does not vectorise a plain loop,
because it cannot prove that the many input and output streams are independent. Indices are not checked.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic, models, overload, register_model

WIDTH = 8
_FLOAT32X8 = ir.VectorType(ir.FloatType(), WIDTH)
_FLOAT64X8 = ir.VectorType(ir.DoubleType(), WIDTH)
_INDEX = ir.IntType(32)


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="lanes")


LANES = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FLOAT32X8)


def pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any, lanes: Any) -> Any:
    """For code generation: the address of `array[index]`, as a pointer to `lanes`."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), lanes.as_pointer())


@intrinsic
def load(typing_context, array, index):
    """`array[index : index + 8]` of a flat float32 array."""

    def generate(context, builder, signature, arguments):
        address = pointer(context, builder, signature.args[0], *arguments, _FLOAT32X8)
        return builder.load(address, align=4, typ=_FLOAT32X8)

    return LANES(array, types.intp), generate


@intrinsic
def store(typing_context, array, index, value):
    """`array[index : index + 8] = value` of a flat float32 array."""

    def generate(context, builder, signature, arguments):
        array, index, value = arguments
        builder.store(value, pointer(context, builder, signature.args[0], array, index, _FLOAT32X8), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, LANES), generate


@intrinsic
def accumulate(typing_context, array, index, value):
    """`array[index : index + 8] += value` of a flat float64 array."""

    def generate(context, builder, signature, arguments):
        array, index, value = arguments
        address = pointer(context, builder, signature.args[0], array, index, _FLOAT64X8)
        before = builder.load(address, align=8, typ=_FLOAT64X8)
        builder.store(builder.fadd(before, builder.fpext(value, _FLOAT64X8)), address, align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, LANES), generate


@intrinsic
def splat(typing_context, value):
    """The same float32 in every lane."""

    def generate(context, builder, signature, arguments):
        value = context.cast(builder, arguments[0], signature.args[0], types.float32)
        one = builder.insert_element(ir.Constant(_FLOAT32X8, ir.Undefined), value, _INDEX(0))
        zeros = ir.Constant(ir.VectorType(_INDEX, WIDTH), [0] * WIDTH)
        return builder.shuffle_vector(one, ir.Constant(_FLOAT32X8, ir.Undefined), zeros)

    return LANES(value), generate


@intrinsic
def larger(typing_context, a, b):
    """The larger of each pair of lanes."""

    def generate(context, builder, signature, arguments):
        a, b = arguments
        return builder.select(builder.fcmp_ordered(">", a, b), a, b)

    return LANES(LANES, LANES), generate


@intrinsic
def above(typing_context, a, b):
    """`a` in lanes where it is larger than `b`, else zero."""

    def generate(context, builder, signature, arguments):
        a, b = arguments
        return builder.select(builder.fcmp_ordered(">", a, b), a, ir.Constant(_FLOAT32X8, [0.0] * WIDTH))

    return LANES(LANES, LANES), generate


@intrinsic
def bits_above(typing_context, a, b):
    """One bit a lane, the first lane lowest: 1 where `a` is larger than `b`."""

    def generate(context, builder, signature, arguments):
        a, b = arguments
        return builder.bitcast(builder.fcmp_ordered(">", a, b), ir.IntType(8))

    return types.uint8(LANES, LANES), generate


@intrinsic
def power_of_two(typing_context, n):
    """`2 ** n` for whole numbers from -126 to 127."""

    def generate(context, builder, signature, arguments):
        whole = ir.VectorType(_INDEX, WIDTH)
        exponent = builder.add(builder.fptosi(arguments[0], whole), ir.Constant(whole, [127] * WIDTH))
        return builder.bitcast(builder.shl(exponent, ir.Constant(whole, [23] * WIDTH)), _FLOAT32X8)

    return LANES(LANES), generate


@intrinsic
def total(typing_context, a):
    """The sum of all lanes, a float32."""

    def generate(context, builder, signature, arguments):
        lanes = [builder.extract_element(arguments[0], _INDEX(i)) for i in range(WIDTH)]
        while len(lanes) > 1:
            lanes = [builder.fadd(a, b) for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
        return lanes[0]

    return types.float32(LANES), generate


@intrinsic
def bit_count(typing_context, bits):
    """How many bits of an unsigned number are set."""

    def generate(context, builder, signature, arguments):
        found = builder.ctpop(arguments[0])
        return builder.zext(found, ir.IntType(64)) if found.type.width < 64 else found

    return types.int64(bits), generate


@intrinsic
def divide(typing_context, a, b):
    """`a / b`, lane by lane."""

    def generate(context, builder, signature, arguments):
        return builder.fdiv(*arguments)

    return LANES(LANES, LANES), generate


def _operation(name: str) -> Any:
    @intrinsic
    def operation(typing_context, a, b):
        def generate(context, builder, signature, arguments):
            return getattr(builder, name)(*arguments, flags=["contract"])  # a product and a sum may be fused

        return LANES(LANES, LANES), generate

    return operation


def _overload(python_operator: Any, operation: Any) -> None:
    @overload(python_operator)
    def implementation(a, b):
        return (lambda a, b: operation(a, b)) if a is LANES and b is LANES else None


for _python_operator, _name in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _overload(_python_operator, _operation(_name))


@njit(nogil=True, inline="always")
def sigmoid(x):
    """`1 / (1 + exp(-x))`, within two units in the last place; the exponential is Cephes' `expf`."""
    y = larger(splat(-87.0), splat(0.0) - larger(x, splat(-87.0)))
    n = (y * splat(1.44269504088896341) + splat(12582912.0)) - splat(12582912.0)  # rounds to a whole number
    r = y - n * splat(0.693359375) + n * splat(2.12194440e-4)
    p = splat(1.9875691500e-4) * r + splat(1.3981999507e-3)
    p = p * r + splat(8.3334519073e-3)
    p = p * r + splat(4.1665795894e-2)
    p = p * r + splat(1.6666665459e-1)
    p = p * r + splat(5.0000001201e-1)
    return divide(splat(1.0), splat(1.0) + (p * r * r + r + splat(1.0)) * power_of_two(n))
