"""The loops of the CPU renderer, compiled by Numba; chapter `13_gs.tiles` explains them.

Importing this module compiles it, once for a machine: about ten seconds, then a fraction of one from the cache.
All arrays are C-contiguous. Names: m Gaussians, e entries (one for each Gaussian in each tile it touches), TILE pixels a side.
"""
import math

import numpy as np
from numba import njit

F, I = np.float32, np.int32
TILE = 16                # Pixels a side
AREA = TILE*TILE
PLANE = AREA+16          # One channel of a tile; the pad keeps planes from sharing a 4 KiB page offset
MAX_ALPHA, MIN_ALPHA, MIN_T = F(0.999), 1/255, F(1e-4)
FAINT = F(math.log2(MIN_ALPHA))
MAGIC = F(1.5*2**23) # Adding it rounds to a whole number, which is then in the low bits
EXP2 = tuple(F(c) for c in (1.0000001, 0.69314694, 0.24022122, 0.055507425, 0.00967546, 0.001326697)) # 2^f for |f| <= 1/2

# No "reassoc" here: forward and backward must see the very same transmittance. `SUM` may reorder, for it only adds up.
FAST = {"contract", "nsz", "arcp"}
SUM = FAST | {"reassoc"}
JIT = dict(nogil=True, cache=True, error_model="numpy")
LARGE = 1e15
f1, f2, f3 = "float32[::1]", "float32[:,::1]", "float32[:,:,::1]"
i1, i2 = "int32[::1]", "int64[:,::1]"
l1 = "int64[::1]"

# %% Which tiles does an ellipse touch?

@njit(f"{l1}({f1})", **JIT)
def depth_order(depths):
    "Indices from near to far, ties in their input order: a radix sort of the float's bits, 11 at a time."
    m = len(depths)
    keys, order, spare_keys, spare = np.empty(m, np.uint32), np.arange(m), np.empty(m, np.uint32), np.empty(m, np.int64)
    for i in range(m):
        bits = np.uint32(depths.view(np.uint32)[i])
        keys[i] = ~bits if bits>>np.uint32(31) else bits|np.uint32(1<<31) # so that unsigned order is float order
    for shift in (0, 11, 22):
        place = np.zeros(2049, np.int64)
        for i in range(m): place[(keys[i]>>np.uint32(shift)&np.uint32(2047))+1] += 1
        for b in range(2048): place[b+1] += place[b]
        for i in range(m):
            b = keys[i]>>np.uint32(shift)&np.uint32(2047)
            spare_keys[place[b]], spare[place[b]] = keys[i], order[i]
            place[b] += 1
        keys, order, spare_keys, spare = spare_keys, spare, keys, order
    return order


@njit(inline="always")
def complete_square(i, means, conics, opacities, geo):
    """geo[i] = (x, y, a, k, d, log2 o, reach², visible): alpha = 2^(log2 o - a u² - d dy²), u = dx + k dy.

    Completing the square in float64 keeps needle-thin splats accurate in float32, and a, d > 0 is all that can go wrong."""
    half = 0.5*math.log2(math.e)
    A, B, C, o = float(conics[i,0]), float(conics[i,1]), float(conics[i,2]), float(opacities[i])
    geo[i,7] = F(0)
    if 0<A<LARGE and o>=MIN_ALPHA:
        k = B/A
        d = C-B*k
        if 0<d<LARGE and abs(k)<LARGE: # no NaN passes these
            geo[i,0], geo[i,1] = means[i,0], means[i,1]
            geo[i,2], geo[i,3], geo[i,4], geo[i,5] = F(half*A), F(k), F(half*d), F(math.log2(o))
            geo[i,6], geo[i,7] = F(2*math.log(o/MIN_ALPHA)*1.0001+1e-3), F(1)


@njit(inline="always")
def box(g, width, height):
    "First and last tile column and pixel row of {alpha >= 1/255}; the last is below the first where there is none."
    a, k, d, t = float(g[2]), float(g[3]), float(g[4]), float(g[6])
    half = 0.5*math.log2(math.e)
    hy = math.sqrt(t*half/d)
    hx = math.sqrt(t*half/a+(k*hy)**2)
    x0, x1 = max(float(g[0])-hx-0.501, 0.), min(float(g[0])+hx-0.499, width-1.)
    y0, y1 = max(float(g[1])-hy-0.501, 0.), min(float(g[1])+hy-0.499, height-1.)
    if not (x0<=x1 and y0<=y1): return 0, -1, 0, -1
    return int(math.ceil(x0))//TILE, int(x1)//TILE, int(math.ceil(y0)), int(y1)


