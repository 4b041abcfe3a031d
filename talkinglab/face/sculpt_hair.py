"""Hair: a shell combed along its own grid, and tapered locks that ride on it (cm).

The shell's columns run from a whorl at the back of the crown down to the hairline (or, in long cuts, past it into the
air). A lock is a ribbon over a path in the shell's own coordinates, so that no lock can leave the head.
"""
from dataclasses import dataclass
import numpy as np
import torch
from scipy.interpolate import PchipInterpolator, RegularGridInterpolator
from talkinglab.face.rig_files import ease
from talkinglab.face.sculpt_parts import grid_faces

AZIMUTH = [0, 20, 38, 50, 62, 74, 86, 98, 120, 150, 180]   # Degrees from the face's middle
HAIRLINE = [7.0, 6.9, 6.1, 4.6, 1.4, -1.4, .7, .3, -3.8, -5.4, -5.8] # Where hair grows down to at these azimuths, cm
POLE = np.radians(24)                                      # The whorl lies so far behind the crown
CENTER, RADII = np.array([0, 1., -1.5]), np.array([7.4, 9.8, 9.2])


@dataclass(frozen=True)
class Cut:
    "One way to wear hair. Lengths in cm; shares of the way from whorl to tip in [0, 1]."
    thick:float=.6          # Of the shell, on top
    side:float=.35          # Of the shell, at the sides
    locks:int=150
    length:float=.55        # Of a lock, share of a column
    width:float=1.0
    lift:float=.45          # How high locks arch over the shell
    sweep:float=0.          # How far locks turn sideways on their way, degrees of azimuth
    part:float|None=None    # Azimuth of the parting, degrees; locks turn away from it
    fringe:float|None=None  # Height to which hair falls on the forehead
    fall:float|None=None    # Height to which it falls at the sides and behind
    back:bool=False         # Combed to the back of the head
    bun:bool=False
    curls:int=0
    jitter:float=1.


CUTS = {"bald": None, "crop": Cut(.22, .16, 0), "short": Cut(.75, .40, 170, .50, 1.25, .50, 30., 26., fringe=5.9),
        "swept": Cut(1.25, .35, 120, .62, 1.3, .55, 10., None, back=True), "bob": Cut(.85, .75, 130, .75, 1.35, .22, 4., None, fringe=3.1, fall=-7.2, jitter=.5),
        "long": Cut(.75, .75, 130, .8, 1.35, .22, 24., 20., fall=-12.6, jitter=.5), "bun": Cut(.38, .30, 90, .8, 1.1, .14, 0., None, back=True, bun=True, jitter=.4),
        "curls": Cut(1.1, .8, 0, curls=300)}


def above_hairline(points):
    "Height over the hairline, cm (negative on the face and neck)."
    a = np.degrees(np.abs(np.arctan2(points[:, 0], points[:, 2]+1.0)))
    return points[:, 1]-PchipInterpolator(AZIMUTH, HAIRLINE)(a)


def skull(form, rows=28, columns=48):
    "The head on a grid of directions around the whorl: rows lead away from it, columns turn around it."
    t, a = np.linspace(.02, 2.75, rows)[:, None], np.linspace(-np.pi, np.pi, columns, endpoint=False)[None]
    d = np.stack([np.sin(t)*np.sin(a), np.cos(t)+0*a, np.sin(t)*np.cos(a)], -1)
    c, s = np.cos(POLE), np.sin(POLE)
    d = np.stack([d[..., 0], c*d[..., 1]+s*d[..., 2], -s*d[..., 1]+c*d[..., 2]], -1).reshape(-1, 3)
    p = form.pull(torch.tensor(CENTER+d*RADII, dtype=torch.float32), steps=4)
    return p.numpy().astype(float).reshape(rows, columns, 3), form.gradient(p)[1].numpy().astype(float).reshape(rows, columns, 3)


def columns_to(p, n, cut, rows=15):
    "Resample every column between the whorl and where this cut ends: places, outward normals, height over the hairline."
    h = above_hairline(p.reshape(-1, 3)).reshape(p.shape[:2])
    places, normals, edge = [], [], []
    for k in range(p.shape[1]):
        inside = h[:, k] < 0
        inside[:4] = False
        i = int(np.argmax(inside)) if inside.any() else len(inside)-1
        u = np.clip(h[i-1, k]/(h[i-1, k]-h[i, k]+1e-9), 0, 1)
        path = np.vstack([p[:i, k], p[i-1, k]+u*(p[i, k]-p[i-1, k])])
        norm = np.vstack([n[:i, k], n[i-1, k]])
        path, norm, cap = falling(path, norm, cut, k)
        s = np.r_[0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))]
        at = s[-1]*np.linspace(0, 1, rows)**.9
        if cut.fall is not None: at = np.r_[s[cap-1]*np.linspace(0, 1, rows-6), s[cap-1]+(s[-1]-s[cap-1])*np.linspace(0, 1, 7)[1:]] # the same rows lie on the head everywhere
        places.append(np.stack([np.interp(at, s, path[:, j]) for j in range(3)], 1))
        normals.append(np.stack([np.interp(at, s, norm[:, j]) for j in range(3)], 1))
        edge.append(s[-1])
    n = np.stack(normals, 1)
    return np.stack(places, 1), n/np.linalg.norm(n, axis=-1, keepdims=True), np.array(edge)


