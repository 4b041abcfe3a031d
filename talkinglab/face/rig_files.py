"""Other people's heads as arrays of a rig: readers of three file layouts, then eyelids on hinges, lips that close, paint.

Centimetres inside, eyes at height 0, +x the subject's left; `face.rig` makes metres and tensors of it.
"""
import json
import pickle
import zipfile
import zlib
from pathlib import Path
import numpy as np
from talkinglab.core.media import MediaError

PARTS = ("skin", "mouth", "eyeL", "eyeR", "teeth", "gums", "tongue", "lashes", "hair", "torso")
MATERIAL = np.array([0, 3, 1, 1, 3, 3, 3, 5, 2, 4])       # Index into `face.mesh.MATERIALS` of each part
EYE_Z = 5.9                                               # Where the eyes of a head frame stand, cm
HINGE = np.array([0., -2.5, -1.])                         # The jaw's, before the ears
NECK = np.array([0., -10.5, -3.])                         # Where the head turns
SIDES = (("Left", 1), ("Right", -1))


def ease(a, b, x):
    "0 below a, 1 above b, smooth between (also for a > b)."
    t = np.clip((x-a)/(b-a), 0, 1)
    return t*t*(3-2*t)


def triangles(faces):
    "Quads, or triangles padded with -1, cut into triangles."
    faces = np.asarray(faces)
    return np.concatenate([faces[:, :3], faces[faces[:, 3] >= 0][:, [0, 2, 3]]]) if faces.shape[1] == 4 else faces


# Files ---------------------------------------------------------------------------------------------------------------

