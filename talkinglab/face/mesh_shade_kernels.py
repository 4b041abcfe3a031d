"""The light on a painted mesh, one pixel at a time: procedural paint, soft shadow, occlusion, three kinds of gloss.

Everything here works in centimetres and linear light; `face.mesh` calls it and explains the choices.
"""
import numpy as np
from numba import njit

SKIN, EYE, HAIR, WET, CLOTH, LASH = range(6)                # MATERIALS of face.mesh; WET is the mouth: teeth, tongue, bag
IRIS, PUPIL = .56, .235                                     # Radii of iris and pupil on the unit eyeball
SPIRAL = np.array([[np.sqrt((q+.5)/24)*f(2.39996*q) for f in (np.cos, np.sin)] for q in range(24)]) # Taps on the unit disc
LIGHT = np.linspace(0, 4, 2049)**2                          # Film's curve (Narkowicz's fit of ACES), then the display's, over the root of light
_FILM = np.minimum(1, LIGHT*(2.51*LIGHT+.03)/(LIGHT*(2.43*LIGHT+.59)+.14))
DISPLAY = np.where(_FILM < .0031308, 12.92*_FILM, 1.055*_FILM**(1/2.4)-.055).astype(np.float32)


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
            low, high = lattice(i+a, j+b, k), lattice(i+a, j+b, k+1)
            s += (low+(high-low)*w)*(u if a else 1-u)*(v if b else 1-v)
    return s


@njit(cache=True, nogil=True, fastmath=True)
def shadow(height, u, v, w):
    "Share of the key light that arrives at shadow-map place (u, v, w): the mean of three by three texels around it, smooth as it moves."
    i, j = int(u-.5), int(v-.5)
    if i < 1 or j < 1 or i > height.shape[1]-3 or j > height.shape[0]-3: return 1.
    f, g, s = u-.5-i, v-.5-j, 0.
    for b in range(4):
        t = 0.
        for a in range(4): t += (height[j+b-1, i+a-1] < w)*(1-f if a == 0 else (f if a == 3 else 1.))
        s += t*(1-g if b == 0 else (g if b == 3 else 1.))
    s /= 9.
    return s*s*(3-2*s)


@njit(cache=True, nogil=True, fastmath=True)
def screen_occlusion(inv_z, i, j, radius, full, far):
    "Share of the neighbourhood that stands in front of this sample (by `full` cm or more, less than `far`): 24 taps on a spiral, if one of the outer four sees anything."
    z, s = inv_z[j, i], 0.
    cm = 100/(z*z)
    for q in range(23, -1, -1):
        if q == 19 and s == 0: break
        x, y = int(i+radius*SPIRAL[q, 0]+.5), int(j+radius*SPIRAL[q, 1]+.5)
        d = (inv_z[min(max(y, 0), inv_z.shape[0]-1), min(max(x, 0), inv_z.shape[1]-1)]-z)*cm
        if d > .08 and d < far: s += ease(.08, full, d)*ease(far, .25*far, d)
    return s/24


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
            if thick > .03 and abs(y-middle) < 2*thick:
                q = (y-middle)/thick
                body = np.exp(-abs(q)**3)
                stroke = noise(26*(t-.045*q*(1-.5*t))+200, 1.6*q+9, 3.)
                k = min(1., body*(1.25-.75*stroke*abs(q)**.7)*.94)
                for i in range(3): c[i] += (style[2+i]*(.8+.4*stroke)-c[i])*k
    dx, dy, dz = (a-style[5])/.36, (y-style[6])/.27, (z-style[7])/.50     # nostrils
    r = dx*dx+dy*dy+dz*dz
    if r < 4:
        k = .85*np.exp(-r**1.4)
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
def strand(u, v, w):
    "Lightness of a hair, in [0, 1], from its place across and along a lock."
    return .55*noise(15*u+7*w+100, 2.2*v, 9*w)+.45*noise(38*u+300, 3.5*v, 5*w)


