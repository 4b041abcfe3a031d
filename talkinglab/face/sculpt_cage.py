"""The control cage of the head: some 860 points in quads, and Catmull-Clark subdivision as one sparse matrix.

24 columns by 23 rows; three blocks are cut out and filled with rings: the mouth (8 rings of 20) and the eyes
(6 rings of 16). Everything placed or moved on the cage reaches the skin through `Cage.smooth`, a linear map.
"""
from dataclasses import dataclass
from functools import lru_cache
import numpy as np
import scipy.sparse as sp
import torch
from scipy.spatial import cKDTree

MOUTH_Y = -6.6
COLUMNS = list(range(-11, 13))          # 0 is the face's middle, 12 the back of the head, positive to the subject's left
ANGLES = np.radians([0, 9.5, 19, 31, 42, 53, 63, 74, 86, 102, 125, 152, 180])
# One row: front (y, z), side (x, y, z), back (y, z), from the bottom of the neck to the crown, cm
ROWS = np.array([
    [-19.5, 2.0, 5.6, -18.0, -3.6, -17.0, -8.4], [-15.6, 2.2, 4.6, -14.6, -3.2, -13.0, -7.4],
    [-12.8, 3.0, 4.4, -11.4, -2.6, -9.6, -7.0], [-11.5, 4.4, 4.6, -8.9, -2.0, -6.8, -7.6],
    [-11.0, 6.3, 5.2, -7.4, -1.2, -4.8, -8.4], [-10.3, 8.0, 5.8, -6.2, -1.0, -3.2, -9.0],
    [-9.25, 8.7, 6.1, -5.3, -.9, -1.9, -9.6], [-8.25, 8.5, 6.3, -4.5, -.9, -.8, -9.9],
    [-7.45, 8.5, 6.5, -3.9, -.9, -.1, -10.1], [-6.6, 8.6, 6.6, -3.2, -.9, .5, -10.2],
    [-5.8, 8.6, 6.7, -2.6, -.9, 1.1, -10.3], [-5.1, 8.6, 6.8, -2.0, -.9, 1.7, -10.4],
    [-4.4, 8.7, 6.9, -1.2, -.9, 2.3, -10.4], [-3.4, 9.0, 7.0, -.3, -.9, 2.9, -10.4],
    [-2.2, 8.8, 7.1, .8, -.9, 3.5, -10.4], [-1.1, 8.5, 7.15, 1.7, -.9, 4.1, -10.4],
    [0., 8.2, 7.2, 2.7, -.9, 4.7, -10.3], [1.1, 8.2, 7.2, 3.4, -.9, 5.3, -10.2],
    [2.2, 8.3, 7.2, 4.1, -.9, 5.9, -10.0], [3.6, 8.2, 7.15, 5.0, -1., 6.7, -9.7],
    [5.6, 7.8, 6.8, 6.5, -1., 7.8, -9.0], [7.9, 6.5, 5.9, 8.2, -1.1, 9.0, -7.8], [9.9, 4.2, 4.4, 9.9, -1.2, 10.3, -5.6]])
# Where the nose's cage points stand: (row, column) -> cm; pulled on to the form later
NOSE = {(12, 0): (0, -4.75, 8.9), (13, 0): (0, -3.55, 10.7), (14, 0): (0, -2.35, 10.25), (15, 0): (0, -1.2, 9.5),
        (16, 0): (0, -.1, 8.8), (17, 0): (0, 1.1, 8.35), (18, 0): (0, 2.3, 8.3),
        (12, 1): (.9, -4.65, 9.0), (13, 1): (1.1, -3.7, 9.9), (14, 1): (.9, -2.5, 9.6), (15, 1): (.75, -1.2, 8.8),
        (16, 1): (.72, -.1, 8.2), (17, 1): (.78, 1.1, 8.1), (18, 1): (1.0, 2.3, 8.3),
        (12, 2): (1.75, -4.6, 8.5), (13, 2): (1.8, -3.6, 8.7)}


@dataclass(frozen=True)
class Cage:
    "Topology only: the same for every person."
    n: int                # Cage points
    row: np.ndarray       # Row of each point, -1 for ring points
    column: np.ndarray
    mouth: np.ndarray     # 8 rings of 20 cage points, from the skin inwards
    eyes: dict            # side (+1 the subject's left, -1) -> 6 rings of 16
    crown: np.ndarray     # The 25 points of the crown patch, and their ring number 0..2
    average: sp.csr_matrix  # Mean of the neighbours
    smooth: sp.csr_matrix   # Cage to skin (two Catmull-Clark steps)
    quads: np.ndarray       # Quads of the skin
    mirror: np.ndarray      # Cage point -> its mirror image
    throat: int             # The point that closes the mouth bag

    def skin(self, values): return self.smooth@values