def load_npz(path, needs, what):
    "The named arrays of a .npz, or one line that says what is wrong."
    try:
        with np.load(path, allow_pickle=False) as z:
            missing = [k for k in needs if k not in z.files]
            if missing: raise MediaError(f"{path}: no {', '.join(missing)} in it: not {what}")
            return {k: z[k] for k in needs}
    except FileNotFoundError: raise MediaError(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        if isinstance(e, MediaError): raise
        raise MediaError(f"{path}: cannot be read as {what} ({type(e).__name__})") from None


def within(index, count, what):
    "Raises `ValueError` for faces that point past the end (a compiled loop would follow them). A fourth corner may be -1: none."
    if index.ndim != 2 or index.shape[1] not in (3, 4) or index.dtype.kind not in "iu": raise ValueError(f"{what} must hold three or four indices a row")
    if index.size and (index[:, :3].min() < 0 or index.min() < -1 or index.max() >= count): raise ValueError(f"{what} points at {index.max()} of {count}, or before the first")


def fits(path, z, **shapes):
    "Raises `MediaError` for arrays of other sizes than stated (None: any) or of anything but numbers."
    for k, shape in shapes.items():
        have = z[k].shape
        if z[k].dtype.kind not in "biuf" or len(have) != len(shape) or any(n is not None and n != m for n, m in zip(shape, have)):
            raise MediaError(f"{path}: {k} is {have or 'one number'}, not {tuple('any' if n is None else n for n in shape) or 'one number'}: the file is damaged")


def read_obj(path, faces=False):
    "Vertices of a Wavefront file; with `faces` also texture coordinates and the corners' indices (f 4, -1 pads)."
    try: lines = Path(path).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError as e: raise MediaError(f"{path}: cannot be read ({e.strerror})") from None
    try:
        v = np.array([line.split()[1:4] for line in lines if line.startswith("v ")], np.float32)
        if not faces: return v
        uv = np.array([line.split()[1:3] for line in lines if line.startswith("vt ")], np.float32).reshape(-1, 2)
        corners = [[c.split("/") for c in line.split()[1:]] for line in lines if line.startswith("f ")]
        pick = lambda k: np.array([[int(c[k])-1 if len(c) > k and c[k] else -1 for c in f[:4]]+[-1]*(4-len(f)) for f in corners])
        return v, uv, pick(0), pick(1)
    except (ValueError, IndexError): raise MediaError(f"{path}: not a Wavefront .obj file") from None


def corner_uv(uv, faces, faces_uv, count):
    "One texture coordinate a vertex: on a seam, that of its first corner."
    out, used = np.zeros((count, 2), np.float32), (faces >= 0) & (faces_uv >= 0)
    out[faces[used][::-1]] = uv[faces_uv[used][::-1]]
    return out


# ICT-FaceKit ---------------------------------------------------------------------------------------------------------

ICT_COUNT = 26719
ICT_RANGES = dict(face=(0, 9409), back=(9409, 11248), mouth=(11248, 13294), sockets=(13294, 14062), gums=(14062, 17039), upper_teeth=(17039, 19247),
                  lower_teeth=(19247, 21451), eyeL=(21451, 22221), eyeR=(23021, 23791), lashesL=(25351, 25465), lashesR=(26035, 26149)) # Of the model's README and its materials
ICT_FOREHEAD = (0., 9.0)                                  # The hairline's middle: (x, y) in the file, cm


def ict_name(name):
    "browDown_L -> browDownLeft."
    return name.removesuffix("_L")+"Left" if name.endswith("_L") else name.removesuffix("_R")+"Right" if name.endswith("_R") else name


def read_ict(path, identities):
    "Neutral, faces, uv, deltas by name, identity basis and landmarks from the compact file or from a clone's FaceXModel."
    path = Path(path)
    if not path.is_dir():
        z = load_npz(path, ("neutral", "faces", "uv", "faces_uv", "expression_names", "expression_delta_q", "identity_delta_q", "delta_step", "landmarks68"), "a compact ICT-FaceKit")
        names = [str(n) for n in z["expression_names"].ravel()]
        fits(path, z, neutral=(ICT_COUNT, 3), expression_delta_q=(len(names), ICT_COUNT, 3), identity_delta_q=(None, ICT_COUNT, 3), delta_step=(), uv=(None, 2), faces=(None, 4), faces_uv=z["faces"].shape, landmarks68=(68,))
        step = float(z["delta_step"])
        expr = {n: z["expression_delta_q"][i]*step for i, n in enumerate(names)}
        v, uv, faces, faces_uv, ident, marks = z["neutral"], z["uv"], z["faces"], z["faces_uv"], z["identity_delta_q"][:identities]*step, z["landmarks68"]
    else:
        folder = path/"FaceXModel" if (path/"FaceXModel").is_dir() else path
        v, uv, faces, faces_uv = read_obj(folder/"generic_neutral_mesh.obj", faces=True)
        try:
            index = json.loads((folder/"vertex_indices.json").read_text())
            marks = np.array(index["idx_to_landmark_verts"])
            present = index["expressions"]
        except (OSError, ValueError, KeyError): raise MediaError(f"{folder}: vertex_indices.json is missing or damaged: give the folder FaceXModel of a whole clone of ICT-FaceKit") from None
        present = [n for n in index["expressions"] if (folder/f"{n}.obj").is_file()]
        if "jawOpen" not in present: raise MediaError(f"{folder}: no jawOpen.obj: clone all of ICT-FaceKit (a part of its shapes will do, but not without the jaw)")
        files = [folder/f"identity{i:03d}.obj" for i in range(identities)]
        files = [f for f in files if f.is_file()]
        shapes = {f.stem: read_obj(f) for f in [folder/f"{n}.obj" for n in present]+files}
        wrong = [k for k, s in shapes.items() if s.shape != v.shape]
        if wrong: raise MediaError(f"{folder/wrong[0]}.obj: {len(shapes[wrong[0]])} vertices, the neutral face {len(v)}")
        expr = {n: shapes[n]-v for n in present}
        ident = np.stack([shapes[f.stem]-v for f in files]) if files else np.zeros((0, *v.shape), np.float32)
    if v.shape != (ICT_COUNT, 3): raise MediaError(f"{path}: {len(v)} vertices: ICT-FaceKit has {ICT_COUNT}")
    try:
        for index, count, what in ((faces, ICT_COUNT, "faces"), (faces_uv, len(uv), "texture faces"), (marks.reshape(17, 4), ICT_COUNT, "landmarks")): within(index, count, what)
    except ValueError as e: raise MediaError(f"{path}: {e}") from None
    return v.astype(float), faces, corner_uv(uv, faces, faces_uv, len(v)), expr, ident, marks


def ict(path, identities=20):
    "Arrays of a rig from ICT-FaceKit. Its transparent shells (tear film, eye shadow, pupils' inner balls) are left out."
    v, faces, uv, expr, ident, marks = read_ict(path, identities)
    part = np.full(len(v), -1)
    inside = {k: slice(*r) for k, r in ICT_RANGES.items()}
    for name, p in dict(face="skin", back="skin", mouth="mouth", sockets="skin", gums="gums", upper_teeth="teeth", lower_teeth="teeth", eyeL="eyeL", eyeR="eyeR", lashesL="lashes", lashesR="lashes").items():
        part[inside[name]] = PARTS.index(p)
    gum = np.arange(*ICT_RANGES["gums"])
    part[gum[tongue(v[gum], v[inside["lower_teeth"]])]] = PARTS.index("tongue")
    deltas = {}
    for name, d in expr.items():
        key = {"browInnerUp_L": "browInnerUp", "browInnerUp_R": "browInnerUp", "cheekPuff_L": "cheekPuff", "cheekPuff_R": "cheekPuff"}.get(name, ict_name(name))
        if not key.startswith(("PupilDilate", "cheekRaiser")): deltas[key] = deltas.get(key, 0)+d
    for side in "LR": shorten_lashes(v, deltas, part, inside["lashes"+side], np.flatnonzero(part == 0))
    eyes = np.stack([sphere(v[inside[k]]) for k in ("eyeL", "eyeR")])
    shift = np.array([0, -eyes[:, 1].mean(), EYE_Z-eyes[:, 2].mean()])
    midline = np.flatnonzero((np.abs(v[:, 0]) < 1e-3) & (v[:, 2] > 0) & (part == 0))
    forehead = midline[np.abs(v[midline, 1]-ICT_FOREHEAD[1]).argmin()]
    return dress(v+shift, triangles(faces), part, uv, eyes+shift, deltas, ident, marks, forehead)


def tongue(v, teeth):
    "Which of the vertices of gums and tongue are tongue: inside the lower arch, above its floor."
    arch = lambda z: np.interp(z, *np.array([(z, np.abs(teeth[np.abs(teeth[:, 2]-z) < .5, 0]).max(initial=0)) for z in np.linspace(teeth[:, 2].min(), teeth[:, 2].max()-.3, 12)]).T)
    return (np.abs(v[:, 0]) < arch(v[:, 2])-.75) & (v[:, 2] < teeth[:, 2].max()-.9) & (v[:, 1] < teeth[:, 1].max()+.25)


def shorten_lashes(v, deltas, part, where, skin, keep=.32):
    "Draw the lashes' card back to the lid and let it ride there: as an opaque strip it would be too long. Its inner end goes."
    near = skin[((v[where, None]-v[None, skin])**2).sum(-1).argmin(1)]
    x = np.abs(v[where, 0])
    part[where][x < x.min()+1.3] = -1
    v[where] = v[near]+(v[where]-v[near])*(keep*ease(x.min()+1.2, x.min()+2.2, x)-.03)[:, None]
    for d in deltas.values(): d[where] = d[near]


def sphere(points):
    "Centre of the ball through the points, least squares."
    A = np.concatenate([2*points, np.ones((len(points), 1))], 1)
    return np.linalg.lstsq(A, (points**2).sum(1), rcond=None)[0][:3]


# What a file does not say ---------------------------------------------------------------------------------------------

def rotate(v, pivot, angle):
    "About the x axis through `pivot`."
    q, c, s = v-pivot, np.cos(angle), np.sin(angle)
    return pivot+np.stack([q[:, 0], c*q[:, 1]-s*q[:, 2], s*q[:, 1]+c*q[:, 2]], 1)


def lid_angles(v, d, eye, radius):
    "By how much a displacement of lids turns them about the eyeball, rad; nothing away from the ball."
    q, p = v-eye, v+d-eye
    turn = np.arctan2(p[:, 2], p[:, 1])-np.arctan2(q[:, 2], q[:, 1])
    turn = (turn+np.pi) % (2*np.pi)-np.pi
    near = ease(1.75, 1.25, np.linalg.norm(q, axis=1)/radius)*(np.linalg.norm(d, axis=1) > 1e-3)*(np.abs(q[:, 0]) < 1.6*radius)
    return turn*near*(q[:, 2] > 0)


def hinge_lids(v, part, eyes, deltas, look):
    "Blinks as swings plus what is left (exact at 0 and 1, round between); lids that follow the gaze. Changes `deltas`."
    lid, swing, follow, pivots = np.isin(part, [0, 7]), {}, np.zeros(len(v)), np.tile(HINGE, (len(v), 1))
    radius = np.linalg.norm(v[part == PARTS.index("eyeL")]-eyes[0], axis=1).mean()
    for eye, (side, sign) in zip(eyes, SIDES):
        own = lid & (sign*v[:, 0] > 0)
        blink = deltas.get("eyeBlink"+side)
        if blink is None: continue                                # FLAME has no lids of its own
        a = lid_angles(v, blink, eye, radius)*own
        pivots[np.abs(a) > 0] = eye
        deltas["eyeBlink"+side] = np.where((np.abs(a) > 0)[:, None], rotate(v+blink, eye, -a)-v, blink)
        swing["eyeBlink"+side] = a
        up, down = deltas.pop("eyeLookUp"+side, None), deltas.pop("eyeLookDown"+side, None)
        follow += ((lid_angles(v, up, eye, radius)-lid_angles(v, down, eye, radius))/(2*look)*own if up is not None and down is not None
                   else np.clip(a, 0, None)*-.45)                  # a file without it: a share of the blink's own way
        follow[np.abs(a) == 0] *= ~own[np.abs(a) == 0]
    return swing, follow, pivots


def slit_distance(v, lips):
    "From the line where the lips meet (the mean of the inner contours), cm."
    upper, lower = lips[[12, 13, 14, 15, 16]], lips[[12, 19, 18, 17, 16]]
    line = (upper+lower)/2
    line = np.stack([np.interp(np.linspace(0, 4, 33), range(5), line[:, k]) for k in range(3)], 1)
    return np.sqrt(((v[:, None]-line)**2).sum(-1)).min(1)


def closing(v, part, marks, jaw, close=None):
    "The displacement to add to the jaw's so that lips meet: both take the mean of what the two would do, by column of the mouth."
    total = jaw+(0 if close is None else close)
    pairs = [(60, 60), (61, 67), (62, 66), (63, 65), (64, 64)]
    x = np.array([v[marks[a], 0] for a, _ in pairs])
    share = .5 if close is not None else .58                   # the jaw alone: the lower lip gives way a little more
    common = np.array([share*total[marks[a]]+(1-share)*total[marks[b]] for a, b in pairs])
    order = x.argsort()
    goal = np.stack([np.interp(v[:, 0], x[order], common[order, k]) for k in range(3)], 1)
    reach = (1.5, .35) if close is not None else (2.4, .75)
    m = ease(*reach, slit_distance(v, v[marks[48:68]]))*np.isin(part, [0, 1])
    return (0 if close is None else close)+m[:, None]*(goal-total)


def inside_polygon(x, y, corners):
    "Even-odd rule."
    hit = np.zeros(len(x), bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, 1, 0)):
        cross = (y0 > y) != (y1 > y)
        hit ^= cross & (x < (x1-x0)*(y-y0)/(y1-y0+1e-12)+x0)
    return hit


