"A rig moves as its parts do; other people's files become the same rig, or say in one line why not."
import io
import json
import os
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from talkinglab.core.camera import orbit
from talkinglab.core.media import MediaError
from talkinglab.core.rotation import rotvec_to_matrix
from talkinglab.face.mesh import draw, face_normals
from talkinglab.face.rig import ARKIT, LOOK, Rig, effective, eye_turns, gaze_matrix, load_flame, load_ict, load_makehuman, pose, swing, swing_angles
from talkinglab.face.rig_files import inside_polygon, lid_angles, read_arrays, rigid, rotate, signed_distance
from torch.testing import assert_close


def toy(seed=0, v=60):
    "A rig of random points with everything in it: hinges, soft shapes, eyes, a torso, an identity."
    g = torch.Generator().manual_seed(seed)
    r = lambda *s: torch.randn(*s, generator=g)
    e, parts = len(ARKIT), torch.tensor([0]*(v-20)+[1]*5+[2]*5+[3]*10)
    soft, still = (parts == 0)*1., torch.zeros(e, v)
    still[ARKIT.index("jawOpen"), :20], still[ARKIT.index("eyeBlinkLeft"), 20:25] = .3, .8
    return Rig(vertices=r(v, 3)*.1, faces=torch.randint(0, v, (40, 3), generator=g), names=ARKIT, basis=r(e, v, 3)*.01*soft[:, None]*(torch.arange(v) > 5)[:, None]*torch.tensor([not n.startswith("eyeLook") for n in ARKIT])[:, None, None],
        swing=still, closed=.1*(torch.arange(v) < 20), follow=-.5*((torch.arange(v) > 19) & (torch.arange(v) < 25)), pivots=r(v, 3)*.02, eyes=torch.tensor([[.03, 0, .06], [-.03, 0, .06]]),
        neck=torch.tensor([0., -.1, 0]), head=torch.where(parts == 3, 0., .8), parts=parts, part_names=("skin", "eyeL", "eyeR", "torso"), colors=r(v, 3).sigmoid(),
        extras=dict(ao=r(v), style=r(11)), identity=r(3, v, 3)*.01, identity_names=("a", "b", "c"), landmarks=torch.arange(68) % v, forehead=7, regions=dict(lips=r(v)))


def plain_pose(rig, expr, gaze, rotation, translation):
    "The formulas of the chapter on every vertex, nothing sorted."
    shapes = effective(rig, expr)
    v = swing(rig.vertices+torch.einsum("te,evd->tvd", shapes, rig.basis), rig.pivots, swing_angles(rig, expr, gaze))
    turns = eye_turns(rig.names, expr, gaze)
    for eye, name in enumerate(("eyeL", "eyeR")):
        i, c = rig.part(name), rig.eyes[eye]
        straight = (rig.vertices+torch.einsum("te,evd->tvd", shapes, rig.basis))[:, i]
        v[:, i] = (straight-c)@gaze_matrix(turns[:, eye]).mT+c
    turned = (v-rig.neck)@rotvec_to_matrix(rotation).mT+rig.neck
    return v+rig.head[:, None]*(turned-v)+rig.head[:, None]*translation[:, None]


@pytest.fixture(scope="module", params=[toy, "procedural"])
def rig(request):
    if callable(request.param): return request.param()
    from talkinglab.face.sculpt import sculpt_head
    return sculpt_head()


def act(rig, n=4, seed=1):
    g = torch.Generator().manual_seed(seed)
    return dict(expr=torch.rand(n, len(rig.names), generator=g), gaze=torch.randn(n, 2, generator=g)*.2, rotation=torch.randn(n, 3, generator=g)*.3, translation=torch.randn(n, 3, generator=g)*.02)


# Posing ------------------------------------------------------------------------------------------------------------

def test_names_are_arkits_fifty_two_in_pairs():
    assert len(ARKIT) == len(set(ARKIT)) == 52
    for n in ARKIT: assert n.replace("Left", "Right") in ARKIT and n.replace("Right", "Left") in ARKIT


def test_the_sorted_pose_is_the_plain_one(rig):
    a = act(rig)
    assert_close(pose(rig, **a), plain_pose(rig, **a), rtol=0, atol=1e-6)


