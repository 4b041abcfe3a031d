"""Colour of the skin (linear albedo at each vertex), and the coordinates in which brows are painted on it."""
import numpy as np
from talkinglab.face.rig_files import ease
from talkinglab.face.sculpt_express import bump

TONES = ((0, .3, .6, 1), (.82, .63, .38, .14), (.53, .36, .19, .068), (.42, .245, .105, .040)) # Knots; red, green, blue


def skin_tone(t):
    "Albedo (linear) from light (0) to dark (1)."
    return np.array([np.interp(t, TONES[0], c) for c in TONES[1:]])


def blend(rgb, share, color): return rgb*(1-share[:, None])+np.asarray(color)*share[:, None]


def paint(who, v, lips, bag, rims, hairy, crease):
    "Tone, blush, freckles, stubble, lips, lid rims, folds, the inside of the mouth, the scalp under the hair."
    base, (x, y, z) = skin_tone(who.skin), v.T
    a = np.abs(x)
    g = lambda cx, cy, cz, sx, sy, sz: np.exp(-((a-cx)/sx)**2-((y-cy)/sy)**2-((z-cz)/sz)**2)
    dark = 1-.4*ease(.3, .9, who.skin)
    red = (.60*g(4.3, -3.3, 6.5, 2.0, 1.7, 4)+.50*g(0, -3.4, 10.4, 1.3, 1.0, 1.6))*(.5+.5*who.blush)*1.1+.22*g(0, -9.3, 8, 1.6, .9, 3)+.55*rims+.10*g(3.3, 1., 7.5, 1.8, .6, 3)
    red = red+.35*(a > 6)*(y < 2)*(y > -4.5)*g(7.5, -1.2, -1.2, 1.5, 3, 3)+.22*(.25+.75*who.crease)*crease
    rgb = base*np.exp(-red[:, None]*np.array([.03, .36, .30])*dark)
    rgb = rgb*np.exp(-(.12+.10*who.crease)*g(3.0, -1.35, 7.6, 1.5, .45, 3)[:, None]*np.array([.6, 1, .7]))
    rgb = rgb*np.exp(-who.freckles*freckles(v)[:, None]*np.array([.36, .66, .70]))
    rgb = blend(rgb, .46*who.stubble*beard(v)*(1-lips)*(1-bag), .30*np.array(who.hair_rgb)+.05*base)
    lip = base*np.array([.86, .42, .43])*(1-.25*who.lip_red)+who.lip_red*np.array([.12, .0, .015])*base[0]
    rgb = blend(rgb, lips*(.62+.30*who.lip_red), lip)
    rgb = blend(rgb, np.clip(bag, 0, 1), [.20, .034, .034])
    return blend(rgb, hairy, np.array(who.hair_rgb)*.55)


def halved(v):
    "Both sides of the face on one."
    return np.stack([np.abs(v[:, 0]), v[:, 1], v[:, 2]], 1)


def beard(v):
    "Where stubble grows: chin, jaw, upper lip, down to the throat; not on the middle of the cheeks."
    a, y, z = np.abs(v[:, 0]), v[:, 1], v[:, 2]
    edge = np.interp(a, [0, 1.5, 2.8, 4.2, 5.5, 6.8], [-4.95, -5.0, -5.5, -5.5, -4.0, -1.6])
    return ease(.35, -.55, y-edge)*ease(-13.2, -10.8, y)*ease(-2.5, 0., z)*(1-.6*bump(halved(v), (1.25, -8.2, 8), (.5, .3, 3)))


def freckles(v, seed=5):
    "Sparse spots on nose and cheeks, one to a vertex, of uneven strength."
    spots = np.random.default_rng(seed).random(len(v))
    return ease(.66, .9, spots)*bump(halved(v), (2.4, -2.5, 8), (2.4, 1.4, 3.5))


def brow_place(who, v):
    "Coordinates for the painter of brows: lowered at the inner end, arched and tilted as the dials say."
    t = (np.abs(v[:, 0])-1.25)/4.15
    u = np.clip(t, 0, 1)
    lift = -.13*(1-u)**2+(.08+.22*who.brow_arch)*np.sin(np.pi*u)**1.5+.45*who.brow_tilt*(u-.45)
    out = v.copy()
    out[:, 1] -= lift*ease(.9, 1.5, v[:, 1])*ease(5.4, 4., v[:, 1])*ease(2, 3.5, v[:, 2])
    return out