def signed_distance(x, y, corners, steps=8):
    "To a closed curve through `corners` seen from the front, cm; negative inside."
    k, n = np.arange(len(corners)*steps)/steps, len(corners)
    i, t = k.astype(int), (k % 1)[:, None]
    p = [corners[(i+o) % n] for o in (-1, 0, 1, 2)]                # Catmull-Rom
    curve = p[1]+.5*t*(p[2]-p[0]+t*(2*p[0]-5*p[1]+4*p[2]-p[3]+t*(3*(p[1]-p[2])+p[3]-p[0])))
    d = np.sqrt((x[:, None]-curve[:, 0])**2+(y[:, None]-curve[:, 1])**2).min(1)
    return np.where(inside_polygon(x, y, curve), -d, d)


def neck_mask(v, skin, jaw):
    "Skin below the line of the jaw (its 17 landmarks), and behind the ears as low: throat, nape, what shows of the shoulders."
    around = lambda p: np.arctan2(np.abs(p[:, 0]), p[:, 2]-jaw[[0, 16], 2].mean())
    line = (jaw[8:13]+jaw[8:3:-1]*[-1, 1, 1])/2                     # from the chin to the corner of the jaw
    return ease(.2, -.8, v[:, 1]-np.interp(around(v), around(line), line[:, 1]))*skin


def regions(v, part, marks, forehead, jaw=None):
    "Soft masks over the vertices, from the landmarks; which teeth are the lower ones shows in the displacement `jaw` of an open jaw."
    x, y, z = v.T
    L, skin = v[marks], np.isin(part, [0])
    inner, front = np.isin(part, [1, 4, 5, 6]), z > L[36:48, 2].min()-2.5
    outer = signed_distance(x, y, L[48:60, :2])
    lips = ease(.12, -.10, outer)*(skin | (part == 1))*(z > L[[48, 54], 2].min()-.9)
    lips = np.where(part == 1, lips*ease(.9, .3, slit_distance(v, L[48:68])), lips)
    eyes = np.max([ease(.75, .25, signed_distance(x, y, L[k:k+6, :2])) for k in (36, 42)], 0)*front*np.isin(part, [0, 7])
    top, chin = v[forehead, 1], L[8, 1]
    oval = np.concatenate([L[:17, :2], [[L[16, 0]*.86, top-1.5], [0, top], [L[0, 0]*.86, top-1.5]]])
    face = ease(.6, -.4, signed_distance(x, y, oval))*(z > L[[0, 16], 2].min()-.5)*np.isin(part, [0, 7])
    upper = ease(L[33, 1], L[29, 1], y)
    teeth, low = part == PARTS.index("teeth"), np.linalg.norm(np.zeros_like(v) if jaw is None else jaw, axis=1)
    low = low > .08*low[teeth].max(initial=0)
    more = dict(teeth_upper=teeth & ~low, teeth_lower=teeth & low, gums=part == PARTS.index("gums"), neck=neck_mask(v, skin, L[:17]))
    return {k: m*1. for k, m in more.items() if m.any()}|dict(lips=lips, mouth=np.where(inner, 1., ease(1.6, .5, outer)*front*skin), upper_face=face*upper, lower_face=np.where(inner, 1., face*(1-upper)),
                eyes=np.where(np.isin(part, [2, 3]), 1., eyes), hair=(part == 8)*1., torso=(part == 9)*1.), (top, chin)