@njit(cache=True, nogil=True, fastmath=True)
def settle(vertices, faces, hair, still):
    "What the pose decides, one row a vertex: place (cm), normal, direction of the strands (along which the second paint coordinate grows on `hair` faces)."
    out = np.zeros((vertices.shape[0], 9), np.float32)
    for v in range(out.shape[0]): out[v, 0], out[v, 1], out[v, 2] = 100*vertices[v, 0], 100*vertices[v, 1], 100*vertices[v, 2]
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = out[b, 0]-out[a, 0], out[b, 1]-out[a, 1], out[b, 2]-out[a, 2]
        vx, vy, vz = out[c, 0]-out[a, 0], out[c, 1]-out[a, 1], out[c, 2]-out[a, 2]
        nx, ny, nz = uy*vz-uz*vy, uz*vx-ux*vz, ux*vy-uy*vx
        for v in (a, b, c):
            out[v, 3] += nx
            out[v, 4] += ny
            out[v, 5] += nz
    for f in hair:
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        u1, u2 = still[b, 0]-still[a, 0], still[c, 0]-still[a, 0]
        if u1*(still[c, 1]-still[a, 1])-u2*(still[b, 1]-still[a, 1]) < 0: u1, u2 = -u1, -u2
        for d in range(3):
            t = u1*(out[c, d]-out[a, d])-u2*(out[b, d]-out[a, d])
            for v in (a, b, c): out[v, 6+d] += t
    for v in range(out.shape[0]):
        for k in (3, 6):
            length = np.sqrt(out[v, k]**2+out[v, k+1]**2+out[v, k+2]**2)
            if length > 1e-12:
                for d in range(3): out[v, k+d] /= length
    return out


@njit(cache=True, nogil=True, fastmath=True)
def display(x):
    "Compress highlights as film does, then the display's curve, from a table."
    t = min(np.sqrt(max(x, 0.))*512, 2047.)
    i = int(t)
    return DISPLAY[i]+(DISPLAY[i+1]-DISPLAY[i])*(t-i)


