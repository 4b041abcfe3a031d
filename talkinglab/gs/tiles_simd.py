"""Sixteen floats at once: a value type for Numba kernels, lowered to LLVM's <16 x float>; chapter `13_gs.tiles` explains it.

One zmm register with AVX-512, two ymm with AVX2, four q with NEON: LLVM splits the vector where the machine has shorter ones.
Nothing here is "fast" mathematics: the same expression gives the same bits in every kernel, which the backward pass relies on.
Offsets count floats in a flat, C-contiguous array and are not checked.
"""
import operator
import sys

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.datamodel.models import PrimitiveModel
from numba.core.extending import lower_builtin, type_callable
from numba.extending import intrinsic, register_model

LANES = 16
I1, I8, I16, I32, I64, F32 = ir.IntType(1), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
VEC, IVEC, MASK = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES), ir.VectorType(I1, LANES)


class LanesType(types.Type):
    def __init__(self): super().__init__("float32x16")
class MaskType(types.Type):
    def __init__(self): super().__init__("boolx16")
V, M = LanesType(), MaskType()

@register_model(LanesType)
class LanesModel(PrimitiveModel):
    def __init__(self, manager, kind): super().__init__(manager, kind, VEC)
@register_model(MaskType)
class MaskModel(PrimitiveModel):
    def __init__(self, manager, kind): super().__init__(manager, kind, MASK)


def ints(values): return ir.Constant(ir.VectorType(I32, len(values)), list(values))
def broadcast(b, x):
    one = b.insert_element(ir.Constant(VEC, ir.Undefined), x, ir.Constant(I32, 0))
    return b.shuffle_vector(one, ir.Constant(VEC, ir.Undefined), ints([0]*LANES))
def lane(b, v, i): return b.extract_element(v, ir.Constant(I32, i))
def address(c, b, kind, array, offset): return b.gep(c.make_array(kind)(c, b, array).data, [offset])
def call(b, name, result, args):
    return b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(result, [a.type for a in args]), name), args)

# %% Arithmetic and comparison, between vectors or a vector and a float32

def operate(op, emit, result):
    @type_callable(op)
    def typer(context):
        def choose(x, y):
            if {x, y} in ({V}, {V, types.float32}): return result
        return choose
    wide = lambda b, x: x if x.type==VEC else broadcast(b, x)
    for pair in ((V, V), (V, types.float32), (types.float32, V)):
        lower_builtin(op, *pair)(lambda c, b, s, a: emit(b, wide(b, a[0]), wide(b, a[1])))

for op, name in dict(add="fadd", sub="fsub", mul="fmul", truediv="fdiv", iadd="fadd", isub="fsub", imul="fmul").items():
    operate(getattr(operator, op), lambda b, x, y, name=name: getattr(b, name)(x, y), V)
for op, sign in dict(gt=">", ge=">=", lt="<", le="<=").items():
    operate(getattr(operator, op), lambda b, x, y, sign=sign: b.fcmp_ordered(sign, x, y), M)

for op, name in ((operator.and_, "and_"), (operator.or_, "or_")):
    type_callable(op)(lambda context: lambda x, y: M if x==y==M else None)
    lower_builtin(op, M, M)(lambda c, b, s, a, name=name: getattr(b, name)(a[0], a[1]))


@intrinsic
def fill(tc, x):
    "x in every lane."
    return V(types.float32), lambda c, b, s, a: broadcast(b, a[0])

@intrinsic
def count_up(tc):
    "0, 1, ... 15."
    return V(), lambda c, b, s, a: ir.Constant(VEC, [float(i) for i in range(LANES)])

@intrinsic
def fma(tc, x, y, z):
    "x y + z, rounded once where the machine can."
    return V(V, V, V), lambda c, b, s, a: call(b, "llvm.fmuladd.v16f32", VEC, a)

@intrinsic
def sqrt(tc, x): return V(V), lambda c, b, s, a: call(b, "llvm.sqrt.v16f32", VEC, a)
@intrinsic
def floor(tc, x): return V(V), lambda c, b, s, a: call(b, "llvm.floor.v16f32", VEC, a)
@intrinsic
def ceil(tc, x): return V(V), lambda c, b, s, a: call(b, "llvm.ceil.v16f32", VEC, a)

@intrinsic
def select(tc, m, x, y):
    "x where m, else y."
    return V(M, V, V), lambda c, b, s, a: b.select(*a)

@intrinsic
def minimum(tc, x, y):
    "The smaller; y where either is NaN."
    return V(V, V), lambda c, b, s, a: b.select(b.fcmp_ordered("<", a[0], a[1]), a[0], a[1])
@intrinsic
def maximum(tc, x, y):
    "The larger; y where either is NaN."
    return V(V, V), lambda c, b, s, a: b.select(b.fcmp_ordered(">", a[0], a[1]), a[0], a[1])

@intrinsic
def bits(tc, m):
    "The mask as a whole number, lane 0 lowest."
    return types.int64(M), lambda c, b, s, a: b.zext(b.bitcast(a[0], I16), I64)

