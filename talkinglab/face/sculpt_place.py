"""Where the cage stands on one person: on the form, with lids around the eyeballs and lips that meet (cm)."""
import numpy as np
import torch
from talkinglab.face.sculpt_cage import MOUTH_Y, cage, even, eye_angles, mouth_angles

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


def lid_ring(who, k, up, low, lift=0.):
    "Ring k of an eye (1 the crease ... 5 behind the lid), on spheres around the eyeball; `up`, `low`: opening, cm."
    _, co, si = eye_angles()
    R, s = who.eye_radius, who.eye_radius/1.95
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
    _, co, si, _ = mouth_angles()
    rim = c.mouth[0]
    P[rim, 0], P[rim, 1] = 3.4*(.5+.5*wide)*co, MOUTH_Y+np.where(si > 0, 1.5, 1.8)*si
    _, ce, se = eye_angles()
    es = .5+.5*who.eye_radius/1.95
    for e in (1, -1):
        q = c.eyes[e][0]
        P[q, 0] = e*(who.eye_x+np.where(ce > 0, 2.6, 2.0)*es*ce)
        P[q, 1] = np.where(se > 0, 2.0, 1.9-.3*np.maximum(ce, 0))*es*se+.15*ce
        free[q] = False
    free[rim] = False
    for (r, k), p in NOSE.items():
        low = {12: .7, 13: 1., 14: .8, 15: .4, 16: .1}.get(r, 0)
        for e in (1, -1) if k else (1,):
            P[index[r, e*k]] = [e*p[0]*(1+.25*who.nose_width*low), p[1]+(.25*who.nose_up-.45*who.nose_length)*low, p[2]+.3*who.nose_length*low]
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
    set_lids(who, form, P)
    set_lips(who, form, P)
    return even(P, c.mirror)


def heights(form, x, y): return form.height(torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)).numpy()


def set_lids(who, form, P):
    "Lid rings on spheres around the eyeball; the crease never sinks below the face."
    for k in range(1, 6):
        q = lid_ring(who, k, who.lid_up, who.lid_low)
        if k == 1: q[:, 2] = np.maximum(q[:, 2], heights(form, q[:, 0], q[:, 1])-.12)
        for e in (1, -1): P[cage().eyes[e][k]] = q*[e, 1, 1]


def set_lips(who, form, P):
    "Lip rings before the form, with a Cupid's bow, resting smile and an overlap that closes them."
    c, wide = cage(), 1+.14*who.mouth_width
    _, co, si, t = mouth_angles()
    rings = np.array(lip_rings(who))
    x = rings[:, :1]*wide*np.sign(co)*np.abs(co)**.92
    z = heights(form, x.ravel()*.95, np.full(x.size, MOUTH_Y)).reshape(x.shape)
    line = (.22+.10*who.smile)*t**2-.05*np.exp(-(t/.22)**2)-.02
    for k, (_, up, low, dz, corner) in enumerate(rings, 1):
        bow = .11*np.exp(-(t/.13)**2)*(k <= 2)
        y = np.where(si > 1e-6, (up-bow)*(1-t**1.7), np.where(si < -1e-6, -low*(1-t**2.1), 0))
        forward = dz*(1-t**3)+corner*t**3-np.where(si < -1e-6, .12, 0)*(1-t**3)*(k <= 3)
        P[c.mouth[k]] = np.stack([x[k-1], MOUTH_Y+line+y, z[k-1]+forward], 1)
    P[c.throat] = P[c.mouth[7]].mean(0)-[0, 0, .4]
