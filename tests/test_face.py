"The head moves as heads do, the rasteriser agrees with geometry, and bound Gaussians follow."

import pytest
import torch
from talkinglab.core.camera import orbit
from talkinglab.core.rotation import quat_to_matrix, rotvec_to_matrix
from talkinglab.face.bind import bind
from talkinglab.face.mesh import draw, face_normals, rasterize, shade
from talkinglab.face.rig import ARKIT, pose
from talkinglab.face.sculpt import GEOMETRY, Person, identity_basis, random_person, sculpt_head
from torch.testing import assert_close

MIRROR = torch.tensor([-1., 1., 1.])


@pytest.fixture(scope="module")
def head(): return sculpt_head()


def sees(rig, vertices, camera, *parts):
    "How many of 4 x 4 samples a pixel land on these parts."
    face = rasterize(vertices, rig.faces, camera, 4).face
    own = rig.part(*parts)[rig.faces[:, 0]]
    return int(own[face[face >= 0].long()].sum())


MOUTH = orbit(fov=4., target=(0., -.066, .08), width=64, height=64)
EYE = orbit(fov=3., target=(.033, 0., .06), width=64, height=64)


@pytest.mark.parametrize("who", [Person(), Person(lips=.9, mouth_width=.8), Person(lips=-.6, mouth_width=-.8)])
def test_lips_are_closed_at_rest(who):
    rig = sculpt_head(who)
    for yaw in (0., 40.):
        camera = orbit(yaw, fov=4., target=(0., -.066, .08), width=64, height=64)
        assert sees(rig, rig.vertices, camera, "mouth", "teeth", "tongue") == 0


@pytest.mark.parametrize("jaw", [0., .15, .3, .6, 1.])
def test_the_lips_meet_where_mouth_close_equals_jaw_open(head, jaw):
    v = pose(head, head.expr(jawOpen=jaw, mouthClose=jaw))
    assert sees(head, v, MOUTH, "mouth", "teeth", "tongue") == 0
    if jaw > .1: assert sees(head, pose(head, head.expr(jawOpen=jaw)), MOUTH, "mouth", "teeth", "tongue") > 100


@pytest.mark.parametrize("name", ["mouthPucker", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthPress", "mouthSmile", "mouthFrown",
                                  "mouthDimple", "mouthLeft", "mouthRight", "cheekPuff", "jawForward", "jawLeft"])
def test_what_does_not_open_the_mouth_keeps_it_closed(head, name):
    assert sees(head, pose(head, head.expr(**{name: 1.})), MOUTH, "teeth", "tongue") == 0


def test_f_shows_the_upper_teeth_over_a_tucked_lip(head):
    v = pose(head, head.expr(mouthRollLower=.8, mouthUpperUp=.6, jawOpen=.06))
    assert sees(head, v, MOUTH, "teeth") > 100
    lip = head.landmarks[57]
    assert v[lip, 2] < head.vertices[lip, 2] and v[lip, 1] > head.vertices[lip, 1]      # back and up


def test_the_tongue_comes_out_between_the_teeth(head):
    v = pose(head, head.expr(tongueOut=1., jawOpen=.4))
    assert v[head.part("tongue"), 2].max() > v[head.landmarks[[51, 57]], 2].max() and sees(head, v, MOUTH, "tongue") > 200


def test_the_jaw_opens_on_teeth_tongue_and_mouth(head):
    v = pose(head, head.expr(jawOpen=.7))
    for part in ("mouth", "teeth", "tongue"): assert sees(head, v, MOUTH, part) > 200, part


@pytest.mark.parametrize("side", ["Left", "Right"])
def test_a_blink_hides_its_eye_and_not_the_other(head, side):
    v = pose(head, head.expr(**{"eyeBlink"+side: 1.}))
    sign, part, other = (1, "eyeL", "eyeR") if side == "Left" else (-1, "eyeR", "eyeL")
    look = lambda s: orbit(fov=3., target=(s*.033, 0., .06), width=64, height=64)
    assert sees(head, v, look(sign), part) < .01*sees(head, head.vertices, look(sign), part)
    assert sees(head, v, look(-sign), other) == sees(head, head.vertices, look(-sign), other)


@pytest.mark.parametrize("gaze", [(.5, 0.), (-.5, 0.), (0., .35), (0., -.35)])
def test_eyes_never_leave_their_sockets(head, gaze):
    v = pose(head, head.expr(), torch.tensor(gaze))
    for center, part in zip(head.eyes, ("eyeL", "eyeR")):
        i = head.part(part)
        assert_close((v[i]-center).norm(dim=1), (head.vertices[i]-center).norm(dim=1))


