"""Sixteen-bit lanes for numba: products of pairs of int16, summed into int32, the one instruction that AVX2 has for small numbers;
and bytes of images in and out.

A value of `PAIRS` is sixteen int16, seen as eight pairs; of `WHOLES`, eight int32. Indices are not checked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model

from solo_server.backends.cpu.kernels.simd_float32 import LANES, WIDTH, pointer
from solo_server.system.processor import has_pair_products, this_processor

_INT16, _INT32 = ir.IntType(16), ir.IntType(32)
_WORDS, _WHOLES = ir.VectorType(_INT16, 2 * WIDTH), ir.VectorType(_INT32, WIDTH)
_FLOATS, _HALVES = ir.VectorType(ir.FloatType(), WIDTH), ir.VectorType(_INT16, WIDTH)
_EIGHT_BYTES, _SIXTEEN_BYTES = ir.VectorType(ir.IntType(8), WIDTH), ir.VectorType(ir.IntType(8), 2 * WIDTH)
_ORDER = ir.VectorType(_INT32, 2 * WIDTH)


class _Pairs(types.Type):
    def __init__(self) -> None:
        super().__init__(name="pairs")


class _Wholes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="wholes")


PAIRS, WHOLES = _Pairs(), _Wholes()


@register_model(_Pairs)
class _PairsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _WORDS)


@register_model(_Wholes)
class _WholesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _WHOLES)


@intrinsic
def load_pairs(typing_context, array, index):
    """`array[index : index + 16]` of a flat int16 array."""

    def generate(context, builder, signature, arguments):
        place = pointer(context, builder, signature.args[0], *arguments, _WORDS)
        return builder.load(place, align=2, typ=_WORDS)

    return PAIRS(array, types.intp), generate


@intrinsic
def broadcast_pair(typing_context, array, index):
    """`array[index : index + 2]` of a flat int16 array, in all eight pairs."""

    def generate(context, builder, signature, arguments):
        place = pointer(context, builder, signature.args[0], *arguments, _INT32)
        pair = builder.load(place, align=2, typ=_INT32)
        one = builder.insert_element(ir.Constant(_WHOLES, ir.Undefined), pair, _INT32(0))
        zeros = ir.Constant(ir.VectorType(_INT32, WIDTH), [0] * WIDTH)
        return builder.bitcast(builder.shuffle_vector(one, ir.Constant(_WHOLES, ir.Undefined), zeros), _WORDS)

    return PAIRS(array, types.intp), generate


@intrinsic
def no_wholes(typing_context):
    """Eight zeros."""

    def generate(context, builder, signature, arguments):
        return ir.Constant(_WHOLES, [0] * WIDTH)

    return WHOLES(), generate


@intrinsic
def add_products(typing_context, sums, a, b):
    """`sums + a0 * b0 + a1 * b1` for each of the eight pairs; wraps around beyond int32."""

    def generate(context, builder, signature, arguments):
        sums, a, b = arguments
        return builder.add(sums, multiply_pairs(builder, a, b, in_one_instruction=has_pair_products(this_processor())))

    return WHOLES(WHOLES, PAIRS, PAIRS), generate


def multiply_pairs(builder: Any, a: Any, b: Any, *, in_one_instruction: bool) -> Any:
    """`a0 * b0 + a1 * b1` for each of the eight pairs, int32. in_one_instruction: AVX2 has one for it."""
    if in_one_instruction:
        kind = ir.FunctionType(_WHOLES, [_WORDS, _WORDS])
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
def store_wholes(typing_context, array, index, value):
    """`array[index : index + 8] = value` of a flat int32 array."""

    def generate(context, builder, signature, arguments):
        array, index, value = arguments
        builder.store(value, pointer(context, builder, signature.args[0], array, index, _WHOLES), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, WHOLES), generate


@intrinsic
def load_as_floats(typing_context, array, index):
    """`array[index : index + 8]` of a flat int32 array as float32."""

    def generate(context, builder, signature, arguments):
        place = pointer(context, builder, signature.args[0], *arguments, _WHOLES)
        return builder.sitofp(builder.load(place, align=4, typ=_WHOLES), _FLOATS)

    return LANES(array, types.intp), generate


@intrinsic
def store_rounded(typing_context, array, index, value):
    """`array[index : index + 8] = round(value)` of a flat int16 array; values beyond int16 are undefined."""

    def generate(context, builder, signature, arguments):
        array, index, value = arguments
        magic = ir.Constant(_FLOATS, [12582912.0] * WIDTH)  # rounds to a whole number
        whole = builder.fptosi(builder.fsub(builder.fadd(value, magic), magic), _WHOLES)
        place = pointer(context, builder, signature.args[0], array, index, _HALVES)
        builder.store(builder.trunc(whole, _HALVES), place, align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, LANES), generate


@intrinsic
def load_neighbours(typing_context, array, a, b):
    """For two places in a flat uint8 array of RGB pixels: red, green, blue there, each paired with the next pixel's; then any pair.

    Eight bytes are read from each place.
    """

    def generate(context, builder, signature, arguments):
        array, *places = arguments
        kind = signature.args[0]
        a, b = (
            builder.load(pointer(context, builder, kind, array, place, _EIGHT_BYTES), align=1, typ=_EIGHT_BYTES)
            for place in places
        )
        order = [first + i for first in (0, WIDTH) for i in (0, 3, 1, 4, 2, 5, 6, 7)]
        return builder.zext(builder.shuffle_vector(a, b, ir.Constant(_ORDER, order)), _WORDS)

    return PAIRS(array, types.intp, types.intp), generate


@intrinsic
def store_two_pixels(typing_context, array, index, value):
    """Of each half of `value >> 4` the first three as int16, into `array[index : index + 6]`; two more are overwritten."""

    def generate(context, builder, signature, arguments):
        array, index, value = arguments
        halves = builder.trunc(builder.ashr(value, ir.Constant(_WHOLES, [4] * WIDTH)), _HALVES)
        order = ir.Constant(_WHOLES, [0, 1, 2, 4, 5, 6, 3, 7])
        pixels = builder.shuffle_vector(halves, ir.Constant(_HALVES, ir.Undefined), order)
        builder.store(pixels, pointer(context, builder, signature.args[0], array, index, _HALVES), align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, WHOLES), generate


@intrinsic
def high_product(typing_context, words, factor):
    """`words * factor >> 16` for each of the sixteen; `factor` is an int16."""

    def generate(context, builder, signature, arguments):
        wide = ir.VectorType(_INT32, 2 * WIDTH)
        words, factor = arguments
        factor = context.cast(builder, factor, signature.args[1], types.int16)
        one = builder.insert_element(ir.Constant(_WORDS, ir.Undefined), factor, _INT32(0))
        factors = builder.shuffle_vector(one, ir.Constant(_WORDS, ir.Undefined), ir.Constant(_ORDER, [0] * 2 * WIDTH))
        product = builder.mul(builder.sext(words, wide), builder.sext(factors, wide))
        return builder.trunc(builder.ashr(product, ir.Constant(wide, [16] * 2 * WIDTH)), _WORDS)

    return PAIRS(PAIRS, factor), generate


@intrinsic
def store_quarter_sums(typing_context, array, index, a, b):
    """`array[index : index + 16] = (a + b + 2) >> 2` of a flat uint8 array; sums up to 1021 fit."""

    def generate(context, builder, signature, arguments):
        array, index, a, b = arguments
        two = ir.Constant(_WORDS, [2] * 2 * WIDTH)
        quarters = builder.lshr(builder.add(builder.add(a, b), two), two)
        place = pointer(context, builder, signature.args[0], array, index, _SIXTEEN_BYTES)
        builder.store(builder.trunc(quarters, _SIXTEEN_BYTES), place, align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, PAIRS, PAIRS), generate