# Paint ----------------------------------------------------------------------------------------------------------------

TONE = np.array([.60, .37, .255])                         # Albedo of light skin, linear
HAIR = np.array([.075, .042, .024])


def paint(v, part, marks, r, scalp, shirt):
    "Linear albedo: skin that is redder where blood is near, lips, a dark lash line, teeth, gums, a painted scalp."
    x, y, z = v.T
    L = v[marks]
    blob = lambda p, s: np.exp(-(((np.abs(x)-abs(p[0]))/s[0])**2+((y-p[1])/s[1])**2+((z-p[2])/s[2])**2))
    cheek = [.82*L[45, 0], L[33, 1]+1.3, L[33, 2]-2.8]
    red = .55*blob(cheek, (1.9, 1.5, 3))+.45*blob(L[30], (1.2, 1., 1.6))+.22*blob(L[8], (1.6, .9, 2))+.30*r["eyes"]
    red += .40*ease(.92, 1.02, np.abs(x)/np.abs(L[[1, 15], 0]).max())*ease(-7, -5, y)*ease(4.5, 3, y)  # ears
    rgb = TONE*np.exp(-red[:, None]*np.array([.05, .34, .28]))
    lip = np.array([.44, .165, .150])
    w = (.85*r["lips"]*(part == 0))[:, None]
    rgb = rgb*(1-w)+lip*w
    dark = np.zeros(len(v))
    for k in (36, 42):                                             # the upper lid's margin
        edge = L[k:k+4]
        edge = np.stack([np.interp(np.linspace(0, 3, 25), range(4), edge[:, c]) for c in range(3)], 1)
        dark = np.maximum(dark, ease(.30, .06, np.sqrt(((v[:, None]-edge)**2).sum(-1)).min(1)))
    rgb *= (1-.75*dark*(part == 0))[:, None]
    w = (scalp*(part == 0))[:, None]
    rgb = rgb*(1-w)+HAIR*w
    depth = ease(L[62, 2]-4, L[62, 2]-.6, z)[:, None]
    wet = np.array([.20, .045, .045])+depth*np.array([.20, .08, .07])
    rgb = np.where((part == 1)[:, None], wet, rgb)
    rgb = np.where((part == 1)[:, None] & (r["lips"] > .02)[:, None], wet+(lip-wet)*r["lips"][:, None], rgb)
    for name, c in dict(eyeL=(.8,)*3, eyeR=(.8,)*3, teeth=(.78, .72, .60), gums=(.50, .19, .18), tongue=(.55, .20, .19), lashes=(.02, .014, .01), hair=HAIR, torso=shirt).items():
        rgb = np.where((part == PARTS.index(name))[:, None], c, rgb)
    return rgb


def scalp_mask(v, part, marks, forehead, ear):
    "1 where short hair grows: above a line from the forehead's middle over the temples, round the ears to the nape."
    x, y, z = v.T
    top = v[forehead, 1]
    turn = np.abs(np.arctan2(x, z-ear[2]))                         # 0 ahead, pi behind
    line = np.interp(turn, [0, .35, .75, 1.05, 1.35, 1.62, 1.95, 2.35, 3.2], [top+1.4, top+1.1, top+.4, 4.5, 1.4, .2, -2.4, -5.4, -6.2])
    line = line+.12*np.sin(9*turn)+.08*np.sin(23*turn+1)
    return ease(-.7, .9, y-line)*(part == 0)


def hair_shell(v, faces, scalp, on_ear, normals, thick=.6):
    "A cap that leaves the skin at the hairline: (vertices it copies, where they stand, its triangles, uvw)."
    mask = scalp*(1-on_ear)
    f = faces[(mask[faces] > .02).any(1)]
    src, renamed = np.unique(f, return_inverse=True)
    wave = np.sin(1.9*v[src, 0]+.8*np.sin(1.3*v[src, 2]))*np.sin(1.4*v[src, 2]+.5)*.06
    lift = thick*ease(.3, 1, mask[src])*(.35+.65*ease(4, 9.5, v[src, 1]))+wave*mask[src]-.30*ease(.45, .05, mask[src])
    at = v[src]+normals[src]*lift[:, None]
    crown = np.array([0, v[:, 1].max(), -2.5])
    q = at-crown
    turn, fall = np.arctan2(q[:, 0], q[:, 2]), np.linalg.norm(q, axis=1)
    return src, at, renamed.reshape(-1, 3), np.stack([turn*7, fall, 0*fall], 1)


# The whole ------------------------------------------------------------------------------------------------------------

BROW = np.array([1.25, 4.15, 2.35, .80, .85, 2.6])        # Where `face.mesh` strokes a brow: x, length, height, rise, fall, power (cm)
LOOK = .45                                                # A lid shape of looking up or down stands for this much pitch, rad


def brow_place(v, marks, eyes):
    "Shift and scale that bring the landmarks' brows to where `face.mesh` paints them."
    scale = 3.3/np.abs(eyes[:, 0]).mean()
    L = v[marks[17:27]]
    t = (np.abs(L[:, 0])*scale-BROW[0])/BROW[1]
    want = BROW[2]+BROW[3]*t-BROW[4]*np.maximum(t, 0)**BROW[5]
    inner = (t > .05) & (t < .85)
    return scale, (want-L[:, 1])[inner].mean()-.10


