"""The loops of the CPU renderer, compiled by Numba; chapter `13_gs.tiles` explains them.

Compiled at first use, once for a machine, then taken from a cache. Every kernel is called by several threads with the same arguments:
they share the parts of each phase through `jobs`, so the result does not depend on who takes which part, nor on how many come to help.
Arrays are C-contiguous. Names: b cameras, n Gaussians, m = b n rows, e entries (one for each row in each tile that it touches).
"""
import math

import numpy as np
from numba import njit

from .tiles_simd import (
    await_parts, bits, ceil, count_up, dots, exponent, fill, float_bits, floor, fma, gather, highest, how_many, load, lowest, mantissa, maximum, minimum,
    negated, part_done, scale_by_power, scatter, select, spread, sqrt, squeeze, squeeze_places, store, store_whole, sums, take_part, total_of, weighted,
)

F, I = np.float32, np.int64
ROWS = 16                # Pixel rows of a tile; its columns are 2^shift
MAX_ALPHA, MIN_ALPHA, MIN_T = F(0.999), F(1/255), F(1e-4)
FAINT = F(math.log2(1/255))
HALF_LOG2E, LN2 = F(0.5*math.log2(math.e)), F(math.log(2))
MAGIC = F(1.5*2**23)     # Adding it rounds to a whole number, which is then in the low bits
EXP2 = tuple(F(c) for c in (1.0000001, 0.69314694, 0.24022122, 0.055507425, 0.00967546, 0.001326697)) # 2^f for |f| <= 1/2
LOG2 = tuple(F(2/math.log(2)/k) for k in (1, 3, 5, 7))
LARGE = F(1e15)
RADIX = 2048
PAD = 11                 # Pixels between two rows of many channels: keeps rows that follow each other from sharing a 4 KiB page offset
JIT = dict(nogil=True, cache=True, error_model="numpy")


@njit
def exp2(e):
    "2^e for -100 < e <= 0, by a polynomial on [-1/2, 1/2] and the exponent bits."
    t = e+MAGIC
    f = e-(t-MAGIC)
    p = fma(fill(EXP2[5]), f, fill(EXP2[4]))
    p = fma(p, f, fill(EXP2[3]))
    p = fma(p, f, fill(EXP2[2]))
    p = fma(p, f, fill(EXP2[1]))
    return scale_by_power(fma(p, f, fill(EXP2[0])), t)


@njit
def log2(x):
    "log2 of x > 0: the exponent bits, and the series of the inverse hyperbolic tangent."
    k, m = exponent(x), mantissa(x)
    high = m>F(1.4142135)
    m, k = select(high, m*F(0.5), m), select(high, k+F(1), k)
    s = (m-F(1))/(m+F(1))
    q = s*s
    p = fma(fill(LOG2[3]), q, fill(LOG2[2]))
    p = fma(p, q, fill(LOG2[1]))
    return fma(fma(p, q, fill(LOG2[0])), s, k)


@njit
def cut(n, part, parts):
    "Where a part begins."
    return n*part//parts

# %% Projection, sixteen Gaussians at a time

@njit
def turned(q, i):
    "Rows of the rotation matrix of sixteen quaternions, and one over their length."
    w, x, y, z = gather(q, 4*i, 4), gather(q, 4*i+1, 4), gather(q, 4*i+2, 4), gather(q, 4*i+3, 4)
    r = F(1)/sqrt(w*w+x*x+y*y+z*z)
    w, x, y, z = w*r, x*r, y*r, z*r
    one, two = fill(F(1)), F(2)
    return ((one-two*(y*y+z*z), two*(x*y-w*z), two*(x*z+w*y)), (two*(x*y+w*z), one-two*(x*x+z*z), two*(y*z-w*x)),
            (two*(x*z-w*y), two*(y*z+w*x), one-two*(x*x+y*y)), (w, x, y, z), r)

@njit
def dot(a, b): return fma(a[0], b[0], fma(a[1], b[1], a[2]*b[2]))
@njit
def cross(a, b): return (a[1]*b[2]-a[2]*b[1], a[2]*b[0]-a[0]*b[2], a[0]*b[1]-a[1]*b[0])
@njit
def along(s, a): return (s*a[0], s*a[1], s*a[2])
@njit
def plus(a, b): return (a[0]+b[0], a[1]+b[1], a[2]+b[2])
@njit
def row(a, M): return (a[0]*M[0][0]+a[1]*M[1][0]+a[2]*M[2][0], a[0]*M[0][1]+a[1]*M[1][1]+a[2]*M[2][1], a[0]*M[0][2]+a[1]*M[1][2]+a[2]*M[2][2])

@njit
def camera_rows(view):
    "The rotation of a world-to-camera matrix, each number in every lane."
    return ((fill(view[0,0]), fill(view[0,1]), fill(view[0,2])), (fill(view[1,0]), fill(view[1,1]), fill(view[1,2])),
            (fill(view[2,0]), fill(view[2,1]), fill(view[2,2])))

@njit
def slopes(K, size, axis, ratio):
    "x/z, held within 15 % of the image outside it, and which of them needed no holding."
    f, c, w = K[axis,axis], K[axis,2], F(size)
    low, high = -(c/f+F(0.15)*w/f), (w-c)/f+F(0.15)*w/f
    held = minimum(maximum(ratio, fill(low)), fill(high))
    return held, (ratio>=low) & (ratio<=high)

@njit
def footprint(view, K, width, height, eps2d, near, far, means, quats, scales, i):
    """What sixteen Gaussians look like from a camera.

    U and V are the rows of J W R S, the 2 x 3 square root of the image covariance; their cross product gives its determinant without
    cancellation, however thin the splat."""
    W = camera_rows(view)
    p = (gather(means, 3*i, 3), gather(means, 3*i+1, 3), gather(means, 3*i+2, 3))
    x, y, z = dot(W[0], p)+view[0,3], dot(W[1], p)+view[1,3], dot(W[2], p)+view[2,3]
    ahead = (z>=near) & (z<=far)
    near_z = F(1)/select(ahead, z, fill(F(1)))
    R0, R1, R2, q, r = turned(quats, i)
    s = (gather(scales, 3*i, 3), gather(scales, 3*i+1, 3), gather(scales, 3*i+2, 3))
    S = ((R0[0]*s[0], R0[1]*s[1], R0[2]*s[2]), (R1[0]*s[0], R1[1]*s[1], R1[2]*s[2]), (R2[0]*s[0], R2[1]*s[1], R2[2]*s[2]))
    tx, free_x = slopes(K, width, I(0), x*near_z)
    ty, free_y = slopes(K, height, I(1), y*near_z)
    jx, jy = near_z*K[0,0], near_z*K[1,1]
    ax, ay = plus(along(jx, W[0]), along(F(-1)*jx*tx, W[2])), plus(along(jy, W[1]), along(F(-1)*jy*ty, W[2]))
    U, V = row(ax, S), row(ay, S)
    X = cross(U, V)
    a, b, c, bare = dot(U, U), dot(U, V), dot(V, V), dot(X, X)
    det = bare+(a+c+eps2d)*eps2d
    return (p, (x, y, z), ahead, near_z, (R0, R1, R2), q, r, s, S, (tx, ty), (free_x, free_y), (jx, jy), (ax, ay), U, V, X,
            a+eps2d, b, c+eps2d, bare, det, W)


