"""The control cage of the head: some 860 points in quads, and Catmull-Clark subdivision as one sparse matrix.

24 columns by 23 rows; three blocks are cut out and filled with rings: the mouth (8 rings of 20) and the eyes
(6 rings of 16). Everything placed or moved on the cage reaches the skin through `Cage.smooth`, a linear map.
The face is subdivided twice, the rest once: that is where nobody looks for wrinkles.
"""
from dataclasses import dataclass
from functools import lru_cache
import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

MOUTH_Y = -6.6
COLUMNS = list(range(-11, 13))          # 0 is the face's middle, 12 the back of the head, positive to the subject's left
N_ROWS = 23


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
    faces: np.ndarray       # Triangles of the skin
    origin: np.ndarray      # Cage quad that each triangle came from
    mirror: np.ndarray      # Cage point -> its mirror image
    throat: int             # The point that closes the mouth bag

    def skin(self, values): return self.smooth@values


def catmull_clark(quads, n):
    "One Catmull-Clark step: a sparse matrix (n_new, n), the new quads, and the new points on the old quads' edges. Borders follow the cubic curve rule."
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
    return sp.vstack([vert_pts, face_mean, edge_pts]).tocsr(), new, edge_id


def mixed_faces(quads, fine, split, edges):
    "Triangles: `fine` quads in their four parts (`split`), the others whole, fanned from an edge point where a fine quad is the neighbour."
    m = len(quads)
    whole = split.reshape(4, m, 4).transpose(1, 0, 2)
    four = whole[fine].reshape(-1, 4)
    faces = [four[:, [0, 1, 2]], four[:, [0, 2, 3]]]
    owner = [np.repeat(np.flatnonzero(fine), 4)]*2
    used = np.unique(edges[fine])
    between = np.isin(edges, used)
    plain = ~fine & ~between.any(1)
    faces += [quads[plain][:, [0, 1, 2]], quads[plain][:, [0, 2, 3]]]
    owner += [np.flatnonzero(plain)]*2
    for f in np.flatnonzero(~fine & between.any(1)):
        ring = [p for i in range(4) for p in ([quads[f, i], edges[f, i]] if between[f, i] else [quads[f, i]])]
        start = ring.index(edges[f, np.argmax(between[f])])
        ring = ring[start:]+ring[:start]
        fan = np.array([[ring[0], a, b] for a, b in zip(ring[1:-1], ring[2:])])
        faces.append(fan)
        owner.append(np.full(len(fan), f))
    return np.concatenate(faces), np.concatenate(owner)


def in_mouth(r, k): return 7 < r < 11 and abs(k) < 3
def in_eye(r, k): return 14 < r < 18 and 2 < abs(k) < 6


@lru_cache
def cage():
    "Build the topology (once)."
    at, quads = {}, []
    for r in range(N_ROWS):
        for k in COLUMNS:
            if not (in_mouth(r, k) or in_eye(r, k)): at[r, k] = len(at)
    row, column = (np.array(a) for a in zip(*at))
    n = len(at)
    for r in range(N_ROWS-1):
        for k in COLUMNS:
            hole = 7 <= r < 11 and -3 <= k < 3 or 14 <= r < 18 and (2 <= k < 6 or -6 <= k < -2)
            right = k+1 if k < 12 else -11
            if not hole: quads.append([at[r, k], at[r, right], at[r+1, right], at[r+1, k]])
    patch, crown, top = {}, [], N_ROWS-1               # the crown: a 7 x 7 grid whose rim is the top row
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
    near = np.zeros(n, bool)                               # what the camera comes close to
    near[:len(row)] = (row >= 5) & (row <= 19) & (np.abs(column) <= 6)
    for ring in (*mouth[:6], *eyes[1], *eyes[-1]): near[ring] = True
    S1, q1, _ = catmull_clark(quads, n)
    S2, q2, e2 = catmull_clark(q1, S1.shape[0])
    faces, owner = mixed_faces(q1, np.tile(near[quads].all(1), 4), q2, e2)
    used, faces = np.unique(faces, return_inverse=True)
    smooth, faces, origin = (S2@S1).tocsr()[used], faces.reshape(-1, 3), owner % len(quads)
    mirror = np.arange(n)
    for (r, k), i in at.items(): mirror[i] = at[r, k if k == 12 else -k]
    for a in range(-2, 3):
        for b in range(-2, 3): mirror[patch[a, b]] = patch[-a, b]
    for ring in mouth: mirror[ring] = ring[(10-np.arange(20)) % 20]
    for e in (1, -1): mirror[eyes[e]] = eyes[-e]
    return Cage(n, row, column, mouth, eyes, np.array(crown), average, smooth, faces, origin, mirror, throat)


@lru_cache
def skin_mirror():
    "Skin vertex -> its mirror image: the two see mirrored cage points with the same weights."
    c = cage()
    codes = np.random.default_rng(0).normal(size=(c.n, 4))
    gap, twin = cKDTree(c.skin(codes)).query(c.skin(codes[c.mirror]))
    assert gap.max() < 1e-9, "the cage is not symmetric"
    return twin


@lru_cache
def skin_average():
    "Mean of a skin vertex's neighbours, as a matrix."
    f = cage().faces
    pairs = np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]])
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    adj = sp.csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (f.max()+1,)*2)
    return sp.diags(1/np.asarray(adj.sum(1)).ravel())@adj


def mouth_angles():
    "Angle around the mouth, cosine, sine, and |cosine| of the 20 ring points (0 = the subject's left corner)."
    th = 2*np.pi*np.arange(20)/20
    return th, np.cos(th), np.sin(th), np.abs(np.cos(th))


def eye_angles():
    "Angle around an eye, cosine and sine of the 16 ring points (0 = the outer corner)."
    phi = 2*np.pi*np.arange(16)/16
    return phi, np.cos(phi), np.sin(phi)


def even(points, twin):
    "The mean of points and their mirror image."
    return .5*(points+points[twin]*[-1, 1, 1])
