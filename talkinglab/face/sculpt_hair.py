"""Hair: a dark, slightly raised scalp, and tapered locks that ride on it along a flow field (cm)."""
import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from talkinglab.face.sculpt_express import ease
from talkinglab.face.sculpt_parts import grid_faces

AZIMUTH = [0, 20, 38, 50, 62, 74, 86, 98, 120, 150, 180]   # Degrees from the face's middle
HAIRLINE = {                                               # Height of the hairline at these azimuths, cm
    "short": [7.0, 6.9, 6.1, 4.6, 1.4, -1.4, .7, .3, -3.8, -5.4, -5.8],
    "crop": [6.9, 6.8, 6.0, 4.5, 1.5, -1.3, .7, .4, -3.4, -5.0, -5.4],
    "bun": [7.0, 7.0, 6.1, 4.7, 1.9, -.6, .9, .5, -3.6, -5.2, -5.6]}
WHORL = np.array([-1.2, 10.8, -5.5])                       # Hair grows away from here


def above_hairline(points, style):
    "Height over the hairline, cm (negative on the face and neck)."
    a = np.degrees(np.abs(np.arctan2(points[:, 0], points[:, 2]+1.0)))
    return points[:, 1]-PchipInterpolator(AZIMUTH, HAIRLINE[style])(a)


def seeds(form, style, count, rng):
    "Roots spread evenly over the scalp, and their height over the hairline."
    i = np.arange(count)+.5
    polar, turn = np.arccos(1-2*i/count), np.pi*(1+5**.5)*i
    d = np.stack([np.sin(polar)*np.cos(turn), np.cos(polar), np.sin(polar)*np.sin(turn)], 1)+rng.normal(0, .02, (count, 3))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    p = form.pull(torch.tensor(np.array([0, 3., -1.2])+d*[7.4, 7.8, 9.4], dtype=torch.float32), steps=6).numpy().astype(float)
    h = above_hairline(p, style)
    keep = h > .12
    return p[keep], h[keep]


def flow(q, normal, style):
    "Direction in which hair lies at points q: away from the whorl, swept from the parting on top, down and back at the sides."
    x, y, z = q.T
    top = ease(3.5, 8, y)[:, None]
    away = q-WHORL
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    if style == "bun": field = np.array([0, 9.2, -7.2])-q
    else:
        side = np.stack([0*x, -1+0*x, -.55+0*x], 1)
        sweep = np.stack([np.where(x > 2.3, 1.1, -1.05)*ease(-2, 3, z), .25+0*x, .55-1.0*ease(1, 5.5, z)], 1)
        if style == "crop": sweep = np.stack([-.5+0*x, 0*x, .5+0*x], 1)
        field = (.75*away+.9*sweep)*top+(.3*away+side)*(1-top)
    field -= normal*(field*normal).sum(1, keepdims=True)
    return field/(np.linalg.norm(field, axis=1, keepdims=True)+1e-6)


def locks(who, form, count=700, along=8, across=4, seed=3):
    "Tapered, arched ribbons: points, faces, texture coordinates (across + own number, along, own tone) and root heights."
    rng, style = np.random.default_rng(seed), who.hair
    p, height = seeds(form, style, count, rng)
    n, rand = len(p), rng.random((len(p), 5))
    top, front = ease(3.5, 8.5, p[:, 1]), ease(0, 6, p[:, 2])*ease(3.5, 8.5, p[:, 1])
    length = (2.8+4.2*top+.5*front)*(.7+.5*rand[:, 0])*ease(-1.2, 2.5, height+.9*top)
    width = (.44+.20*top)*(.75+.5*rand[:, 1])
    lift = (.22+.60*top+.50*front)*ease(-.2, 1.6, height+.3)*who.hair_volume
    if style == "crop": length, width, lift = .4*length, .8*width, .35*lift
    if style == "bun": lift = .30*lift+.08
    path, normals, q, before = [], [], torch.tensor(p, dtype=torch.float32), None
    for s in range(along):
        u = s/(along-1)
        d, g = form.gradient(q)
        point, normal = q.numpy().astype(float), g.numpy().astype(float)
        f = flow(point, normal, style)+.35*(rand[:, 2:3]-.5)*np.cross(normal, flow(point, normal, style))
        f = f if before is None else .5*before+.5*f
        before = f/(np.linalg.norm(f, axis=1, keepdims=True)+1e-6)
        path.append(point)
        normals.append(normal)
        rise = lift*(.5+.65*np.sin(np.pi*min(1, .1+.8*u)))+.25*u*front+.16*(rand[:, 3]-.3)
        step = point+before*(length/(along-1))[:, None]
        q = torch.tensor(step, dtype=torch.float32)
        d, g = form.gradient(q)
        q = q+g*(.8*(torch.tensor(rise, dtype=torch.float32)-d))[:, None]
    path, normals = np.array(path), np.array(normals)
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)+1e-9
    side = np.cross(normals, tangent)
    u = np.linspace(0, 1, along)[:, None]
    taper = width*np.sin(np.pi*np.clip(.16+.82*u, 0, 1))**.7
    taper[-1] = .02
    arc = np.linspace(-1.25, 1.25, across)
    v = path[:, :, None]+side[:, :, None]*(taper[..., None]*np.sin(arc))[..., None]+normals[:, :, None]*(.55*taper[..., None]*(np.cos(arc)-.45))[..., None]
    v = v.transpose(1, 0, 2, 3)                                            # lock, along, across
    uvw = np.stack(np.broadcast_arrays(arc*width[:, None, None]*.35+11*np.arange(n)[:, None, None] % 97, u[None]*length[:, None, None]*.5, rand[:, 3, None, None]), -1)
    faces = (grid_faces(along, across, flip=True)[None]+(np.arange(n)*along*across)[:, None, None]).reshape(-1, 3)
    tone = (.74+.34*rand[:, 3]*rand[:, 0]+.14*rand[:, 1])[:, None, None]*(.80+.25*u[None])*np.ones((1, 1, across))
    return v.reshape(-1, 3), faces, uvw.reshape(-1, 3), tone.ravel()


def bun(rows=20, columns=28):
    "A knot of hair behind the crown."
    a, b = np.linspace(.02, 3.12, rows)[:, None], np.linspace(0, 2*np.pi, columns, endpoint=False)[None]
    r = 2.7*(1+.05*np.sin(5*b+6*a))
    v = np.stack([r*np.sin(a)*np.cos(b), .9*r*np.cos(a), r*np.sin(a)*np.sin(b)], -1).reshape(-1, 3)+[0, 10.8, -7.6]
    uvw = np.stack(np.broadcast_arrays(a+.7*b, 2*b, .5+0*a), -1).reshape(-1, 3)
    return v, grid_faces(rows, columns, closed=True), uvw, (.85+.2*np.sin(5*b+6*a)).ravel()