def falling(path, norm, cut, k):
    "Let a column hang on past the hairline: over the forehead to the fringe, at the sides and behind to the fall; tips uneven. Also counts the points that lie on the head."
    end, ragged = path[-1], .30*np.sin(1.9*k)+.22*np.sin(4.3*k+1)
    azimuth = np.degrees(abs(np.arctan2(end[0], end[2]+1.0)))
    if cut.fall is not None and azimuth > (50 if cut.fringe is not None else 5):
        leave = int(np.argmax(path[:, 1] < 2.4)) or len(path)
        path, norm = path[:leave], norm[:leave]
        q, out = path[-1], norm[-1]*[1, 0, 1]
        out /= np.linalg.norm(out)
        drop, aside = np.linspace(0, 1, 10)[1:, None], ease(66, 58, azimuth)      # what grows over the temples is drawn to the side
        low = cut.fall+.5*ease(110, 180, azimuth)+.6*ragged
        out = out*(1-aside)+np.array([np.sign(q[0])*.9, 0, .3])*aside
        swing = aside*ease(0, .35, drop)
        x, z = q[0]+(np.sign(q[0])*7.2-q[0])*swing, q[2]+(1.6-q[2])*swing**(1+2*ease(50, 20, azimuth))
        down = np.concatenate([x*(1-.06*drop**2), q[1]+(low-q[1])*drop, z-.3*drop**2*np.sign(q[2])], 1)+out*(.25*np.sin(np.pi*drop))
        return np.vstack([path, down]), np.vstack([norm, np.repeat(out[None], 9, 0)]), len(path)
    low = None if cut.fringe is None else cut.fringe+(ragged if cut.part is None else 1.4*ragged+.13*end[0])  # a side parting lifts one side
    if low is not None and azimuth < 48 and end[1] > low:
        drop = np.linspace(0, 1, 5)[1:, None]*ease(48, 36, azimuth)
        down = end+drop*[0, low-end[1], 0]
        down[:, 2] += .25*drop[:, 0]
        return np.vstack([path, down]), np.vstack([norm, np.repeat(norm[-1:], 4, 0)]), len(path)
    return path, norm, len(path)


def thickness(cut, who, p, rows):
    "How far the shell stands off the head: full on top, thinner at the sides, nothing at a hairline, something where hair hangs."
    s = np.linspace(0, 1, rows)[:, None]
    top = ease(1., 7.5, p[..., 1])
    body = (cut.side+(cut.thick-cut.side)*top)*who.hair_volume
    azimuth = np.degrees(np.abs(np.arctan2(p[-1, :, 0], p[-1, :, 2]+1.0)))[None]
    hang = np.zeros_like(azimuth) if cut.fall is None else ease(*((46, 62) if cut.fringe is not None else (0, 8)), azimuth)
    if cut.fringe is not None: hang = np.maximum(hang, .45*ease(48, 40, azimuth))
    front = cut.thick*.5*ease(45, 20, azimuth)*s**2 if cut.back else 0
    ear = 1.05*ease(50, 75, azimuth)*ease(125, 100, azimuth)*ease(3.5, .5, p[..., 1]) if cut.fall is not None else 0
    blunt = .72 if cut.fall is None else .93
    return body*np.maximum(ease(1, blunt, s)**.8, hang)+front*ease(1, .9, s)+ear-.06*ease(.9, 1, s)*(1-hang)


def shell(who, form, cut, rows=15):
    "The body of hair: grid points (rows columns 3), outward normals and column lengths."
    p, n, edge = columns_to(*skull(form), cut, rows)
    return p+n*thickness(cut, who, p, rows)[..., None], n, edge


def strands(p, edge, cut, number=0.):
    "Texture coordinates over a shell: across the strands (cm), along them (cm), tone."
    rows, columns = p.shape[:2]
    s, a = np.linspace(0, 1, rows)[:, None], np.linspace(-np.pi, np.pi, columns, endpoint=False)[None]
    if cut.back: return np.stack(np.broadcast_arrays(p[..., 0]*(1+.3*s), .55*np.hypot(p[..., 1]+2, p[..., 2]+9), .5+0*s), -1)
    return np.stack(np.broadcast_arrays(np.where(np.abs(a) < 3.05, 7.5*a, 7.5*a), .5*edge[None]*s, .5+0*s*a), -1)