def catmull_clark(quads, n):
    "One Catmull-Clark step as a sparse matrix (n_new, n) and the new quads; borders follow the cubic curve rule."
    m = len(quads)
    half = np.concatenate([quads[:, [i, (i+1) % 4]] for i in range(4)])
    edges, of = np.unique(np.sort(half, 1), axis=0, return_inverse=True)
    of, e = of.ravel(), len(edges)
    face_mean = sp.csr_matrix((np.full(4*m, .25), (np.repeat(np.arange(m), 4), quads.ravel())), (m, n))
    edge_mean = sp.csr_matrix((np.full(2*e, .5), (np.repeat(np.arange(e), 2), edges.ravel())), (e, n))
    edge_face = sp.csr_matrix((np.ones(4*m), (of, np.tile(np.arange(m), 4))), (e, m))
    count = np.asarray(edge_face.sum(1)).ravel()
    border = count == 1
    edge_pts = sp.diags(np.where(border, 1., .5))@edge_mean+sp.diags(np.where(border, 0, .5/count))@(edge_face@face_mean)
    vert_face = sp.csr_matrix((np.ones(4*m), (quads.ravel(), np.repeat(np.arange(m), 4))), (n, m))
    vert_edge = sp.csr_matrix((np.ones(2*e), (edges.ravel(), np.repeat(np.arange(e), 2))), (n, e))
    k, ke = (np.asarray(a.sum(1)).ravel() for a in (vert_face, vert_edge))
    inside = sp.diags(1/k**2)@(vert_face@face_mean)+sp.diags(2/(ke*k))@(vert_edge@edge_mean)+sp.diags((k-3)/k)
    on_border = np.zeros(n, bool)
    on_border[edges[border].ravel()] = True
    curve = sp.diags(np.full(n, .5))+.25*(vert_edge@sp.diags(border*1.)@edge_mean)
    vert_pts = sp.diags(1.*~on_border)@inside+sp.diags(1.*on_border)@curve
    edge_id, face_id = of.reshape(4, m).T+n+m, np.arange(m)+n
    new = np.concatenate([np.stack([quads[:, i], edge_id[:, i], face_id, edge_id[:, i-1]], 1) for i in range(4)])
    return sp.vstack([vert_pts, face_mean, edge_pts]).tocsr(), new


def in_mouth(r, k): return 7 < r < 11 and abs(k) < 3
def in_eye(r, k): return 14 < r < 18 and 2 < abs(k) < 6