def ears(v, part):
    "1 on the ears (found as what sticks out furthest beside the head), and where the left one is."
    x, y, z = v.T
    band = (part == 0) & (y > -6) & (y < 4) & (z > -8) & (z < 6)
    tip = v[np.flatnonzero(band)[x[band].argmax()]]
    far = np.sqrt(((y-tip[1]+1.2)/3.6)**2+((z-tip[2]-.6)/2.9)**2)
    return ease(1.08, .92, far)*ease(tip[0]-2.2, tip[0]-1.5, np.abs(x))*(part == 0), tip


def vertex_normals(v, faces):
    n = np.zeros_like(v)
    c = np.cross(v[faces[:, 1]]-v[faces[:, 0]], v[faces[:, 2]]-v[faces[:, 0]])
    for k in range(3): np.add.at(n, faces[:, k], c)
    return n/np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-12)


def skirt(v, faces, whole, rows, floor=-45.):
    "Continue a cut bust downwards: (vertices of its open edge, where their copies stand, the sides' triangles)."
    def rim(f):
        e = np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]])
        key = np.sort(e, 1)@np.array([1 << 24, 1])
        _, first, count = np.unique(key, return_index=True, return_counts=True)
        return e[first[count == 1]]
    cut = np.isin(np.sort(rows[rim(faces)], 1)@np.array([1 << 24, 1]), np.sort(rim(whole), 1)@np.array([1 << 24, 1]))
    edge = rim(faces)[cut]
    hem, renamed = np.unique(edge, return_inverse=True)
    a, b = edge.T
    c, d = renamed.reshape(-1, 2).T+len(v)
    return hem, np.stack([v[hem, 0], np.full(len(hem), floor), v[hem, 2]], 1), np.concatenate([np.stack([b, a, c], 1), np.stack([b, c, d], 1)])


def dress(v, faces, part, uv, eyes, deltas, ident, marks, forehead, shirt=(.10, .16, .24)):
    "All arrays of a rig (cm) from a bare file's."
    if marks is None: return bare(v, faces, part, uv, eyes, deltas, ident)
    swing, follow, pivots = hinge_lids(v, part, eyes, deltas, LOOK)
    if "jawOpen" in deltas: deltas["mouthClose"] = closing(v, part, marks, deltas["jawOpen"], deltas.get("mouthClose"))
    r, _ = regions(v, part, marks, forehead, deltas.get("jawOpen"))
    on_ear, ear = ears(v, part)
    n, scalp = vertex_normals(v, faces), scalp_mask(v, part, marks, forehead, ear)*(1-on_ear)
    src, at, cap, uvw_hair = hair_shell(v, faces, scalp, on_ear, n)
    low = ease(.9, -.6, v[:, 1]-(-15.3-.27*(v[:, 2]+1)))*(part == 0)
    f = faces[(low[faces] > .01).any(1)]
    worn, renamed = np.unique(f, return_inverse=True)
    cloth, f = v[worn]+n[worn]*(.55*low[worn]-.25)[:, None], renamed.reshape(-1, 3)
    hem, below, sides = skirt(cloth, f, faces, worn)
    worn, cloth, shirt_faces = np.concatenate([worn, worn[hem]]), np.concatenate([cloth, below]), np.concatenate([f, sides])
    keep = np.flatnonzero(part >= 0)
    new = np.full(len(v), -1)
    new[keep] = np.arange(len(keep))
    copies, m = np.concatenate([keep, src, worn]), len(keep)
    V = np.concatenate([v[keep], at, cloth])
    P = np.concatenate([part[keep], np.full(len(src), 8), np.full(len(worn), 9)])
    shown = (part[faces] >= 0).all(1) & ~((low[faces] > .75).all(1) & (part[faces] == 0).all(1))
    F = np.concatenate([new[faces[shown]], cap+m, shirt_faces+m+len(src)])
    skin = P == 0
    rgb = np.concatenate([paint(v, part, marks, r, scalp, shirt)[keep], np.tile(HAIR, (len(src), 1)), np.tile(shirt, (len(worn), 1))])
    scale, up = brow_place(v, marks, eyes)
    uvw = np.concatenate([v[keep]*[scale, 1, 1]+[0, up, 0], uvw_hair, cloth])
    for i, name in enumerate(("eyeL", "eyeR")):
        d = V[P == 2+i]-eyes[i]
        uvw[P == 2+i] = d/np.linalg.norm(d, axis=1, keepdims=True)*[1.34, 1.34, 1]
    uvw[skin & (on_ear[copies] > .3)] -= [0, 30, 0]
    moves = {k: d[copies]*(P != 9)[:, None] for k, d in deltas.items()}
    r = {k: x[copies] for k, x in r.items()}
    if "neck" in r: r["neck"] = r["neck"]*skin                      # not the hair and cloth that grew from it
    r["hair"], r["torso"] = np.where(P == 8, 1., scalp[copies]*skin), (P == 9)*1.
    head = np.where(P == 9, 0., ease(-17., -11.9, V[:, 1]))
    style = [0, .52, *(.6*HAIR), 99, 0, 0, .14, .20, .24]
    return dict(vertices=V, faces=F, parts=P, uv=uv[copies], eyes=eyes, moves=moves, swings={k: a[copies]*(P < 8) for k, a in swing.items()}, follow=follow[copies]*(P < 8),
                pivots=pivots[copies], neck=NECK, head=head, colors=rgb, uvw=uvw, style=np.array(style, float), gloss=.5+.7*r["lips"], identity=ident[:, copies]*1., regions=r,
                landmarks=new[marks], forehead=int(new[forehead]))


# MakeHuman ------------------------------------------------------------------------------------------------------------

MH_COUNT = 4926
MH_LANDMARKS = (265, 1654, 1674, 736, 1709, 915, 1763, 1761, 1694, 3922, 3924, 3101, 3873, 2940, 3840, 3821, 2518, 1668, 716, 1460, 896, 236, 2492, 3082, 3634, 2923, 3834,
    132, 1532, 291, 1523, 320, 285, 317, 2538, 2566, 1062, 1057, 1073, 1490, 1481, 1068, 3663, 3249, 3233, 3238, 3244, 3654, 369, 1821, 458, 466, 2701, 3978, 2613,
    2719, 2725, 492, 486, 480, 500, 470, 474, 2710, 2733, 2720, 493, 481)