def strips(long, a):
    "Azimuths moved out of partings, and the partings on either side. `long`: lengths of the columns; a parting is where they jump."
    columns = len(long)
    at = np.linspace(-np.pi, np.pi, columns, endpoint=False)
    k = np.flatnonzero(np.abs(np.diff(long)) > .15)
    j = np.searchsorted(.5*(at[k]+at[k+1]), a)
    low, high = np.r_[-9., at[k+1]+.1][j], np.r_[at[k]-.1, 9.][j]
    return np.clip(a, low, high), low, high


def locks(who, grid, normal, long, cut, rng, along=6):
    "Tapered ribbons with a ridge: points, faces, texture coordinates, place along each lock, own tone."
    rows, columns = grid.shape[:2]
    wrap = lambda g: RegularGridInterpolator((np.linspace(0, 1, rows), np.linspace(-np.pi, np.pi, columns+1)), np.concatenate([g, g[:, :1]], 1), bounds_error=False, fill_value=None)
    at, up = wrap(grid), wrap(normal)
    m = cut.locks
    i, rand = np.arange(m)+.5, rng.random((m, 6))
    start = np.clip(np.sqrt(i/m)*(1-.62*cut.length)+.06*(rand[:, 0]-.5), .03, .97)       # roots, evenly over the cap
    a0 = (np.pi*(1+5**.5)*i) % (2*np.pi)-np.pi+.10*(rand[:, 1]-.5)
    stop = np.minimum(start+cut.length*(.75+.5*rand[:, 2]), 1.0+.05*rand[:, 3])
    turn = np.radians(cut.sweep)*(1. if cut.part is None else np.tanh((a0-np.radians(cut.part))*3)*ease(2.4, 1.2, np.abs(a0)))
    u = np.linspace(0, 1, along)[:, None]
    s, (a0, low, high) = start+(stop-start)*u, strips(long, a0)
    a = a0+turn*u**1.5*ease(0, .5, s)*2+cut.jitter*.12*(rand[:, 4]-.5)*u
    if cut.back: a, s = a0*(1-.5*ease(0, .8, 1-u)*0), stop+(start-stop)*u
    a = np.clip(a, low, high)
    q = np.stack([np.clip(s, 0, 1.04), (a+np.pi) % (2*np.pi)-np.pi], -1)
    p, n = at(q), up(q)
    for _ in range(2): p[1:-1] = .5*p[1:-1]+.25*(p[:-2]+p[2:])                  # no kinks where columns differ in length
    n /= np.linalg.norm(n, axis=-1, keepdims=True)
    lift = cut.lift*who.hair_volume*(.35+.65*rand[:, 5])
    p = p+n*(.05+lift*np.sin(np.pi*np.clip(.12+.80*u, 0, 1)))[..., None]
    tangent = np.gradient(p, axis=0)
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)+1e-9
    side = np.cross(n, tangent)
    width = cut.width*(.7+.6*rand[:, 3])*(.45+.55*ease(.05, .5, start))
    taper = width*np.sin(np.pi*np.clip(.20+.80*u, 0, 1))**.75
    taper[-1] = .03
    v = np.stack([p-side*taper[..., None]*.62-n*.22*taper[..., None], p+n*.16*taper[..., None], p+side*taper[..., None]*.62-n*.22*taper[..., None]], 2)
    v = v.transpose(1, 0, 2, 3)                                            # lock, along, across
    length = np.linalg.norm(np.diff(p, axis=0), axis=-1).sum(0)
    uvw = np.stack(np.broadcast_arrays(np.array([-.6, 0, .6])*width[:, None, None]+3.1*np.arange(m)[:, None, None], (u[:, 0]*length[:, None]*.5)[..., None], rand[:, 3, None, None]), -1)
    faces = (grid_faces(along, 3, flip=True)[None]+(np.arange(m)*along*3)[:, None, None]).reshape(-1, 3)
    own = np.interp(a0, np.linspace(-np.pi, np.pi, columns, endpoint=False), long)
    place = np.broadcast_to((s.T*own[:, None])[..., None], v.shape[:3]).ravel()
    tone = np.broadcast_to((.72+.45*rand[:, 3:4])[..., None]*(.80+.25*u[:, 0])[None, :, None], v.shape[:3]).ravel()
    return v.reshape(-1, 3), faces, uvw.reshape(-1, 3), tone, place


