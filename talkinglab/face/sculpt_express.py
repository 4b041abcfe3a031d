"""What swings: jaw and lids turn about axes, so that chins and lids travel on arcs. And the fields that expressions are made of.

An angle per cage point about the x axis through the jaw's hinge or the eyeball's centre, rad.
"""
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from talkinglab.face.rig_files import SIDES
from talkinglab.face.sculpt_cage import cage, eye_angles, mouth_angles
from talkinglab.face.sculpt_place import lid_ring

HINGE = np.array([0., -1.8, -1.0])       # Axis of the jaw, just before the ears, cm
JAW = np.radians(17)                     # jawOpen = 1
# Lid openings above and below the pupil, cm, at weight 1 (the resting ones are the person's)
LIDS = {"eyeSquint": (.50, .38), "eyeWide": (1.06, .86)}


def bump(P, center, size):
    "Gaussian of the distance to `center`, measured in `size`."
    return np.exp(-(((P-np.asarray(center))/np.asarray(size))**2).sum(-1))


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


def lid_swing(who, P, e, up, low, crease=.6):
    "Angle that takes the lids of eye `e` to openings `up` and `low` (cm); the crease follows a share of the way."
    c = cage()
    out, center = np.zeros(c.n), np.array([e*who.eye_x, 0, who.eye_z])
    for k in range(1, 6):
        q = P[c.eyes[e][k]]-center
        goal = lid_ring(who, k, up, low)*[e, 1, 1]-center
        out[c.eyes[e][k]] = (crease if k == 1 else 1.)*(np.arctan2(q[:, 1], q[:, 2])-np.arctan2(goal[:, 1], goal[:, 2]))
    return out


def swings(who, P):
    "Angles per cage point, rad: the jaw, the jaw with lips kept closed, every movement of the lids, and lids per radian of gaze."
    c = cage()
    w = jaw_weights()
    lips = on_rings([.25, .8, 1, 1, 1, 1, .6, .2])
    out = {"jawOpen": JAW*w, "closed": JAW*(w*(1-lips)+.42*lips), "tongueOut": .22*JAW*w, "gaze": np.zeros(c.n)}
    _, co, si = eye_angles()
    for name, e in SIDES:
        out["eyeBlink"+name] = lid_swing(who, P, e, -.74*who.lid_low, .62*who.lid_low)
        for lids, (up, low) in LIDS.items(): out[lids+name] = lid_swing(who, P, e, up, low, .35)
        out["cheekSquint"+name] = lid_swing(who, P, e, who.lid_up-.03, .50, .5)
        out["mouthSmile"+name] = lid_swing(who, P, e, who.lid_up-.05, .60, .5)
        for k in range(1, 6): out["gaze"][c.eyes[e][k]] = -np.where(si > 1e-6, .60, .30)*np.abs(si)*(.6 if k == 1 else 1)
    return out
