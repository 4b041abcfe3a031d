"""What is not skin: eyeballs, ears, teeth, tongue, lashes, shirt and hair, each a small parametric surface (cm)."""
import numpy as np
import torch
from scipy.interpolate import CubicSpline, PchipInterpolator
from talkinglab.face.rig_files import ease


def grid_faces(rows, columns, closed=False, flip=False):
    "Triangles of a rows x columns grid; `closed` joins the last column to the first."
    i = np.arange(rows*columns).reshape(rows, columns)
    right = np.roll(i, -1, 1) if closed else i[:, 1:]
    left = i if closed else i[:, :-1]
    q = np.stack([left[:-1], right[:-1], right[1:], left[1:]], -1).reshape(-1, 4)
    if flip: q = q[:, ::-1]
    return np.concatenate([q[:, [0, 1, 2]], q[:, [0, 2, 3]]])


def eyeball(rows=13, columns=28):
    "Unit directions from the pupil to behind the ears of the eye, and faces."
    polar = np.linspace(1e-3, 1, rows)[:, None]**1.1*np.radians(115)
    around = np.linspace(0, 2*np.pi, columns, endpoint=False)[None]
    v = np.stack([np.sin(polar)*np.cos(around), np.sin(polar)*np.sin(around), np.cos(polar)+0*around], -1)
    return v.reshape(-1, 3), grid_faces(rows, columns, closed=True, flip=True)


def ear(who, form, side, rows=15, columns=26):
    "A dish with a rolled rim (helix), an inner ridge, a bowl, a tragus and a lobe; hinged at its front edge."
    a = np.linspace(-np.pi, np.pi, columns, endpoint=False)[None]
    r = np.concatenate([np.linspace(0, 1, rows-5), [1.03, 1.0, .88, .66, .4]])[:, None]
    ca, sa = np.cos(a), np.sin(a)
    size = 1+.16*who.ears
    up = 2.95*size*sa*r
    back = size*(1.65*ca*(1+.26*sa)+.10*sa)*r
    g = lambda x, s: np.exp(-(x/s)**2)
    lobe, front = ease(-.5, -.95, sa), ease(-.2, -.85, ca)
    out = .46*g(r-.92, .12)*(1-.7*lobe)*(1-.6*front*(sa < .3))-.26*g(r-.72, .11)*(1-lobe)*ease(-.6, .2, ca)
    out = out+.22*g(r-.52, .14)*ease(-.3, .3, ca)*(1-lobe)-.58*g(np.hypot(back+.2, .8*(up+.2)), .75)
    out = out+.40*g(np.hypot(back+1.1, up+.3), .42)+.10*lobe*g(r-.6, .4)
    behind = (np.arange(rows) > rows-5)[:, None]
    out = np.where(behind, -.12-.42*(1-(r-.4)**2), out)
    anchor = form.pull(torch.tensor([[6.9, -1.2, -1.0]]), steps=8).numpy()[0]
    turn, lean = np.radians(4 if who.hair in ("bob", "long") else 21), np.radians(8) # under long hair they lie close
    back = (back+1.45)+up*np.sin(lean)
    x = anchor[0]-.28+back*np.sin(turn)+out*np.cos(turn)
    z = -.35-back*np.cos(turn)+out*np.sin(turn)
    v = np.stack([x, -1.3+up+0*x, z], -1)*np.array([side, 1, 1])
    bowl = g(np.hypot(back-1.25, up+.2), .75)+.5*g(r-.74, .1)*(1-lobe)
    return v.reshape(-1, 3), grid_faces(rows, columns, closed=True, flip=side > 0), np.clip(bowl, 0, 1).reshape(-1)


def teeth(upper, rows=7, columns=49):
    "A curved band with a scalloped edge; returns points around the mouth's centre, faces, albedo (linear) and the share of gum."
    t, u = np.linspace(-1.2, 1.2, columns)[None], np.linspace(0, 1, rows)[:, None]      # u: 0 at the gum, 1 at the edge
    width, tall = (.78, 1.12) if upper else (.58, .95)
    phase = (2.15*t/width+(0 if upper else .5)) % 1
    gap = np.exp(-(np.minimum(phase, 1-phase)/.055)**2)
    y = tall*(1-.12*t*t)*(1-u)+.05*gap*u
    z = -1.2-1.85*(1-np.cos(t))+.16*np.sin(np.pi*u**.8)-.06*gap*(u > .3)-.20*ease(.86, 1, u)
    v = np.stack([2.15*np.sin(t)+0*u, (y if upper else -y)+0*t, z+0*y], -1).reshape(-1, 3)
    gum = 1-ease(.24, .36, u+.07*np.cos(2*np.pi*phase))
    rgb = np.array([.80, .76, .68])*(1-.30*gap*ease(.3, .5, u))[..., None]*(1-gum[..., None])+np.array([.46, .14, .14])*gum[..., None]
    return v, grid_faces(rows, columns, flip=upper), rgb.reshape(-1, 3), gum.ravel()