def test_frames_together_are_frames_alone(rig):
    a = act(rig)
    together = pose(rig, **a)
    for i in range(4): assert_close(together[i], pose(rig, **{k: x[i] for k, x in a.items()}), rtol=0, atol=1e-6)


def test_rest_is_rest(rig):
    assert_close(pose(rig, rig.expr(), torch.zeros(2), torch.zeros(3), torch.zeros(3)), rig.vertices, rtol=0, atol=1e-7)


def test_some_vertices_go_where_they_went_among_all(rig):
    keep = torch.randperm(len(rig.vertices), generator=torch.Generator().manual_seed(0))[:25]
    a = act(rig)
    assert_close(pose(rig.only(keep), **a), pose(rig, **a)[:, keep], rtol=0, atol=1e-6)
    mask = torch.zeros(len(rig.vertices), dtype=torch.bool).index_fill(0, keep, True)
    assert_close(rig.only(mask).vertices, rig.vertices[mask])


def test_what_is_cut_away_is_not_named():
    r = toy()
    few = r.only(torch.arange(10))
    assert few.forehead == 7 and r.only(torch.arange(5)).forehead == -1
    assert (few.landmarks[:10] == torch.arange(10)).all() and (few.landmarks[10:60] == -1).all()
    assert few.faces.numel() == 0 or int(few.faces.max()) < 10
    assert few.extras["style"].shape == (11,) and few.extras["ao"].shape == (10,) and few.identity.shape == (3, 10, 3)