@njit(inline="always")
def rows_in_column(g, column, y0, y1):
    "Pixel rows that the ellipse covers within one column of tiles: exact, from the two edges and the two poles."
    half = 0.5*math.log2(math.e)
    a, k, d, t = float(g[2])/half, float(g[3]), float(g[4])/half, float(g[6])
    hy = math.sqrt(t/d)
    hx = math.sqrt(t/a+(k*hy)**2)
    xa, xb = max(column*TILE+0.499-float(g[0]), -hx), min(column*TILE+TILE-0.499-float(g[0]), hx)
    # Extremes of dy on a (dx + k dy)² + d dy² = t: at dx = -+ k hy; else on an edge, where a quadratic gives them.
    q = a*k*k+d
    ra, rb = q*t-a*d*xa*xa, q*t-a*d*xb*xb
    ra, rb = math.sqrt(max(ra, 0.)), math.sqrt(max(rb, 0.))
    top = min(-a*k*xa-ra, -a*k*xb-rb)/q
    bottom = max(-a*k*xa+ra, -a*k*xb+rb)/q
    if xa<=-k*hy<=xb: bottom = hy
    if xa<=k*hy<=xb: top = -hy
    lo = max(float(g[1])+top-0.501, float(y0))
    hi = min(float(g[1])+bottom-0.499, float(y1))
    if not lo<=hi: return 0, -1
    return int(math.ceil(lo)), int(hi)