def curls(grid, normal, edge, count, rng):
    "Knots of hair: little domes, each twisted, over the whole shell."
    rows, columns = grid.shape[:2]
    i, rand = np.arange(count)+.5, rng.random((count, 3))
    s, a = np.sqrt(i/count)*.985, (np.pi*(1+5**.5)*i) % (2*np.pi)
    j, k = s*(rows-1), a/(2*np.pi)*columns
    j0, k0 = np.minimum(j.astype(int), rows-2), k.astype(int) % columns
    fj, fk = (j-j0)[:, None], (k-k.astype(int))[:, None]
    mix = lambda g: (1-fj)*((1-fk)*g[j0, k0]+fk*g[j0, (k0+1) % columns])+fj*((1-fk)*g[j0+1, k0]+fk*g[j0+1, (k0+1) % columns])
    p, n = mix(grid), mix(normal)
    n /= np.linalg.norm(n, axis=1, keepdims=True)
    x = np.cross(n, [0, 1, .01])
    x /= np.linalg.norm(x, axis=1, keepdims=True)+1e-9
    y = np.cross(n, x)
    size = (.85+.45*rand[:, 0])[:, None]
    points = [p+n*size*(.52+.3*rand[:, 1:2])]
    for ring, (r, up, m) in enumerate(((.62, .36, 6), (1.02, -.35, 6))):
        t = 2*np.pi*(np.arange(m)/m+.5*ring/m+rand[:, 2:3])
        points += [p+size*(r*(np.cos(t[:, q:q+1])*x+np.sin(t[:, q:q+1])*y)+up*n*(1+.25*np.sin(2*t[:, q:q+1]))) for q in range(m)]
    v = np.stack(points, 1)
    hub = [[0, 1+q, 1+(q+1) % 6] for q in range(6)]
    belt = [f for q in range(6) for f in ([1+q, 7+q, 1+(q+1) % 6], [1+(q+1) % 6, 7+q, 7+(q+1) % 6])]
    f = (np.array(hub+belt)[None]+13*np.arange(count)[:, None, None]).reshape(-1, 3)
    twist = np.r_[0, np.arange(6), np.arange(6)+.5]/6*2.4
    depth = np.r_[0, np.full(6, .6), np.full(6, 1.3)]
    uvw = np.stack(np.broadcast_arrays(depth[None]+3.7*np.arange(count)[:, None], twist[None], rand[:, :1]), -1)
    tone = (.75+.5*rand[:, 0:1])*np.r_[.98, np.full(6, 1.), np.full(6, .62)][None]
    return v.reshape(-1, 3), f, uvw.reshape(-1, 3), tone.ravel()


def bun(rows=12, columns=18):
    "A knot of hair behind the crown."
    a, b = np.linspace(.02, 3.12, rows)[:, None], np.linspace(0, 2*np.pi, columns, endpoint=False)[None]
    r = 2.6*(1+.06*np.sin(5*b+6*a))
    v = np.stack([r*np.sin(a)*np.cos(b), .9*r*np.cos(a), r*np.sin(a)*np.sin(b)], -1).reshape(-1, 3)+[0, 10.9, -7.3]
    uvw = np.stack(np.broadcast_arrays(2*(a+.7*b), 2*b, .5+0*a), -1).reshape(-1, 3)
    return v, grid_faces(rows, columns, closed=True), uvw, (.85+.2*np.sin(5*b+6*a)).ravel()


def wear(who, form, seed=3):
    "All hair of a person: points, faces, texture coordinates, tone, and how far towards the tips each point lies."
    cut = CUTS[who.hair]
    if cut is None: return None
    rng = np.random.default_rng(seed)
    grid, normal, edge = shell(who, form, cut)
    rows, columns = grid.shape[:2]
    along = (np.linspace(0, 1, rows)[:, None]*edge/edge.max()).ravel()
    faces, flat = grid_faces(rows, columns, closed=True, flip=True), grid.reshape(-1, 3)
    if cut.fringe is None: faces = faces[np.linalg.norm(flat[faces]-flat[np.roll(faces, 1, 1)], axis=2).max(1) < 4.8]      # a parting is open: nothing spans it
    pieces = [(flat, faces, strands(grid, edge, cut).reshape(-1, 3), np.full(rows*columns, .78), along)]
    if cut.locks: pieces.append(locks(who, grid, normal, edge/edge.max(), cut, rng))
    if cut.curls: pieces.append((*(c := curls(grid, normal, edge, cut.curls, rng)), np.full(len(c[0]), .5)))
    if cut.bun: pieces.append((*(c := bun()), np.full(len(c[0]), .6)))
    count = np.cumsum([0]+[len(p[0]) for p in pieces])
    return tuple(np.concatenate([p[i]+(count[k] if i == 1 else 0) for k, p in enumerate(pieces)]) for i in range(5))