@lru_cache
def cage():
    "Build the topology (once)."
    at, quads = {}, []
    for r in range(len(ROWS)):
        for k in COLUMNS:
            if not (in_mouth(r, k) or in_eye(r, k)): at[r, k] = len(at)
    row, column = (np.array(a) for a in zip(*at))
    n = len(at)
    for r in range(len(ROWS)-1):
        for k in COLUMNS:
            hole = 7 <= r < 11 and -3 <= k < 3 or 14 <= r < 18 and (2 <= k < 6 or -6 <= k < -2)
            right = k+1 if k < 12 else -11
            if not hole: quads.append([at[r, k], at[r, right], at[r+1, right], at[r+1, k]])
    patch, crown, top = {}, [], len(ROWS)-1               # the crown: a 7 x 7 grid whose rim is the top row
    for k in COLUMNS:
        if abs(k) <= 3: p = (k, 3)
        elif abs(k) <= 9: p = (3 if k > 0 else -3, 6-abs(k))
        else: p = ((12-k if k > 0 else -12-k), -3)
        patch[p] = at[top, k]
    for a in range(-2, 3):
        for b in range(-2, 3):
            patch[a, b] = n
            crown.append((n, max(abs(a), abs(b))))
            n += 1
    for a in range(-3, 3):
        for b in range(-3, 3): quads.append([patch[a, b], patch[a, b+1], patch[a+1, b+1], patch[a+1, b]])

    def rings(rim, count, flip):
        nonlocal n
        out, m = [[at[p] for p in rim]], len(rim)
        for _ in range(count):
            out.append(list(range(n, n+m)))
            n += m
        for a, b in zip(out[:-1], out[1:]):
            for j in range(m):
                q = [a[j], a[(j+1) % m], b[(j+1) % m], b[j]]
                quads.append(q[::-1] if flip else q)
        return np.array(out)
    rim = [(9, 3), (10, 3), *[(11, k) for k in range(3, -4, -1)], (10, -3), (9, -3), (8, -3), *[(7, k) for k in range(-3, 4)], (8, 3)]
    mouth = rings(rim, 7, False)
    back = mouth[7]
    throat, n = n, n+1                                     # the back of the bag: a fan around one point
    for j in range(0, 20, 2): quads.append([throat, back[j], back[j+1], back[(j+2) % 20]])
    rim = [(16, 6), (17, 6), *[(18, k) for k in (6, 5, 4, 3, 2)], (17, 2), (16, 2), (15, 2), *[(14, k) for k in (2, 3, 4, 5, 6)], (15, 6)]
    eyes = {1: rings(rim, 5, False), -1: rings([(r, -k) for r, k in rim], 5, True)}
    row, column = (np.concatenate([a, np.full(n-len(a), fill)]) for a, fill in ((row, -1), (column, 0)))
    quads = np.array(quads)
    pairs = np.concatenate([quads[:, [i, (i+1) % 4]] for i in range(4)])
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    adj = sp.csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (n, n))
    adj.data[:] = 1
    average = sp.diags(1/np.asarray(adj.sum(1)).ravel())@adj
    S1, q1 = catmull_clark(quads, n)
    S2, q2 = catmull_clark(q1, S1.shape[0])
    mirror = np.arange(n)
    for (r, k), i in at.items(): mirror[i] = at[r, k if k == 12 else -k]
    for a in range(-2, 3):
        for b in range(-2, 3): mirror[patch[a, b]] = patch[-a, b]
    for ring in mouth: mirror[ring] = ring[(10-np.arange(20)) % 20]
    for e in (1, -1): mirror[eyes[e]] = eyes[-e]
    return Cage(n, row, column, mouth, eyes, np.array(crown), average, (S2@S1).tocsr(), q2, mirror, throat)


@lru_cache
def skin_mirror():
    "Skin vertex -> its mirror image: the two see mirrored cage points with the same weights."
    c = cage()
    codes = np.random.default_rng(0).normal(size=(c.n, 4))
    gap, twin = cKDTree(c.skin(codes)).query(c.skin(codes[c.mirror]))
    assert gap.max() < 1e-9, "the cage is not symmetric"
    return twin


def even(points, twin):
    "The mean of points and their mirror image."
    return .5*(points+points[twin]*[-1, 1, 1])


def lid_ring(who, k, up, low, lift=0.):
    "Ring k of an eye (1 the crease ... 5 behind the lid), on spheres around the eyeball; `up`, `low`: opening, cm."
    phi = 2*np.pi*np.arange(16)/16
    co, si, R, s = np.cos(phi), np.sin(phi), who.eye_radius, who.eye_radius/1.95
    width = [0, 1.98, 1.74, 1.64, 1.60, 1.62][k]*s
    radius = R+[0, .24, .20, .10, -.10, -.45][k]+lift
    grow_up, grow_low = [0, .58, .12, 0, .05, .1][k], [0, .46, .12, 0, .05, .1][k]
    t = np.sign(co)*np.abs(co)**.9
    almond = 1-np.abs(t)**2.3
    y = np.where(si > 1e-6, (up*s+grow_up)*almond*(1-.10*t), np.where(si < -1e-6, -(low*s+grow_low)*almond*(1+.12*t), 0))
    x, y = width*t, y+(.10+.25*who.eye_tilt)*t
    z = np.sqrt(np.maximum(radius**2-x**2-y**2, .2))
    return np.stack([x, y, z], 1)+[who.eye_x, 0, who.eye_z]


def lip_rings(who):
    "Half width, upper and lower height, z and corner z of the seven rings inside the mouth's rim, cm."
    L = 1+.3*who.lips
    return [(2.74, .80*L+.20, .98*L+.22, .08, -.50), (2.50, .80*L, .98*L, .32, -.50), (2.42, .40*L, .50*L, .72, -.40),
            (2.32, -.27*(.40*L+.35), -.27*(.50*L+.45), .34, -.36), (2.26, .42, .52, -.60, -.70), (2.7, 1.5, 1.7, -2.4, -.6), (1.9, 1.1, 1.2, -5.0, 0)]