def test_a_symmetric_head_moves_symmetrically(head):
    from talkinglab.face.sculpt_cage import skin_mirror
    twin = torch.from_numpy(skin_mirror())
    n = len(twin)
    assert_close(head.vertices[twin], head.vertices[:n]*MIRROR, rtol=0, atol=1e-5)
    for e, name in enumerate(head.names):
        o = head.names.index(name.replace("Left", "_").replace("Right", "Left").replace("_", "Right"))
        assert_close(head.basis[e, twin], head.basis[o, :n]*MIRROR, rtol=0, atol=1e-5, msg=name)
        assert_close(head.swing[e, twin], head.swing[o, :n], rtol=0, atol=1e-4, msg=name)


def test_the_head_speaks_all_of_arkit(head):
    assert head.names == ARKIT and len(set(ARKIT)) == 52 and head.missing == ()
    assert head.basis.isfinite().all() and head.swing.isfinite().all()


def test_every_expression_moves_something_and_no_more_than_it_should(head):
    for name in head.names:
        jaw = head.expr(jawOpen=1.) if name == "mouthClose" else head.expr()                # it undoes the jaw, and has nothing to do at rest
        moved = (pose(head, jaw+head.expr(**{name: 1.}))-pose(head, jaw)).norm(dim=1).max()
        assert .0005 < moved < (.05 if name in ("jawOpen", "tongueOut") else .03), (name, moved)


def test_a_film_frame_needs_few_vertices():
    from talkinglab.face.sculpt_build import build
    for cut in ("curls", "short", "long"): assert len(build(Person(hair=cut), light=False)["vertices"]) < 20_000, cut


def test_pose_is_differentiable(head):
    e = head.expr(jawOpen=.3).requires_grad_()
    r = torch.zeros(3, requires_grad=True)
    pose(head, e, torch.zeros(2), r, torch.zeros(3)).square().sum().backward()
    assert e.grad.isfinite().all() and e.grad.abs().min() > 0 and r.grad.abs().max() > 0


def strangers(n):
    g = torch.Generator().manual_seed(7)
    return [random_person(g) for _ in range(n)]


@pytest.fixture(scope="module")
def crowd(): return [sculpt_head(p) for p in strangers(4)+[Person(hair="long", skin=1., **{d: 1. for d in GEOMETRY}), Person(hair="bald", skin=0., **{d: -1. for d in GEOMETRY})]]


def test_every_person_is_sound(crowd):
    for rig in crowd:
        assert rig.vertices.isfinite().all() and rig.vertices[~rig.part("torso")].abs().max() < .25
        area = face_normals(rig.vertices, rig.faces).norm(dim=1)
        assert (area > 0).float().mean() > .99
        image, alpha = draw(rig.surface, rig.vertices, orbit(fov=18., width=48, height=48))
        assert image.isfinite().all() and 0 <= image.min() and image.max() <= 1 and .2 < alpha.mean() < .8
        assert sees(rig, rig.vertices, MOUTH, "teeth", "tongue") == 0


def test_identities_share_the_topology_of_all_but_hair(crowd, head):
    own = lambda r: r.faces[~r.part("hair")[r.faces].any(1)]
    for rig in crowd:
        assert torch.equal(own(rig), own(head)) and torch.equal(rig.landmarks, head.landmarks) and rig.forehead == head.forehead


def test_strangers_differ_visibly_and_are_drawn_again_by_the_same_seed(crowd):
    assert strangers(4) == strangers(4)
    n = int((~crowd[0].part("hair")).sum())
    for i in range(4):
        for j in range(i): assert (crowd[i].vertices[:n]-crowd[j].vertices[:n]).norm(dim=1).mean() > 5e-4


def test_landmarks_are_where_their_names_say(crowd, head):
    for rig in [head, *crowd]:
        m = rig.vertices[rig.landmarks]
        mirror = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
                  54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
        assert_close(m[mirror], m*MIRROR, rtol=0, atol=2e-5)
        assert m[:17, 1].argmin() == 8 and (m[17:36, 1].min() > m[48:68, 1].max()) and rig.vertices[rig.forehead, 1] > m[17:27, 1].max()
        assert m[30, 2] == m[:, 2].max()                                                # the tip of the nose is foremost
        opening = lambda **e: float(pose(rig, rig.expr(**e))[rig.landmarks[[62, 66]]].diff(dim=0).norm())  # noqa: B023
        face = float((rig.vertices[rig.forehead]-m[8]).norm())
        assert opening()/face < .01 and opening(jawOpen=.5, mouthClose=.5)/face < .01 < .06 < opening(jawOpen=.5)/face