@njit(**JIT)
def project(jobs, parts, means, quats, scales, opacities, views, Ks, width, height, eps2d, near, far, compensate,
            means2d, conics, depths, alphas, radii, bad):
    n, cameras = len(opacities), len(views)
    means, quats, scales = means.reshape(-1), quats.reshape(-1), scales.reshape(-1)
    m2, co, de, al, ra = means2d.reshape(-1), conics.reshape(-1), depths.reshape(-1), alphas.reshape(-1), radii.reshape(-1)
    blocks, one, zero = (n+15)//16, fill(F(1)), fill(F(0))
    while True:
        job = take_part(jobs, I(0))
        if job>=parts*cameras: break
        camera, part = job//parts, job%parts
        view, K = views[camera], Ks[camera]
        wrong = 0
        for block in range(cut(blocks, part, parts), cut(blocks, part+1, parts)):
            i = min(16*block, n-16)
            p, (x, y, z), ahead, rz, R, q, r, s, S, t, free, (jx, jy), rows, U, V, X, a, b, c, bare, det, W = footprint(
                view, K, width, height, eps2d, near, far, means, quats, scales, i)
            o = load(opacities, i)
            nothing = (p[0]+p[1]+p[2]+s[0]+s[1]+s[2]+q[0]+q[1]+q[2]+q[3]+r+o)*F(0) # NaN where something is not finite
            wrong |= 65535^bits((nothing>=zero) & (o>=zero) & (o<=one) & (r<F(1e15)) & (r>F(1e-15)))
            if compensate: o = o*sqrt(maximum(bare/det, fill(F(1e-12))))
            mx, my = jx*x+K[0,2], jy*y+K[1,2]
            extent = minimum(sqrt(maximum((log2(maximum(o, fill(F(1e-12))))-FAINT)*(F(2)*LN2), zero)), fill(F(3.33)))
            rx, ry = ceil(extent*sqrt(a)), ceil(extent*sqrt(c))
            seen = ahead & (det>zero) & (det<F(1e30)) & (o>=MIN_ALPHA)
            seen = seen & (mx+rx>zero) & (my+ry>zero) & (mx-rx<F(width)) & (my-ry<F(height))
            seen = seen & (rx<F(1e9)) & (ry<F(1e9)) & (nothing>=zero)
            j = camera*n+i
            scatter(m2, 2*j, 2, select(ahead, mx, zero))
            scatter(m2, 2*j+1, 2, select(ahead, my, zero))
            scatter(co, 3*j, 3, select(seen, c/det, one))
            scatter(co, 3*j+1, 3, select(seen, zero-b/c, zero))
            scatter(co, 3*j+2, 3, select(seen, one/c, one))
            store(de, j, z)
            store(al, j, select(seen, o, zero))
            scatter(ra, 2*j, 2, select(seen, rx, zero))
            scatter(ra, 2*j+1, 2, select(seen, ry, zero))
        bad[job] = wrong
        part_done(jobs, I(0))
    await_parts(jobs, I(0), parts*cameras)