def mouth_angles():
    "Angle around the mouth, cosine, sine, and |cosine| of the 20 ring points (0 = the subject's left corner)."
    th = 2*np.pi*np.arange(20)/20
    return th, np.cos(th), np.sin(th), np.abs(np.cos(th))


def place(who, form):
    "Stand the cage on the form: proxy rows, pinned outlines of mouth, eyes and nose, relaxation, then lids and lips."
    c = cage()
    P = np.zeros((c.n, 3))
    grid = c.row >= 0
    yf, zf, xs, ys, zs, yb, zb = ROWS[c.row[grid]].T
    th, side = ANGLES[np.abs(c.column[grid])], np.sign(c.column[grid])
    s, co = np.sin(th), np.cos(th)
    power = lambda a: np.sign(a)*np.abs(a)**(2/2.3)
    P[grid] = np.stack([side*xs*power(s), ys+(np.where(co > 0, yf, yb)-ys)*co*co,
                        zs+np.where(co > 0, zf-zs, zs-zb)*power(co)], 1)
    index = {(r, k): i for i, (r, k) in enumerate(zip(c.row, c.column)) if r >= 0}
    free = grid & (c.row >= 6) & (c.row <= 20) & (np.abs(c.column) >= 1) & (np.abs(c.column) <= 8)
    wide = 1+.14*who.mouth_width
    _, co, si, t = mouth_angles()
    rim = c.mouth[0]
    P[rim, 0], P[rim, 1] = 3.4*(.5+.5*wide)*co, MOUTH_Y+np.where(si > 0, 1.5, 1.8)*si
    phi = 2*np.pi*np.arange(16)/16
    ce, se, es = np.cos(phi), np.sin(phi), .5+.5*who.eye_radius/1.95
    for e in (1, -1):
        q = c.eyes[e][0]
        P[q, 0] = e*(who.eye_x+np.where(ce > 0, 2.6, 2.0)*es*ce)
        P[q, 1] = np.where(se > 0, 2.0, 1.9-.3*np.maximum(ce, 0))*es*se+.15*ce
        free[q] = False
    free[rim] = False
    for (r, k), p in NOSE.items():
        low = {12: .7, 13: 1., 14: .8, 15: .4, 16: .1}.get(r, 0)
        for e in (1, -1) if k else (1,):
            P[index[r, e*k]] = [e*p[0]*(1+.25*who.nose_width*low), p[1]-.45*who.nose_length*low, p[2]+.3*who.nose_length*low]
            free[index[r, e*k]] = False
    fit = lambda q, steps=8: form.pull(torch.tensor(q, dtype=torch.float32), steps=steps).numpy().astype(np.float64)
    P[grid] = fit(P[grid])
    for _ in range(6):
        for _ in range(8): P[free] += .5*((c.average@P)-P)[free]
        P[free] = fit(P[free], 4)
    ci, ring = c.crown[:, 0], c.crown[:, 1]/3
    P[ci] = P[(c.row == len(ROWS)-1)].mean(0)
    for _ in range(150): P[ci] = (c.average@P)[ci]
    P[ci, 1] += 1.4*(1-ring**2.2)
    P[ci] = fit(P[ci])
    for e in (1, -1):
        for k in range(1, 6):
            q = lid_ring(who, k, who.lid_up, who.lid_low)
            if k == 1:                                        # the crease never sinks below the face
                z = form.height(*[torch.tensor(a, dtype=torch.float32) for a in q.T[:2]]).numpy()
                q[:, 2] = np.maximum(q[:, 2], z-.12)
            P[c.eyes[e][k]] = q*[e, 1, 1]
    for k, (half, up, low, dz, corner) in enumerate(lip_rings(who), 1):
        x = half*wide*np.sign(co)*np.abs(co)**.92
        bow = .11*np.exp(-(t/.13)**2)*(k <= 2)
        y = np.where(si > 1e-6, (up-bow)*(1-t**1.7), np.where(si < -1e-6, -low*(1-t**2.1), 0))
        line = (.22+.10*who.smile)*t**2-.05*np.exp(-(t/.22)**2)-.02
        z = form.height(torch.tensor(x*.95, dtype=torch.float32), torch.full((20,), MOUTH_Y)).numpy()
        z = z+dz*(1-t**3)+corner*t**3-np.where(si < -1e-6, .12, 0)*(1-t**3)*(k <= 3)
        P[c.mouth[k]] = np.stack([x, MOUTH_Y+line+y, z], 1)
    P[c.throat] = P[c.mouth[7]].mean(0)-[0, 0, .4]
    return even(P, c.mirror)