MH_FOREHEAD = 251
MH_PARTS = {"body": "skin", "helper-l-eye": "eyeL", "helper-r-eye": "eyeR", "helper-upper-teeth": "teeth", "helper-lower-teeth": "teeth", "helper-tongue": "tongue"}
# ARKit's shape -> MakeHuman's units and their weights. A unit of both sides is halved for Left and Right. Not in the file: cheekPuff, cheekSquint, jawForward,
# jawLeft, jawRight, mouthLeft, mouthRight, tongueOut and the shrugs (`missing`). mouthRollLower is the lower half of its pressed lips; no half of them rolls the upper one.
MH_SHAPES = dict(eyeBlinkLeft={"eye-left-closure": 1}, eyeBlinkRight={"eye-right-closure": 1}, eyeSquintLeft={"eye-left-slit": 1}, eyeSquintRight={"eye-right-slit": 1},
    eyeWideLeft={"eye-left-opened-up": 1}, eyeWideRight={"eye-right-opened-up": 1}, browDownLeft={"eyebrows-left-down": 1}, browDownRight={"eyebrows-right-down": 1},
    browInnerUp={"eyebrows-left-inner-up": 1, "eyebrows-right-inner-up": 1}, browOuterUpLeft={"eyebrows-left-extern-up": 1}, browOuterUpRight={"eyebrows-right-extern-up": 1},
    jawOpen={"mouth-open": 1}, mouthFunnel={"mouth-eversion": 1, "mouth-pursing": .6}, mouthPucker={"mouth-pursing": 1},
    noseSneerLeft={"nose-left-elevation": 1, "nose-left-dilatation": .5}, noseSneerRight={"nose-right-elevation": 1, "nose-right-dilatation": .5})
MH_HALVED = dict(mouthSmile={"mouth-corner-puller": 1}, mouthFrown={"mouth-depression": .75}, mouthStretch={"mouth-depression-retraction": .5, "mouth-retraction": .7},
    mouthDimple={"mouth-retraction": .6}, mouthPress={"mouth-compression": .7})
MH_LIPS = dict(mouthLowerDown=("mouth-part-later", -1), mouthUpperUp=("mouth-part-later", 1))      # One lip of a unit that parts both


def makehuman(path):
    "Arrays of a rig from MakeHuman's base head and its expression and head targets. The tongue rides on the lower teeth."
    z = load_npz(path, ("neutral", "faces", "face_group", "uv", "faces_uv", "target_names", "is_expression", "delta_q", "delta_step"), "a compact MakeHuman head")
    names = [str(n) for n in z["target_names"].ravel()]
    fits(path, z, neutral=(MH_COUNT, 3), delta_q=(len(names), MH_COUNT, 3), delta_step=(), is_expression=(len(names),), uv=(None, 2), faces=(None, 4), faces_uv=z["faces"].shape)
    v, faces = z["neutral"].astype(float)*10, z["faces"]
    if z["face_group"].shape != faces.shape[:1]: raise MediaError(f"{path}: face_group names {z['face_group'].size} of {len(faces)} faces: the file is damaged")
    try:
        for index, count, what in ((faces, MH_COUNT, "faces"), (z["faces_uv"], len(z["uv"]), "texture faces")): within(index, count, what)
    except ValueError as e: raise MediaError(f"{path}: {e}") from None
    unit = {n: z["delta_q"][i]*(float(z["delta_step"])*10) for i, n in enumerate(names)}
    needed = {u for s in (*MH_SHAPES.values(), *MH_HALVED.values()) for u in s}-set(unit)
    if needed: raise MediaError(f"{path}: no target {', '.join(sorted(needed))}")
    part = np.zeros(len(v), int)
    rows = {g: np.unique(faces[z["face_group"] == g]) for g in MH_PARTS}
    for g, p in MH_PARTS.items(): part[rows[g]] = PARTS.index(p)
    marks = np.array(MH_LANDMARKS)
    mix = lambda s: sum(w*unit[u] for u, w in s.items())
    deltas = {k: mix(s) for k, s in MH_SHAPES.items()}
    x = v[:, 0]
    for k, s in MH_HALVED.items():
        for side, sign in SIDES: deltas[k+side] = mix(s)*ease(-1.2, 1.2, sign*x)[:, None]
    slit = np.interp(np.abs(x), v[marks[[62, 63, 64]], 0], v[marks[[62, 63, 64]], 1])-.03
    wide = .06+1.2*ease(1.6, 2.7, np.abs(x))                       # towards the corners lips are one piece of skin
    one_lip = lambda lip: ease(-1, 1, lip*(v[:, 1]-slit)/wide)
    for k, (u, lip) in MH_LIPS.items():
        for side, sign in SIDES: deltas[k+side] = .6*unit[u]*(ease(-1.2, 1.2, sign*x)*one_lip(lip))[:, None]
    deltas["mouthRollLower"] = unit["mouth-compression"]*one_lip(-1)[:, None]
    teeth, tongue = rows["helper-lower-teeth"], rows["helper-tongue"]
    deltas["jawOpen"][tongue] = rigid(v[teeth], v[teeth]+deltas["jawOpen"][teeth], v[tongue])-v[tongue]
    socket = (part == 0) & (slit_distance(v, v[marks[48:68]]) < 6) & mouth_bag(v, faces, part, marks)
    part[socket] = PARTS.index("mouth")
    eyes = np.stack([sphere(v[rows[g]]) for g in ("helper-l-eye", "helper-r-eye")])
    shift = np.array([0, -eyes[:, 1].mean(), EYE_Z-eyes[:, 2].mean()])
    people = [n for n, e in zip(names, z["is_expression"]) if not e and not n.startswith("head-trans")]
    a = dress(v+shift, triangles(faces), part, corner_uv(z["uv"], faces, z["faces_uv"], len(v)), eyes+shift, deltas, np.stack([unit[n] for n in people]), marks, MH_FOREHEAD, shirt=(.30, .10, .09))
    return a | dict(identity_names=people)


