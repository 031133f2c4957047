"""Sine and cosine for hidden layers of perceptrons: the same bits on every target, in vectors where loops are.

    n = round(z / π [+ 1/2]);  r = z − (n [− 1/2]) · π;  sin z, cos z = (−1)^n · (r + r³ · P(r²)),  |r| ≤ π/2

The brackets are the cosine's. P has the least relative error on the interval (found by Remez' exchange): degree 3 in r²
for float32, 6e-9, and 7 for float64, 3e-19. π is taken off in two parts by multiply-adds, so that the error stays
within 2e-7 (4e-16) up to |z| = 2^12 (2^40); past 2^22 (2^51) what comes out is some number of −1 to 1. What is not
finite gives NaN. Written in LLVM's instructions because the types differ in their constants, and since sine and cosine
of the libraries are neither vectors in Numba's loops nor, on CUDA, free of float64.

Source of the reduction: Cody and Waite, Software Manual for the Elementary Functions, 1980, chapter 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic as _numba_intrinsic

from tilestream.kernels.language import core

_intrinsic: Any = _numba_intrinsic  # typed as what it wraps, not as what it returns
_INVERSE = 0.3183098861837907
_HALF_PI = 1.5707963267948966


@dataclass(frozen=True, kw_only=True)
class _Constants:
    """What one type of numbers needs."""

    round: float
    """Added to a number it leaves a whole one, whose parity is the last bit: 1.5 times the first that has no halves."""
    parts: tuple[float, float]
    """π as a number and the rest."""
    terms: tuple[float, ...]
    """P, the highest power first."""


_FLOAT32 = _Constants(
    round=1.5 * 2**23,
    parts=(float.fromhex("0x1.921fb6p+1"), float.fromhex("-0x1.777a5cp-24")),
    terms=(2.6057507391710763e-6, -1.9809590122148851e-4, 8.3330660830104361e-3, -1.6666659544585735e-1),
)
_FLOAT64 = _Constants(
    round=1.5 * 2**52,
    parts=(float.fromhex("0x1.921fb54442d18p+1"), float.fromhex("0x1.1a62633145c07p-53")),
    terms=(
        2.7211569630041449e-15, -7.6429898154621827e-13, 1.6058939643005460e-10, -2.5052106871580843e-8,
        2.7557319211124276e-6, -1.9841269841209145e-4, 8.3333333333331941e-3, -1.6666666666666666e-1,
    ),
)  # fmt: skip


def _lower(is_cosine: bool, context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    z, number = arguments[0], arguments[0].type
    is_single = number == ir.FloatType()
    constants = _FLOAT32 if is_single else _FLOAT64
    whole = ir.IntType(32 if is_single else 64)

    def value(of: float) -> Any:
        return ir.Constant(number, of)

    turns = builder.fma(z, value(_INVERSE), value(0.5)) if is_cosine else builder.fmul(z, value(_INVERSE))
    shifted = builder.fadd(turns, value(constants.round))
    off = builder.fsub(shifted, value(constants.round))
    if is_cosine:
        off = builder.fsub(off, value(0.5))
    rest = builder.fma(off, value(-constants.parts[1]), builder.fma(off, value(-constants.parts[0]), z))
    for limit, sign in ((_HALF_PI, ">"), (-_HALF_PI, "<")):  # reached where n is no longer exact; NaN is neither
        rest = builder.select(builder.fcmp_ordered(sign, rest, value(limit)), value(limit), rest)
    square = builder.fmul(rest, rest)
    total = value(constants.terms[0])
    for term in constants.terms[1:]:
        total = builder.fma(total, square, value(term))
    found = builder.fma(builder.fmul(rest, square), total, rest)
    odd = builder.shl(builder.bitcast(shifted, whole), ir.Constant(whole, whole.width - 1))
    return builder.bitcast(builder.xor(builder.bitcast(found, whole), odd), number)


@_intrinsic
def _sine(typing: Any, z: Any) -> Any:
    return _typed(z, is_cosine=False)


@_intrinsic
def _cosine(typing: Any, z: Any) -> Any:
    return _typed(z, is_cosine=True)


def _typed(z: Any, *, is_cosine: bool) -> Any:
    if z not in (types.float32, types.float64):
        return None
    return z(z), lambda *arguments: _lower(is_cosine, *arguments)


@core
def sine_core(z: Any) -> Any:
    """Return the sine of a number of radians."""
    return _sine(z)


@core
def cosine_core(z: Any) -> Any:
    """Return the cosine of a number of radians, the slope of the sine."""
    return _cosine(z)
