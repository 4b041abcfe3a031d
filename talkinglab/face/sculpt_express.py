"""How the cage moves: one displacement field per ARKit name, and the swings of jaw and lids.

A displacement is linear (cage points x 3, cm). Jaw and lids *swing*: an angle per cage point about the x axis through
the jaw's hinge or the eyeball's centre, so that chins and lids travel on arcs.
"""
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from talkinglab.face.sculpt_cage import MOUTH_Y, cage, lid_ring, mouth_angles

HINGE = np.array([0., -1.8, -1.0])       # Axis of the jaw, just before the ears, cm
JAW = np.radians(17)                     # jawOpen = 1
SIDES = (("Left", 1), ("Right", -1))
RING = np.array([.35, .85, 1, 1, 1, 1, .6, .2])   # How much of a lip movement each mouth ring takes


def bump(P, center, size):
    "Gaussian of the distance to `center`, measured in `size`."
    return np.exp(-(((P-np.asarray(center))/np.asarray(size))**2).sum(-1))


def ease(a, b, x):
    "0 below a, 1 above b, smooth between."
    t = np.clip((x-a)/(b-a), 0, 1)
    return t*t*(3-2*t)


def on_rings(values):
    "A cage field that is `values[k]` (scalar or 20 numbers) on mouth ring k, 0 elsewhere."
    c = cage()
    out = np.zeros(c.n)
    for k, v in enumerate(values): out[c.mouth[k]] = v
    out[c.throat] = np.mean(values[-1])
    return out


def jaw_weights():
    "1 where the skin rides on the mandible, 0 where on the skull; between, as smooth as a soap film (Laplace's equation)."
    c = cage()
    _, _, si, t = mouth_angles()
    w = np.full(c.n, np.nan)
    r, k = c.row, np.abs(c.column)
    grid = r >= 0
    w[grid & ((r >= 13) | (k >= 9) | (r <= 1))] = 0
    w[grid & (r == 12) & (k <= 3)] = 0
    w[grid & (r >= 5) & (r <= 7) & (k <= 4)] = 1
    w[grid & (r == 4) & (k <= 3)] = .92
    w[grid & (r == 3) & (k <= 3)] = .50
    for e in (1, -1): w[c.eyes[e]] = 0
    w[c.crown[:, 0]] = 0
    for ring in range(1, 6): w[c.mouth[ring]] = np.where(si < -1e-6, 1-.55*t**6, np.where(si > 1e-6, .38*t**6, .45))
    free = np.isnan(w)
    w[free] = 0
    L = (sp.identity(c.n)-c.average).tocsr()
    w[free] = sla.spsolve(L[free][:, free].tocsc(), -L[free][:, ~free]@w[~free])
    return w


def swings(who, P):
    "Angles per cage point, rad: jawOpen, the jaw with lips kept closed, the two blinks, and lids per radian of gaze."
    c = cage()
    w = jaw_weights()
    lips = on_rings([.25, .8, 1, 1, 1, 1, .6, .2])
    out = {"jawOpen": JAW*w, "closed": JAW*(w*(1-lips)+.42*lips), "gaze": np.zeros(c.n)}
    si = np.sin(2*np.pi*np.arange(16)/16)
    for name, e in SIDES:
        a = out["eyeBlink"+name] = np.zeros(c.n)
        center = np.array([e*who.eye_x, 0, who.eye_z])
        for k in range(1, 6):
            q = P[c.eyes[e][k]]-center
            shut = lid_ring(who, k, -.74*who.lid_low, .62*who.lid_low)*[e, 1, 1]-center
            share = .6 if k == 1 else 1.
            a[c.eyes[e][k]] = share*(np.arctan2(q[:, 1], q[:, 2])-np.arctan2(shut[:, 1], shut[:, 2]))
            out["gaze"][c.eyes[e][k]] = -np.where(si > 1e-6, .55, .30)*np.sin(np.abs(np.arccos(np.clip(np.cos(2*np.pi*np.arange(16)/16), -1, 1))))*share
    return out


def ovals(who, P, half, up, low, forward, grow):
    "Round the mouth: every ring goes to its own oval (half widths, heights above and below, cm), all come forward."
    c = cage()
    th, co, si, _ = mouth_angles()
    L = (1+.3*who.lips)**.5
    out = np.zeros_like(P)
    for k in range(1, 8):
        i, j = c.mouth[k], min(k, 6)-1
        goal = np.stack([half[j]*co, MOUTH_Y+.03+np.where(si > 0, up[j], low[j])*L*si, P[i, 2]], 1)
        out[i] = goal-P[i]
        share = [1, 1, 1, 1, .9, .35, 0][k-1]
        middle = P[i][[4, 5, 6, 14, 15, 16], 2].mean()
        out[i, 2] = forward*share+.75*(middle-P[i, 2])*(k < 6)           # corners come forward to the middle's depth
        if k > 5: out[i] *= .5
    rim = c.mouth[0]
    out[rim, 0], out[rim, 1], out[rim, 2] = -.22*P[rim, 0], (P[rim, 1]-MOUTH_Y)*grow, forward*.45
    hollow = bump(np.abs(P), (4.3, 6.4, 7), (1.3, 1.9, 4))*(P[:, 1] < 0)*(c.row >= 0)
    out[:, 0] -= .35*np.sign(P[:, 0])*hollow
    out[:, 2] += .15*hollow
    return out