@njit(**JIT)
def unproject(jobs, parts, means, quats, scales, opacities, views, Ks, width, height, eps2d, near, far, compensate,
              alphas, v_means2d, v_conics, v_depths, v_alphas, v_means, v_quats, v_scales, v_opacities, v_views):
    """The chain rule of `project`, camera after camera; v_views[part] holds each part's share of the cameras' gradients.

    With conic (A, k, d): A = c/det, k = -b/c, d = 1/c, where a = U.U, b = U.V, c = V.V and det = |U x V|^2 + eps2d (a + c + eps2d)."""
    n, cameras = len(opacities), len(views)
    means, quats, scales = means.reshape(-1), quats.reshape(-1), scales.reshape(-1)
    m2, co, de, al, va = v_means2d.reshape(-1), v_conics.reshape(-1), v_depths.reshape(-1), alphas.reshape(-1), v_alphas.reshape(-1)
    vm, vq, vs = v_means.reshape(-1), v_quats.reshape(-1), v_scales.reshape(-1)
    blocks, one, two, zero = (n+15)//16, fill(F(1)), F(2), fill(F(0))
    while True:
        part = take_part(jobs, I(0))
        if part>=parts: break
        for camera in range(cameras):
            view, K = views[camera], Ks[camera]
            Ex, Ey, Ez = zero, zero, zero
            D00, D01, D02, D10, D11, D12, D20, D21, D22 = zero, zero, zero, zero, zero, zero, zero, zero, zero
            for block in range(cut(blocks, part, parts), cut(blocks, part+1, parts)):
                i = min(16*block, n-16)
                own = count_up()>=F(16*block-i) # lanes that the block before has not done
                p, (x, y, z), ahead, rz, R, q, r, s, S, (tx, ty), (free_x, free_y), (jx, jy), (ax, ay), U, V, X, a, b, c, bare, det, W = footprint(
                    view, K, width, height, eps2d, near, far, means, quats, scales, i)
                j = camera*n+i
                seen = load(al, j)>zero
                # Conic and opacity to U and V
                A, k, d = c/det, zero-b/c, one/c
                vA, vk, vd = gather(co, 3*j, 3), gather(co, 3*j+1, 3), gather(co, 3*j+2, 3)
                P = plus(cross(V, X), along(fill(eps2d), U)) # c U - b V
                G, h, g = F(-2)*vA*A/det, vk*d, two*vd*d*d
                vU = plus(along(G, P), along(zero-h, V))
                vV = plus(along(G*k, P), plus(along(zero-h, U), along(zero-(two*h*k+g), V)))
                o, vo = load(opacities, i), load(va, j)
                if compensate:
                    ratio = bare/det
                    comp = sqrt(maximum(ratio, fill(F(1e-12))))
                    v_ratio = select(ratio>F(1e-12), vo*o/(two*comp), zero)
                    v_det = zero-v_ratio*ratio/det
                    v_bare, e = two*(v_ratio/det+v_det), two*v_det*eps2d
                    vU = plus(vU, plus(along(e, U), along(v_bare, cross(V, X))))
                    vV = plus(vV, plus(along(e, V), along(v_bare, cross(X, U))))
                    vo = vo*comp
                # U = ax S, V = ay S, S = R diag(s)
                vS = (plus(along(ax[0], vU), along(ay[0], vV)), plus(along(ax[1], vU), along(ay[1], vV)), plus(along(ax[2], vU), along(ay[2], vV)))
                v_ax, v_ay = (dot(S[0], vU), dot(S[1], vU), dot(S[2], vU)), (dot(S[0], vV), dot(S[1], vV), dot(S[2], vV))
                vs0 = R[0][0]*vS[0][0]+R[1][0]*vS[1][0]+R[2][0]*vS[2][0]
                vs1 = R[0][1]*vS[0][1]+R[1][1]*vS[1][1]+R[2][1]*vS[2][1]
                vs2 = R[0][2]*vS[0][2]+R[1][2]*vS[1][2]+R[2][2]*vS[2][2]
                n00, n01, n02 = vS[0][0]*s[0], vS[0][1]*s[1], vS[0][2]*s[2]
                n10, n11, n12 = vS[1][0]*s[0], vS[1][1]*s[1], vS[1][2]*s[2]
                n20, n21, n22 = vS[2][0]*s[0], vS[2][1]*s[1], vS[2][2]*s[2]
                qw, qx, qy, qz = q
                gw = two*(qz*(n10-n01)+qy*(n02-n20)+qx*(n21-n12))
                gx = two*(qy*(n01+n10)+qz*(n02+n20)+qw*(n21-n12)-two*qx*(n11+n22))
                gy = two*(qx*(n01+n10)+qz*(n12+n21)+qw*(n02-n20)-two*qy*(n00+n22))
                gz = two*(qx*(n02+n20)+qy*(n12+n21)+qw*(n10-n01)-two*qz*(n00+n11))
                gq = qw*gw+qx*gx+qy*gy+qz*gz
                # ax = jx (W0 - tx W2), and the centre
                v_jx, v_jy = dot(v_ax, W[0])-tx*dot(v_ax, W[2]), dot(v_ay, W[1])-ty*dot(v_ay, W[2])
                v_tx, v_ty = zero-jx*dot(v_ax, W[2]), zero-jy*dot(v_ay, W[2])
                v_tx, v_ty = select(free_x, v_tx, zero), select(free_y, v_ty, zero)
                vmx, vmy = gather(m2, 2*j, 2), gather(m2, 2*j+1, 2)
                ex, ey = select(seen, jx*vmx+rz*v_tx, zero), select(seen, jy*vmy+rz*v_ty, zero)
                ez = zero-rz*(jx*x*vmx+jy*y*vmy+jx*v_jx+jy*v_jy+rz*(x*v_tx+y*v_ty))
                ez = select(seen, ez, zero)+load(de, j)
                back = plus(along(ex, W[0]), plus(along(ey, W[1]), along(ez, W[2])))
                # Write; add to what the cameras before this one gave
                gq0, gq1, gq2, gq3 = select(seen, (gw-qw*gq)*r, zero), select(seen, (gx-qx*gq)*r, zero), select(seen, (gy-qy*gq)*r, zero), select(seen, (gz-qz*gq)*r, zero)
                vs0, vs1, vs2, vo = select(seen, vs0, zero), select(seen, vs1, zero), select(seen, vs2, zero), select(seen, vo, zero)
                b0, b1, b2 = back
                if camera>0:
                    b0, b1, b2 = keep(own, vm, 3*i, I(3), b0), keep(own, vm, 3*i+1, I(3), b1), keep(own, vm, 3*i+2, I(3), b2)
                    gq0, gq1, gq2, gq3 = keep(own, vq, 4*i, I(4), gq0), keep(own, vq, 4*i+1, I(4), gq1), keep(own, vq, 4*i+2, I(4), gq2), keep(own, vq, 4*i+3, I(4), gq3)
                    vs0, vs1, vs2 = keep(own, vs, 3*i, I(3), vs0), keep(own, vs, 3*i+1, I(3), vs1), keep(own, vs, 3*i+2, I(3), vs2)
                    vo = keep(own, v_opacities, i, I(1), vo)
                scatter(vm, 3*i, 3, b0)
                scatter(vm, 3*i+1, 3, b1)
                scatter(vm, 3*i+2, 3, b2)
                scatter(vq, 4*i, 4, gq0)
                scatter(vq, 4*i+1, 4, gq1)
                scatter(vq, 4*i+2, 4, gq2)
                scatter(vq, 4*i+3, 4, gq3)
                scatter(vs, 3*i, 3, vs0)
                scatter(vs, 3*i+1, 3, vs1)
                scatter(vs, 3*i+2, 3, vs2)
                store(v_opacities, i, vo)
                # The camera
                ex, ey, ez = select(own, ex, zero), select(own, ey, zero), select(own, ez, zero)
                mine = own & seen
                u0, u1, u2 = select(mine, jx*v_ax[0], zero), select(mine, jx*v_ax[1], zero), select(mine, jx*v_ax[2], zero)
                w0, w1, w2 = select(mine, jy*v_ay[0], zero), select(mine, jy*v_ay[1], zero), select(mine, jy*v_ay[2], zero)
                Ex, Ey, Ez = Ex+ex, Ey+ey, Ez+ez
                D00, D01, D02 = D00+(ex*p[0]+u0), D01+(ex*p[1]+u1), D02+(ex*p[2]+u2)
                D10, D11, D12 = D10+(ey*p[0]+w0), D11+(ey*p[1]+w1), D12+(ey*p[2]+w2)
                D20, D21, D22 = D20+(ez*p[0]-tx*u0-ty*w0), D21+(ez*p[1]-tx*u1-ty*w1), D22+(ez*p[2]-tx*u2-ty*w2)
            store(v_views.reshape(-1), (part*cameras+camera)*16, sums(D00, D01, D02, Ex, D10, D11, D12, Ey, D20, D21, D22, Ez))
        part_done(jobs, I(0))
    await_parts(jobs, I(0), parts)

@njit
def keep(own, array, offset, stride, x):
    "What is there, and x added in the lanes that are ours."
    old = gather(array, offset, stride)
    return select(own, old+x, old)

# %% Which tiles does an ellipse touch?

