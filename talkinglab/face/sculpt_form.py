"""The masses of a head as one implicit surface: ellipsoids and capsules, melted together.

Centimetres, +x the subject's left, +y up, +z out of the face, eyes at y = 0. `face.sculpt` explains it.
"""
import math
import torch


def turn_matrix(degrees):
    "Rotation about x, then y, then z."
    (ca, sa), (cb, sb), (cc, sc) = [(math.cos(math.radians(d)), math.sin(math.radians(d))) for d in degrees]
    rx = torch.tensor([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    ry = torch.tensor([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    rz = torch.tensor([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    return rz@ry@rx


def smooth_min(a, b, blend):
    "Minimum with a fillet of radius `blend`: equal to min(a, b) where the two differ by more than that."
    h = (blend-(a-b).abs()).clamp(min=0)
    return torch.minimum(a, b)-h*h/(4*blend)


class Form:
    "A list of masses, each melted into the ones before it (or carved out of them)."
    def __init__(self): self.masses, self.kept = [], None

    def ball(self, center, radii, blend, turn=(0, 0, 0), carve=False, pair=False):
        "An ellipsoid; `pair` adds its mirror image."
        for side in (1, -1) if pair else (1,):
            R = turn_matrix((turn[0], side*turn[1], side*turn[2]))
            self.masses.append(("ball", (torch.tensor([side*center[0], center[1], center[2]]), torch.tensor(radii, dtype=torch.float32), R), blend, carve))
        return self

    def rod(self, a, b, ra, rb, blend, pair=False, carve=False):
        "A capsule from `a` (radius ra) to `b` (radius rb)."
        for side in (1, -1) if pair else (1,):
            flip = torch.tensor([side, 1., 1.])
            args = (torch.tensor(a, dtype=torch.float32)*flip, torch.tensor(b, dtype=torch.float32)*flip, torch.tensor(ra), torch.tensor(rb-ra))
            self.masses.append(("rod", args, blend, carve))
        return self

    def stacked(self):
        "The arguments of all balls and of all rods, stacked for one batched evaluation each."
        if self.kept is None or self.kept[0] != len(self.masses):
            pick = lambda kind: [torch.stack(a) for a in zip(*[args for k, args, _, _ in self.masses if k == kind])]
            (c, radii, R), (a, b, r, dr) = pick("ball"), pick("rod")
            to_unit = R/radii[:, None]                                      # m 3 3: world to the unit ball
            axis = b-a
            self.kept = len(self.masses), (to_unit, (c[:, None]@to_unit), 1/radii[:, None], R.mT), (a[:, None], axis, axis.square().sum(1), r[:, None], dr[:, None])
        return self.kept[1:]

    def each(self, points, slope):
        "Distance and slope of every mass, in its own kind's order."
        (to_unit, c, shrink, back), (a, axis, square, r, dr) = self.stacked()
        local = points@to_unit-c                                            # m n 3
        scaled = local*shrink
        k0, k1 = local.square().sum(2).sqrt().clamp(min=1e-4), scaled.square().sum(2).sqrt().clamp(min=1e-6)
        h = ((points@axis.T-(a[:, 0]*axis).sum(1))/square).T.clamp(0, 1)
        off = points-a-h[..., None]*axis[:, None]
        length = off.square().sum(2).sqrt().clamp(min=1e-6)
        slopes = ((scaled/k1[..., None])@back, off/length[..., None]) if slope else ([None]*len(k0), [None]*len(length))
        return {"ball": zip(k0*(k0-1)/k1, slopes[0]), "rod": zip(length-(r+h*dr), slopes[1])}

    def gradient(self, points):
        "Signed distance (cm, about right near the surface, negative inside) and the unit vector along which it grows."
        each = self.each(points, True)
        d, g = torch.full_like(points[:, 0], 1e3), torch.zeros_like(points)
        for kind, _, blend, carve in self.masses:                           # `smooth_min`, and the weights of its two arguments
            m, n = next(each[kind])
            if carve: d, g = -d, -g
            fillet = (blend-(d-m).abs()).clamp(min=0)/(2*blend)
            w = torch.where(m < d, 1-fillet, fillet)[:, None]
            d, g = torch.minimum(d, m)-fillet*fillet*blend, torch.lerp(g, n, w)
            if carve: d, g = -d, -g
        return d, g/g.norm(dim=1, keepdim=True).clamp(min=1e-6)

    def distance(self, points):
        "Signed distance, cm."
        each, out = self.each(points, False), torch.full_like(points[:, 0], 1e3)
        for kind, _, blend, carve in self.masses:
            d, _ = next(each[kind])
            out = -smooth_min(-out, d, blend) if carve else smooth_min(out, d, blend)
        return out

    def pull(self, points, weight=1., steps=6, offset=0.):
        "Move points along the gradient until they lie `offset` above the surface (a share `weight` of the way)."
        p = points
        for _ in range(steps):
            d, g = self.gradient(p)
            p = p-.9*(d-offset).clamp(-1.5, 1.5)[:, None]*g
        w = weight if isinstance(weight, float) else weight[:, None]
        return points+w*(p-points)

    def height(self, x, y, top=13., steps=14):
        "z of the first surface met when coming from the front at (x, y)."
        z = torch.full_like(x, top)
        for _ in range(steps): z = z-self.distance(torch.stack([x, y, z], 1)).clamp(-.5, 3)*.9
        return z


def head_form(who):
    "The masses of one person. Every number is a place on a face; the dials of `who` move a few of them."
    wide, jaw, round_ = 1+.07*who.face_width, 1+.12*who.jaw_width+.05*who.face_width, who.roundness
    chin_y, nose_w, nose_y = -8.95-.7*who.chin, 1+.25*who.nose_width, -.45*who.nose_length
    tip = (0., -3.35+nose_y+.28*who.nose_up, 9.75+.35*who.nose_length)
    bone = who.cheekbones
    f = Form()
    f.ball((0, 3.8, -1.3), (7.25*wide, 7.6, 9.2), 1.)                                            # cranium
    f.ball((0, -1.9, 1.9), (6.0*wide, 7.8, 6.4), 2.5)                                            # face
    f.ball((0, 5.2, 3.1+.55*who.forehead), (4.4*wide, 2.7, 4.3), 2.4)                            # forehead
    f.ball((4.5*wide, .9, 1.6), (2.2, 3.2, 3.6), 2.2, pair=True)                                 # temple
    f.ball((0, -5.9-.3*who.chin, 1.9), (4.75*jaw, 4.0+.3*who.chin, 5.6), 1.8)                    # jaw
    f.ball((3.75*jaw, -5.2, .6), (1.1, 1.9, 2.2), 2.2, pair=True)                                # jaw angle
    f.ball((2.2*jaw, -8.35-.4*who.chin, 5.0), (1.5, 1.35, 2.1), 2.0, pair=True)                  # jaw line beside the chin
    f.ball((0, chin_y, 6.95+.5*who.chin_out), (1.9*jaw, 1.35, 1.6), 2.1)                         # chin
    f.ball((3.45*wide, -3.0, 5.1), (2.0+.35*round_, 2.0+.3*round_, 2.1+.25*round_), 1.9, pair=True)  # cheek
    f.ball((4.2*wide+.15*bone, -1.9+.25*bone, 3.7+.2*bone), (1.4+.2*round_+.2*bone, 1.1, 2.4+.15*bone), 2.5, (0, 25, 0), pair=True) # cheekbone
    f.ball((3.4*wide, -4.9, 3.5), (1.8+.35*round_-.15*bone, 2.3, 2.35+.2*round_-.12*bone), 2.0, pair=True) # soft cheek
    f.ball((0, -6.3, 5.7), (3.1, 2.2, 2.7), 2.0)                                                 # muzzle
    f.ball((2.5, 2.2, 6.3+.3*who.brow_ridge), (2.5, .8, 1.4), 2.1, (0, 16, -3), pair=True)       # brow ridge
    f.ball((3.35, -.05, 8.7), (1.9, 1.25, 1.55), 1.7, carve=True, pair=True)                     # socket
    f.ball((who.eye_x, 0, who.eye_z), (who.eye_radius+.08,)*3, .55, pair=True)                   # eyeball under the lids
    f.ball((who.eye_x, -1.35, 6.9), (1.5, .5, .5), .9, (0, 22, 0), pair=True)                    # lower lid
    f.rod((0, 1.4, 7.65+.2*who.nose_bridge), (0, tip[1]+.5, tip[2]-.2), .60+.1*nose_w, .66*nose_w**.5, 1.6) # bridge
    f.ball((0, -1.3, 8.65+.5*who.nose_bridge), (.60, 1.0, .6), .9)                               # its hump
    f.ball(tip, (.86*nose_w**.7, .80, .88), .95)                                                 # tip
    f.ball((1.04*nose_w, -3.96+nose_y, 8.70), (.57, .57, .92), .7, (0, -18, 0), pair=True)         # wings
    f.rod((0, tip[1]-.3, tip[2]-.45), (0, -4.85+nose_y*.8, 8.2), .55, .6, .8)                    # columella
    f.rod((0, -6, -2.4), (0, -24, -4.4), 3.85*who.neck, 4.5*who.neck, 1.6)                       # neck
    f.rod((3.1*who.neck, -7, -3.2), (1.2, -17.5, .2), .85, .9, 1.6, pair=True)                   # sternomastoid
    return groove(f, who)


def groove(f, who):
    "Carve the nasolabial folds, as deep as the dial `crease` says, into the masses so far."
    start = .22*who.nose_width
    x, y = torch.tensor([2.35+start, 2.75+.5*start, 3.1, 3.35]), torch.tensor([-4.35, -5.0, -5.8, -6.7])-.45*who.nose_length*torch.tensor([1., .6, .3, 0])
    z = f.height(x, y)+.85-(.05+.11*who.crease)*torch.tensor([.6, 1., 1., .7])
    for i in range(3): f.rod(*[(float(x[k]), float(y[k]), float(z[k])) for k in (i, i+1)], .85, .85, .35, pair=True, carve=True)
    return f
