"""From a person's dials to the arrays of a rig: place the cage, smooth it, hang on the parts, paint, bake occlusion.

Centimetres inside, metres at the end. `face.sculpt` explains the order.
"""
import numpy as np
import torch
from talkinglab.face import sculpt_parts as parts
from talkinglab.face.mesh import occlusion
from talkinglab.face.rig import ARKIT
from talkinglab.face.sculpt_cage import MOUTH_Y, cage, even, skin_average, skin_mirror
from talkinglab.face.rig_files import ease
from talkinglab.face.sculpt_express import HINGE, JAW, bump, on_rings, swings
from talkinglab.face.sculpt_form import head_form
from talkinglab.face.sculpt_hair import above_hairline, wear
from talkinglab.face.sculpt_marks import landmarks, regions, unwrap
from talkinglab.face.sculpt_paint import brow_place, paint, skin_tone
from talkinglab.face.sculpt_place import place
from talkinglab.face.sculpt_shapes import displacements, fold_distance, folds

PARTS = ("skin", "mouth", "eyeL", "eyeR", "teeth", "tongue", "hair", "lashes", "torso")
MATERIAL = np.array([0, 3, 1, 1, 3, 3, 2, 5, 4])           # Shading of each part, see mesh_shade_kernels
NECK = np.array([0., -11.0, -3.6])
TEETH = np.array([0, -.18, .22])                          # The upper teeth against the lips' middle


class Builder:
    "Collects parts; every array ends up with one row a vertex."
    def __init__(self): self.rows, self.faces, self.count = [], [], 0

    def add(self, part, v, faces, albedo, uvw=None, gloss=0., move=None, swing=None, pivot=HINGE, head=1.):
        "`move`, `swing`: name -> displacement (v 3) or angle (v). Everything else is broadcast."
        n = len(v)
        spread = lambda a, *shape: np.broadcast_to(np.asarray(a, float), (n, *shape))
        self.rows.append(dict(v=v, part=np.full(n, PARTS.index(part)) if isinstance(part, str) else part, albedo=spread(albedo, 3),
            uvw=v if uvw is None else uvw, gloss=spread(gloss), pivot=spread(pivot, 3), head=spread(head),
            move=np.stack([(move or {}).get(e, np.zeros((n, 3))) for e in ARKIT]),
            swing=np.stack([spread((swing or {}).get(e, 0.)) for e in ARKIT+("closed", "gaze")])))
        self.faces.append(faces+self.count)
        self.count += n

    def cat(self, key): return np.concatenate([r[key] for r in self.rows], axis=1 if key in ("move", "swing") else 0)


def normals(v, faces):
    from talkinglab.face.mesh_kernels import vertex_normals
    return vertex_normals(np.ascontiguousarray(v, np.float32), np.ascontiguousarray(faces, np.int32)).astype(float)


def laid_on(form, v, share):
    "Lay a share of each skin point on to the form; iron out the folds this leaves where nose and cheek meet; even on both sides."
    def pull(v, share, steps):
        some, out = share > 1e-3, v.copy()
        out[some] = form.pull(*[torch.tensor(a[some], dtype=torch.float32) for a in (v, share)], steps=steps).numpy()
        return out
    v = pull(v, share, 4)
    valley = share*bump(v*np.where(v[:, :1] < 0, [[-1, 1, 1]], 1), (1.8, -3.6, 8.4), (1.3, 1.5, 2.2))*(share > .9)
    for _ in range(4):
        for _ in range(3): v = v+.8*valley[:, None]*(skin_average()@v-v)
        v = pull(v, np.where(valley > .15, share, 0), 2)
    return even(v, skin_mirror())


def outside_ball(who, v, lid, rims):
    "Lids never sink into the eyeball."
    for e in (1, -1):
        o = np.array([e*who.eye_x, 0, who.eye_z])
        r = np.linalg.norm(v-o, axis=1)
        inside = (lid > .3) & (rims < .9) & (r < who.eye_radius+.05) & (e*v[:, 0] > 0)
        v[inside] = o+(v[inside]-o)*((who.eye_radius+.05)/r[inside])[:, None]
    return v


