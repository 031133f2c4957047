"""The inner loop of matrix products on the CPU, written in LLVM's vectors because loops do not give it.

    out[i + r, p : p + 32] += Σ_j a[at + r · down + j · right] · b[j, p : p + 32]     r = 0 … 3, j = 0 … k − 1

Four rows of 32 columns stay in registers over the whole sum: 8 multiply-adds for 2 loads and 4 broadcasts, and eight
sums that do not wait for each other. Loops in Numba keep their sums in memory and reached about half of this rate
(tried: 4 × 4 rows at once, and sums over j inside of the columns, which is not vectorised at all). LLVM splits the
vectors for machines whose registers are shorter; each sum is in the order of j with one rounding a term on all of them.
Whole numbers are multiplied and added in their own type, int32 in int32, which Numba's loops would widen.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic as _numba_intrinsic

ROWS = 4
COLUMNS = 32
_VECTOR_BITS = 512


_intrinsic: Any = _numba_intrinsic  # typed as what it wraps, not as what it returns


@_intrinsic
def add_tile(typing: Any, a: Any, at: Any, down: Any, right: Any, k: Any, b: Any, out: Any, i: Any, p: Any) -> Any:
    """Add a product to `ROWS` rows and `COLUMNS` columns of `out`; a is 1-D, b and out 2-D with contiguous rows."""
    if not all(isinstance(array, types.Array) and array.dtype == a.dtype for array in (a, b, out)):
        return None
    signature = types.void(a, types.int64, types.int64, types.int64, types.int64, b, out, types.int64, types.int64)

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, at, down, right, k, b, out, i, p = arguments
        number = context.get_data_type(signature.args[0].dtype)
        item = signature.args[0].dtype.bitwidth // 8
        lanes = _VECTOR_BITS // (8 * item)
        vector = ir.VectorType(number, lanes)
        factor = context.make_array(signature.args[0])(context, builder, a).data

        def multiply_add(weight: Any, value: Any, total: Any) -> Any:
            if isinstance(number, ir.IntType):
                return builder.add(total, builder.mul(weight, value))
            form = ir.FunctionType(vector, [vector] * 3)
            name = f"llvm.fma.v{lanes}f{8 * item}"
            return builder.call(cgutils.get_or_insert_function(builder.module, form, name), [weight, value, total])

        def row_of(kind: Any, array: Any, row: Any, column: Any) -> Any:
            """Return pointers to the vectors of one row from a column on."""
            made = context.make_array(kind)(context, builder, array)
            step = builder.sdiv(builder.extract_value(made.strides, 0), ir.Constant(ir.IntType(64), item))
            first = builder.gep(made.data, [builder.add(builder.mul(row, step), column)])
            return [
                builder.bitcast(builder.gep(first, [ir.Constant(ir.IntType(64), v * lanes)]), vector.as_pointer())
                for v in range(COLUMNS // lanes)
            ]

        rows = [row_of(signature.args[6], out, builder.add(i, ir.Constant(ir.IntType(64), r)), p) for r in range(ROWS)]
        sums = [[cgutils.alloca_once_value(builder, builder.load(to, align=item)) for to in row] for row in rows]
        starts = [builder.add(at, builder.mul(down, ir.Constant(ir.IntType(64), r))) for r in range(ROWS)]
        with cgutils.for_range(builder, k) as loop:
            values = [builder.load(source, align=item) for source in row_of(signature.args[5], b, loop.index, p)]
            for start, row in zip(starts, sums, strict=True):
                weight = builder.load(builder.gep(factor, [builder.add(start, builder.mul(loop.index, right))]))
                one = builder.insert_element(ir.Constant(vector, ir.Undefined), weight, ir.Constant(ir.IntType(32), 0))
                spread = builder.shuffle_vector(
                    one, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)
                )
                for total, value in zip(row, values, strict=True):
                    builder.store(multiply_add(spread, value, builder.load(total)), total)
        for row, totals in zip(rows, sums, strict=True):
            for to, total in zip(row, totals, strict=True):
                builder.store(builder.load(total), to, align=item)
        return context.get_dummy_value()

    return signature, lower
