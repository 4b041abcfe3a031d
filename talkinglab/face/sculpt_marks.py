"""Where things are on the skin: landmarks, regions, texture coordinates. All by definition on the cage, so they follow every identity."""
from functools import lru_cache
import numpy as np
import scipy.sparse as sp
from talkinglab.face.rig_files import ease, neck_mask
from talkinglab.face.sculpt_cage import MOUTH_Y, cage
from talkinglab.face.sculpt_express import bump, on_rings
from talkinglab.face.sculpt_parts import teeth

# Row of the jaw line in the cage's columns 0 (chin) to 8 (before the ear), with a share of the row above
JAW_LINE = ((5, 0), (5, 0), (5, .1), (5, .3), (5, .6), (6, .2), (7, 0), (9, .5), (13, .5))
MIDDLE_BROW = .35                        # Brows lie so far between rows 18 and 19


@lru_cache
def landmarks():
    "The 68 vertices of the iBUG scheme (first the subject's right), and the one at the hairline's middle."
    c = cage()
    at = {(r, k): i for i, (r, k) in enumerate(zip(c.row, c.column)) if r >= 0}
    mix = lambda a, b, share: [(at[a], 1-share), (at[b], share)]
    jaw = [mix((JAW_LINE[abs(k)][0], k), (JAW_LINE[abs(k)][0]+1, k), JAW_LINE[abs(k)][1]) for k in range(-8, 9)]
    brow = lambda ks: [mix((18, k), (19, k), MIDDLE_BROW) for k in ks]
    one = lambda ids: [[(i, 1.)] for i in ids]
    nose = one([at[r, 0] for r in (16, 15, 14, 13)]+[at[12, k] for k in (-2, -1, 0, 1, 2)])
    eyes = one([*c.eyes[-1][3][[0, 3, 5, 8, 11, 13]], *c.eyes[1][3][[8, 5, 3, 0, 13, 11]]])
    inner = [10, 7, 5, 3, 0, 17, 15, 13]
    lips = one(c.mouth[1][[10, 8, 6, 5, 4, 2, 0, 18, 16, 15, 14, 12]])+[[(a, .75), (b, .25)] for a, b in zip(c.mouth[4][inner], c.mouth[3][inner])] # the seam of shut lips, as seen from in front
    spots = jaw+brow((-6, -5, -4, -3, -2))+brow((2, 3, 4, 5, 6))+nose+eyes+lips+[mix((20, 0), (21, 0), .62)]
    rows = sp.vstack([sum(w*c.smooth[i] for i, w in spot) for spot in spots])   # a cage point's own vertex comes first, so row i is its own
    squared = np.asarray(c.smooth.multiply(c.smooth).sum(1)).ravel()
    nearest = (squared[:, None]-2*(c.smooth@rows.T).toarray()).argmin(0)        # the vertex that listens to the same cage points
    return nearest[:68], int(nearest[68])


def regions(v, part, names, lips, lids):
    "Masks in [0, 1] over all vertices, from the resting head (cm)."
    c = cage()
    is_ = lambda *p: np.isin(part, [names.index(x) for x in p])
    pad = np.zeros(len(v))
    ring = np.clip(c.skin(on_rings([.6, 1, 1, 1, 1, 1, 1, 1])), 0, 1)
    pad[:len(ring)] = ring
    inside = is_("mouth", "teeth", "tongue")
    mouth = np.where(inside, 1., np.maximum(pad, bump(v, (0, MOUTH_Y, 8), (3.6, 2.2, 5))*is_("skin")))
    front = ease(0, 3, v[:, 2])*is_("skin")*ease(-12, -10.5, v[:, 1])
    low = ease(-1.8, -3.6, v[:, 1])
    eyes = np.maximum(is_("eyeL", "eyeR", "lashes")*1., np.r_[lids, np.zeros(len(v)-len(lids))])
    rows, gum = np.flatnonzero(is_("teeth")), [teeth(up)[3] for up in (True, False)]    # the upper row was added first; gum and tooth are one band
    upper, lower, gums = np.zeros((3, len(v)))
    upper[rows], lower[rows], gums[rows] = np.r_[1-gum[0], 0*gum[1]], np.r_[0*gum[0], 1-gum[1]], np.concatenate(gum)
    more = dict(teeth_upper=upper, teeth_lower=lower, gums=gums, neck=neck_mask(v, is_("skin"), v[landmarks()[0][:17]]))
    return more|dict(lips=np.r_[lips, np.zeros(len(v)-len(lips))], mouth=mouth, upper_face=np.maximum(front*(1-low), eyes), lower_face=np.maximum(front*low, inside*1.),
                eyes=eyes, hair=is_("hair")*1., torso=is_("torso")*1.)


def unwrap(v):
    "Texture coordinates in [0, 1]: around the head's axis, and up."
    return np.stack([.5+np.arctan2(v[:, 0], v[:, 2]+1)/(2*np.pi), np.clip((v[:, 1]+34)/48, 0, 1)], 1)
