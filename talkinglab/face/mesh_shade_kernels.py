"""The light on the head, one sample at a time: procedural paint, soft shadow, ambient occlusion, three kinds of gloss.

Everything here works in centimetres and linear light; `face.sculpt` calls it and explains the choices.
Materials: 0 skin, 1 eye, 2 hair, 3 wet (teeth, tongue, mouth), 4 cloth, 5 lashes.
"""
import numpy as np
from numba import njit

SKIN, EYE, HAIR, WET, CLOTH, LASH = range(6)
SPIRAL = np.array([[[np.sqrt((q+.5)/10)*f(2.39996*q+1.7*turn) for f in (np.cos, np.sin)] for q in range(10)] for turn in range(4)]) # Taps on the unit disc
IRIS, PUPIL = .56, .235        # Radii of iris and pupil on the unit eyeball


@njit(cache=True, nogil=True, fastmath=True)
def ease(a, b, x):
    "0 below a, 1 above b, smooth between (also for a > b)."
    t = min(max((x-a)/(b-a), 0.), 1.)
    return t*t*(3-2*t)


@njit(cache=True, nogil=True, fastmath=True)
def lattice(i, j, k):
    "A fixed random number in [0, 1] for each lattice point."
    n = (i*73856093) ^ (j*19349663) ^ (k*83492791)
    n = (n ^ (n >> 13))*1274126177
    return ((n ^ (n >> 16)) & 65535)/65535.


@njit(cache=True, nogil=True, fastmath=True)
def noise(x, y, z):
    "Value noise in [0, 1], one feature per unit."
    i, j, k = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    u, v, w = x-i, y-j, z-k
    u, v, w = u*u*(3-2*u), v*v*(3-2*v), w*w*(3-2*w)
    s = 0.
    for a in range(2):
        for b in range(2):
            for c in range(2):
                s += lattice(i+a, j+b, k+c)*(u if a else 1-u)*(v if b else 1-v)*(w if c else 1-w)
    return s


@njit(cache=True, nogil=True, fastmath=True)
def depth_map(u, v, w, faces, size):
    "Orthographic view along +w: the largest w at every texel (-1e9: nothing)."
    out = np.full((size, size), -1e9, np.float32)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        y0, y1 = max(0, int(np.ceil(min(v[a], v[b], v[c])-.5))), min(size-1, int(np.floor(max(v[a], v[b], v[c])-.5)))
        x0, x1 = max(0, int(np.ceil(min(u[a], u[b], u[c])-.5))), min(size-1, int(np.floor(max(u[a], u[b], u[c])-.5)))
        if y0 > y1 or x0 > x1: continue
        area = (u[b]-u[a])*(v[c]-v[a])-(u[c]-u[a])*(v[b]-v[a])
        if abs(area) < 1e-9: continue
        for y in range(y0, y1+1):
            for x in range(x0, x1+1):
                wb = ((x+.5-u[a])*(v[c]-v[a])-(u[c]-u[a])*(y+.5-v[a]))/area
                wc = ((u[b]-u[a])*(y+.5-v[a])-(x+.5-u[a])*(v[b]-v[a]))/area
                if wb < 0 or wc < 0 or wb+wc > 1: continue
                z = w[a]+wb*(w[b]-w[a])+wc*(w[c]-w[a])
                if z > out[y, x]: out[y, x] = z
    return out


@njit(cache=True, nogil=True, fastmath=True)
def shadow(depth, u, v, w):
    "Share of the key light that arrives at shadow-map place (u, v, w): four corners first, sixteen taps in a penumbra."
    size, s = depth.shape[0], 0.
    for a in (-2.6, 2.6):
        for b in (-2.6, 2.6):
            i, j = min(max(int(u+a), 0), size-1), min(max(int(v+b), 0), size-1)
            if depth[j, i] < w: s += .25
    if s == 0. or s == 1.: return s
    s = 0.
    for a in range(4):
        for b in range(4):
            i, j = min(max(int(u+(a-1.5)*1.75), 0), size-1), min(max(int(v+(b-1.5)*1.75), 0), size-1)
            if depth[j, i] < w: s += 1/16.
    return s*s*(3-2*s)