@intrinsic
def negated(tc, x):
    "-|x|."
    def emit(c, b, s, a): return b.bitcast(b.or_(b.bitcast(a[0], IVEC), ints([-2**31]*LANES)), VEC)
    return V(V), emit

@intrinsic
def scale_by_power(tc, p, t):
    "p 2^k, where the low bits of t hold k (see `exp2`)."
    def emit(c, b, s, a): return b.bitcast(b.add(b.bitcast(a[0], IVEC), b.shl(b.bitcast(a[1], IVEC), ints([23]*LANES))), VEC)
    return V(V, V), emit

@intrinsic
def exponent(tc, x):
    "The k of x = m 2^k with 1 <= m < 2, as a float; x > 0 and normal."
    def emit(c, b, s, a):
        k = b.lshr(b.bitcast(a[0], IVEC), ints([23]*LANES))
        return b.sitofp(b.sub(k, ints([127]*LANES)), VEC)
    return V(V), emit

@intrinsic
def mantissa(tc, x):
    "The m of x = m 2^k."
    def emit(c, b, s, a):
        m = b.and_(b.bitcast(a[0], IVEC), ints([0x007FFFFF]*LANES))
        return b.bitcast(b.or_(m, ints([0x3F800000]*LANES)), VEC)
    return V(V), emit

# %% Memory

@intrinsic
def load(tc, array, offset):
    def emit(c, b, s, a):
        x = b.load(b.bitcast(address(c, b, s.args[0], a[0], a[1]), VEC.as_pointer()))
        x.align = 4
        return x
    return V(array, types.intp), emit

@intrinsic
def store(tc, array, offset, v):
    def emit(c, b, s, a):
        b.store(a[2], b.bitcast(address(c, b, s.args[0], a[0], a[1]), VEC.as_pointer())).align = 4
        return c.get_dummy_value()
    return types.none(array, types.intp, V), emit

@intrinsic
def store_whole(tc, array, offset, v):
    "Into an int32 array, cut to whole numbers."
    def emit(c, b, s, a):
        b.store(b.fptosi(a[2], IVEC), b.bitcast(address(c, b, s.args[0], a[0], a[1]), IVEC.as_pointer())).align = 4
        return c.get_dummy_value()
    return types.none(array, types.intp, V), emit

@intrinsic
def gather(tc, array, offset, stride):
    "array[offset + lane stride]."
    def emit(c, b, s, a):
        data, at, v = c.make_array(s.args[0])(c, b, a[0]).data, a[1], ir.Constant(VEC, ir.Undefined)
        for i in range(LANES):
            v = b.insert_element(v, b.load(b.gep(data, [at])), ir.Constant(I32, i))
            at = b.add(at, a[2])
        return v
    return V(array, types.intp, types.intp), emit

@intrinsic
def scatter(tc, array, offset, stride, v):
    "array[offset + lane stride] = v, cut to whole numbers for an int32 array."
    def emit(c, b, s, a):
        data, at = c.make_array(s.args[0])(c, b, a[0]).data, a[1]
        v = b.fptosi(a[3], IVEC) if s.args[0].dtype==types.int32 else a[3]
        for i in range(LANES):
            b.store(lane(b, v, i), b.gep(data, [at]))
            at = b.add(at, a[2])
        return c.get_dummy_value()
    return types.none(array, types.intp, types.intp, V), emit

@intrinsic
def squeeze(tc, array, offset, m, v):
    "Write the lanes of v that m names, one after the other."
    def emit(c, b, s, a):
        call(b, "llvm.masked.compressstore.v16f32", ir.VoidType(), [a[3], address(c, b, s.args[0], a[0], a[1]), a[2]])
        return c.get_dummy_value()
    return types.none(array, types.intp, M, V), emit

@intrinsic
def squeeze_places(tc, array, offset, m, first, step):
    "Write first + step lane for the lanes that m names, one after the other, into an int32 array."
    def emit(c, b, s, a):
        wide = lambda x: b.shuffle_vector(b.insert_element(ir.Constant(IVEC, ir.Undefined), b.trunc(x, I32), ir.Constant(I32, 0)),
                                          ir.Constant(IVEC, ir.Undefined), ints([0]*LANES))
        v = b.add(wide(a[3]), b.mul(wide(a[4]), ints(range(LANES))))
        call(b, "llvm.masked.compressstore.v16i32", ir.VoidType(), [v, address(c, b, s.args[0], a[0], a[1]), a[2]])
        return c.get_dummy_value()
    return types.none(array, types.intp, M, types.int64, types.int64), emit

@intrinsic
def spread(tc, array, offset, m):
    "The reverse of `squeeze`: consecutive floats into the lanes that m names, 0 elsewhere."
    def emit(c, b, s, a):
        return call(b, "llvm.masked.expandload.v16f32", VEC, [address(c, b, s.args[0], a[0], a[1]), a[2], ir.Constant(VEC, None)])
    return V(array, types.intp, M), emit

# %% Sums