def add_skin(b, who, form):
    "Head, neck and mouth bag from the cage. Returns the cage points, and how much each vertex is lip and lid."
    c = cage()
    P = place(who, form)
    keep, lid, rims = np.zeros(c.n), np.zeros(c.n), np.zeros(c.n)
    keep[c.row > 4], keep[c.row == 4], keep[c.mouth[0]], keep[c.crown[:, 0]] = 1, .5, 1, 1
    v = laid_on(form, c.skin(P), np.clip(c.skin(keep), 0, 1)**2)            # not the lids, lips and neck
    for e in (1, -1): lid[c.eyes[e][1:]], rims[c.eyes[e][3:]] = 1, 1
    lid, rims = c.skin(lid), np.clip(c.skin(rims), 0, 1)
    lips, bag = np.clip(c.skin(on_rings([0, .05, .95, 1, 1, 1, 0, 0])), 0, 1), np.clip(c.skin(on_rings([0, 0, 0, 0, 0, .45, 1, 1])), 0, 1)
    up = above_hairline(v)
    hairy = ease(-.25, .45, up+.25*np.sin(5*np.abs(v[:, 0])+4*v[:, 2]))*(lid < .01)*(bag < .01)*(v[:, 1] > -7)*(who.hair != "bald")
    v = outside_ball(who, v, lid, rims)
    n = normals(v, c.faces)
    turn = np.where((lid > 1e-6)[:, None], np.array([who.eye_x, 0, who.eye_z])*np.stack([np.sign(v[:, 0]), 0*lid+1, 0*lid+1], 1), HINGE)
    move = {k: c.skin(d) for k, d in displacements(who, P).items()}
    for k, d in folds(v, n).items(): move[k] = move[k]+d*(1-lips)[:, None]*(bag < .01)[:, None]
    crease = sum(np.exp(-(d/.45)**2)*share for d, share in (fold_distance(v, e) for e in (1, -1)))*(1-lips)
    gloss = .55+.75*lips+.35*bump(v, (0, -3.4, 10.5), (1.3, 1.2, 2))+.25*bump(v, (0, 5, 7), (4, 2, 3))
    b.add(np.where(bag > .5, PARTS.index("mouth"), PARTS.index("skin")), v, c.faces, paint(who, v, lips, bag, rims, hairy, crease), gloss=gloss,
        uvw=brow_place(who, v), move=move, swing={k: c.skin(a) for k, a in swings(who, P).items()}, pivot=turn, head=np.where(bag > .5, 1., ease(-17., -11.2, v[:, 1])))
    return P, lips, np.clip(lid, 0, 1)


def add_mouth(b, who, form):
    "Teeth and tongue. What sits on the mandible moves with it."
    z0 = float(form.height(torch.zeros(1), torch.full((1,), MOUTH_Y))[0])
    mouth = np.array([0, MOUTH_Y, z0])
    riding = dict(jawOpen=JAW, closed=JAW, tongueOut=.22*JAW)
    drift = {"jawForward": [0, 0, .85], "jawLeft": [.75, 0, 0], "jawRight": [-.75, 0, 0]}
    v, f, rgb, _ = parts.teeth(True)
    b.add("teeth", v*[.97, 1, 1]+mouth+TEETH, f, rgb, gloss=1.)
    v, f, rgb, _ = parts.teeth(False)
    b.add("teeth", v*[.91, 1, 1]+mouth+TEETH+[0, -.02, -.32], f, rgb, gloss=1., swing=riding, move={k: np.zeros_like(v)+d for k, d in drift.items()})
    v, f, tip = parts.tongue()
    share = .93-.20*tip
    u = tip[:, None]
    out = u**1.3*[0, 0, 3.4]+u**2*[0, .80, 0]
    b.add("tongue", v+mouth+[0, -.72, -1.40], f, [.58, .20, .19], gloss=1., swing={k: a*(share if k != "tongueOut" else 0) for k, a in riding.items()},
        move={k: np.zeros_like(v)+d for k, d in drift.items()}|{"tongueOut": out})