@njit(cache=True, nogil=True, fastmath=True)
def screen_occlusion(inv_z, i, j, radius, full, far):
    "Share of the neighbourhood that stands in front of this sample (by `full` cm or more, less than `far`), from 10 taps on a spiral."
    z, s, turn = 1/inv_z[j, i], 0., (i*7+j*13) % 4
    for q in range(10):
        x, y = int(i+radius*SPIRAL[turn, q, 0]), int(j+radius*SPIRAL[turn, q, 1])
        if x < 0 or y < 0 or x >= inv_z.shape[1] or y >= inv_z.shape[0] or inv_z[y, x] <= 0: continue
        d = z-1/inv_z[y, x]
        if d > .08: s += ease(.08, full, d)*ease(far, .25*far, d)
    return s/10


@njit(cache=True, nogil=True, fastmath=True)
def paint_skin(c, x, y, z, style):
    "Mottling, brows, nostrils and the shadow line of the lips, from the place on the resting head (cm)."
    soft, fine = noise(2.1*x+50, 2.1*y+50, 2.1*z+50)-.5, noise(9*x+90, 9*y+90, 9*z+90)-.5
    c[0] *= 1+.03*soft+.03*fine
    c[1] *= 1+.08*soft+.04*fine
    c[2] *= 1+.07*soft+.04*fine
    a = abs(x)
    if z > 3 and y > 1.2 and y < 5:                                       # brows: strokes that lean outwards
        t = (a-1.25)/4.15
        if t > -.1 and t < 1.15:
            middle = 2.35+style[0]+.80*t-.85*max(t, 0.)**2.6
            thick = style[1]*(1-.68*min(max(t, 0.), 1.)**1.3)*ease(-.08, .12, t)*ease(1.08, .90, t)
            if thick > .03:
                q = (y-middle)/thick
                body = np.exp(-abs(q)**3)
                stroke = noise(26*(t-.045*q*(1-.5*t))+200, 1.6*q+9, 3.)
                k = min(1., body*(1.25-.75*stroke*abs(q)**.7)*.94)
                for i in range(3): c[i] += (style[2+i]*(.8+.4*stroke)-c[i])*k
    dx, dy, dz = (a-style[5])/.36, (y-style[6])/.27, (z-style[7])/.50     # nostrils
    k = .85*np.exp(-(dx*dx+dy*dy+dz*dz)**1.4)
    c[0] *= 1-.88*k
    c[1] *= 1-k
    c[2] *= 1-k


@njit(cache=True, nogil=True, fastmath=True)
def paint_eye(c, x, y, z, style):
    "Iris with fibres and a dark rim, pupil, sclera reddened towards the corners, from the direction on the eyeball."
    r = np.sqrt(x*x+y*y) if z > 0 else 1.
    if r < IRIS:
        q, a = r/IRIS, np.arctan2(y, x)
        fibre = .72+.38*noise(7*a+40, 2.4*q, 3.)+.14*np.sin(29*a+4*np.sin(5*a))
        light = (.62+.70*ease(.35, .9, q))*fibre*(1-.80*ease(.80, 1., q))*(.85+.60*ease(.3, -.6, y/IRIS))
        pupil = ease(PUPIL/IRIS-.03, PUPIL/IRIS+.04, q)
        for i in range(3): c[i] = (style[8+i]*light)*pupil+.003*(1-pupil)
    else:
        edge, far = ease(IRIS, IRIS+.045, r), ease(.60, 1., r)
        c[0] = (.80-.12*far)*edge+.025*(1-edge)
        c[1] = (.77-.20*far)*edge+.025*(1-edge)
        c[2] = (.75-.20*far)*edge+.03*(1-edge)