def test_regions_are_masks(head):
    assert set(head.regions) >= {"lips", "mouth", "upper_face", "lower_face", "eyes", "hair", "torso"}
    for name, mask in head.regions.items(): assert mask.shape == head.vertices[:, 0].shape and 0 <= mask.min() and mask.max() == 1, name
    assert (head.regions["lips"] <= head.regions["mouth"]+1e-5).all()
    assert head.uv.min() >= 0 and head.uv.max() <= 1


def test_the_identity_basis_is_the_derivative_of_sculpting():
    rig = identity_basis(Person(hair="bald"), ("jaw_width", "nose_up"))
    real = sculpt_head(Person(hair="bald", jaw_width=.4, nose_up=.4))
    guess = rig.person(torch.tensor([.4, .4]))
    off, moved = ((a-real.vertices).norm(dim=1).mean() for a in (guess.vertices, rig.vertices))
    assert off < .2*moved
    with pytest.raises(ValueError, match="hair_volume"): identity_basis(Person(), ("hair_volume",))


def test_sculpting_is_deterministic():
    a, b = sculpt_head(), sculpt_head()
    assert_close(a.vertices, b.vertices, rtol=0, atol=0)


def test_people_are_refused_what_they_cannot_be():
    with pytest.raises(ValueError, match="skin=2"): Person(skin=2.)
    with pytest.raises(ValueError, match="mohawk"): Person(hair="mohawk")


# The rasteriser ---------------------------------------------------------------------------------------------------

# Gaussians on triangles -------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def bound(head): return bind(head, 2000, torch.Generator().manual_seed(0))


def test_binding_at_rest_changes_nothing(head, bound):
    g = bound.pose(head.vertices)
    assert_close(g.means, bound.gaussians.means, rtol=0, atol=1e-6)
    assert_close(g.scales, bound.gaussians.scales, rtol=2e-3, atol=1e-6)
    assert_close(g.covariances(), bound.gaussians.covariances(), rtol=0, atol=2e-7)


def test_binding_follows_a_rigid_motion_exactly(head, bound):
    R, t = rotvec_to_matrix(torch.tensor([.4, -.9, .3])), torch.tensor([.1, .2, -.3])
    got, want = bound.pose(head.vertices@R.T+t), bound.gaussians.moved(R, t)
    assert_close(got.means, want.means, rtol=0, atol=2e-6)
    assert_close(quat_to_matrix(got.quats), quat_to_matrix(want.quats), rtol=0, atol=5e-3)
    assert_close(got.scales, want.scales, rtol=5e-3, atol=1e-6)


def test_binding_stretches_with_its_triangle(head, bound):
    "Twice as large in the plane and flat as before: what a surface does."
    g = bound.pose(2*head.vertices)
    assert_close(g.scales[:, :2], 2*bound.gaussians.scales[:, :2], rtol=5e-3, atol=1e-6)
    assert_close(g.scales[:, 2], bound.gaussians.scales[:, 2], rtol=5e-3, atol=1e-6)


def test_binding_is_differentiable_in_pose_and_in_gaussians(head, bound):
    from dataclasses import replace
    means = bound.gaussians.means.clone().requires_grad_()
    e = head.expr(jawOpen=.2).requires_grad_()
    g = bound.pose(pose(head, e), replace(bound.gaussians, means=means))
    (g.means.square().sum()+g.scales.sum()+g.quats[:, 1].sum()).backward()
    assert means.grad.isfinite().all() and e.grad.isfinite().all() and e.grad.abs().max() > 0


def test_lips_and_eyes_get_more_than_their_share(head, bound):
    share = lambda part: float(head.part(*part)[bound.corners[:, 0]].float().mean())
    assert share(("eyeL", "eyeR")) > .03 and share(("torso",)) < .25
    with pytest.raises(ValueError, match="2000"): bound.pose(head.vertices, bound.gaussians[:10])


def test_shading_a_sample_needs_no_image(head, bound):
    color = shade(head.surface, head.vertices, bound.face[None], bound.bary[None], torch.tensor([0., 0., 1.2]))
    assert color.shape == (1, 2000, 3) and color.isfinite().all() and color.std() > .05