@njit([f"void(int64,int64,int64,{l1},{f2},{f2},{f1},int64,int64,{f2},{i2},{l1})"], **JIT)
def count_entries(worker, start, stop, order, means, conics, opacities, width, height, geo, per_tile, per_gaussian):
    "The shapes of the Gaussians order[start:stop], and how many entries they will put into each tile."
    columns = (width+TILE-1)//TILE
    for r in range(start, stop):
        complete_square(order[r], means, conics, opacities, geo)
        g, n = geo[order[r]], 0
        if g[7]>0:
            c0, c1, y0, y1 = box(g, width, height)
            for column in range(c0, c1+1):
                lo, hi = rows_in_column(g, column, y0, y1) if c0<c1 else (y0, y1)
                if lo>hi: continue
                for row in range(lo//TILE, hi//TILE+1):
                    per_tile[worker, row*columns+column] += 1
                    n += 1
        per_gaussian[order[r]] = n


@njit([f"void(int64,int64,int64,{l1},{f2},int64,int64,{i2},{l1},{i1},{i1},{l1})"], **JIT)
def fill_entries(worker, start, stop, order, geo, width, height, place, first, who, rows, slots):
    "Write them: who[e] the Gaussian, rows[e] its first and last row in the tile; slots lists the entries of each Gaussian."
    columns = (width+TILE-1)//TILE
    for r in range(start, stop):
        i = order[r]
        g, j = geo[i], first[i]
        if g[7]<=0: continue
        c0, c1, y0, y1 = box(g, width, height)
        for column in range(c0, c1+1):
            lo, hi = rows_in_column(g, column, y0, y1) if c0<c1 else (y0, y1)
            if lo>hi: continue
            for row in range(lo//TILE, hi//TILE+1):
                e = place[worker, row*columns+column]
                place[worker, row*columns+column] = e+1
                who[e] = i
                rows[e] = max(lo-row*TILE, 0) | min(hi-row*TILE, TILE-1)<<8
                slots[j] = e
                j += 1

# %% Painting one tile, Gaussian by Gaussian

@njit(fastmath=FAST, inline="always")
def exp2(e):
    "2^e by a polynomial on [-1/2, 1/2] and the exponent bits: the one exponential that LLVM can turn into vectors."
    t = F(max(e, F(-60))+MAGIC)
    f = max(e, F(-60))-(t-MAGIC)
    p = F(EXP2[0]+f*(EXP2[1]+f*(EXP2[2]+f*(EXP2[3]+f*(EXP2[4]+f*EXP2[5])))))
    return I(p.view(I)+I(t.view(I)<<I(23))).view(F)


@njit([f"void({f1},float32,float32,int64,int64,{f1},{f1},{f1},{f1},{f1})"], fastmath=FAST, **JIT)
def cover(g, x, y, start, stop, px, py, T, share, alpha):
    """Let one Gaussian take its share of the light in pixels [start, stop) of a tile.

    T > 0 is the light left; a pixel that has stopped keeps it negated. Forward and backward both run this very code."""
    a, k, d, top = g[2], g[3], g[4], g[5]
    px, py, T, share, alpha = px[start:stop], py[start:stop], T[start:stop], share[start:stop], alpha[start:stop]
    for i in range(len(T)):
        dx, dy = px[i]-x, py[i]-y
        u = dx+k*dy
        e = top-d*dy*dy-a*u*u
        al = min(exp2(e), MAX_ALPHA)
        al = al if e>=FAINT else F(0)
        before = T[i]
        taken = al*before
        after = before-taken
        stopped = -abs(before)
        alive = after>MIN_T
        share[i] = taken if alive else F(0)
        T[i] = after if alive else stopped
        alpha[i] = al


@njit([f"void(int64,int64,{f1},{f1},{f1})"], fastmath=FAST, **JIT)
def paint(start, stop, share, values, canvas):
    "canvas += share * value, four channels at a time."
    share, n = share[start:stop], stop-start
    for c in range(0, len(values), 4):
        v0, v1, v2, v3 = values[c], values[c+1], values[c+2], values[c+3]
        o = c*PLANE+start
        c0, c1 = canvas[o:o+n], canvas[o+PLANE:o+PLANE+n]
        c2, c3 = canvas[o+2*PLANE:o+2*PLANE+n], canvas[o+3*PLANE:o+3*PLANE+n]
        for i in range(n):
            w = share[i]
            c0[i] += w*v0
            c1[i] += w*v1
            c2[i] += w*v2
            c3[i] += w*v3


@njit([f"void({f1},{f1})"], **JIT)
def pixel_centres(px, py):
    for i in range(AREA): px[i], py[i] = F(i%TILE)+F(0.5), F(i//TILE)+F(0.5)


@njit([f"int64({f1})"], **JIT)
def live_rows(T):
    "First and last row, packed, in which some pixel still lets light through; -1 if none."
    lo, hi = -1, -1
    for row in range(TILE):
        for x in range(TILE):
            if T[row*TILE+x]>0:
                if lo<0: lo = row
                hi = row
                break
    return -1 if lo<0 else lo | hi<<8


@njit([f"void({l1},{l1},{i1},{i1},{f2},{f2},int64,int64,{f3},{f2})"], **JIT)
def paint_tiles(tiles, offsets, who, rows, geo, values, width, height, out, out_T):
    columns, C = (width+TILE-1)//TILE, out.shape[2]
    px, py = np.empty(AREA, F), np.empty(AREA, F)
    T, share, alpha = np.empty(AREA, F), np.empty(AREA, F), np.empty(AREA, F)
    canvas = np.empty(values.shape[1]*PLANE, F)
    pixel_centres(px, py)
    for t in tiles:
        left, above = t%columns*TILE, t//columns*TILE
        w, h = min(TILE, width-left), min(TILE, height-above)
        for i in range(AREA): T[i] = F(1) if i%TILE<w and i//TILE<h else F(-1)
        canvas[:] = F(0)
        lo, hi = 0, h-1
        for e in range(offsets[t], offsets[t+1]):
            y0, y1 = max(rows[e]&255, lo), min(rows[e]>>8, hi)
            if y0<=y1:
                g = geo[who[e]]
                cover(g, g[0]-F(left), g[1]-F(above), y0*TILE, (y1+1)*TILE, px, py, T, share, alpha)
                paint(y0*TILE, (y1+1)*TILE, share, values[who[e]], canvas)
            if e&15==15:
                live = live_rows(T)
                if live<0: break
                lo, hi = live&255, live>>8
        for y in range(h):
            for x in range(w):
                out_T[above+y,left+x] = abs(T[y*TILE+x])
                for c in range(C): out[above+y,left+x,c] = canvas[c*PLANE+y*TILE+x]

# %% The same again, for gradients

@njit([f"void(int64,int64,{f1},{f1},{f1},{f1},{f1})"], fastmath=SUM, **JIT)
def unpaint(start, stop, share, values, grad, s, record):
    "s = value . gradient at each pixel; record[6+c] = the gradient of value c."
    share, s, n = share[start:stop], s[start:stop], stop-start
    for c in range(0, len(values), 4):
        v0, v1, v2, v3 = values[c], values[c+1], values[c+2], values[c+3]
        o = c*PLANE+start
        g0, g1 = grad[o:o+n], grad[o+PLANE:o+PLANE+n]
        g2, g3 = grad[o+2*PLANE:o+2*PLANE+n], grad[o+3*PLANE:o+3*PLANE+n]
        r0, r1, r2, r3 = F(0), F(0), F(0), F(0)
        first = F(0) if c==0 else F(1)
        for i in range(n):
            w = share[i]
            s[i] = s[i]*first+(g0[i]*v0+g1[i]*v1+g2[i]*v2+g3[i]*v3)
            r0 += w*g0[i]
            r1 += w*g1[i]
            r2 += w*g2[i]
            r3 += w*g3[i]
        record[6+c], record[7+c], record[8+c], record[9+c] = r0, r1, r2, r3


@njit([f"void({f1},float32,float32,int64,int64,{f1},{f1},{f1},{f1},{f1},{f1},{f1})"], fastmath=SUM, **JIT)
def uncover(g, x, y, start, stop, px, py, share, alpha, s, R, record):
    """Take this Gaussian's part out of R, the gradient-weighted light of all that lies behind; six moments of alpha dL/dalpha.

    dL/dalpha = T s - R/(1-alpha), and alpha T is the share."""
    k = g[3]
    px, py, share, alpha = px[start:stop], py[start:stop], share[start:stop], alpha[start:stop]
    s, R = s[start:stop], R[start:stop]
    m0, mu, my, muu, muy, myy = F(0), F(0), F(0), F(0), F(0), F(0)
    for i in range(len(R)):
        w, al = share[i], alpha[i]
        dy = py[i]-y
        u = px[i]-x+k*dy
        ws = w*s[i]
        rest = R[i]-ws
        R[i] = rest
        v = ws-rest*al/(F(1)-al)
        v = v if (w>0) & (al<MAX_ALPHA) else F(0)
        vu, vy = v*u, v*dy
        m0 += v
        mu += vu
        my += vy
        muu += vu*u
        muy += vu*dy
        myy += vy*dy
    record[0], record[1], record[2], record[3], record[4], record[5] = m0, mu, my, muu, muy, myy


@njit([f"void({l1},{l1},{i1},{i1},{f2},{f2},int64,int64,{f3},{f2},{f3},{f2},{f2})"], **JIT)
def unpaint_tiles(tiles, offsets, who, rows, geo, values, width, height, out, out_T, v_out, v_T, records):
    columns, C = (width+TILE-1)//TILE, out.shape[2]
    px, py = np.empty(AREA, F), np.empty(AREA, F)
    T, share, alpha = np.empty(AREA, F), np.empty(AREA, F), np.empty(AREA, F)
    R, s = np.empty(AREA, F), np.zeros(AREA, F)
    grad = np.empty(values.shape[1]*PLANE, F)
    pixel_centres(px, py)
    for t in tiles:
        left, above = t%columns*TILE, t//columns*TILE
        w, h = min(TILE, width-left), min(TILE, height-above)
        grad[:] = F(0)
        for i in range(AREA):
            T[i], R[i] = F(-1), F(0)
            if i%TILE>=w or i//TILE>=h: continue
            y, x = above+i//TILE, left+i%TILE
            r = v_T[y,x]*out_T[y,x]
            for c in range(C):
                grad[c*PLANE+i] = v_out[y,x,c]
                r += v_out[y,x,c]*out[y,x,c]
            T[i], R[i] = F(1), r
        lo, hi = 0, h-1
        for e in range(offsets[t], offsets[t+1]):
            y0, y1 = max(rows[e]&255, lo), min(rows[e]>>8, hi)
            if y0>y1: records[e,:] = F(0)
            else:
                g = geo[who[e]]
                x, y = g[0]-F(left), g[1]-F(above)
                cover(g, x, y, y0*TILE, (y1+1)*TILE, px, py, T, share, alpha)
                unpaint(y0*TILE, (y1+1)*TILE, share, values[who[e]], grad, s, records[e])
                uncover(g, x, y, y0*TILE, (y1+1)*TILE, px, py, share, alpha, s, R, records[e])
            if e&15==15 and lo<=hi:
                live = live_rows(T)
                lo, hi = (1, 0) if live<0 else (live&255, live>>8)


@njit([f"void(int64,int64,{f2},{f2},{f1},{l1},{l1},{l1},{f2},{f2},{f2},{f1},{f2})"], **JIT)
def gather(start, stop, geo, conics, opacities, first, count, slots, records, v_means, v_conics, v_opacities, v_values):
    "Add up the records of each Gaussian, always in the same order, and turn moments into gradients."
    C = v_values.shape[1]
    total = np.empty(records.shape[1], np.float64)
    for i in range(start, stop):
        total[:] = 0.
        for j in range(first[i], first[i]+count[i]):
            record = records[slots[j]]
            for c in range(len(record)): total[c] += record[c]
        for c in range(C): v_values[i,c] = F(total[6+c])
        if count[i]==0:
            v_means[i,0], v_means[i,1], v_opacities[i] = F(0), F(0), F(0)
            v_conics[i,0], v_conics[i,1], v_conics[i,2] = F(0), F(0), F(0)
            continue
        A, B, C_ = float(conics[i,0]), float(conics[i,1]), float(conics[i,2])
        k = B/A
        d = C_-B*k
        m0, mu, my, muu, muy, myy = total[0], total[1], total[2], total[3], total[4], total[5]
        v_opacities[i] = F(m0/float(opacities[i]))
        v_means[i,0], v_means[i,1] = F(A*mu), F(B*mu+d*my)
        v_conics[i,0] = F(-0.5*(muu-2*k*muy+k*k*myy))
        v_conics[i,1], v_conics[i,2] = F(-(muy-k*myy)), F(-0.5*myy)