@njit(cache=True, nogil=True, fastmath=True)
def strand_tangents(vertices, uvw, faces, keep):
    "Unit direction in which the second texture coordinate grows, averaged over the faces around each vertex."
    out = np.zeros_like(vertices)
    for f in range(faces.shape[0]):
        if not keep[f]: continue
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        u1, u2 = uvw[b, 0]-uvw[a, 0], uvw[c, 0]-uvw[a, 0]
        sign = 1. if u1*(uvw[c, 1]-uvw[a, 1])-u2*(uvw[b, 1]-uvw[a, 1]) > 0 else -1.
        for k in range(3):
            for d in range(3): out[faces[f, k], d] += sign*(u1*(vertices[c, d]-vertices[a, d])-u2*(vertices[b, d]-vertices[a, d]))
    for v in range(out.shape[0]):
        length = np.sqrt(out[v, 0]**2+out[v, 1]**2+out[v, 2]**2)
        if length > 1e-12:
            for d in range(3): out[v, d] /= length
    return out


@njit(cache=True, nogil=True, fastmath=True)
def display(x):
    "Compress highlights as film does (Narkowicz's fit of ACES), then the display's curve."
    x = max(x, 0.)
    x = min(1., x*(2.51*x+.03)/(x*(2.43*x+.59)+.14))
    return 12.92*x if x < .0031308 else 1.055*x**(1/2.4)-.055