def rigid(p, q, x):
    "Where the rotation and shift that best bring p to q (Kabsch) take x."
    U, _, Vt = np.linalg.svd((p-p.mean(0)).T@(q-q.mean(0)))
    R = Vt.T@np.diag([1, 1, np.sign(np.linalg.det(Vt.T@U.T))])@U.T
    return (x-p.mean(0))@R.T+q.mean(0)


def mouth_bag(v, faces, part, marks):
    "Skin that is reached from behind the lips without crossing them: inside the mouth."
    L, x, y, z = v[marks], *v.T
    line = np.interp(np.abs(x), [0, *L[[63, 64], 0]], [L[62, 2], L[63, 2], L[64, 2]])
    behind = (z < line-.18) & (np.abs(x) < L[54, 0]) & (np.abs(y-L[62, 1]) < .30)
    wall = part != 0
    wall[marks[60:68]] = True
    reached = behind & ~wall & (z > line-2.5)
    edges = np.concatenate([faces[:, [k, (k+1) % 4]] for k in range(4)])
    lips = slit_distance(v, L[48:68])
    for _ in range(60):                                            # grow inwards, never forward over the lips
        a, b = edges.T
        grow = np.zeros(len(v), bool)
        grow[a[reached[b]]] = grow[b[reached[a]]] = True
        new = grow & ~reached & ~wall & ((z < line-.10) & (lips < 7))
        if not new.any(): break
        reached |= new
    return reached


# FLAME ----------------------------------------------------------------------------------------------------------------

FLAME_JAW = .40                                           # jawOpen = 1, rad about the jaw joint
FLAME_ASIDE = .12                                         # jawLeft = jawRight = 1, rad
FLAME_KEYS = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")
REMEDY = "give the model file that flame.is.tue.mpg.de offers (generic_model.pkl, flame2023.pkl), or its arrays as .npz"


class _Shell:
    "Stands for a call in the file: keeps what it was given, runs none of it. `value` makes plain arrays of what is one."
    args, state = (), None
    def __init__(self, *args): self.args = args
    def __setstate__(self, state): self.state = state

    def value(self):                                               # an object of chumpy, or a sparse matrix
        s = self.state if isinstance(self.state, dict) else {}
        s = {k: _value(x) for k, x in s.items() if k in ("x", "data", "indices", "indptr", "_shape", "shape")}
        if {"data", "indices", "indptr"} <= set(s):               # compressed columns
            shape = s.get("_shape", s.get("shape"))
            out = np.zeros(shape)
            if s["indptr"][0] != 0 or s["indptr"][-1] != len(s["indices"]): raise ValueError("a sparse matrix whose columns do not add up")
            columns = np.repeat(np.arange(shape[1]), np.diff(s["indptr"]))
            np.add.at(out, (s["indices"], columns), s["data"])
            return out
        if "x" not in s: raise ValueError("a call that makes no array")
        return np.asarray(s["x"])


class _Text(_Shell):
    "_codecs.encode: how Python 3 writes bytes for Python 2."
    def value(self): return self.args[0].encode("latin1")


class _Dtype(_Shell):
    "numpy.dtype: plain numbers, or objects. Fields, offsets and flags are not taken from a file: they can point anywhere."
    def value(self):
        d = np.dtype(_value(self.args[0]))
        if d.kind not in "biufcO": raise ValueError(f"it asks for values of type {d}")
        return d.newbyteorder(self.state[1]) if self.state else d


class _Array(_Shell):
    "numpy's _reconstruct: numbers from bytes, objects only from a list."
    def value(self):
        _, shape, d, columns, raw = self.state
        d, raw, shape = _value(d), _value(raw), tuple(int(n) for n in shape)
        if d.kind == "O":
            if not isinstance(raw, list) or len(raw) != np.prod(shape, dtype=float): raise ValueError("objects that are no objects")
            out = np.empty(len(raw), object)
            for i, x in enumerate(raw): out[i] = _value(x)
            return out.reshape(shape, order="F" if columns else "C")
        return _numbers(shape, d, raw, columns)


class _Number(_Shell):
    "numpy's scalar."
    def value(self):
        d, raw = map(_value, self.args)
        if d.kind == "O": raise ValueError("an object that is none")
        return _numbers((), d, raw)[()]


class _Buffer(_Shell):
    "numpy's _frombuffer: how pickles of the fifth protocol hold numbers."
    def value(self):
        raw, d, shape, order = map(_value, self.args)
        if d.kind == "O": raise ValueError("objects that are no objects")
        return _numbers(tuple(int(n) for n in shape), d, bytes(raw) if isinstance(raw, bytearray) else raw, order == "F")


def _value(x): return x.value() if isinstance(x, _Shell) else x


def _numbers(shape, d, raw, columns=False):
    if not isinstance(raw, (bytes, str)): raise ValueError("numbers that are no bytes")
    return np.ndarray(shape, d, raw.encode("latin1") if isinstance(raw, str) else raw, order="F" if columns else "C")


class _Arrays(pickle.Unpickler):
    "Shells only: nothing in the file runs, not even numpy's own reading, which would believe forged addresses."
    KNOWN = {("numpy", "ndarray"): _Shell, ("numpy", "dtype"): _Dtype, ("_codecs", "encode"): _Text, ("copyreg", "_reconstructor"): _Shell, ("builtins", "object"): _Shell}
    KNOWN |= {(m+".multiarray", n): c for m in ("numpy.core", "numpy._core") for n, c in (("_reconstruct", _Array), ("scalar", _Number))}
    KNOWN |= {(m+".numeric", "_frombuffer"): _Buffer for m in ("numpy.core", "numpy._core")}

    def find_class(self, module, name):
        if module.split(".")[0] == "chumpy" or (module.startswith("scipy.sparse") and name.endswith("csc_matrix")): return _Shell
        if (module, name) not in self.KNOWN: raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.KNOWN[module, name]


