"""From a person's dials to the arrays of a rig: place the cage, smooth it, hang on the parts, paint, bake occlusion.

Centimetres inside, metres at the end. `face.sculpt` explains the order.
"""
import numpy as np
import torch
from talkinglab.face import sculpt_parts as parts
from talkinglab.face.sculpt_cage import MOUTH_Y, cage, even, place, skin_mirror
from talkinglab.face.sculpt_express import HINGE, JAW, bump, displacements, ease, on_rings, swings
from talkinglab.face.sculpt_form import head_form
from talkinglab.face.sculpt_hair import above_hairline, bun, locks

PARTS = ("skin", "mouth", "eyeL", "eyeR", "teeth", "tongue", "hair", "lashes", "torso")
MATERIAL = np.array([0, 3, 1, 1, 3, 3, 2, 5, 4])           # Shading of each part, see mesh_shade_kernels
NECK = np.array([0., -11.0, -3.6])
EXPRESSIONS = ("jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthRollLower",
    "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthPressLeft", "mouthPressRight",
    "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "eyeBlinkLeft", "eyeBlinkRight",
    "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "browDownLeft", "browDownRight")


def skin_tone(t):
    "Albedo (linear) from light (0) to dark (1)."
    knots = [0, .3, .6, 1]
    return np.array([np.interp(t, knots, c) for c in ([.82, .63, .38, .14], [.53, .36, .19, .068], [.42, .245, .105, .040])])


class Builder:
    "Collects parts; every array ends up with one row a vertex."
    def __init__(self): self.rows, self.faces, self.count = [], [], 0

    def add(self, part, v, faces, albedo, uvw=None, gloss=0., move=None, swing=None, pivot=HINGE, head=1.):
        "`move`, `swing`: name -> displacement (v 3) or angle (v). Everything else is broadcast."
        n = len(v)
        spread = lambda a, *shape: np.broadcast_to(np.asarray(a, float), (n, *shape))
        self.rows.append(dict(v=v, part=np.full(n, PARTS.index(part)) if isinstance(part, str) else part, albedo=spread(albedo, 3),
            uvw=v if uvw is None else uvw, gloss=spread(gloss), pivot=spread(pivot, 3), head=spread(head),
            move=np.stack([(move or {}).get(e, np.zeros((n, 3))) for e in EXPRESSIONS]),
            swing=np.stack([spread((swing or {}).get(e, 0.)) for e in EXPRESSIONS+("closed", "gaze")])))
        self.faces.append(faces+self.count)
        self.count += n

    def cat(self, key): return np.concatenate([r[key] for r in self.rows], axis=1 if key in ("move", "swing") else 0)


def normals(v, faces):
    from talkinglab.face.mesh_kernels import vertex_normals
    return vertex_normals(np.ascontiguousarray(v, np.float32), np.ascontiguousarray(faces, np.int32)).astype(float)


def paint(who, v, lips, bag, rims, hairy):
    "Albedo (linear) of the skin: tone, blush, lips, lid rims, the inside of the mouth, the scalp under the hair."
    base, (x, y, z) = skin_tone(who.skin), v.T
    a, g = np.abs(x), lambda cx, cy, cz, sx, sy, sz: np.exp(-((np.abs(x)-cx)/sx)**2-((y-cy)/sy)**2-((z-cz)/sz)**2)
    dark = 1-.4*ease(.3, .9, who.skin)
    red = .60*g(4.3, -3.3, 6.5, 2.0, 1.7, 4)+.50*g(0, -3.4, 10.4, 1.3, 1.0, 1.6)+.22*g(0, -9.3, 8, 1.6, .9, 3)+.55*rims+.10*g(3.3, 1., 7.5, 1.8, .6, 3)
    red = red+.35*(a > 6)*(y < 2)*(y > -4.5)*g(7.5, -1.2, -1.2, 1.5, 3, 3)
    rgb = base*np.exp(-red[:, None]*np.array([.03, .36, .30])*dark)
    rgb = rgb*np.exp(-.12*g(3.0, -1.35, 7.6, 1.5, .45, 3)[:, None]*np.array([.6, 1, .7]))
    lip = base*np.array([.86, .42, .43])*(1-.25*who.lip_red)+who.lip_red*np.array([.12, .0, .015])*base[0]
    w = (lips*(.62+.30*who.lip_red))[:, None]
    rgb = rgb*(1-w)+lip*w
    w = np.clip(bag, 0, 1)[:, None]
    rgb = rgb*(1-w)+np.array([.20, .034, .034])*w
    w = hairy[:, None]
    return rgb*(1-w)+np.array(who.hair_rgb)*.65*w


def add_skin(b, who, form):
    "Head, neck and mouth bag from the cage. Returns the cage points."
    c = cage()
    P = place(who, form)
    v = c.skin(P)
    keep = np.zeros(c.n)
    keep[c.row > 4], keep[c.row == 4], keep[c.mouth[0]], keep[c.crown[:, 0]] = 1, .5, 1, 1
    keep = np.clip(c.skin(keep), 0, 1)**2                                   # skin that is laid on the form: not lids, lips, neck
    v = form.pull(torch.tensor(v, dtype=torch.float32), torch.tensor(keep, dtype=torch.float32), steps=5).numpy().astype(float)
    v = even(v, skin_mirror())
    faces = np.concatenate([c.quads[:, [0, 1, 2]], c.quads[:, [0, 2, 3]]])
    lid, rims = np.zeros(c.n), np.zeros(c.n)
    for e in (1, -1): lid[c.eyes[e][1:]], rims[c.eyes[e][3:]] = 1, 1
    lid, rims = c.skin(lid), np.clip(c.skin(rims), 0, 1)
    lips, bag = np.clip(c.skin(on_rings([0, .05, .95, 1, 1, 1, 0, 0])), 0, 1), np.clip(c.skin(on_rings([0, 0, 0, 0, 0, .45, 1, 1])), 0, 1)
    style = "short" if who.hair == "bald" else who.hair
    hairy = ease(-.25, .45, above_hairline(v, style)+.25*np.sin(5*np.abs(v[:, 0])+4*v[:, 2]))*(lid < .01)*(bag < .01)*(v[:, 1] > -7)*(who.hair != "bald")
    v = v+normals(v, faces)*(.20*ease(0, 1, above_hairline(v, style))*hairy)[:, None]
    pivot = np.where((lid > 1e-6)[:, None], np.array([who.eye_x, 0, who.eye_z])*np.stack([np.sign(v[:, 0]), 0*lid+1, 0*lid+1], 1), HINGE)
    for e in (1, -1):                                                     # the lids stay outside the ball
        o = np.array([e*who.eye_x, 0, who.eye_z])
        out = v-o
        r = np.linalg.norm(out, axis=1)
        inside = (lid > .3) & (rims < .9) & (r < who.eye_radius+.05) & (e*v[:, 0] > 0)
        v[inside] = o+out[inside]*((who.eye_radius+.05)/r[inside])[:, None]
    gloss = .55+.75*lips+.35*bump(v, (0, -3.4, 10.5), (1.3, 1.2, 2))+.25*bump(v, (0, 5, 7), (4, 2, 3))
    y = v[:, 1]
    head = np.where(bag > .5, 1., ease(-17., -11.2, y))
    b.add(np.where(bag > .5, PARTS.index("mouth"), PARTS.index("skin")), v, faces, paint(who, v, lips, bag, rims, hairy), gloss=gloss,
        move={k: c.skin(d) for k, d in displacements(who, P).items()}, swing={k: c.skin(a) for k, a in swings(who, P).items()}, pivot=pivot, head=head)
    return P, lips, np.clip(lid, 0, 1)


def add_parts(b, who, form, P):
    "Eyes, ears, mouth's contents, lashes, shirt, hair."
    c = cage()
    base = skin_tone(who.skin)
    d, f = parts.eyeball()
    for side, name in ((1, "eyeL"), (-1, "eyeR")):
        o = np.array([side*who.eye_x, 0, who.eye_z])
        b.add(name, d*who.eye_radius+o, f, .8, uvw=d, pivot=o)
    for side in (1, -1):
        v, f, bowl = parts.ear(who, form, side)
        b.add("skin", v, f, base*np.exp(-(.20+.35*bowl)[:, None]*np.array([.05, .34, .28])), uvw=v*[1, 1, 0]-[0, 30, 0], gloss=.45)
    z0 = float(form.height(torch.zeros(1), torch.full((1,), MOUTH_Y))[0])
    mouth = np.array([0, MOUTH_Y, z0])
    riding = dict(jawOpen=JAW, closed=JAW)
    v, f, rgb = parts.teeth(True)
    b.add("teeth", v*[.97, 1, 1]+mouth+[0, -.18, -.02], f, rgb, gloss=1.)
    v, f, rgb = parts.teeth(False)
    b.add("teeth", v*[.91, 1, 1]+mouth+[0, -.20, -.34], f, rgb, gloss=1., swing=riding)
    v, f, tip = parts.tongue()
    b.add("tongue", v+mouth+[0, -.72, -1.65], f, [.58, .20, .19], gloss=1., swing=dict(jawOpen=JAW*(.95-.12*tip), closed=JAW*(.95-.12*tip)))
    D, W = displacements(who, P), swings(who, P)
    for side in (1, -1):
        o, rings = np.array([side*who.eye_x, 0, who.eye_z]), c.eyes[side]
        w, offset, f = parts.lashes(who, P[rings[3][:9]], P[rings[2][:9]], o, side)
        edge = w@P[rings[3][:9]]
        follow = lambda a: np.concatenate([w@a[rings[3][:9]]]*3)
        b.add("lashes", (edge+offset).reshape(-1, 3), f, [.014, .010, .009], move={k: follow(a) for k, a in D.items()},
              swing={k: follow(a) for k, a in W.items() if k not in ("jawOpen", "closed")}, pivot=o)
    v, f, collar = parts.shirt(who)
    b.add("torso", v, f, np.array(who.shirt_rgb)*(1-.30*collar)[:, None], head=0.)
    if who.hair == "bald": return
    for piece in [locks(who, form)]+([bun()] if who.hair == "bun" else []):
        v, f, uvw, tone = piece
        b.add("hair", v, f, np.array(who.hair_rgb)*np.clip(tone, .3, 1.4)[:, None], uvw=uvw)


def occlusion(v, n, faces, count=64, size=200):
    "Share of the sky each vertex sees, from `count` directions (above counts a little more)."
    from talkinglab.face.mesh_shade_kernels import depth_map
    i = np.arange(count)+.5
    polar, turn = np.arccos(1-2*i/count), np.pi*(1+5**.5)*i
    sky = np.stack([np.sin(polar)*np.cos(turn), np.cos(polar), np.sin(polar)*np.sin(turn)], 1)
    seen, total = np.zeros(len(v)), np.full(len(v), 1e-6)
    f = np.ascontiguousarray(faces, np.int32)
    for d in sky:
        u, w, z = sun_coordinates(v, d, size)
        depth = depth_map(u, w, z, f, size)
        weight = np.maximum(n@d, 0)*(1+.4*d[1])
        i, j = np.clip(u.astype(int), 0, size-1), np.clip(w.astype(int), 0, size-1)
        seen += weight*(depth[j, i] < z+.38)
        total += weight
    return np.clip(seen/total, 0, 1)


def sun_coordinates(v, direction, size, center=(0, -3, 0), half=25.):
    "Points as a parallel light from `direction` sees them: texel column, texel row, height towards the light (cm)."
    d = np.asarray(direction, float)/np.linalg.norm(direction)
    u = np.cross([0, 1., 1e-4], d)
    u /= np.linalg.norm(u)
    q, s = v-np.asarray(center), size/(2*half)
    return tuple(np.ascontiguousarray(a, np.float32) for a in (q@u*s+size/2, q@np.cross(d, u)*s+size/2, q@d))


def build(who):
    "All arrays of a person's rig, in centimetres, as a dict."
    b, form = Builder(), head_form(who)
    P, lips, lids = add_skin(b, who, form)
    add_parts(b, who, form, P)
    v, faces, part = b.cat("v"), np.concatenate(b.faces), b.cat("part")
    n = normals(v, faces)
    solid = (part != PARTS.index("lashes"))[faces[:, 0]]
    ao = occlusion(v, n, faces[solid])
    pad = lambda a: np.concatenate([a, np.zeros(len(v)-len(a))])
    inner = np.isin(part, [PARTS.index(p) for p in ("mouth", "teeth", "tongue")])
    ao = np.where(inner, np.clip(.16+.17*(v[:, 2]-2.6), .08, .95), ao)       # a closed mouth would bake to black: depth decides
    ao = np.where(np.isin(part, [2, 3]), .35+.65*ao, ao)
    ao = np.where(part == PARTS.index("hair"), .34+.66*ao, ao)
    ao = np.where(pad(lips) > .25, np.maximum(ao, .72), ao)
    swing = b.cat("swing")
    return dict(vertices=v, faces=faces, basis=b.cat("move"), swing=swing[:-2], closed=swing[-2], follow=swing[-1], pivots=b.cat("pivot"),
        parts=part, head=b.cat("head"), albedo=np.clip(b.cat("albedo"), .003, .95), uvw=b.cat("uvw"), gloss=b.cat("gloss"), ao=ao, lips=pad(lips), lids=pad(lids),
        brows=bump(np.abs(v), (3.2, 2.7, 8), (2.2, .7, 2.5))*(v[:, 2] > 3)*(v[:, 1] > 0)*(part == 0),
        eyes=np.array([[e*who.eye_x, 0, who.eye_z] for e in (1, -1)]))
