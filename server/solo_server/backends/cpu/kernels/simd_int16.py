"""Explicit SIMD for numba: products of int16 pairs summed into int32 (AVX2's `pmaddwd`), and uint8 pixels in and out.

`INT16_PAIRS` is sixteen int16, seen as eight pairs; `INT32_LANES` is eight int32. Indices are not checked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model

from solo_server.backends.cpu.kernels.simd_float32 import LANES, WIDTH, pointer
from solo_server.system.processor import has_pair_products, this_processor

_INT16, _INT32 = ir.IntType(16), ir.IntType(32)
_INT16X16, _INT32X8 = ir.VectorType(_INT16, 2 * WIDTH), ir.VectorType(_INT32, WIDTH)
_FLOAT32X8, _INT16X8 = ir.VectorType(ir.FloatType(), WIDTH), ir.VectorType(_INT16, WIDTH)
_UINT8X8, _UINT8X16 = ir.VectorType(ir.IntType(8), WIDTH), ir.VectorType(ir.IntType(8), 2 * WIDTH)
_INDEX16 = ir.VectorType(_INT32, 2 * WIDTH)


class _Int16Pairs(types.Type):
    def __init__(self) -> None:
        super().__init__(name="int16_pairs")


class _Int32Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="int32_lanes")


INT16_PAIRS, INT32_LANES = _Int16Pairs(), _Int32Lanes()


@register_model(_Int16Pairs)
class _Int16PairsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _INT16X16)


@register_model(_Int32Lanes)
class _Int32LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _INT32X8)


@intrinsic
def load_pairs(typing_context, array, index):
    """`array[index : index + 16]` of a flat int16 array."""

    def generate(context, builder, signature, arguments):
        address = pointer(context, builder, signature.args[0], *arguments, _INT16X16)
        return builder.load(address, align=2, typ=_INT16X16)

    return INT16_PAIRS(array, types.intp), generate


@intrinsic
def broadcast_pair(typing_context, array, index):
    """`array[index : index + 2]` of a flat int16 array, in all eight pairs."""

    def generate(context, builder, signature, arguments):
        address = pointer(context, builder, signature.args[0], *arguments, _INT32)
        pair = builder.load(address, align=2, typ=_INT32)
        one = builder.insert_element(ir.Constant(_INT32X8, ir.Undefined), pair, _INT32(0))
        zeros = ir.Constant(ir.VectorType(_INT32, WIDTH), [0] * WIDTH)
        return builder.bitcast(builder.shuffle_vector(one, ir.Constant(_INT32X8, ir.Undefined), zeros), _INT16X16)

    return INT16_PAIRS(array, types.intp), generate


@intrinsic
def zero_int32(typing_context):
    """Eight zeros."""

    def generate(context, builder, signature, arguments):
        return ir.Constant(_INT32X8, [0] * WIDTH)

    return INT32_LANES(), generate


@intrinsic
def add_products(typing_context, sums, a, b):
    """`sums + a0 * b0 + a1 * b1` for each of the eight pairs; wraps around beyond int32."""

    def generate(context, builder, signature, arguments):
        sums, a, b = arguments
        return builder.add(sums, multiply_pairs(builder, a, b, in_one_instruction=has_pair_products(this_processor())))

    return INT32_LANES(INT32_LANES, INT16_PAIRS, INT16_PAIRS), generate


def multiply_pairs(builder: Any, a: Any, b: Any, *, in_one_instruction: bool) -> Any:
    """`a0 * b0 + a1 * b1` for each of the eight pairs, int32. in_one_instruction: use AVX2's `pmaddwd`."""
    if in_one_instruction:
        kind = ir.FunctionType(_INT32X8, [_INT16X16, _INT16X16])
        name = "llvm.x86.avx2.pmadd.wd"
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        return builder.call(function, [a, b])
    wide = ir.VectorType(_INT32, 2 * WIDTH)
    product = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    even, odd = (
        builder.shuffle_vector(
            product,
            ir.Constant(wide, ir.Undefined),
            ir.Constant(ir.VectorType(_INT32, WIDTH), list(range(first, 2 * WIDTH, 2))),
        )
        for first in (0, 1)
    )
    return builder.add(even, odd)