def read_arrays(path, what):
    "Names to arrays, from a .npz, or from a pickle (a .npy may hold one) of which only arrays are read."
    path = Path(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as z: return {k: z[k] for k in z.files}
        with open(path, "rb") as f:
            if path.suffix == ".npy":
                version = np.lib.format.read_magic(f)
                (np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0)(f)
            data = _Arrays(f, encoding="latin1").load()
        data = _value(data)
        data = data.item() if isinstance(data, np.ndarray) and data.dtype == object and data.size == 1 else data
        if not isinstance(data, dict): raise ValueError("no table of arrays")
        return {str(k): _value(x) for k, x in data.items()}
    except OSError as e: raise MediaError(f"{path}: cannot be read ({e.strerror or 'damaged'}): {what}") from None
    except Exception as e: raise MediaError(f"{path}: not a file we read ({e}): {what}") from None


def flame(path, landmarks, identities, expressions):
    "Arrays of a rig from a FLAME model: jaw, neck and eyes are its joints, its expression basis keeps its numbers."
    d = read_arrays(path, REMEDY)
    missing = [k for k in FLAME_KEYS if k not in d]
    if missing: raise MediaError(f"{path}: no {', '.join(missing)}: {REMEDY}")
    try:
        v, faces, W = np.asarray(d["v_template"], float)*100, np.asarray(d["f"]).astype(int), np.asarray(d["weights"], float)
        shapes, poses = np.asarray(d["shapedirs"], float)*100, np.asarray(d["posedirs"], float)*100
        J = np.asarray(d["J_regressor"], float)@v
        if v.ndim != 2 or v.shape[1] != 3 or W.shape != (len(v), 5) or J.shape != (5, 3) or shapes.shape[:2] != v.shape or poses.shape != (*v.shape, 36): raise ValueError("sizes")
        within(faces, len(v), "f")
    except (ValueError, TypeError) as e: raise MediaError(f"{path}: its arrays do not fit together ({e}): {REMEDY}") from None
    count = 300 if shapes.shape[2] >= 400 else shapes.shape[2]*3//4
    eyes = J[[3, 4]][np.argsort(-J[[3, 4], 0])]
    part = np.zeros(len(v), int)
    for i, joint in enumerate(sorted((3, 4), key=lambda j: -J[j, 0])): part[W[:, joint] > .5] = 2+i
    shift = np.array([0, -eyes[:, 1].mean(), EYE_Z-eyes[:, 2].mean()])

    def jaw(rotvec):
        "Where linear blend skinning takes the vertices when the jaw turns."
        a = np.linalg.norm(rotvec)
        k = np.array([[0, -rotvec[2], rotvec[1]], [rotvec[2], 0, -rotvec[0]], [-rotvec[1], rotvec[0], 0]])/a
        R = np.eye(3)+np.sin(a)*k+(1-np.cos(a))*k@k
        p = v+poses[:, :, 9:18]@(R-np.eye(3)).ravel()
        return p+W[:, 2:3]*((p-J[2])@R.T+J[2]-p)

    angle = FLAME_JAW*W[:, 2]
    deltas = {"jaw"+s: jaw(np.array([0, e*FLAME_ASIDE, 0]))-v for s, e in SIDES}
    deltas |= {f"expression{i:03d}": shapes[:, :, count+i] for i in range(min(expressions, shapes.shape[2]-count))}
    ident, hinge = shapes[:, :, :identities].transpose(2, 0, 1), rotate(jaw(np.array([FLAME_JAW, 0, 0])), J[2], -angle)-v
    marks, forehead = flame_landmarks(landmarks, v, faces)
    a = dress(v+shift, faces, part, np.zeros((len(v), 2)), eyes+shift, deltas|dict(_jaw=hinge, _angle=np.stack([angle]*3, 1), _head=np.stack([1-W[:, 0]]*3, 1)), ident, marks, forehead)
    angle, a["moves"]["jawOpen"] = a["moves"].pop("_angle")[:, 0], a["moves"].pop("_jaw")
    lips = a["regions"]["lips"] if "lips" in a["regions"] else 0*angle
    head = np.where(a["parts"] == 9, 0, a["moves"].pop("_head")[:, 0])
    pivots = np.where((np.abs(angle) > 0)[:, None], J[2]+shift, a["pivots"])
    return a | dict(swings=dict(jawOpen=angle), closed=angle+(.45*FLAME_JAW-angle)*np.clip(1.5*lips, 0, 1) if marks is not None else None, pivots=pivots, neck=J[1]+shift, head=head)


def flame_landmarks(path, v, faces):
    "The 68 landmarks of an embedding (landmark_embedding.npy) as nearest vertices; the forehead above them on the midline."
    if path is None: return None, -1
    d = read_arrays(path, "give FLAME's landmark_embedding.npy")
    try:
        face, bary = (np.asarray(d[k]).reshape(68, -1) for k in ("full_lmk_faces_idx", "full_lmk_bary_coords"))
        marks = faces[face[:, 0].astype(int), bary.argmax(1)]
    except (KeyError, ValueError, IndexError): raise MediaError(f"{path}: no 68 landmarks for this model (full_lmk_faces_idx, full_lmk_bary_coords)") from None
    y = v[marks[27], 1]+.465*(v[marks[27], 1]-v[marks[8], 1])
    front = np.where(v[:, 2] > v[marks[36], 2]-4, 0, 1e3)
    return marks, int((np.abs(v[:, 0])*3+np.abs(v[:, 1]-y)+front).argmin())


def bare(v, faces, part, uv, eyes, deltas, ident):
    "The arrays of `dress` where a file names no landmarks: skin, eyes, no regions."
    uvw, colors = v.copy(), np.tile(TONE, (len(v), 1))
    for i in (0, 1):
        d = v[part == 2+i]-eyes[i]
        uvw[part == 2+i] = d/np.maximum(np.linalg.norm(d, axis=1, keepdims=True), 1e-9)*[1.34, 1.34, 1]
        colors[part == 2+i] = .8
    return dict(vertices=v, faces=faces, parts=part, uv=uv, eyes=eyes, moves=dict(deltas), swings={}, follow=np.zeros(len(v)), pivots=np.tile(HINGE, (len(v), 1)), neck=NECK,
                head=np.ones(len(v)), colors=colors, uvw=uvw, style=np.array([0, 0, .05, .03, .02, 99, 0, 0, .14, .20, .24]), gloss=np.full(len(v), .5), identity=ident, regions={},
                landmarks=None, forehead=-1)
