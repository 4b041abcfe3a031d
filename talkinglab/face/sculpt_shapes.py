"""How the cage moves in a straight line: a displacement field for each of ARKit's 52 names (cm at weight 1).

`sculpt_express` holds what swings. eyeLook* turns the eyeballs in `face.rig.pose`, and the lids swing after them;
what is here is only the skin that gives way.
"""
import numpy as np
from talkinglab.face.sculpt_cage import MOUTH_Y, cage, eye_angles, mouth_angles
from talkinglab.face.rig_files import SIDES, ease
from talkinglab.face.sculpt_express import bump, jaw_weights, on_rings

RING = np.array([.35, .85, 1, 1, 1, 1, .6, .2])   # How much of a lip movement each mouth ring takes
FOLD = np.array([[2.2, -4.0], [2.6, -4.6], [3.0, -5.4], [3.3, -6.3], [3.3, -7.0]]) # The nasolabial fold, seen from the front, cm


def ovals(who, P, half, up, low, forward, grow):
    "Round the mouth: every ring goes to its own oval (half widths, heights above and below, cm), all come forward."
    c = cage()
    th, co, si, _ = mouth_angles()
    L = (1+.3*who.lips)**.5
    out = np.zeros_like(P)
    for k in range(1, 8):
        i, j = c.mouth[k], min(k, 6)-1
        goal = np.stack([half[j]*co, MOUTH_Y+.03+np.where(si > 0, up[j], low[j])*L*si, P[i, 2]], 1)
        out[i] = goal-P[i]
        share = [1, 1, 1, 1, .9, .35, 0][k-1]
        middle = P[i][[4, 5, 6, 14, 15, 16], 2].mean()
        out[i, 2] = forward*share+.75*(middle-P[i, 2])*(k < 6)           # corners come forward to the middle's depth
        if k > 5: out[i] *= .5
    rim = c.mouth[0]
    out[rim, 0], out[rim, 1], out[rim, 2] = -.22*P[rim, 0], (P[rim, 1]-MOUTH_Y)*grow, forward*.45
    hollow = bump(np.abs(P), (4.3, 6.4, 7), (1.3, 1.9, 4))*(P[:, 1] < 0)*(c.row >= 0)
    out[:, 0] -= .35*np.sign(P[:, 0])*hollow
    out[:, 2] += .15*hollow
    return out


def lip_roll(sign):
    "Curl one lip (+1 upper, -1 lower) over the teeth: its red goes inside, the skin follows."
    _, _, si, t = mouth_angles()
    half = np.where(sign*si > 1e-6, 1-t**5, 0.)
    table = ((.10, -.10), (.62, -.42), (.72, -.92), (.30, -1.12), (.05, -.70), (0, -.25)) if sign < 0 else \
            ((.06, -.06), (.42, -.38), (.52, -.85), (.22, -1.05), (.05, -.65), (0, -.2))
    y, z = (on_rings([row[i]*half for row in table]+[0, 0]) for i in (0, 1))
    return np.stack([0*y, -sign*y, z], 1)