@njit(cache=True, nogil=True, fastmath=True)
def gather(face, inv_z, x, y, vertex_inv_z, moving, still, faces, material, alone, reach, s):
    """The points to shade for an image of s x s samples a pixel: samples of one pixel and material that lie close together make one point.

    Returns rows (p, 18): the columns of `settle`, of `still`, lightness of the strand; and (p, 3): pixel, material, samples.
    still (v, 8): paint coordinates, albedo, gloss, occlusion; alone: faces whose samples are never joined; reach: radius of
    contact shadows, samples times m.
    """
    columns, total = face.shape[1]//s, 0
    for j in range(face.shape[0]):
        for i in range(face.shape[1]): total += face[j, i] >= 0
    rows, what, n = np.empty((total, 18), np.float32), np.empty((total, 3), np.int32), 0
    down, right, open_, members = np.arange(s*s)//s, np.arange(s*s) % s, np.zeros(s*s, np.bool_), np.zeros(s*s, np.int64)
    for pixel in range(columns*(face.shape[0]//s)):
        top, left = pixel//columns*s, pixel % columns*s
        for q in range(s*s): open_[q] = face[top+down[q], left+right[q]] >= 0
        for first in range(s*s):
            if not open_[first]: continue
            j, i = top+down[first], left+right[first]
            f, z = face[j, i], inv_z[j, i]
            m, v, members[0], count, near = material[f], faces[f, 0], first, 1, .006*z*z
            if not alone[f]:
                for q in range(first+1, s*s):
                    if not open_[q]: continue
                    g = face[top+down[q], left+right[q]]
                    if g != f:
                        if material[g] != m or alone[g] or abs(inv_z[top+down[q], left+right[q]]-z) > near: continue
                        w = faces[g, 0]
                        if moving[w, 3]*moving[v, 3]+moving[w, 4]*moving[v, 4]+moving[w, 5]*moving[v, 5] < .5: continue
                    open_[q] = False
                    members[count] = q
                    count += 1
            row, hair, step = rows[n], 0., 1 if m == HAIR else max(1, count-1)   # hair is finer than pixels: every sample; else the two ends
            row[:] = 0
            used = np.float32(1/(1+(count-1)//step))
            for k in range(0, count, step):
                j, i = top+down[members[k]], left+right[members[k]]
                f = face[j, i]
                a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                px, py = np.float32(i+.5), np.float32(j+.5)
                wa = ((x[c]-x[b])*(py-y[b])-(y[c]-y[b])*(px-x[b]))*vertex_inv_z[a]
                wb = ((x[a]-x[c])*(py-y[c])-(y[a]-y[c])*(px-x[c]))*vertex_inv_z[b]
                wc = ((x[b]-x[a])*(py-y[a])-(y[b]-y[a])*(px-x[a]))*vertex_inv_z[c]
                side = np.float32(1)
                if wa+wb+wc > 0: wa, wb, wc, side = -wa, -wb, -wc, -side      # we see its back: the normal that we want points here
                if m == HAIR: side = np.float32(1)                            # but the back of a thin lock is lit as its front
                wa, wb, wc = -wa, -wb, -wc
                wa, wb, wc = max(wa, np.float32(0)), max(wb, np.float32(0)), max(wc, np.float32(0)) # rounding in a sliver
                t = used/max(wa+wb+wc, np.float32(1e-30))
                wa, wb, wc = wa*t, wb*t, wc*t
                if m == HAIR: hair += used*strand((wa*still[a, 0]+wb*still[b, 0]+wc*still[c, 0])/used, (wa*still[a, 1]+wb*still[b, 1]+wc*still[c, 1])/used,
                                                  (wa*still[a, 2]+wb*still[b, 2]+wc*still[c, 2])/used)
                for d in range(9):
                    t = wa*moving[a, d]+wb*moving[b, d]+wc*moving[c, d]
                    row[d] += t*side if 3 <= d < 6 else t
                for d in range(8): row[9+d] += wa*still[a, d]+wb*still[b, d]+wc*still[c, d]
            row[17] = hair
            if reach > 0:
                j, i = top+down[first], left+right[first]
                row[16] *= 1-.60*screen_occlusion(inv_z, i, j, reach*z, .6, 4.)
                if m == WET: row[16] *= 1-.85*screen_occlusion(inv_z, i, j, 2.6*reach*z, 1.4, 9.)
            what[n, 0], what[n, 1], what[n, 2] = pixel, m, count
            n += 1
    return rows[:n], what[:n]


@njit(cache=True, nogil=True, fastmath=True)
def light(rows, what, eye, lamps, height, sun, style, exposure):
    "Replace the first three columns of `rows` by display colours. lamps (q, 6): direction, colour; sun (3, 4): map into the shadow map."
    for p in range(rows.shape[0]):
        a, m = rows[p], what[p, 1]
        vx, vy, vz = eye[0]-a[0], eye[1]-a[1], eye[2]-a[2]
        il = 1/np.sqrt(vx*vx+vy*vy+vz*vz)
        vx, vy, vz = vx*il, vy*il, vz*il
        il = 1/np.sqrt(a[3]*a[3]+a[4]*a[4]+a[5]*a[5]+1e-12)
        nv = (a[3]*vx+a[4]*vy+a[5]*vz)*il
        nv = abs(nv) if m == HAIR else max(nv, 0.)
        nx, ny, nz = a[3]*il, a[4]*il, a[5]*il
        c, occ, hair = a[12:15], a[16], a[17]
        wr = wg = wb = .15
        spec = tx = ty = tz = 0.
        if m == SKIN:
            paint_skin(c, a[9], a[10], a[11], style)
            wr, wg, wb = .45, .22, .15
            spec = .42*a[15]
        elif m == EYE:
            paint_eye(c, a[9], a[10], a[11], style)
            wr, wg, wb = .32, .26, .24
        elif m == HAIR:
            for k in range(3): c[k] *= .50+.95*hair
            wr = wg = wb = .30
            il = 1/np.sqrt(a[6]*a[6]+a[7]*a[7]+a[8]*a[8]+1e-12)
            tx, ty, tz = a[6]*il, a[7]*il, a[8]*il
        elif m == WET:
            wr, wg, wb = .40, .28, .28
            spec = .30
        elif m == CLOTH:
            q = .93+.14*noise(a[0]*6+90, a[1]*9+90, a[2]*6+90)
            for k in range(3): c[k] *= q
        nl = max(0., nx*lamps[0, 0]+ny*lamps[0, 1]+nz*lamps[0, 2])
        key = shadow(height, sun[0, 0]*a[0]+sun[0, 1]*a[1]+sun[0, 2]*a[2]+sun[0, 3], sun[1, 0]*a[0]+sun[1, 1]*a[1]+sun[1, 2]*a[2]+sun[1, 3],
                     sun[2, 0]*a[0]+sun[2, 1]*a[1]+sun[2, 2]*a[2]+sun[2, 3]+.22+.7*(1-nl))
        if m == WET: key = .40+.45*key
        sky = .5+.5*ny
        base = occ*(.4+.6*occ) if m != SKIN else occ
        r, g, b = base*(.19+.12*sky), base*(.165+.145*sky), base*(.16+.185*sky)
        if m == SKIN: r += .055*(1-occ)                                          # light that has been inside the skin comes out red
        hr = hg = hb = 0.                                                         # highlights
        for q in range(lamps.shape[0]):
            lx, ly, lz, lr, lg, lb = lamps[q, 0], lamps[q, 1], lamps[q, 2], lamps[q, 3], lamps[q, 4], lamps[q, 5]
            nl = nx*lx+ny*ly+nz*lz
            sh = key*(.5+.5*occ) if q == 0 else (.35+.65*occ if q == 1 else occ*occ)
            red = green = sh
            if q == 0 and m == SKIN: red, green = sh+(1-sh)*.14, sh+(1-sh)*.035
            r += lr*max(0., (nl+wr)/(1+wr))*red
            g += lg*max(0., (nl+wg)/(1+wg))*green
            b += lb*max(0., (nl+wb)/(1+wb))*sh
            if m == HAIR or (m == EYE and q < 2) or (spec > 0 and nl > 0):
                hx, hy, hz = lx+vx, ly+vy, lz+vz
                ih = 1/np.sqrt(hx*hx+hy*hy+hz*hz+1e-9)
                hx, hy, hz = hx*ih, hy*ih, hz*ih
                nh = max(0., nx*hx+ny*hy+nz*hz)
                if m == HAIR:
                    along = tx*hx+ty*hy+tz*hz+.16*(hair-.5)
                    s = max(0., 1-along*along)
                    s2 = s*s
                    s4 = s2*s2
                    s16 = s4*s4*s4*s4
                    s = s16*s4*s2*ease(-.15, .5, nl)*(key if q == 0 else occ)
                    hr += s*lr*(.014+.50*c[0])
                    hg += s*lg*(.014+.50*c[1])
                    hb += s*lb*(.014+.50*c[2])
                else:
                    if m == EYE: s = (2.2*ease(.9925, .9965, nh) if q == 0 else .35*ease(.990, .996, nh))*(.3+.7*key)
                    else:
                        s2 = nh*nh
                        s4 = s2*s2
                        s8 = s4*s4
                        s = s8*s8*s4*s2*(30/26.) if m == SKIN else s8*s8*s8*s8*s8*(48/26.)
                        far = 1-max(0., vx*hx+vy*hy+vz*hz)
                        s *= spec*(.66+3.84*far*far*far*far*far)*(key if q == 0 else occ*occ)*min(1., 4*nl)*occ
                    hr += s*lr
                    hg += s*lg
                    hb += s*lb
        r, g, b = r*c[0]+hr, g*c[1]+hg, b*c[2]+hb
        if (m == SKIN or m == HAIR) and lamps.shape[0] > 2:
            rim = max(0., 1-nv)
            rim = rim*rim*rim*np.sqrt(rim)*occ*max(0., .3+.7*ny)*.22
            r += rim*lamps[2, 3]*(.2+.8*c[0])
            g += rim*lamps[2, 4]*(.2+.8*c[1])
            b += rim*lamps[2, 5]*(.2+.8*c[2])
        a[0], a[1], a[2] = display(r*exposure), display(g*exposure), display(b*exposure)


@njit(cache=True, nogil=True)
def scatter(rows, what, pixels, share):
    "Sum the colours of points in their pixels, and their coverage."
    rgb, alpha = np.zeros((pixels, 3), np.float32), np.zeros(pixels, np.float32)
    for p in range(rows.shape[0]):
        k, w = what[p, 0], what[p, 2]*share
        alpha[k] += w
        for d in range(3): rgb[k, d] += w*rows[p, d]
    return rgb, alpha