def test_pose_has_the_right_gradient(rig):
    rig = rig.only(torch.arange(0, len(rig.vertices), max(1, len(rig.vertices)//40))).to(torch.float64)
    g = torch.Generator().manual_seed(3)
    expr = (.2+.6*torch.rand(2, len(rig.names), generator=g, dtype=torch.float64)).requires_grad_()
    gaze, rotation, translation = (torch.randn(2, d, generator=g, dtype=torch.float64).mul(.2).requires_grad_() for d in (2, 3, 3))
    w = torch.randn(2, len(rig.vertices), 3, generator=g, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *a: (pose(rig, *a)*w).sum(), (expr, gaze, rotation, translation))


def test_a_learned_basis_is_learned_twice():
    "No graph of an earlier pose is kept."
    r = toy()
    from dataclasses import replace
    basis = r.basis.clone().requires_grad_()
    learned = replace(r, basis=basis)
    for _ in range(2): pose(learned, r.expr(jawOpen=.5, mouthPucker=.3)).square().sum().backward()
    assert basis.grad.abs().sum() > 0


def test_a_rig_first_posed_without_gradients_can_still_be_fitted():
    r = toy()
    with torch.inference_mode(): pose(r, r.expr(jawOpen=.5))
    e = r.expr(jawOpen=.5).requires_grad_()
    pose(r, e).square().sum().backward()
    assert e.grad.isfinite().all()


def test_a_wrong_length_is_refused(rig):
    with pytest.raises(ValueError, match="5 values"): pose(rig, torch.zeros(5))
    with pytest.raises(ValueError, match="jawopen"): rig.expr(jawopen=1.)
    with pytest.raises(ValueError, match="beard"): rig.part("beard")


def test_moving_a_rig_moves_everything(rig):
    d = rig.to(torch.float64)
    assert {x.dtype for x in vars(d).values() if isinstance(x, torch.Tensor) and x.is_floating_point()} == {torch.float64}
    assert d.faces.dtype == rig.faces.dtype and all(x.dtype == torch.float64 for x in d.regions.values())
    assert_close(pose(d, d.expr(jawOpen=.4)).float(), pose(rig, rig.expr(jawOpen=.4)), rtol=0, atol=1e-6)


# Mouth and eyes ----------------------------------------------------------------------------------------------------

def test_closing_more_than_there_is_open_changes_nothing(rig):
    for jaw in (0., .3):
        assert_close(pose(rig, rig.expr(jawOpen=jaw, mouthClose=1.)), pose(rig, rig.expr(jawOpen=jaw, mouthClose=jaw)), rtol=0, atol=1e-7)


def test_lips_meet_where_close_equals_open():
    from talkinglab.face.sculpt import sculpt_head
    check_closure(sculpt_head())


def check_closure(rig):
    top, low, chin = rig.landmarks[[62, 66, 8]]
    for w in (.3, .6, 1.):
        for jaw, close in ((w, w), (w, 0.)):
            v = pose(rig, rig.expr(jawOpen=jaw, mouthClose=close))
            gap = float((v[top]-v[low]).norm()/(v[rig.forehead]-v[chin]).norm())
            assert gap < .02 if close else gap > .04, (w, close, gap)


def test_look_shapes_are_a_gaze(rig):
    e = rig.expr(eyeLookUp=.5)
    assert_close(pose(rig, e), pose(rig, rig.expr(), torch.tensor([0., .5*LOOK[1]])), rtol=0, atol=5e-4)  # a head may add a trace of lid or brow
    left = eye_turns(rig.names, torch.stack([rig.expr(eyeLookOutLeft=1., eyeLookInRight=1.)]))
    assert_close(left[0], torch.tensor([[LOOK[0], 0.], [LOOK[0], 0.]]))


def test_a_gaze_matrix_looks_where_it_says():
    gaze = torch.tensor([[.3, .1], [-.5, -.3], [0., .6]])
    look = gaze_matrix(gaze)[:, :, 2]
    assert_close(torch.stack([torch.atan2(look[:, 0], look[:, 2]), look[:, 1].asin()], 1), gaze)
    assert_close(gaze_matrix(gaze)@gaze_matrix(gaze).mT, torch.eye(3).expand(3, 3, 3))


def test_identity_is_linear_and_takes_the_eyes_along():
    r = toy()
    a, b = torch.tensor([1., 0, .5]), torch.tensor([0., -2, .5])
    both = r.person(a).vertices+r.person(b).vertices-r.vertices
    assert_close(r.person(a+b).vertices, both)
    for i, name in enumerate(("eyeL", "eyeR")):
        assert_close(r.person(a).eyes[i]-r.eyes[i], (r.person(a).vertices-r.vertices)[r.part(name)].mean(0))
    with pytest.raises(ValueError, match="2 identity weights"): r.person(torch.zeros(2))


def test_missing_is_what_moves_nothing():
    r = toy()
    r.basis[ARKIT.index("cheekPuff")] = 0
    assert r.missing == ("cheekPuff",)


# Geometry of the readers -------------------------------------------------------------------------------------------

def test_a_blink_on_a_hinge_is_exact_at_its_ends():
    rng = np.random.default_rng(0)
    eye = np.array([3., 0, 6])
    v = eye+1.5*np.stack([rng.uniform(-.5, .5, 50), rng.uniform(.1, .6, 50), rng.uniform(.6, .9, 50)], 1)
    d = rng.normal(size=v.shape)*.05-np.array([0, .6, 0])
    a = lid_angles(v, d, eye, 1.5)
    rest = rotate(v+d, eye, -a)-v
    assert np.abs(rotate(v+rest, eye, a)-(v+d)).max() < 1e-12 and a.min() > 0   # down is a positive turn
    half = np.linalg.norm((rotate(v+.5*rest, eye, .5*a)-eye)[:, 1:], axis=1)
    chord = np.linalg.norm((v+.5*d-eye)[:, 1:], axis=1)
    assert (half > chord).all()


def test_signed_distance_of_a_square():
    corners = np.array([[-1., -1], [1, -1], [1, 1], [-1, 1]])
    x, y = np.array([0., 3, 0]), np.array([0., 0, .5])
    assert inside_polygon(x, y, corners).tolist() == [True, False, True]
    d = signed_distance(x, y, corners, steps=40)
    assert d[0] < -.9 and 1.5 < d[1] < 2.1 and d[2] < 0


def test_rigid_takes_points_along():
    rng = np.random.default_rng(0)
    p, x = rng.normal(size=(30, 3)), rng.normal(size=(5, 3))
    R, t = rotvec_to_matrix(torch.tensor([.3, -.4, .2])).double().numpy(), np.array([1., 2, 3])
    assert np.abs(rigid(p, p@R.T+t, x)-(x@R.T+t)).max() < 1e-6


# Other people's files ----------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def ict(shared): return load_ict(shared/"ict_facekit"/"ict_facekit_compact.npz")

@pytest.fixture(scope="module")
def makehuman(shared): return load_makehuman(shared/"makehuman_head"/"makehuman_head_compact.npz")

@pytest.fixture(params=["ict", "makehuman"])
def other(request): return request.getfixturevalue(request.param)


def test_other_heads_stand_in_the_head_frame(other):
    "Metres, +y up, +z out of the face, the subject's left at +x, eyes level with the origin."
    r = other
    assert r.names == ARKIT and r.vertices.isfinite().all()
    assert .02 < r.eyes[0, 0] < .045 and abs(float(r.eyes[:, 1].mean())) < 1e-4 and r.eyes[1, 0] < 0
    L = r.vertices[r.landmarks]
    assert .15 < float((r.vertices[r.forehead]-L[8]).norm()) < .19                # a face's height
    assert L[8, 1] < L[57, 1] < L[33, 1] < L[27, 1] < r.vertices[r.forehead, 1] and L[30, 2] == L[:, 2].max()
    assert (L[42:48, 0] > 0).all() and (L[36:42, 0] < 0).all()
    for i, name in enumerate(("eyeL", "eyeR")): assert_close((r.vertices[r.part(name)]-r.eyes[i]).norm(dim=1).std(), torch.tensor(0.), rtol=0, atol=1e-3)
    front = r.part("skin")[r.faces].all(1) & (r.vertices[r.faces, 2].mean(1) > .07)
    assert (face_normals(r.vertices, r.faces)[front][:, 2] > 0).float().mean() > .8  # counter-clockwise from outside


def test_other_heads_close_their_lips(other): check_closure(other)


def test_other_heads_smile_and_wink_on_the_right_side(other):
    for name in ("mouthSmileLeft", "eyeBlinkLeft", "browDownLeft", "mouthLowerDownLeft"):
        d = (pose(other, other.expr(**{name: 1.}))-other.vertices).norm(dim=1)
        assert d[other.vertices[:, 0] > .01].max() > 4*d[other.vertices[:, 0] < -.012].max() and d.max() > .002, name


def test_every_shape_moves_something_or_is_called_missing(other):
    for name in other.names:
        d = (pose(other, other.expr(**{name: .5, **({"jawOpen": .5} if name == "mouthClose" else {})}))-other.vertices).norm(dim=1).max()
        assert (d < 1e-6) == (name in other.missing) and d < .06, (name, float(d))


def test_other_people_differ_and_keep_their_parts_together(other):
    w = .5*torch.randn(len(other.identity), generator=torch.Generator().manual_seed(0))
    p = other.person(w)
    assert (p.vertices-other.vertices).norm(dim=1).max() > .003 and len(p.identity_names) == len(w)
    i = p.part("eyeL")
    assert (pose(p, p.expr(), torch.tensor([.3, .2]))[i]-p.eyes[0]).norm(dim=1).std() < 2e-3


def test_regions_are_masks_where_they_belong(other):
    r = other.regions
    assert set(r) >= {"lips", "mouth", "upper_face", "lower_face", "eyes", "hair", "torso", "teeth_upper", "teeth_lower", "neck"}
    assert ("gums" in r) == bool(other.part("gums").any())
    for m in r.values(): assert 0 <= m.min() and m.max() <= 1 and m.max() > .9
    L = other.vertices[other.landmarks]
    at = lambda m: (other.vertices*m[:, None]).sum(0)/m.sum()
    assert (at(r["lips"])-L[48:60].mean(0)).norm() < .01 and at(r["hair"])[1] > .02 and at(r["torso"])[1] < -.12
    assert at(r["upper_face"])[1] > at(r["lower_face"])[1]


def test_teeth_neck_and_jaw_are_where_they_belong(other): check_parts(other)


def test_the_procedural_head_has_teeth_neck_and_jaw_too():
    from talkinglab.face.sculpt import sculpt_head
    head = sculpt_head()
    check_parts(head)
    assert head.regions["gums"].max() == 1 and (head.regions["gums"]+head.regions["teeth_upper"]+head.regions["teeth_lower"] <= 1+1e-6).all()


def check_parts(r):
    "Upper teeth stay, lower teeth go with the jaw, in an arc about `rig.jaw`; the neck is below the face and above the shirt."
    opened = pose(r, r.expr(jawOpen=.5))
    still, ride = ((opened-r.vertices)[r.regions[k] > .5].norm(dim=1) for k in ("teeth_upper", "teeth_lower"))
    assert len(still) > 20 and len(ride) > 20 and still.max() < .2*ride.min()
    assert r.jaw.shape == (3,) and abs(float(r.jaw[0])) < .004 and -.06 < r.jaw[1] < .02 and r.jaw[2] < r.vertices[r.landmarks[8], 2]-.05
    low = r.regions["teeth_lower"] > .5
    before, after = ((v[low]-r.jaw)[:, 1:].norm(dim=1) for v in (r.vertices, opened))
    assert (after-before).abs().max() < .004 and ride.min() > .002                 # an arc
    neck, face = r.regions["neck"] > .5, r.regions["lips"] > .5
    assert neck.sum() > 100 and not (neck & ~r.part("skin")).any() and not (neck & face).any()
    assert r.vertices[neck, 1].max() < r.vertices[r.landmarks[[48, 54]], 1].mean()+.01 and r.vertices[neck, 1].mean() < r.vertices[r.landmarks[8], 1]


def test_a_hinge_is_the_jaw_and_without_one_there_is_none():
    from dataclasses import replace
    r = toy()
    r = replace(r, pivots=torch.where(r.swing[ARKIT.index("jawOpen"), :, None] > 0, torch.tensor([0., -.02, .01]), r.pivots))
    assert_close(r.jaw, torch.tensor([0., -.02, .01]))
    with pytest.raises(ValueError, match="no jaw"): replace(r, swing=0*r.swing).jaw


def test_other_heads_are_drawn(other):
    rgb, alpha = draw(other.surface, pose(other, other.expr(jawOpen=.4)), orbit(20, radius=1.2, fov=16, target=(0., -.035, 0.), width=64, height=64))
    assert rgb.isfinite().all() and .3 < alpha.mean() < .9 and rgb.std() > .08


def test_a_clone_and_the_compact_file_are_one_head(shared, ict, tmp_path):
    "Of the clone's files three are beside us; they must say what the compact file says."
    raw = shared/"ict_facekit"/"raw"
    part = load_ict(raw)
    assert set(part.missing) >= {"mouthPucker", "tongueOut"} and "jawOpen" not in part.missing
    assert part.identity is None and part.identity_names == ()
    with pytest.raises(ValueError, match="one person"): part.person(torch.zeros(0))
    from talkinglab.face.actor import cast
    with pytest.raises(ValueError, match="one person"): cast(3, rig=part)
    assert_close(part.vertices[part.landmarks], ict.vertices[ict.landmarks], rtol=0, atol=1e-5)
    e = lambda r: pose(r, r.expr(jawOpen=.7))[r.landmarks]
    assert_close(e(part), e(ict), rtol=0, atol=1e-4)
    (tmp_path/"FaceXModel").mkdir()
    for f in ("generic_neutral_mesh.obj", "vertex_indices.json"): os.symlink(raw/f, tmp_path/"FaceXModel"/f)
    with pytest.raises(MediaError, match="jawOpen.obj"): load_ict(tmp_path)
    (tmp_path/"FaceXModel"/"vertex_indices.json").unlink()
    (tmp_path/"FaceXModel"/"vertex_indices.json").write_text(json.dumps({}))
    with pytest.raises(MediaError, match="vertex_indices"): load_ict(tmp_path)


@pytest.mark.parametrize("change", [dict(expression_delta_q=2), dict(identity_delta_q=(slice(None), slice(9))), dict(landmarks68=9), dict(delta_step=None), dict(faces=99999), dict(faces=-7), dict(faces_uv=3)], ids=str)
def test_a_damaged_ict_is_one_line(change, shared, tmp_path): damaged(load_ict, shared/"ict_facekit"/"ict_facekit_compact.npz", change, tmp_path)


@pytest.mark.parametrize("change", [dict(delta_q=2), dict(target_names=5), dict(face_group=7), dict(faces=99999), dict(uv=10), dict(is_expression=0)], ids=str)
def test_a_damaged_makehuman_is_one_line(change, shared, tmp_path): damaged(load_makehuman, shared/"makehuman_head"/"makehuman_head_compact.npz", change, tmp_path)


def damaged(load, path, change, tmp_path):
    "Cut an array short, or let a face point astray: one line, no IndexError."
    with np.load(path) as z: a = {k: z[k] for k in z.files}
    for k, cut in change.items():
        if k == "faces" : a[k][5, 1] = cut
        else: a[k] = np.zeros(2) if cut is None else a[k][:cut] if isinstance(cut, int) else a[k][cut]
    np.savez(tmp_path/"cut.npz", **a)
    with pytest.raises(MediaError, match="cut.npz") as e: load(tmp_path/"cut.npz")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("load", [load_ict, load_makehuman, load_flame])
def test_a_file_that_is_none_is_one_line(load, tmp_path):
    for name, data in (("a.npz", b"PK\x03\x04 broken"), ("b.npz", b""), ("c.npz", None)):
        if data is not None: (tmp_path/name).write_bytes(data)
        with pytest.raises(MediaError) as e: load(tmp_path/name)
        assert name in str(e.value) and "\n" not in str(e.value)
    np.savez(tmp_path/"d.npz", nothing=np.zeros(3))
    with pytest.raises(MediaError, match="d.npz: no "): load(tmp_path/"d.npz")
    np.savez(tmp_path/"e.npz", neutral=np.array([object()], dtype=object))
    with pytest.raises(MediaError): load(tmp_path/"e.npz")


# FLAME -------------------------------------------------------------------------------------------------------------

def flame_arrays(v=400, seed=0):
    "FLAME's layout on a made-up ball: five joints, chin on the jaw, two balls for eyes."
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(v, 3))
    x *= .1/np.linalg.norm(x, axis=1, keepdims=True)
    W = np.eye(5)[np.ones(v, int)]
    joints = np.array([[0, -.2, 0], [0, -.12, -.02], [0, -.02, 0], [.03, .02, .08], [-.03, .02, .08]])
    x[:5] = joints
    for k, sign in ((3, 1), (4, -1)):
        i = slice(100+40*(k-3), 140+40*(k-3))
        b = rng.normal(size=(40, 3))
        x[i], W[i] = joints[k]+.012*b/np.linalg.norm(b, axis=1, keepdims=True), np.eye(5)[k]
    chin = (x[:, 1] < -.03) & (x[:, 2] > .03) & (np.arange(v) > 180)
    W[chin] = np.eye(5)[2]
    return dict(v_template=x, f=rng.integers(0, v, (600, 3)).astype(np.uint32), shapedirs=rng.normal(size=(v, 3, 400))*1e-3, posedirs=rng.normal(size=(v, 3, 36))*1e-4,
                J_regressor=np.eye(5, v), weights=W, kintree_table=np.array([[-1, 0, 1, 1, 1], [0, 1, 2, 3, 4]])), chin


def as_flame_pickles(arrays):
    "As the 2020 file is: chumpy's objects, a sparse matrix, Python 2's protocol. The classes exist only while we write."
    chumpy, ch = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")
    Ch = type("Ch", (), dict(__module__="chumpy.ch", __init__=lambda self, x: setattr(self, "x", x)))
    ch.Ch = Ch
    csc = types.ModuleType("scipy.sparse.csc")
    def fill(self, m):
        rows, cols = np.nonzero(m)
        order = np.lexsort((rows, cols))
        self.data, self.indices, self._shape = m[rows, cols][order], rows[order].astype(np.int32), m.shape
        self.indptr = np.concatenate([[0], np.cumsum(np.bincount(cols, minlength=m.shape[1]))]).astype(np.int32)
    csc.csc_matrix = type("csc_matrix", (), dict(__module__="scipy.sparse.csc", __init__=fill))
    fakes = {"chumpy": chumpy, "chumpy.ch": ch, "scipy.sparse.csc": csc}
    old = {k: sys.modules.get(k) for k in fakes}
    sys.modules.update(fakes)
    try: return pickle.dumps(dict(arrays, shapedirs=Ch(arrays["shapedirs"]), v_template=Ch(arrays["v_template"]), J_regressor=csc.csc_matrix(arrays["J_regressor"]), bs_type="lrotmin"), protocol=2)
    finally:
        for k, m in old.items(): sys.modules.pop(k) if m is None else sys.modules.__setitem__(k, m)


@pytest.fixture(params=["pkl", "npz", "chumpy"])
def flame(request, tmp_path):
    a, chin = flame_arrays()
    path = tmp_path/("flame.npz" if request.param == "npz" else "flame.pkl")
    if request.param == "npz": np.savez(path, **a)
    else: path.write_bytes(pickle.dumps(a) if request.param == "pkl" else as_flame_pickles(a))
    return load_flame(path), a, chin


def test_flame_is_read_in_every_dress(flame):
    r, a, chin = flame
    assert r.names[:52] == ARKIT and r.names[52] == "expression000" and len(r.names) == 102
    assert_close(r.vertices-r.vertices[0], torch.tensor(a["v_template"]-a["v_template"][0]).float(), rtol=0, atol=1e-6)
    assert {"mouthSmileLeft", "eyeBlinkLeft"} <= set(r.missing) and not {"jawOpen", "jawLeft", "expression003"} & set(r.missing)
    assert_close(r.basis[r.names.index("expression003")], torch.tensor(a["shapedirs"][:, :, 303]).float(), rtol=0, atol=1e-6)
    assert_close(r.identity[2], torch.tensor(a["shapedirs"][:, :, 2]).float(), rtol=0, atol=1e-6)
    assert r.part("eyeL").sum() == r.part("eyeR").sum() == 40 and r.eyes[0, 0] > 0 > r.eyes[1, 0]


def test_flames_jaw_is_its_own_skinning(flame):
    "At jawOpen 1 the vertices are where linear blend skinning with its pose correctives puts them."
    r, a, chin = flame
    v, W, j = a["v_template"], a["weights"], a["J_regressor"]@a["v_template"]
    R = rotvec_to_matrix(torch.tensor([.40, 0., 0.])).double().numpy()
    p = v+a["posedirs"][:, :, 9:18]@(R-np.eye(3)).ravel()
    want = p+W[:, 2:3]*((p-j[2])@R.T+j[2]-p)
    got = pose(r, r.expr(jawOpen=1.)).double().numpy()
    assert np.abs((got-r.vertices.double().numpy())-(want-v)).max() < 1e-6
    assert np.abs(got-r.vertices.double().numpy())[chin].max() > .005


def test_flame_with_landmarks_closes_its_lips(tmp_path):
    a, chin = flame_arrays()
    np.savez(tmp_path/"f.npz", **a)
    rng = np.random.default_rng(1)
    front = np.flatnonzero((a["v_template"][a["f"].astype(int)][:, :, 2] > .02).all(1))
    faces = rng.choice(front, 68)
    np.savez(tmp_path/"marks.npz", full_lmk_faces_idx=faces[None], full_lmk_bary_coords=np.tile([[.2, .7, .1]], (1, 68, 1)))
    with pytest.raises(MediaError, match="full_lmk"):
        np.savez(tmp_path/"none.npz", something=faces)
        load_flame(tmp_path/"f.npz", tmp_path/"none.npz")
    r = load_flame(tmp_path/"f.npz", tmp_path/"marks.npz")
    assert (r.landmarks >= 0).all() and r.closed.isfinite().all() and set(r.regions) >= {"lips", "torso"}


def test_nothing_in_a_pickle_runs(tmp_path):
    hit = tmp_path/"hit"
    class Trap:
        def __reduce__(self): return os.system, (f"touch {hit}",)
    for poison in (Trap(), dict(v_template=Trap()), [Trap()]):
        (tmp_path/"p.pkl").write_bytes(pickle.dumps(poison))
        with pytest.raises(MediaError, match="system"): load_flame(tmp_path/"p.pkl")
    a, _ = flame_arrays()
    buffer = io.BytesIO()
    np.save(buffer, np.array(dict(full_lmk_faces_idx=Trap()), dtype=object), allow_pickle=True)
    (tmp_path/"m.npy").write_bytes(buffer.getvalue())
    np.savez(tmp_path/"f.npz", **a)
    with pytest.raises(MediaError, match="system"): load_flame(tmp_path/"f.npz", tmp_path/"m.npy")
    assert not hit.exists()


class Call:
    "What a pickle can say: call this with that, then give it a state."
    def __init__(self, *answer): self.answer = answer
    def __reduce__(self): return self.answer


def forged():
    "Pickles whose arrays hold addresses that nobody allocated, or fields that lie outside."
    core = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
    O, raw = np.dtype("O"), b"A"*8
    kind = lambda code, *fields: Call(np.dtype, (code, False, True), (3, "|", *fields, 0))
    array = lambda d: Call(core._reconstruct, (np.ndarray, (0,), b"b"), (1, (1,), d, False, raw))
    hidden, flagless = kind("V8", None, ("a",), {"a": (O, 0)}, 8, 1), kind("O8", None, None, None, -1, -1)
    return dict(called=Call(np.ndarray, ((1,), O, raw)), raw_objects=array(O), flagless=array(flagless), hidden_field=array(hidden), within_within=array(kind("V8", (O, (1,)), None, None, 8, 1)),
                outside=array(kind("V8", None, ("a",), {"a": (np.dtype("f8"), 1 << 40)}, 8, 1)), scalar=Call(core.scalar, (hidden, raw)), short=Call(core._reconstruct, (np.ndarray, (0,), b"b"), (1, (1 << 20,), np.dtype("f8"), False, raw)))


def test_forged_addresses_are_refused_and_crash_nothing(tmp_path):
    "All in one process of their own: after a crash, what it printed last is the trick before."
    (a, _), tricks = flame_arrays(), forged()
    for k, trick in tricks.items(): (tmp_path/f"{k}.pkl").write_bytes(pickle.dumps(a | dict(v_template=trick)))
    code = f"""from talkinglab.face.rig_files import read_arrays
from talkinglab.core.media import MediaError
for k in {[*tricks]}:
    try: print(k, read_arrays({str(tmp_path)!r}+f"/{{k}}.pkl", "remedy")["v_template"].tolist(), flush=True)
    except MediaError as e: print(k, "refused:", e, flush=True)"""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    said = run.stdout.splitlines()
    assert len(tricks) == 8 == len(said) and run.returncode == 0, (run.returncode, run.stdout, run.stderr[-300:])
    for k, line in zip(tricks, said): assert line.startswith(f"{k} refused:"), line


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("a", [np.arange(6.).reshape(2, 3), np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)), np.zeros((0, 3), np.float16), np.array(True), np.float32(2.5)], ids=["doubles", "columns", "none", "flag", "scalar"])
def test_honest_arrays_come_through_every_protocol(a, protocol, tmp_path):
    if protocol < 3 and not np.size(a): pytest.skip("Python writes no bytes as a call of bytes there")
    (tmp_path/"p.pkl").write_bytes(pickle.dumps(dict(x=a), protocol=protocol))
    got = read_arrays(tmp_path/"p.pkl", "remedy")["x"]
    assert got.dtype == a.dtype and got.shape == a.shape and np.array_equal(got, a)


@pytest.mark.parametrize("change", [dict(weights=np.zeros((7, 5))), dict(posedirs=np.zeros((400, 3, 9))), dict(v_template=np.zeros(4)), dict(f="text"), dict(f=np.full((9, 3), 400)), dict(f=np.full((9, 3), -1))])
def test_arrays_that_do_not_fit_are_one_line(change, tmp_path):
    a, _ = flame_arrays()
    (tmp_path/"f.pkl").write_bytes(pickle.dumps(a | change))
    with pytest.raises(MediaError, match="fit together"): load_flame(tmp_path/"f.pkl")
