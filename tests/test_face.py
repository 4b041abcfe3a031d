"The head moves as heads do, the rasteriser agrees with geometry, and bound Gaussians follow."
import math

import pytest
import torch
from talkinglab.core.camera import orbit
from talkinglab.core.rotation import quat_to_matrix, rotvec_to_matrix
from talkinglab.face.bind import bind
from talkinglab.face.mesh import face_normals, rasterize, vertex_normals
from talkinglab.face.rig import pose
from talkinglab.face.sculpt import Person, draw, sculpt_head, shade
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


@pytest.mark.parametrize("jaw", [0., .3, .6])
def test_mouth_close_seals_the_lips_at_any_jaw(head, jaw):
    assert sees(head, pose(head, head.expr(jawOpen=jaw, mouthClose=1.)), MOUTH, "mouth", "teeth", "tongue") == 0


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


def test_every_expression_moves_something_and_no_more_than_three_centimetres(head):
    for name in head.names:
        moved = (pose(head, head.expr(**{name: 1.}))-head.vertices).norm(dim=1).max()
        assert .0005 < moved < (.05 if name == "jawOpen" else .03), (name, moved)


def test_pose_is_differentiable(head):
    e = head.expr(jawOpen=.3).requires_grad_()
    r = torch.zeros(3, requires_grad=True)
    pose(head, e, torch.zeros(2), r, torch.zeros(3)).square().sum().backward()
    assert e.grad.isfinite().all() and e.grad.abs().min() > 0 and r.grad.abs().max() > 0


@pytest.mark.parametrize("who", [Person(hair=h, skin=s, face_width=w, jaw_width=-w, chin=w, nose_length=-w, nose_width=w, eye_size=w, roundness=w)
                                 for h, s, w in (("crop", 1., 1.), ("bun", .5, -1.), ("bald", 0., .5))])
def test_every_person_is_sound(who):
    rig = sculpt_head(who)
    assert rig.vertices.isfinite().all() and rig.vertices[~rig.part("torso")].abs().max() < .25
    area = face_normals(rig.vertices, rig.faces).norm(dim=1)
    assert (area > 0).float().mean() > .99
    image, alpha = draw(rig, rig.vertices, orbit(fov=18., width=48, height=48))
    assert image.isfinite().all() and 0 <= image.min() and image.max() <= 1 and .2 < alpha.mean() < .8


def test_sculpting_is_deterministic():
    a, b = sculpt_head(), sculpt_head()
    assert_close(a.vertices, b.vertices, rtol=0, atol=0)


def test_people_are_refused_what_they_cannot_be():
    with pytest.raises(ValueError, match="skin=2"): Person(skin=2.)
    with pytest.raises(ValueError, match="mohawk"): Person(hair="mohawk")


# The rasteriser ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("tilt", [0., .5, 1.1])
def test_depth_of_a_plane_is_exact(tilt):
    R = rotvec_to_matrix(torch.tensor([tilt, .3*tilt, 0.]))
    v = torch.tensor([[-1., -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])@R.T*.2
    camera = orbit(fov=15., width=40, height=40)
    r = rasterize(v, torch.tensor([[0, 1, 2], [0, 2, 3]]), camera, 1)
    j, i = (r.face >= 0).nonzero().T
    rays = torch.stack([(i+.5-20)/camera.K[0, 0], -(j+.5-20)/camera.K[1, 1], -torch.ones(len(i))], 1)
    z = -(R[:, 2]*camera.center).sum()/(rays@R[:, 2])
    assert_close(r.depth[j, i], z, rtol=1e-5, atol=0)
    assert_close(r.bary.sum(-1)[j, i], torch.ones(len(i)))


@pytest.mark.parametrize("distance", [.5, 1., 2.])
def test_outline_of_a_sphere_has_the_right_area(distance):
    a, b = torch.linspace(0, math.pi, 50)[:, None], torch.arange(100)*2*math.pi/100
    v = .1*torch.stack([a.sin()*b.sin(), a.cos()+0*b, a.sin()*b.cos()], -1).reshape(-1, 3)
    i = torch.arange(5000).view(50, 100)
    k = i.roll(-1, 1)
    f = torch.cat([torch.stack([i[:-1], i[1:], k[:-1]], -1), torch.stack([k[:-1], i[1:], k[1:]], -1)]).view(-1, 3)
    camera = orbit(radius=distance, fov=30., width=128, height=128)
    want = math.pi*(float(camera.K[0, 0])*math.tan(math.asin(.1/distance)))**2
    assert abs(float(rasterize(v, f, camera, 4).alpha.sum())/want-1) < .01
    assert_close(vertex_normals(v, f)[200:4800], v[200:4800]/.1, rtol=0, atol=.01)


def test_what_is_behind_the_camera_is_not_seen():
    v = torch.tensor([[-1., -1, 3], [1, -1, 3], [0, 1, 3]])
    assert (rasterize(v, torch.tensor([[0, 1, 2]]), orbit(fov=18., width=16, height=16)).face == -1).all()


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
    color = shade(head, head.vertices, bound.face[None], bound.bary[None], torch.tensor([0., 0., 1.2]))
    assert color.shape == (1, 2000, 3) and color.isfinite().all() and color.std() > .05