def tongue(rows=12, columns=16):
    "A flattened tube with a groove, tip forward; points around the mouth's centre, faces, and 0 (root) .. 1 (tip)."
    u, a = np.linspace(0, 1, rows)[:, None], np.linspace(0, 2*np.pi, columns, endpoint=False)[None]
    half = 1.75*np.sqrt(np.clip(1-((u-.42)/.58)**2, 0, 1)*.75+.25*(1-u**6))*(1-u**10)
    tall = .55*np.sqrt(1-u**4)
    x = half*np.cos(a)
    y = tall*np.sin(a)*np.where(np.sin(a) > 0, 1, .6)-.16*np.exp(-(x/.3)**2)*(np.sin(a) > 0)*(1-u)+.30*np.sin(np.pi*u)
    v = np.stack([x, y, 4.6*(u-1)+0*x], -1).reshape(-1, 3)
    return v, grid_faces(rows, columns, closed=True), np.repeat(u, columns, 1).ravel()


def lashes(who, ring3, ring2, center, side, points=21):
    "A thin dark fan along the upper lid. Returns the weights on the 9 upper cage points of rings 2 and 3, offsets and faces."
    w = CubicSpline(np.arange(9), np.eye(9))(np.linspace(0, 8, points))
    t = np.linspace(0, 1, points)[:, None]                               # 0 at the outer corner
    edge, above = w@ring3, w@ring2
    out = edge-center
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    length = (.12+.34*who.lashes*(1-.7*t))*np.sin(np.pi*np.clip(.96*t+.02, 0, 1))**.8
    aim = out*.75+np.array([side*.75, .30, 0])*(1-t)**1.3+[0, .30, 0]
    rows = [(.25*edge+.75*above)-edge+.07*out, .12*out+.4*length*aim, .06*out+length*aim]
    return w, np.stack(rows), grid_faces(3, points, flip=side < 0)


def shirt(who, rows=18, columns=44):
    "Collar, shoulders and chest; faces and the share of collar in each point."
    a, s = np.linspace(0, 2*np.pi, columns, endpoint=False)[None], np.linspace(0, 1, rows)[:, None]
    knots = [0, .06, .12, .20, .35, .55, .75, 1]
    curve = lambda *y: PchipInterpolator(knots, y)(s)
    n = who.neck
    wide = curve(5.2*n, 5.7*n, 5.85*n, 6.8, 10.2, 14.8, 16.8, 17.2)
    front, behind = curve(4.9, 5.35, 5.5, 6.1, 7.2, 8.2, 9., 9.6), curve(5.2, 5.6, 5.8, 6.3, 7., 8., 8.6, 9.)
    side_y = curve(-13.9, -13.6, -13.9, -14.3, -15.5, -17.6, -21., -31.)
    front_y = curve(-15.4, -15.1, -15.4, -16.3, -18.7, -22.6, -26.5, -34.)
    sn, co, e = np.sin(a), np.cos(a), 2/(2+.8*s)
    x = wide*np.sign(sn)*np.abs(sn)**e
    z = -2.4+np.where(co > 0, front, behind)*np.sign(co)*np.abs(co)**e
    y = side_y+np.where(co > 0, (front_y-side_y)*co*co, .7*co*co*(1-s))+.12*np.exp(-((s-.06)/.05)**2)
    fold = .10*np.sin(3*a+7*s)*ease(.25, .5, s)+.07*np.sin(11*a-9*s)*ease(.3, .6, s)*ease(.3, .8, np.abs(sn))
    collar = np.exp(-((s-.14)/.02)**2)+0*a
    return np.stack([x, y+fold, z], -1).reshape(-1, 3), grid_faces(rows, columns, closed=True, flip=True), collar.ravel()