def mouth_shapes(who, P, fields):
    "Displacements of both sides at once: jaw, rounding, rolls, shrugs, sideways."
    w, mouth, upper, lower = fields
    zero, aside = np.zeros(len(P)), w*(1-mouth)+.6*mouth     # lips stay together as the jaw moves aside
    along = lambda x, a, b: np.stack([x, a, b], 1)
    D = {"jawOpen": along(-.10*P[:, 0]*mouth, zero, zero), "jawForward": w[:, None]*[0, 0, .85],
         "jawLeft": aside[:, None]*[.75, 0, 0], "jawRight": aside[:, None]*[-.75, 0, 0],
         "mouthClose": along(zero, -.05*(upper-lower), -.05*mouth)}
    D["mouthPucker"] = ovals(who, P, (1.62, 1.34, 1.02, .80, .80, 1.3), (.94, .74, .32, -.27, .30, 1.2), (1.08, .86, .36, -.30, .34, 1.4), .75, .02)
    D["mouthFunnel"] = ovals(who, P, (2.05, 1.76, 1.48, 1.18, 1.2, 1.8), (1.52, 1.32, .95, .60, .8, 1.3), (1.66, 1.42, 1.03, .68, .9, 1.5), .55, .10)
    D["mouthRollLower"], D["mouthRollUpper"] = lip_roll(-1), lip_roll(1)
    above = bump(P, (0, -5.2, 9), (1.9, .9, 3))*(mouth == 0)
    chin = bump(P, (0, -8.9, 8.5), (1.7, 1.1, 3))
    D["mouthShrugUpper"] = (mouth*.9+above*.6)[:, None]*[0, .30, .18]+upper[:, None]*[0, 0, .12]
    D["mouthShrugLower"] = (mouth*.8)[:, None]*[0, .42, .12]+lower[:, None]*[0, .12, .24]+chin[:, None]*[0, .45, .10]
    region = np.maximum(mouth, .75*bump(P, (0, MOUTH_Y, 8), (3.8, 2.0, 4)))
    D["mouthLeft"] = region[:, None]*np.stack([1.0+zero, zero, -.17*P[:, 0]-.10], 1)
    D["mouthRight"] = region[:, None]*np.stack([-1.0+zero, zero, .17*P[:, 0]-.10], 1)
    D["tongueOut"] = lower[:, None]*[0, -.10, .05]
    D["cheekPuff"] = sum(bump(P, (e*4.2, -5.5, 6.0), (2.0, 2.0, 3))[:, None]*[e*.95, 0, .62]+bump(P, (e*1.7, -5.3, 8), (1.3, 1.2, 2.5))[:, None]*[0, 0, .22] for e in (1, -1))
    D["cheekPuff"] += mouth[:, None]*[0, 0, .06]
    D["browInnerUp"] = sum(bump(P, (e*1.2, 2.6, 8.2), (1.5, 1.5, 4))[:, None]*[-.08*e, .95, .05] for e in (1, -1))
    return D


def mouth_side(who, P, fields, e):
    "Displacements of one half of the mouth (e = 1: the subject's left)."
    _, mouth, upper, lower = fields
    y, zero, wide = P[:, 1]-MOUTH_Y, np.zeros(len(P)), 1+.14*who.mouth_width
    side = ease(-.9, .9, e*P[:, 0])
    corner = bump(P, (e*2.5*wide, MOUTH_Y+.15, 7.6), (1.75, 1.5, 3.2))*np.where(mouth > 0, 1, .85)
    along = np.clip(e*P[:, 0]/(2.5*wide), 0, 1.2)*mouth
    pull = lambda power, gain=1.: np.maximum(corner, gain*along**power)[:, None]
    cheek = bump(P, (e*4.0, -3.3, 7), (1.7, 1.5, 4))
    lift = bump(P, (e*2.6, -4.4, 8.4), (1.2, 1.2, 3))*(mouth == 0)
    smile = pull(1.6, .95)*[e*.72, .85, -.38]+cheek[:, None]*[e*.20, .42, .42]
    smile[:, 2] -= .10*mouth*side
    below = bump(P, (e*2.7, -8.2, 7.5), (1.3, 1.1, 3))*(mouth == 0)
    wing = bump(P, (e*1.25, -3.9, 9), (.95, .9, 2.2))
    inner = bump(P, (e*1.2, 2.6, 8.2), (1.5, 1.5, 4))
    return {"mouthSmile": smile, "mouthStretch": pull(1.3)*[e*.80, -.10, -.42], "mouthDimple": pull(2.2)*[e*.42, .12, -.50],
        "mouthFrown": pull(1.9)*[e*.12, -.72, -.12]+below[:, None]*[0, -.15, .08]+(lower*(1-np.minimum(along, 1)**2)*side)[:, None]*[0, .08, .05],
        "mouthPress": np.stack([zero, -.30*y*mouth*side*(np.abs(y) < 1.3), -.20*mouth*side], 1),
        "mouthLowerDown": (lower*side)[:, None]*[0, -.65, .10], "mouthUpperUp": (upper*side)[:, None]*[0, .55, .08]+lift[:, None]*[0, .30, .14],
        "noseSneer": wing[:, None]*[e*.16, .48, .02]+(upper*side)[:, None]*[0, .28, .08]+lift[:, None]*[0, .34, .16]
                     +bump(P, (e*.8, -1.2, 9), (.9, 1., 2))[:, None]*[0, .12, .10]+inner[:, None]*[-e*.10, -.28, .12]}