@njit
def shapes(first, stop, means2d, conics, alphas, width, height, geo, rect):
    """geo = (x, y, -A/2 log2 e, k, -d/2 log2 e, log2 o, h, -h/2 hy^2): alpha = 2^(log2 o - A u^2/2 - d dy^2/2), u = dx + k dy; no pixel of a row is
    farther than h (1 - (dy/hy)^2/2) from u = 0. rect = first and last pixel column and row of {alpha >= 1/255}; the last is below the first where there is none."""
    m, zero, half = len(alphas), fill(F(0)), F(0.5)
    for block in range(first, stop):
        i = min(16*block, m-16)
        x, y = gather(means2d, 2*i, 2), gather(means2d, 2*i+1, 2)
        A, k, d, o = gather(conics, 3*i, 3), gather(conics, 3*i+1, 3), gather(conics, 3*i+2, 3), load(alphas, i)
        fine = (A>zero) & (A<LARGE) & (d>zero) & (d<LARGE) & (k<LARGE) & (k>-LARGE) & (o>=MIN_ALPHA) # no NaN passes these
        top = log2(maximum(o, fill(MIN_ALPHA)))
        reach = maximum((top-FAINT)*(F(2)*LN2), zero)*F(1.0001)+F(1e-3)
        A, d = select(fine, A, fill(F(1))), select(fine, d, fill(F(1)))
        hy = sqrt(reach/d)
        h, lean = sqrt(reach/A), k*hy
        hx = sqrt(h*h+lean*lean)
        x0, x1 = maximum(ceil(x-hx-half), zero), minimum(ceil(x+hx-half), fill(F(width)))-F(1)
        y0, y1 = maximum(ceil(y-hy-half), zero), minimum(ceil(y+hy-half), fill(F(height)))-F(1)
        fine = fine & (x1>=x0) & (y1>=y0)
        none = fill(F(-1))
        scatter(geo, 8*i, 8, x)
        scatter(geo, 8*i+1, 8, y)
        scatter(geo, 8*i+2, 8, A*(-HALF_LOG2E))
        scatter(geo, 8*i+3, 8, k)
        scatter(geo, 8*i+4, 8, d*(-HALF_LOG2E))
        scatter(geo, 8*i+5, 8, top)
        scatter(geo, 8*i+6, 8, h)
        scatter(geo, 8*i+7, 8, h*(d/reach)*F(-0.5))
        scatter(rect, 4*i, 4, select(fine, x0, zero))
        scatter(rect, 4*i+1, 4, select(fine, x1, none))
        scatter(rect, 4*i+2, 4, select(fine, y0, zero))
        scatter(rect, 4*i+3, 4, select(fine, y1, none))


@njit
def rows_between(g, left, right, y0, y1):
    "Pixel rows that the ellipse covers between two pixel columns: exact, from the two edges and the two poles."
    k, h = float(g[3]), float(g[6])
    hy = math.sqrt(-0.5*h/float(g[7]))
    xa, xb, lean = left+0.5-float(g[0]), right+0.5-float(g[0]), k*hy
    # On the rim (u/h)^2 + (dy/hy)^2 = 1 with u = dx + k dy: at a given dx a quadratic gives dy.
    s = h*h+lean*lean
    ra, rb = h*math.sqrt(max(s-xa*xa, 0.)), h*math.sqrt(max(s-xb*xb, 0.))
    scale = hy/s
    low = min(-lean*xa-ra, -lean*xb-rb)*scale
    high = max(-lean*xa+ra, -lean*xb+rb)*scale
    if xa<=-lean<=xb: high = hy
    if xa<=lean<=xb: low = -hy
    a = max(I(math.ceil(float(g[1])+low-0.501)), y0)
    b = min(I(math.floor(float(g[1])+high-0.499)), y1)
    return a, b