def add_lashes(b, who, P):
    "Lashes ride on the upper lids' edges."
    c = cage()
    D, W = displacements(who, P), swings(who, P)
    for side in (1, -1):
        o, rings = np.array([side*who.eye_x, 0, who.eye_z]), c.eyes[side]
        w, offset, f = parts.lashes(who, P[rings[3][:9]], P[rings[2][:9]], o, side)
        follow = lambda a: np.concatenate([w@a[rings[3][:9]]]*3)
        b.add("lashes", (w@P[rings[3][:9]]+offset).reshape(-1, 3), f, [.014, .010, .009], move={k: follow(a) for k, a in D.items()},
              swing={k: follow(a) for k, a in W.items() if k not in ("jawOpen", "closed")}, pivot=o)


def add_parts(b, who, form, P):
    "Eyes, ears, mouth's contents, lashes, shirt, hair."
    d, f = parts.eyeball()
    for side, name in ((1, "eyeL"), (-1, "eyeR")):
        o = np.array([side*who.eye_x, 0, who.eye_z])
        b.add(name, d*who.eye_radius+o, f, .8, uvw=d, pivot=o)
    for side in (1, -1):
        v, f, bowl = parts.ear(who, form, side)
        b.add("skin", v, f, skin_tone(who.skin)*np.exp(-(.20+.35*bowl)[:, None]*np.array([.05, .34, .28])), uvw=v*[1, 1, 0]-[0, 30, 0], gloss=.45)
    add_mouth(b, who, form)
    add_lashes(b, who, P)
    v, f, collar = parts.shirt(who)
    b.add("torso", v, f, np.array(who.shirt_rgb)*(1-.30*collar)[:, None], head=0.)
    hair = wear(who, form)
    if hair is None: return
    v, f, uvw, tone, along = hair
    tips = ease(.35, 1., along)[:, None]
    rgb = np.array(who.hair_rgb)*(1-tips)+np.array(who.tips_rgb)*tips
    b.add("hair", v, f, rgb*np.clip(tone, .3, 1.4)[:, None], uvw=uvw)


def shade_of_hollows(v, faces, part, lips):
    "Occlusion, softened where a fixed shadow would show as dirt: inside the mouth, on eyes, hair and lips."
    is_ = lambda *p: np.isin(part, [PARTS.index(x) for x in p])
    f = faces[~is_("lashes")[faces[:, 0]]]
    ao = occlusion(torch.tensor(v/100, dtype=torch.float32), torch.tensor(f), 40, 160).numpy().astype(float)
    ao = np.where(is_("mouth", "teeth", "tongue"), np.clip(.16+.17*(v[:, 2]-2.6), .08, .95), ao) # a closed mouth would bake to black: depth decides
    ao = np.where(is_("eyeL", "eyeR"), .35+.65*ao, ao)
    ao = np.where(is_("hair"), .34+.66*ao, ao)
    return np.where(lips > .25, np.maximum(ao, .72), ao)


def build(who, light=True):
    "All arrays of a person's rig, in centimetres, as a dict. Without `light`, hollows are not shaded."
    b, form = Builder(), head_form(who)
    P, lips, lids = add_skin(b, who, form)
    add_parts(b, who, form, P)
    v, faces, part = b.cat("v"), np.concatenate(b.faces), b.cat("part")
    pad = lambda a: np.concatenate([a, np.zeros(len(v)-len(a))])
    ao = shade_of_hollows(v, faces, part, pad(lips)) if light else np.ones(len(v))
    swing, (marks, forehead) = b.cat("swing"), landmarks()
    return dict(vertices=v, faces=faces, basis=b.cat("move"), swing=swing[:-2], closed=swing[-2], follow=swing[-1], pivots=b.cat("pivot"),
        parts=part, head=b.cat("head"), albedo=np.clip(b.cat("albedo"), .003, .95), uvw=b.cat("uvw"), gloss=b.cat("gloss"), ao=ao, lips=pad(lips), lids=pad(lids),
        brows=bump(np.abs(v), (3.2, 2.7, 8), (2.2, .7, 2.5))*(v[:, 2] > 3)*(v[:, 1] > 0)*(part == 0), material=MATERIAL[part], uv=unwrap(v),
        eyes=np.array([[e*who.eye_x, 0, who.eye_z] for e in (1, -1)]), landmarks=marks, forehead=forehead, regions=regions(v, part, PARTS, lips, lids))