def merged(b, x, y, d):
    "Add neighbours d apart, of x into the lower places and of y into the upper ones."
    low = [i for i in range(LANES) if i%(2*d)<d]
    return b.fadd(*(b.shuffle_vector(x, y, ints([i+s for i in low]+[i+s+LANES for i in low])) for s in (0, d)))

def transposed_sum(b, vs):
    "Lane i = the sum over the lanes of vs[i]: 15 merges for all sixteen, instead of four additions for each."
    vs = vs+[ir.Constant(VEC, None)]*(LANES-len(vs))
    for d in (8, 4, 2, 1): vs = [merged(b, vs[i], vs[i+1], d) for i in range(0, len(vs), 2)]
    return vs[0]

@intrinsic
def sums(tc, *vs):
    "Lane i = the sum of all lanes of argument i; at most sixteen arguments."
    n = len(vs[0]) if isinstance(vs[0], types.BaseTuple) else len(vs)
    def emit(c, b, s, a): return transposed_sum(b, [b.extract_value(a[0], i) for i in range(n)])
    return V(types.StarArgTuple([V]*n)), emit

@intrinsic
def total_of(tc, v):
    "The sum of all lanes."
    return types.float32(V), lambda c, b, s, a: lane(b, transposed_sum(b, [a[0]]), 0)

@intrinsic
def dots(tc, array, places, at, shift, v):
    "Lane i = sixteen floats of `array`, from places[at+i] + shift on, times v, summed."
    def emit(c, b, s, a):
        rows = [pixel(c, b, s, a, i) for i in range(LANES)]
        return transposed_sum(b, [b.fmul(r, a[4]) for r in rows])
    return V(array, places, types.intp, types.intp, V), emit

@intrinsic
def weighted(tc, array, places, at, shift, weights, total):
    "total + the sum over i < 16 of weights[at+i] times sixteen floats of `array` from places[at+i] + shift on."
    def emit(c, b, s, a):
        parts = [a[5]]+[ir.Constant(VEC, None)]*3
        for i in range(LANES):
            w = broadcast(b, b.load(b.gep(c.make_array(s.args[4])(c, b, a[4]).data, [b.add(a[2], ir.Constant(I64, i))])))
            parts[i%4] = call(b, "llvm.fmuladd.v16f32", VEC, [w, pixel(c, b, s, a, i), parts[i%4]])
        return b.fadd(b.fadd(parts[0], parts[1]), b.fadd(parts[2], parts[3]))
    return V(array, places, types.intp, types.intp, weights, V), emit

def pixel(c, b, s, a, i):
    place = b.load(address(c, b, s.args[1], a[1], b.add(a[2], ir.Constant(I64, i))))
    x = b.load(b.bitcast(address(c, b, s.args[0], a[0], b.add(b.sext(place, I64), a[3])), VEC.as_pointer()))
    x.align = 4
    return x

# %% Whole numbers, and threads that share a list of jobs

@intrinsic
def lowest(tc, x):
    "Index of the lowest bit that is set; 64 if none is."
    return types.int64(types.int64), lambda c, b, s, a: call(b, "llvm.cttz.i64", I64, [a[0], ir.Constant(I1, 0)])
@intrinsic
def highest(tc, x):
    "Index of the highest bit that is set; -1 if none is."
    def emit(c, b, s, a): return b.sub(ir.Constant(I64, 63), call(b, "llvm.ctlz.i64", I64, [a[0], ir.Constant(I1, 0)]))
    return types.int64(types.int64), emit

@intrinsic
def how_many(tc, x):
    "How many bits are set."
    return types.int64(types.int64), lambda c, b, s, a: call(b, "llvm.ctpop.i64", I64, a)

@intrinsic
def float_bits(tc, x): return types.uint32(types.float32), lambda c, b, s, a: b.bitcast(a[0], I32)

def counter(c, b, s, a, place): return address(c, b, s.args[0], a[0], b.add(b.mul(a[1], ir.Constant(I64, 16)), ir.Constant(I64, place)))

@intrinsic
def take_part(tc, jobs, phase):
    "The next part of a phase: each number is given out once, whoever asks."
    def emit(c, b, s, a): return b.atomic_rmw("add", counter(c, b, s, a, 0), ir.Constant(I64, 1), "seq_cst")
    return types.int64(jobs, types.int64), emit

@intrinsic
def part_done(tc, jobs, phase):
    "One more part of the phase is done."
    def emit(c, b, s, a): return b.atomic_rmw("add", counter(c, b, s, a, 8), ir.Constant(I64, 1), "seq_cst")
    return types.int64(jobs, types.int64), emit

@intrinsic
def parts_done(tc, jobs, phase):
    def emit(c, b, s, a): return b.load_atomic(counter(c, b, s, a, 8), "seq_cst", 8)
    return types.int64(jobs, types.int64), emit

let_others_run = types.ExternalFunction("SwitchToThread" if sys.platform=="win32" else "sched_yield", types.int32())

@njit
def await_parts(jobs, phase, n):
    "Wait until all n parts of a phase are done."
    spins = 0
    while parts_done(jobs, phase)<n:
        spins += 1
        if spins>500: let_others_run()