@njit(cache=True, nogil=True, fastmath=True)
def shade(face, inv_z, bary, P, N, T, albedo, uvw, gloss, ao, faces, material, eye, light, light_rgb, shadow_map, S, style, reach, exposure):
    "Display colour of every covered sample."
    height, width = face.shape
    out = np.zeros((height, width, 3), np.float32)
    c, p, n, t3, s3, amb, total = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)
    wrap = np.zeros(3)
    for j in range(height):
        for i in range(width):
            f = face[j, i]
            if f < 0: continue
            m = material[f]
            for k in range(3): c[k] = p[k] = n[k] = t3[k] = s3[k] = 0.
            occ = shine = 0.
            for k in range(3):
                v, w = faces[f, k], bary[j, i, k]
                for d in range(3):
                    c[d] += w*albedo[v, d]
                    p[d] += w*P[v, d]
                    n[d] += w*N[v, d]
                    t3[d] += w*uvw[v, d]
                    s3[d] += w*S[v, d]
                occ += w*ao[v]
                shine += w*gloss[v]
            vx, vy, vz = eye[0]-p[0], eye[1]-p[1], eye[2]-p[2]
            il = 1/np.sqrt(vx*vx+vy*vy+vz*vz)
            vx, vy, vz = vx*il, vy*il, vz*il
            il = 1/np.sqrt(n[0]*n[0]+n[1]*n[1]+n[2]*n[2]+1e-12)
            nv = (n[0]*vx+n[1]*vy+n[2]*vz)*il
            if nv < 0: il, nv = -il, -nv
            nx, ny, nz = n[0]*il, n[1]*il, n[2]*il
            wrap[0] = wrap[1] = wrap[2] = .15
            power, spec, strand = 24., 0., 0.
            tx = ty = tz = 0.
            if m == SKIN:
                paint_skin(c, t3[0], t3[1], t3[2], style)
                wrap[0], wrap[1], wrap[2] = .45, .22, .15
                power, spec = 22., .42*shine
            elif m == EYE:
                paint_eye(c, t3[0], t3[1], t3[2], style)
                wrap[0], wrap[1], wrap[2] = .32, .26, .24
            elif m == HAIR:
                strand = .55*noise(15*t3[0]+7*t3[2]+100, 2.2*t3[1], 9*t3[2])+.45*noise(38*t3[0]+300, 3.5*t3[1], 5*t3[2])
                for k in range(3): c[k] *= .50+.95*strand
                wrap[0] = wrap[1] = wrap[2] = .30
                for k in range(3):                                             # the strand's direction
                    v, w = faces[f, k], bary[j, i, k]
                    tx += w*T[v, 0]
                    ty += w*T[v, 1]
                    tz += w*T[v, 2]
                tl = 1/np.sqrt(tx*tx+ty*ty+tz*tz+1e-12)
                tx, ty, tz = tx*tl, ty*tl, tz*tl
            elif m == WET:
                wrap[0], wrap[1], wrap[2] = .40, .28, .28
                power, spec = 40., .30
            elif m == CLOTH:
                q = .93+.14*noise(p[0]*6+90, p[1]*9+90, p[2]*6+90)
                for k in range(3): c[k] *= q
            occ *= 1-.60*screen_occlusion(inv_z, i, j, reach, .6, 4.)
            if m == WET: occ *= 1-.85*screen_occlusion(inv_z, i, j, 2.6*reach, 1.4, 9.)
            facing = max(0., nx*light[0, 0]+ny*light[0, 1]+nz*light[0, 2])
            key = shadow(shadow_map, s3[0], s3[1], s3[2]+.22+.7*(1-facing))
            if m == WET: key = .40+.45*key
            sky = .5+.5*ny
            base = occ*(.4+.6*occ) if m != SKIN else occ
            amb[0], amb[1], amb[2] = base*(.19+.12*sky), base*(.165+.145*sky), base*(.16+.185*sky)
            if m == SKIN: amb[0] += .055*(1-occ)                              # light that has been inside the skin comes out red
            for k in range(3): total[k] = amb[k]
            for q in range(light.shape[0]):
                nl = nx*light[q, 0]+ny*light[q, 1]+nz*light[q, 2]
                sh = key*(.5+.5*occ) if q == 0 else (.35+.65*occ if q == 1 else occ*occ)
                for k in range(3):
                    bleed = sh
                    if q == 0 and m == SKIN: bleed = sh+(1-sh)*(.14 if k == 0 else (.035 if k == 1 else 0.))
                    total[k] += light_rgb[q, k]*max(0., (nl+wrap[k])/(1+wrap[k]))*bleed
            for k in range(3): total[k] *= c[k]
            for q in range(light.shape[0]):
                hx, hy, hz = light[q, 0]+vx, light[q, 1]+vy, light[q, 2]+vz
                ih = 1/np.sqrt(hx*hx+hy*hy+hz*hz+1e-9)
                hx, hy, hz = hx*ih, hy*ih, hz*ih
                nh = max(0., nx*hx+ny*hy+nz*hz)
                lit = max(0., min(1., 4*(nx*light[q, 0]+ny*light[q, 1]+nz*light[q, 2])))
                sh = (key if q == 0 else occ*occ)*lit
                fresnel = .04+.96*(1-max(0., vx*hx+vy*hy+vz*hz))**5
                g = spec*nh**power*(power+8)/26*(.5+4*fresnel)*sh*occ
                if m == EYE and q < 2: g = (2.2*ease(.9925, .9965, nh) if q == 0 else .35*ease(.990, .996, nh))*(.3+.7*key)
                for k in range(3): total[k] += g*light_rgb[q, k]
                if m == HAIR:
                    along = tx*hx+ty*hy+tz*hz+.16*(strand-.5)
                    g = max(0., 1-along*along)**22*ease(-.15, .5, nx*light[q, 0]+ny*light[q, 1]+nz*light[q, 2])*(key if q == 0 else occ)
                    for k in range(3): total[k] += g*light_rgb[q, k]*(.014+.50*c[k])
            if m == SKIN or m == HAIR:
                rim = (1-nv)**3.5*occ*max(0., .3+.7*ny)*.22
                for k in range(3): total[k] += rim*light_rgb[2, k]*(.2+.8*c[k])
            for k in range(3): out[j, i, k] = display(total[k]*exposure)
    return out