@njit(**JIT)
def arrange(jobs, parts, means2d, conics, alphas, depths, cameras, width, height, shift, geo, rect, keys, rows, spare_keys, spare_rows,
            places, state, per_tile, offsets, count, first, notes):
    """Order all rows from near to far, and count the entries of every tile.

    A stable radix sort of the depths' bits, 11 at a time: each part counts its own keys, so that all parts can write at once."""
    m = len(alphas)
    n = m//cameras
    blocks, phase = (m+15)//16, I(0)
    while True: # the shapes; keys of what is seen, each part's from its own start on
        part = take_part(jobs, phase)
        if part>=parts: break
        a, z = cut(blocks, part, parts), cut(blocks, part+1, parts)
        shapes(a, z, means2d, conics, alphas, width, height, geo.reshape(-1), rect.reshape(-1))
        low, high, at = np.uint32(0xFFFFFFFF), np.uint32(0), 16*a
        for i in range(16*a, min(16*z, m)):
            if rect[i,3]>=rect[i,2]:
                key = float_bits(depths[i])
                key = ~key if key>>np.uint32(31) else key|np.uint32(1<<31) # so that unsigned order is float order
                low, high = min(low, key), max(high, key)
                keys[at], rows[at] = key, i
                at += 1
        state[part,0], state[part,1], state[part,2], state[part,3] = 16*a, at, I(low), I(high)
        part_done(jobs, phase)
    await_parts(jobs, phase, parts)
    total, low, high = 0, I(0xFFFFFFFF), I(0)
    for part in range(parts):
        total += state[part,1]-state[part,0]
        low, high = min(low, state[part,2]), max(high, state[part,3])
    passes = 1
    while (high-low)>>(11*passes)>0: passes += 1
    if total==0: passes = 0
    base = np.uint32(low)
    for p in range(passes):
        bit = np.uint32(11*p)
        phase += 1
        while True:
            part = take_part(jobs, phase)
            if part>=parts: break
            place = places[part]
            place[:] = 0
            a, z = (state[part,0], state[part,1]) if p==0 else (cut(total, part, parts), cut(total, part+1, parts))
            for i in range(a, z): place[((keys[i]-base)>>bit)&np.uint32(RADIX-1)] += 1
            part_done(jobs, phase)
        await_parts(jobs, phase, parts)
        phase += 1
        while True:
            part = take_part(jobs, phase)
            if part>=1: break
            at = np.int32(0)
            for d in range(RADIX):
                for q in range(parts):
                    c = places[q,d]
                    places[q,d] = at
                    at += c
            part_done(jobs, phase)
        await_parts(jobs, phase, I(1))
        phase += 1
        while True:
            part = take_part(jobs, phase)
            if part>=parts: break
            place = places[part]
            a, z = (state[part,0], state[part,1]) if p==0 else (cut(total, part, parts), cut(total, part+1, parts))
            for i in range(a, z):
                d = ((keys[i]-base)>>bit)&np.uint32(RADIX-1)
                q = place[d]
                place[d] = q+1
                spare_keys[q], spare_rows[q] = keys[i], rows[i]
            part_done(jobs, phase)
        await_parts(jobs, phase, parts)
        keys, rows, spare_keys, spare_rows = spare_keys, spare_rows, keys, rows
    columns = (width+(1<<shift)-1)>>shift
    tiles = columns*((height+ROWS-1)//ROWS)
    phase += 1
    while True:
        part = take_part(jobs, phase)
        if part>=parts: break
        seen = per_tile[part]
        seen[:] = 0
        at, end, last, quarter = note_range(part, parts, total, len(notes), I(0)), note_range(part, parts, total, len(notes), I(1)), (1<<shift)-1, shift-2
        for r in range(cut(total, part, parts), cut(total, part+1, parts)):
            i = I(rows[r])
            x0, x1, y0, y1 = I(rect[i,0]), I(rect[i,1]), I(rect[i,2]), I(rect[i,3])
            c0, c1, found = x0>>shift, x1>>shift, 0
            start = i//n*tiles if cameras>1 else I(0)
            for column in range(c0, c1+1):
                xa, xb = max(column<<shift, x0), min((column<<shift)+last, x1)
                lo, hi = y0, y1
                if c0<c1 and y0>>4<y1>>4: lo, hi = rows_between(geo[i], xa, xb, y0, y1)
                if lo>hi: continue
                wide = ((xa&last)>>quarter)<<12 | ((xb&last)>>quarter)<<18
                for t in range(lo>>4, (hi>>4)+1):
                    tile = start+t*columns+column
                    seen[tile] += 1
                    found += 1
                    if at<end: notes[at] = tile<<20 | wide | max(lo-16*t, 0) | min(hi-16*t, 15)<<4
                    at += 1
            count[i] = found
        ranks = cut(total, part+1, parts)-cut(total, part, parts)
        state[part,4] = (at-note_range(part, parts, total, len(notes), I(0))+1)*total//max(ranks, 1)+parts if at>end else 0
        part_done(jobs, phase)
    await_parts(jobs, phase, parts)
    phase += 1
    while True: # where each tile's entries start, and within a tile the nearer part's first
        part = take_part(jobs, phase)
        if part>=1: break
        at = np.int32(0)
        for t in range(len(offsets)-1):
            offsets[t] = at
            for q in range(parts):
                c = per_tile[q,t]
                per_tile[q,t] = at
                at += c
        offsets[len(offsets)-1] = at
        at = np.int32(0)
        for i in range(m):
            first[i] = at
            at += count[i]
        state[0,5], state[1,5] = total, passes
        part_done(jobs, phase)
    await_parts(jobs, phase, I(1))


@njit
def note_range(part, parts, total, room, end):
    "Where a part's notes begin, or with end = 1 end."
    return cut(total, part+end, parts)*room//max(total, 1)


@njit
def fill_entries(part, parts, rows, total, place, count, first, notes, who, slot):
    """Bring the notes to their tiles: who = row << 20 and, in the tile, 16 times the quarters and the rows that it covers, first and last;
    slot = the entry's place among the row's entries."""
    at = note_range(part, parts, total, len(notes), I(0))
    for r in range(cut(total, part, parts), cut(total, part+1, parts)):
        i = I(rows[r])
        for k in range(count[i]):
            note = notes[at]
            e = place[note>>20]
            place[note>>20] = e+1
            who[e], slot[e] = i<<20 | note&0xFFFFF, first[i]+k
            at += 1

# %% Painting a tile, Gaussian after Gaussian, from near to far

@njit
def open_tile(t, columns, tiles, width, height, shift):
    "Camera, left and top pixel, width and height of a tile."
    camera, q = t//tiles, t%tiles
    left, top = (q%columns)<<shift, q//columns*ROWS
    return camera, left, top, min(1<<shift, width-left), min(ROWS, height-top)

@njit
def live_rows(alive, packed):
    "Those of the entry's rows that still let light through somewhere near it; `alive` has a bit for each row in each quarter of the tile."
    y0, y1 = packed&15, (packed>>4)&15
    span = alive & (-(I(1)<<((packed>>8)&63))) & ((I(1)<<((packed>>14)&63))*I(65535)+((I(1)<<((packed>>14)&63))-1))
    span |= span>>32
    return (span|span>>16) & ((2<<(y1-y0))-1)<<y0

@njit
def all_alive(wide, high, shift):
    alive = I(0)
    for j in range((wide+(1<<(shift-2))-1)>>(shift-2)): alive |= ((1<<high)-1)<<(16*j)
    return alive

@njit
def still_alive(alive, T, stride, shift):
    for j in range(4):
        for r in range(ROWS):
            at = r*stride+(j<<(shift-2))
            light = load(T, at)>fill(F(0))
            if shift==7: light = light | (load(T, at+16)>fill(F(0)))
            if bits(light)==0: alive &= ~(I(1)<<(16*j+r))
    return alive

@njit
def covered(pixels, qa, slope, level):
    "alpha at the pixels of a row: opacity times the bell curve, 0 where fainter than 1/255."
    e = fma(fma(pixels, qa, fill(slope)), pixels, fill(level))
    return select(e>=FAINT, minimum(exp2(e), fill(MAX_ALPHA)), fill(F(0)))

@njit
def light_left(light, o, pixels, qa, slope, level):
    """Sixteen pixels of a row meet a Gaussian: its alpha, the light T before it, its share of that light, what is left after it, and where the
    pixel goes on. All four kernels call this, so that a pass back sees the very light that the pass forward saw."""
    al = covered(pixels, qa, slope, level)
    T = load(light, o)
    share = al*T
    after = T-share
    return al, T, share, after, after>MIN_T

@njit
def strip(strips, n, live, j, v):
    "Append a strip: entry j of the group, v pixels into each row's chord, first and last row. Nothing where no row is left."
    strips[n] = j | v<<8 | lowest(live)<<16 | highest(live)<<24
    return n+(live!=0)

@njit
def plan(e0, e1, who, alive, shape, left, top, wide, stride, moments, lines, starts, strips):
    """Cut the entries e0 .. e1 - 1 of a tile, at most sixteen, into strips: windows of 16 pixels, one in each of some rows. Returns how many.

    For each entry and row, `lines` gets the slope and the level of log2 alpha, a parabola, at the first pixel of the row's chord, and for `moments`
    u, dy and dy^2 there; `starts`, where that pixel lies in the tile's planes. Half a chord is h sqrt(1 - q) <= h (1 - q/2), q = (dy/hy)^2. Planning sixteen at a time keeps the
    processor from waiting for one entry's numbers before it can paint it."""
    n, r = I(0), count_up()
    for e in range(e0, e1):
        packed, j = who[e], I(e-e0)
        live, at = live_rows(alive, packed), (packed>>20)*8
        if live==0: continue
        x, y, k, h = shape[at]-left, shape[at+1]-top, shape[at+3], shape[at+6]
        dy = r+(F(0.5)-y)
        lean, dy2 = dy*k, dy*dy
        half = fma(dy2, fill(shape[at+7]), fill(h))
        start = minimum(maximum(floor((x+F(0.5))-lean-half), fill(F(0))), fill(F(wide)))
        room = minimum((x-F(0.5))-lean+half, fill(F(wide-1)))-start
        u, qa = start+(F(0.5)-x)+lean, shape[at+2]
        store(lines, 32*j, u*(qa+qa))
        store(lines, 32*j+16, fma(u*u, fill(qa), fma(dy2, fill(shape[at+4]), fill(shape[at+5]))))
        if moments:
            store(lines, 512+48*j, u)
            store(lines, 528+48*j, dy)
            store(lines, 544+48*j, dy2)
        store_whole(starts, 16*j, fma(r, fill(F(stride)), start))
        live &= bits(room>=F(0))
        n = strip(strips, n, live, j, I(0))
        live &= bits(room>=F(16))
        n = strip(strips, n, live, j, I(16))
        if h>F(15):
            for v in range(32, wide, 16):
                live &= bits(room>=F(v))
                n = strip(strips, n, live, j, v)
    return n


@njit
def painted(buf, o, open_, share, color):
    old = load(buf, o)
    store(buf, o, select(open_, fma(share, color, old), old))


@njit(**JIT)
def paint(jobs, parts, tag, rows, total, notes, geo, cameras, width, height, shift, per_tile, count, first, who, slot, order, offsets, values, out, out_T):
    "Up to four channels, each in a plane of its own; len(tag) of them."
    C = len(tag)
    wide = 1<<shift
    columns = (width+wide-1)>>shift
    tiles = columns*((height+ROWS-1)//ROWS)
    lines, starts, strips, shape = np.empty(16*80, F), np.empty(16*ROWS, np.int32), np.empty(16*8+1, I), geo.reshape(-1)
    stride = wide+16
    plane = stride*ROWS+16 # no two planes 4 KiB apart, and room for a window that starts at the right edge
    buf, flat, flat_T = np.empty((C+1)*plane, F), out.reshape(-1), out_T.reshape(-1)
    ramp = count_up()
    while True:
        part = take_part(jobs, I(0))
        if part>=parts: break
        fill_entries(part, parts, rows, total, per_tile[part], count, first, notes, who, slot)
        part_done(jobs, I(0))
    await_parts(jobs, I(0), parts)
    while True:
        job = take_part(jobs, I(1))
        if job>=len(order): break
        t = order[job]
        camera, left, top, w, h = open_tile(t, columns, tiles, width, height, shift)
        buf[:] = F(0)
        for r in range(h): buf[r*stride:r*stride+w] = F(1)
        alive = all_alive(w, h, shift)
        for e0 in range(offsets[t], offsets[t+1], 16):
            for q in range(plan(e0, min(e0+16, offsets[t+1]), who, alive, shape, F(left), F(top), wide, stride, False, lines, starts, strips)):
                s = strips[q]
                j, v = s&15, (s>>8)&255
                i = who[e0+j]>>20
                pixels, qa = ramp+F(v), fill(shape[8*i+2])
                c0 = fill(values[i,0])
                c1 = fill(values[i,1]) if C>1 else c0
                c2 = fill(values[i,2]) if C>2 else c0
                c3 = fill(values[i,3]) if C>3 else c0
                for r in range((s>>16)&15, (s>>24)+1):
                    o = starts[16*j+r]+v
                    al, T, share, after, open_ = light_left(buf, o, pixels, qa, lines[32*j+r], lines[32*j+16+r])
                    store(buf, o, select(open_, after, negated(T))) # a pixel that has stopped keeps its T, negated
                    painted(buf, o+plane, open_, share, c0)
                    if C>1: painted(buf, o+2*plane, open_, share, c1)
                    if C>2: painted(buf, o+3*plane, open_, share, c2)
                    if C>3: painted(buf, o+4*plane, open_, share, c3)
            alive = still_alive(alive, buf, stride, shift)
            if alive==0: break
        for r in range(h):
            at, o = (camera*height+top+r)*width+left, r*stride
            for x in range(w):
                flat_T[at+x] = abs(buf[o+x])
                for c in range(C): flat[(at+x)*C+c] = buf[(c+1)*plane+o+x]
        part_done(jobs, I(1))
    await_parts(jobs, I(1), len(order))


@njit
def gather_records(part, parts, records, reached, first, count, conics, alphas, v_means2d, v_conics, v_alphas, v_values):
    "Add up each row's records, always in the same order, and turn moments into gradients."
    m, width, C = len(alphas), records.shape[1], v_values.shape[1]
    flat, sum_ = records.reshape(-1), np.empty(width, F)
    for i in range(cut(m, part, parts), cut(m, part+1, parts)):
        if count[i]==0:
            v_means2d[i,0], v_means2d[i,1], v_alphas[i] = F(0), F(0), F(0)
            v_conics[i,0], v_conics[i,1], v_conics[i,2] = F(0), F(0), F(0)
            for c in range(C): v_values[i,c] = F(0)
            continue
        for w in range(0, width, 16):
            s = fill(F(0))
            for j in range(first[i], first[i]+count[i]):
                if reached[j]: s += load(flat, I(j)*width+w)
            store(sum_, w, s)
        A, k, d = conics[i,0], conics[i,1], conics[i,2]
        v_means2d[i,0], v_means2d[i,1] = A*sum_[1], A*k*sum_[1]+d*sum_[2]
        v_conics[i,0], v_conics[i,1], v_conics[i,2] = F(-0.5)*sum_[3], -A*sum_[4], F(-0.5)*sum_[5]
        v_alphas[i] = sum_[0]/alphas[i]
        shift = 6 if width==16 else 16
        for c in range(C): v_values[i,c] = sum_[shift+c]


@njit(**JIT)
def unpaint(jobs, parts, tag, geo, cameras, width, height, shift, first, count, who, slot, order, offsets, conics, alphas, values,
            out, out_T, v_out, v_T, records, reached, v_means2d, v_conics, v_alphas, v_values):
    """Replay each tile from the front. R is what lies behind, weighted by the gradient; each Gaussian takes its part out of it:
    dL/dalpha = T s - R/(1 - alpha), s = value . gradient. A record holds six moments of alpha dL/dalpha, then the values' gradients."""
    C = len(tag)
    wide = 1<<shift
    columns = (width+wide-1)>>shift
    tiles = columns*((height+ROWS-1)//ROWS)
    lines, starts, strips, shape = np.empty(16*80, F), np.empty(16*ROWS, np.int32), np.empty(16*8+1, I), geo.reshape(-1)
    stride = wide+16
    plane = stride*ROWS+16
    buf, flat = np.empty((C+2)*plane, F), records.reshape(-1)
    flat_out, flat_T, flat_v, flat_v_T = out.reshape(-1), out_T.reshape(-1), v_out.reshape(-1), v_T.reshape(-1)
    ramp, zero, one = count_up(), fill(F(0)), F(1)
    while True:
        job = take_part(jobs, I(0))
        if job>=len(order): break
        t = order[job]
        camera, left, top, w, h = open_tile(t, columns, tiles, width, height, shift)
        if offsets[t]<offsets[t+1]:
            buf[:] = F(0)
            for r in range(h):
                at, o = (camera*height+top+r)*width+left, r*stride
                for x in range(w):
                    R = flat_v_T[at+x]*flat_T[at+x]
                    for c in range(C):
                        G_ = flat_v[(at+x)*C+c]
                        R += G_*flat_out[(at+x)*C+c]
                        buf[(c+2)*plane+o+x] = G_
                    buf[o+x] = one
                    buf[plane+o+x] = R
        alive = all_alive(w, h, shift)
        for e0 in range(offsets[t], offsets[t+1], 16):
            e1 = min(e0+16, offsets[t+1])
            if alive==0: break
            for q in range(plan(e0, e1, who, alive, shape, F(left), F(top), wide, stride, True, lines, starts, strips)):
                s = strips[q]
                j, v = s&15, (s>>8)&255
                i = who[e0+j]>>20
                pixels, qa = ramp+F(v), fill(shape[8*i+2])
                c0 = fill(values[i,0])
                c1 = fill(values[i,1]) if C>1 else c0
                c2 = fill(values[i,2]) if C>2 else c0
                c3 = fill(values[i,3]) if C>3 else c0
                S0, Su, Sy, Suu, Suy, Syy, w0, w1, w2, w3 = zero, zero, zero, zero, zero, zero, zero, zero, zero, zero
                for r in range((s>>16)&15, (s>>24)+1):
                    o = starts[16*j+r]+v
                    al, T, share, after, open_ = light_left(buf, o, pixels, qa, lines[32*j+r], lines[32*j+16+r])
                    share = select(open_, share, zero)
                    store(buf, o, select(open_, after, zero)) # exactly 0: a T that decays would become denormal, and slow
                    G = load(buf, o+2*plane)
                    ws, w0 = G*c0, fma(share, G, w0)
                    if C>1:
                        G = load(buf, o+3*plane)
                        ws, w1 = fma(G, c1, ws), fma(share, G, w1)
                    if C>2:
                        G = load(buf, o+4*plane)
                        ws, w2 = fma(G, c2, ws), fma(share, G, w2)
                    if C>3:
                        G = load(buf, o+5*plane)
                        ws, w3 = fma(G, c3, ws), fma(share, G, w3)
                    ws = share*ws
                    R = load(buf, o+plane)-ws
                    store(buf, o+plane, R)
                    m = select(open_ & (al<MAX_ALPHA), ws-R*(al/(one-al)), zero) # alpha dL/dalpha
                    u, dy = pixels+lines[512+48*j+r], fill(lines[528+48*j+r])
                    mu = m*u
                    S0, Su, Sy = S0+m, Su+mu, fma(m, dy, Sy)
                    Suu, Suy, Syy = fma(mu, u, Suu), fma(mu, dy, Suy), fma(m, fill(lines[544+48*j+r]), Syy)
                k = I(slot[e0+j])
                record = sums(S0, Su, Sy, Suu, Suy, Syy, w0, w1, w2, w3)
                store(flat, 16*k, record+load(flat, 16*k) if reached[k] else record)
                reached[k] = 1
            alive = still_alive(alive, buf, stride, shift)
        part_done(jobs, I(0))
    await_parts(jobs, I(0), len(order))
    while True:
        part = take_part(jobs, I(1))
        if part>=parts: break
        gather_records(part, parts, records, reached, first, count, conics, alphas, v_means2d, v_conics, v_alphas, v_values)
        part_done(jobs, I(1))
    await_parts(jobs, I(1), parts)


# %% Five channels and more: the alphas as above, but then pixel after pixel with the channels side by side

@njit(**JIT)
def paint_many(jobs, parts, rows, total, notes, geo, cameras, width, height, shift, per_tile, count, first, who, slot, order, offsets, values, out, out_T):
    """Any number of channels. Only a third of a window's pixels see the Gaussian: those are squeezed into a list of (share, place),
    and `values`, filled up to a multiple of sixteen channels, is added there."""
    C, P = out.shape[3], values.shape[1]
    wide = 1<<shift
    columns = (width+wide-1)>>shift
    tiles = columns*((height+ROWS-1)//ROWS)
    lines, starts, strips, shape = np.empty(16*80, F), np.empty(16*ROWS, np.int32), np.empty(16*8+1, I), geo.reshape(-1)
    stride = wide+16
    line = 16*(wide+PAD) # a row of pixels, sixteen channels each; plane after plane of them
    light, canvas = np.empty(stride*ROWS+16, F), np.empty(line*ROWS*(P//16), F)
    shares, places = np.empty(17*16, F), np.empty(17*16, np.int32)
    color, flat, flat_T = values.reshape(-1), out.reshape(-1), out_T.reshape(-1)
    ramp, zero = count_up(), fill(F(0))
    while True:
        part = take_part(jobs, I(0))
        if part>=parts: break
        fill_entries(part, parts, rows, total, per_tile[part], count, first, notes, who, slot)
        part_done(jobs, I(0))
    await_parts(jobs, I(0), parts)
    while True:
        job = take_part(jobs, I(1))
        if job>=len(order): break
        t = order[job]
        camera, left, top, w, h = open_tile(t, columns, tiles, width, height, shift)
        light[:] = F(0)
        canvas[:] = F(0)
        for r in range(h): light[r*stride:r*stride+w] = F(1)
        alive = all_alive(w, h, shift)
        for e0 in range(offsets[t], offsets[t+1], 16):
            for q in range(plan(e0, min(e0+16, offsets[t+1]), who, alive, shape, F(left), F(top), wide, stride, False, lines, starts, strips)):
                s = strips[q]
                j, v = s&15, (s>>8)&255
                i = who[e0+j]>>20
                pixels, qa, found = ramp+F(v), fill(shape[8*i+2]), I(0)
                for r in range((s>>16)&15, (s>>24)+1):
                    o = I(starts[16*j+r]+v)
                    al, T, share, after, open_ = light_left(light, o, pixels, qa, lines[32*j+r], lines[32*j+16+r])
                    store(light, o, select(open_, after, negated(T)))
                    seen = open_ & (share>zero)
                    squeeze(shares, found, seen, share)
                    squeeze_places(places, found, seen, 16*(o+(PAD-16)*r), I(16))
                    found += how_many(bits(seen))
                for c in range(0, P, 16):
                    value = load(color, i*P+c)
                    plane = c*(wide+PAD)*ROWS
                    for k in range(found):
                        o = plane+I(places[k])
                        store(canvas, o, fma(fill(shares[k]), value, load(canvas, o)))
            alive = still_alive(alive, light, stride, shift)
            if alive==0: break
        for r in range(h):
            at = (camera*height+top+r)*width+left
            for x in range(w):
                flat_T[at+x] = abs(light[r*stride+x])
                o = r*line+16*x
                for c in range(0, C-15, 16): store(flat, (at+x)*C+c, load(canvas, c*(wide+PAD)*ROWS+o))
                for c in range(C&-16, C): flat[(at+x)*C+c] = canvas[(c&-16)*(wide+PAD)*ROWS+o+(c&15)]
        part_done(jobs, I(1))
    await_parts(jobs, I(1), len(order))


@njit(**JIT)
def unpaint_many(jobs, parts, geo, cameras, width, height, shift, first, count, who, slot, order, offsets, conics, alphas, values,
                 out, out_T, v_out, v_T, records, reached, v_means2d, v_conics, v_alphas, v_values):
    "`unpaint` for any number of channels: s = value . gradient and the values' gradients come from the list, sixteen pixels at a time."
    C, P, W = out.shape[3], values.shape[1], records.shape[1]
    wide = 1<<shift
    columns = (width+wide-1)>>shift
    tiles = columns*((height+ROWS-1)//ROWS)
    lines, starts, strips, shape = np.empty(16*80, F), np.empty(16*ROWS, np.int32), np.empty(16*8+1, I), geo.reshape(-1)
    stride = wide+16
    line = 16*(wide+PAD)
    light, behind, grad = np.empty(stride*ROWS+16, F), np.empty(stride*ROWS+16, F), np.empty(line*ROWS*(P//16), F)
    shares, places, dotted = np.empty(18*16, F), np.empty(18*16, np.int32), np.empty(18*16, F)
    row_alpha, row_share = np.empty(ROWS*16, F), np.empty(ROWS*16, F)
    color, flat = values.reshape(-1), records.reshape(-1)
    flat_out, flat_T, flat_v, flat_v_T = out.reshape(-1), out_T.reshape(-1), v_out.reshape(-1), v_T.reshape(-1)
    ramp, zero, one = count_up(), fill(F(0)), F(1)
    while True:
        job = take_part(jobs, I(0))
        if job>=len(order): break
        t = order[job]
        camera, left, top, w, h = open_tile(t, columns, tiles, width, height, shift)
        if offsets[t]<offsets[t+1]:
            light[:] = F(0)
            behind[:] = F(0)
            grad[:] = F(0)
            for r in range(h):
                at, o = (camera*height+top+r)*width+left, r*stride
                for x in range(w):
                    g, here = r*line+16*x, zero
                    for c in range(0, C-15, 16):
                        G = load(flat_v, (at+x)*C+c)
                        here = fma(G, load(flat_out, (at+x)*C+c), here)
                        store(grad, c*(wide+PAD)*ROWS+g, G)
                    R = flat_v_T[at+x]*flat_T[at+x]+total_of(here)
                    for c in range(C&-16, C):
                        R += flat_v[(at+x)*C+c]*flat_out[(at+x)*C+c]
                        grad[(c&-16)*(wide+PAD)*ROWS+g+(c&15)] = flat_v[(at+x)*C+c]
                    light[o+x], behind[o+x] = one, R
        alive = all_alive(w, h, shift)
        for e0 in range(offsets[t], offsets[t+1], 16):
            e1 = min(e0+16, offsets[t+1])
            if alive==0: break
            for q in range(plan(e0, e1, who, alive, shape, F(left), F(top), wide, stride, True, lines, starts, strips)):
                s = strips[q]
                j, v, y0, y1 = s&15, (s>>8)&255, (s>>16)&15, s>>24
                i, record = who[e0+j]>>20, I(slot[e0+j])*W
                if not reached[slot[e0+j]]:
                    for c in range(0, W, 16): store(flat, record+c, zero)
                    reached[slot[e0+j]] = 1
                pixels, qa, found = ramp+F(v), fill(shape[8*i+2]), I(0)
                for r in range(y0, y1+1):
                    o = I(starts[16*j+r]+v)
                    al, T, share, after, open_ = light_left(light, o, pixels, qa, lines[32*j+r], lines[32*j+16+r])
                    share = select(open_, share, zero)
                    store(light, o, select(open_, after, zero))
                    store(row_alpha, 16*r, al)
                    store(row_share, 16*r, share)
                    squeeze(shares, found, share>zero, share)
                    squeeze_places(places, found, share>zero, 16*(o+(PAD-16)*r), I(16))
                    found += how_many(bits(share>zero))
                store(shares, found, zero) # fill up to a multiple of sixteen
                for k in range(found, (found+15)&-16): places[k] = 0
                for c in range(0, P, 16):
                    value, total = load(color, i*P+c), load(flat, record+16+c)
                    for k in range(0, found, 16):
                        d = dots(grad, places, k, c*(wide+PAD)*ROWS, value)
                        total = weighted(grad, places, k, c*(wide+PAD)*ROWS, shares, total)
                        store(dotted, k, d if c==0 else d+load(dotted, k))
                    store(flat, record+16+c, total)
                S0, Su, Sy, Suu, Suy, Syy, found = zero, zero, zero, zero, zero, zero, I(0)
                for r in range(y0, y1+1):
                    o = I(starts[16*j+r]+v)
                    al, share = load(row_alpha, 16*r), load(row_share, 16*r)
                    seen = share>zero
                    ws = share*spread(dotted, found, seen)
                    found += how_many(bits(seen))
                    R = load(behind, o)-ws
                    store(behind, o, R)
                    m = select(seen & (al<MAX_ALPHA), ws-R*(al/(one-al)), zero)
                    u, dy = pixels+lines[512+48*j+r], fill(lines[528+48*j+r])
                    mu = m*u
                    S0, Su, Sy = S0+m, Su+mu, fma(m, dy, Sy)
                    Suu, Suy, Syy = fma(mu, u, Suu), fma(mu, dy, Suy), fma(m, fill(lines[544+48*j+r]), Syy)
                store(flat, record, load(flat, record)+sums(S0, Su, Sy, Suu, Suy, Syy))
            alive = still_alive(alive, light, stride, shift)
        part_done(jobs, I(0))
    await_parts(jobs, I(0), len(order))
    while True:
        part = take_part(jobs, I(1))
        if part>=parts: break
        gather_records(part, parts, records, reached, first, count, conics, alphas, v_means2d, v_conics, v_alphas, v_values)
        part_done(jobs, I(1))
    await_parts(jobs, I(1), parts)