def displacements(who, P):
    "ARKit name -> displacement of every cage point, cm."
    c = cage()
    _, _, si, t = mouth_angles()
    mouth = on_rings(RING)
    upper, lower = (on_rings([w*np.maximum(s*si, 0)**.5 for w in RING]) for s in (1, -1))
    y = P[:, 1]-MOUTH_Y
    D = {"jawOpen": np.stack([-.10*P[:, 0]*mouth, 0*y, 0*y], 1)}
    D["mouthClose"] = np.stack([0*y, -.05*(upper-lower), -.05*mouth], 1)
    D["mouthPucker"] = ovals(who, P, (1.62, 1.30, .94, .46, .50, 1.2), (1.10, .92, .50, .16, .30, 1.2), (1.24, 1.04, .56, .20, .34, 1.4), .70, .02)
    D["mouthFunnel"] = ovals(who, P, (2.05, 1.76, 1.48, 1.18, 1.2, 1.8), (1.52, 1.32, .95, .60, .8, 1.3), (1.66, 1.42, 1.03, .68, .9, 1.5), .55, .10)
    inward = np.stack([0*y, -.80*y*on_rings([.05, .5, .8, .9, 0, 0, 0, 0])*(y < 0), -on_rings([.05, .35, .62, .85, .45, .2, 0, 0])*(y < -.02)], 1)
    inward *= (1-on_rings([t**4]*8))[:, None]
    inward[:, 1] += .55*lower*on_rings([.1, .5, .9, 1, 1, 1, .5, .1])
    D["mouthRollLower"] = inward                                          # the lower lip tucks under the upper teeth: f, v
    for name, e in SIDES:
        side = ease(-.9, .9, e*P[:, 0])
        near = bump(P, (e*2.5*(1+.14*who.mouth_width), MOUTH_Y+.15, 7.6), (1.75, 1.5, 3.2))*np.where(mouth > 0, 1, .85)
        along = np.clip(e*P[:, 0]/2.5, 0, 1.2)*mouth
        cheek = bump(P, (e*4.2, -3.3, 7), (1.7, 1.5, 4))
        move = np.maximum(near, .95*along**1.6)[:, None]*np.array([e*.70, .85, -.38])+cheek[:, None]*np.array([e*.20, .40, .40])
        move[:, 2] -= .10*mouth*side
        half = 2*np.pi*np.arange(16)/16
        for k in (1, 2, 3): move[c.eyes[e][k], 1] += .16*np.maximum(-np.sin(half), 0)
        D["mouthSmile"+name] = move
        D["mouthStretch"+name] = np.maximum(near, along**1.3)[:, None]*np.array([e*.80, -.10, -.42])
        D["mouthPress"+name] = np.stack([0*y, -.34*y*mouth*side*(np.abs(y) < 1.3), -.20*mouth*side], 1)
        D["mouthLowerDown"+name] = (lower*side)[:, None]*np.array([0, -.65, .10])
        lift = bump(P, (e*2.6, -4.4, 8.4), (1.2, 1.2, 3))*(mouth == 0)
        D["mouthUpperUp"+name] = (upper*side)[:, None]*np.array([0, .55, .08])+lift[:, None]*np.array([0, .30, .14])
        inner = bump(P, (e*1.2, 2.6, 8.2), (1.5, 1.5, 4))
        arch = bump(P, (e*2.8, 2.6, 8), (2.4, 1.5, 4))
        outer = bump(P, (e*4.7, 2.6, 7), (1.7, 1.5, 4))
        D["browInnerUp"] = D.get("browInnerUp", 0)+inner[:, None]*np.array([-.08*e, .95, .05])
        D["browOuterUp"+name] = (outer+.35*arch)[:, None]*np.array([0, .95, -.08])
        D["browDown"+name] = arch[:, None]*np.array([-.18*e, -.52, .18])+inner[:, None]*np.array([-.20*e, -.36, .20])
        D["eyeBlink"+name] = bump(P, (e*who.eye_x, 1.9, 8), (2.2, .7, 3))[:, None]*np.array([0, -.10, 0])*(c.row >= 0)[:, None]
    return D