@intrinsic
def store_int32(typing_context, array, index, value):
    """`array[index : index + 8] = value` of a flat int32 array."""

    def generate(context, builder, signature, arguments):
        array, index, value = arguments
        builder.store(value, pointer(context, builder, signature.args[0], array, index, _INT32X8), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, INT32_LANES), generate


@intrinsic
def load_int32_as_float32(typing_context, array, index):
    """`array[index : index + 8]` of a flat int32 array as float32."""

    def generate(context, builder, signature, arguments):
        address = pointer(context, builder, signature.args[0], *arguments, _INT32X8)
        return builder.sitofp(builder.load(address, align=4, typ=_INT32X8), _FLOAT32X8)

    return LANES(array, types.intp), generate


@intrinsic
def store_rounded_int16(typing_context, array, index, value):
    """`array[index : index + 8] = round(value)` of a flat int16 array; values beyond int16 are undefined."""

    def generate(context, builder, signature, arguments):
        array, index, value = arguments
        magic = ir.Constant(_FLOAT32X8, [12582912.0] * WIDTH)  # rounds to a whole number
        whole = builder.fptosi(builder.fsub(builder.fadd(value, magic), magic), _INT32X8)
        address = pointer(context, builder, signature.args[0], array, index, _INT16X8)
        builder.store(builder.trunc(whole, _INT16X8), address, align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, LANES), generate


@intrinsic
def load_neighbours(typing_context, array, a, b):
    """For two indices into flat uint8 RGB pixels: red, green and blue, each paired with the next pixel's, then an unused pair.

    Reads eight bytes from each index.
    """

    def generate(context, builder, signature, arguments):
        array, *indices = arguments
        kind = signature.args[0]
        a, b = (
            builder.load(pointer(context, builder, kind, array, index, _UINT8X8), align=1, typ=_UINT8X8)
            for index in indices
        )
        order = [first + i for first in (0, WIDTH) for i in (0, 3, 1, 4, 2, 5, 6, 7)]
        return builder.zext(builder.shuffle_vector(a, b, ir.Constant(_INDEX16, order)), _INT16X16)

    return INT16_PAIRS(array, types.intp, types.intp), generate


@intrinsic
def store_two_pixels(typing_context, array, index, value):
    """The first three lanes of each half of `value >> 4` as int16, to `array[index : index + 6]`; two more are overwritten."""

    def generate(context, builder, signature, arguments):
        array, index, value = arguments
        halves = builder.trunc(builder.ashr(value, ir.Constant(_INT32X8, [4] * WIDTH)), _INT16X8)
        order = ir.Constant(_INT32X8, [0, 1, 2, 4, 5, 6, 3, 7])
        pixels = builder.shuffle_vector(halves, ir.Constant(_INT16X8, ir.Undefined), order)
        builder.store(pixels, pointer(context, builder, signature.args[0], array, index, _INT16X8), align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, INT32_LANES), generate


@intrinsic
def multiply_high(typing_context, values, factor):
    """`values * factor >> 16` for each of the sixteen; `factor` is an int16."""

    def generate(context, builder, signature, arguments):
        wide = ir.VectorType(_INT32, 2 * WIDTH)
        values, factor = arguments
        factor = context.cast(builder, factor, signature.args[1], types.int16)
        one = builder.insert_element(ir.Constant(_INT16X16, ir.Undefined), factor, _INT32(0))
        factors = builder.shuffle_vector(
            one, ir.Constant(_INT16X16, ir.Undefined), ir.Constant(_INDEX16, [0] * 2 * WIDTH)
        )
        product = builder.mul(builder.sext(values, wide), builder.sext(factors, wide))
        return builder.trunc(builder.ashr(product, ir.Constant(wide, [16] * 2 * WIDTH)), _INT16X16)

    return INT16_PAIRS(INT16_PAIRS, factor), generate


@intrinsic
def store_quarter_sums(typing_context, array, index, a, b):
    """`array[index : index + 16] = (a + b + 2) >> 2` of a flat uint8 array; `a + b` up to 1021 fits."""

    def generate(context, builder, signature, arguments):
        array, index, a, b = arguments
        two = ir.Constant(_INT16X16, [2] * 2 * WIDTH)
        quarters = builder.lshr(builder.add(builder.add(a, b), two), two)
        address = pointer(context, builder, signature.args[0], array, index, _UINT8X16)
        builder.store(builder.trunc(quarters, _UINT8X16), address, align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, INT16_PAIRS, INT16_PAIRS), generate