def upper_side(who, P, e):
    "Displacements of one eye's surroundings: brows, cheeks, and what lids do besides swinging."
    c = cage()
    _, _, se = eye_angles()
    inner, arch = bump(P, (e*1.2, 2.6, 8.2), (1.5, 1.5, 4)), bump(P, (e*2.8, 2.6, 8), (2.4, 1.5, 4))
    outer, grid = bump(P, (e*4.7, 2.6, 7), (1.7, 1.5, 4)), (c.row >= 0)[:, None]
    above = bump(P, (e*who.eye_x, 1.9, 8), (2.2, .7, 3))[:, None]*grid
    cheek = bump(P, (e*3.5, -2.1, 7.4), (1.9, .95, 3))[:, None]*grid
    across = np.zeros(len(P))
    for k, share in ((1, .35), (2, .9), (3, 1.), (4, .9), (5, .6)): across[c.eyes[e][k]] = .13*share*np.abs(se)
    aside = across[:, None]*[e, 0, 0]
    lidless = lambda gain: sum_rings(c.eyes[e][1:4], gain*np.maximum(-se, 0)*np.array([[.8], [.4], [.2]]), len(P))[:, None]*[0, 1, 0]
    return {"browOuterUp": (outer+.35*arch)[:, None]*[0, .95, -.08], "browDown": arch[:, None]*[-.18*e, -.52, .18]+inner[:, None]*[-.20*e, -.36, .20],
        "eyeBlink": above*[0, -.10, 0], "eyeLookDown": above*[0, -.10, 0], "eyeLookUp": above*[0, .10, 0], "eyeWide": above*[0, .14, 0],
        "eyeSquint": cheek*[0, .20, .12]+above*[0, -.12, .02], "eyeLookOut": aside, "eyeLookIn": -aside,
        "cheekSquint": cheek*[e*.05, .50, .34]+lidless(.25)}


def sum_rings(rings, values, n):
    "A cage field with `values[k]` on ring k of an eye."
    out = np.zeros(n)
    for ring, v in zip(rings, values): out[ring] = v
    return out


def displacements(who, P):
    "ARKit name -> displacement of every cage point, cm."
    _, _, si, _ = mouth_angles()
    upper, lower = (on_rings([w*np.maximum(s*si, 0)**.5 for w in RING]) for s in (1, -1))
    fields = jaw_weights(), on_rings(RING), upper, lower
    D = mouth_shapes(who, P, fields)
    for name, e in SIDES:
        for k, d in (mouth_side(who, P, fields, e)|upper_side(who, P, e)).items(): D[k+name] = d
    return D


def fold_distance(v, e):
    "Signed distance from the nasolabial fold of side `e`, cm, positive on the cheek; and a share that fades at its ends and behind."
    x, y = e*v[:, 0], v[:, 1]
    best, signed, u = np.full(len(v), 1e3), np.full(len(v), 1e3), np.zeros(len(v))
    for k, (a, b) in enumerate(zip(FOLD[:-1], FOLD[1:])):
        d = b-a
        h = np.clip(((x-a[0])*d[0]+(y-a[1])*d[1])/(d@d), 0, 1)
        ox, oy = x-a[0]-h*d[0], y-a[1]-h*d[1]
        r = np.hypot(ox, oy)
        near = r < best
        best = np.where(near, r, best)
        signed, u = np.where(near, r*np.sign(ox*-d[1]+oy*d[0]), signed), np.where(near, (k+h)/(len(FOLD)-1), u)
    return signed, np.sin(np.pi*np.clip(.12+.88*u, 0, 1))**.5*ease(3., 5., v[:, 2])


def folds(v, n):
    "Displacement of the *skin* where it folds: a groove beside the mouth, and the cheek that swells over it (cm)."
    D = {}
    for name, e in SIDES:
        d, share = fold_distance(v, e)
        crease = (-.10*np.exp(-(d/.42)**2)+.08*np.exp(-((d-.8)/.6)**2))*share
        for shape, gain in (("mouthSmile", 1.), ("noseSneer", .9), ("mouthUpperUp", .5), ("mouthDimple", .35), ("mouthStretch", .3), ("cheekSquint", .3)):
            D[shape+name] = gain*crease[:, None]*n
    return D
