"""The loops of graph attention, compiled by Numba: sixteen frames at once, one a lane; chapter `44_nn.graph` explains them.

`hear`, `say`, `out` and the gradients are flat, (frames, v, c) in that order. A block of sixteen frames is turned into (v, c, lanes) first, so that all lanes
follow the same edges. Nothing is kept for the way back but what went in: the weights are cheaper to compute than to store.
"""
import numpy as np
from numba import njit

from talkinglab.gs.tiles_kernels import exp2
from talkinglab.gs.tiles_simd import LANES, fill, fma, gather, load, maximum, scatter, select, store, total_of

F = np.float32
LOG2E = F(1.4426950408889634)
TOGETHER = 32 # Vertices that are turned at once: more than one, so that each frame is read in longer runs


@njit(cache=True, nogil=True)
def turn(x, at, stride, n, lanes, out):
    "n numbers of each frame of the block, one lane a frame; 0 in lanes beyond the last frame."
    if lanes == LANES:
        for q in range(n): store(out, q*LANES, gather(x, at+q, stride))
    else:
        for q in range(n):
            for l in range(LANES): out[q*LANES+l] = x[at+q+l*stride] if l < lanes else F(0)


@njit(cache=True, nogil=True)
def turn_back(x, at, stride, n, lanes, out):
    "The reverse, from `out` into x."
    if lanes == LANES:
        for q in range(n): scatter(x, at+q, stride, load(out, q*LANES))
    else:
        for q in range(n):
            for l in range(lanes): x[at+q+l*stride] = out[q*LANES+l]


@njit(cache=True, nogil=True)
def weights(H, own, S, score, first, k, c, senders, a, b, slope, E):
    "Unnormalised weights of messages a to b for one head, into E, and one over their sum; the hearer is at H[own], `score` in log2."
    top = fill(F(-np.inf))
    for m in range(a, b):
        at, e = senders[m]*c, fill(F(0))
        for q in range(first, first+k):
            z = load(H, (own+q)*LANES)+load(S, (at+q)*LANES)
            e = fma(maximum(z*slope, z), fill(score[q]), e)
        store(E, (m-a)*LANES, e)
        top = maximum(e, top)
    total = fill(F(0))
    for m in range(a, b):
        p = exp2(maximum(fill(F(-99)), load(E, (m-a)*LANES)-top))
        store(E, (m-a)*LANES, p)
        total = total+p
    return fill(F(1))/total


@njit(cache=True, nogil=True)
def forward(first_block, step, frames, v, c, k, widest, hear, say, score, start, senders, slope, out):
    "Every `step`-th block. `widest`: the most messages that a vertex hears; k: features a head."
    S, H, E = np.empty(v*c*LANES, F), np.empty(TOGETHER*c*LANES, F), np.empty(widest*LANES, F)
    sharp, stride = score*LOG2E, v*c
    for block in range(first_block, -(-frames//LANES), step):
        origin, lanes = block*LANES*stride, min(LANES, frames-block*LANES)
        turn(say, origin, stride, stride, lanes, S)
        for low in range(0, v, TOGETHER):
            high = min(low+TOGETHER, v)
            turn(hear, origin+low*c, stride, (high-low)*c, lanes, H)
            for i in range(low, high):
                a, b, own = start[i], start[i+1], (i-low)*c
                for first in range(0, c, k):
                    share = weights(H, own, S, sharp, first, k, c, senders, a, b, slope, E)
                    for q in range(first, first+k):
                        y = fill(F(0))
                        for m in range(a, b): y = fma(load(E, (m-a)*LANES), load(S, (senders[m]*c+q)*LANES), y)
                        store(H, (own+q)*LANES, y*share)                    # This head's part of H has been heard: room for what it says
            turn_back(out, origin+low*c, stride, (high-low)*c, lanes, H)


@njit(cache=True, nogil=True)
def backward(first_block, step, frames, v, c, k, widest, hear, say, score, start, senders, slope, grad, grad_hear, grad_say, grad_score):
    "`grad` is of what `forward` gave; `grad_score` has a row a block."
    S, dS, A, E, D = np.empty(v*c*LANES, F), np.empty(v*c*LANES, F), np.empty(c*LANES, F), np.empty(widest*LANES, F), np.empty(widest*LANES, F)
    H, G = np.empty(TOGETHER*c*LANES, F), np.empty(TOGETHER*c*LANES, F)
    sharp, stride = score*LOG2E, v*c
    for block in range(first_block, -(-frames//LANES), step):
        origin, lanes = block*LANES*stride, min(LANES, frames-block*LANES)
        turn(say, origin, stride, stride, lanes, S)
        dS[:], A[:] = F(0), F(0)
        for low in range(0, v, TOGETHER):
            high = min(low+TOGETHER, v)
            turn(hear, origin+low*c, stride, (high-low)*c, lanes, H)
            turn(grad, origin+low*c, stride, (high-low)*c, lanes, G)
            for i in range(low, high):
                a, b, own = start[i], start[i+1], (i-low)*c
                for first in range(0, c, k):
                    share, mean = weights(H, own, S, sharp, first, k, c, senders, a, b, slope, E), fill(F(0))
                    for m in range(a, b):                                   # What more weight on a message would do, and on average
                        at, d = senders[m]*c, fill(F(0))
                        for q in range(first, first+k): d = fma(load(G, (own+q)*LANES), load(S, (at+q)*LANES), d)
                        p = load(E, (m-a)*LANES)*share
                        store(E, (m-a)*LANES, p)
                        store(D, (m-a)*LANES, d)
                        mean = fma(p, d, mean)
                    for m in range(a, b): store(D, (m-a)*LANES, load(E, (m-a)*LANES)*(load(D, (m-a)*LANES)-mean))
                    for q in range(first, first+k):
                        h, g, up, down = load(H, (own+q)*LANES), load(G, (own+q)*LANES), fill(score[q]), fill(score[q]*slope)
                        dh, da = fill(F(0)), load(A, q*LANES)
                        for m in range(a, b):
                            at, de = (senders[m]*c+q)*LANES, load(D, (m-a)*LANES)
                            z = h+load(S, at)
                            dz = de*select(z > F(0), up, down)
                            dh = dh+dz
                            da = fma(de, maximum(z*slope, z), da)
                            store(dS, at, fma(load(E, (m-a)*LANES), g, load(dS, at)+dz))
                        store(H, (own+q)*LANES, dh)
                        store(A, q*LANES, da)
            turn_back(grad_hear, origin+low*c, stride, (high-low)*c, lanes, H)
        turn_back(grad_say, origin, stride, stride, lanes, dS)
        for q in range(c): grad_score[block*c+q] = total_of(load(A, q*LANES))
