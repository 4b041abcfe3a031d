"The promises of chapter 01: OpenCV axes, world to camera, pixel centres at one half."
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from talkinglab.core.camera import Camera, intrinsics, look_at, orbit, project_points, world_to_camera

angles, tilts = st.floats(-180, 180), st.floats(-85, 85)
quick = settings(max_examples=50, deadline=None)
TARGET = (0.02, -0.01, 0.03)


def some_points(n=20): return 0.1*torch.randn(n, 3, generator=torch.Generator().manual_seed(0))


@quick
@given(angles, tilts, st.floats(0.5, 3.))
def test_orbit_stands_at_its_radius_and_sees_its_target_in_the_middle(yaw, pitch, radius):
    camera = orbit(yaw, pitch, radius, TARGET, 20., 320, 240)
    at = torch.tensor(TARGET)
    assert_close((camera.center-at).norm(), torch.tensor(radius), atol=1e-5, rtol=1e-5)
    px, depth = project_points(camera, at)
    assert_close(px, torch.tensor([160., 120.]), atol=5e-3, rtol=0)
    assert_close(depth, torch.tensor(radius), atol=1e-5, rtol=1e-5)


@quick
@given(angles, tilts)
def test_up_is_up_and_right_handed(yaw, pitch):
    camera = orbit(yaw, pitch)
    above = project_points(camera, torch.tensor([0, 0.01, 0]))[0]
    assert above[1] < 128 and abs(above[0]-128) < 1e-2
    assert torch.linalg.det(camera.viewmat[:3, :3]) > 0.999


def test_positive_yaw_goes_to_the_subjects_left_and_positive_pitch_up():
    assert orbit(30.).center[0] > 0 and orbit(30.).center[2] > 0
    assert orbit(0., 30.).center[1] > 0
    assert project_points(orbit(0.), torch.tensor([0.05, 0, 0]))[0][0] > 128  # From the front, the subject's left is our right


@quick
@given(angles, tilts)
def test_viewmat_is_rigid_and_center_is_its_origin(yaw, pitch):
    camera, p = orbit(yaw, pitch, 1.2, TARGET), some_points()
    assert_close(torch.pdist(world_to_camera(camera.viewmat, p)), torch.pdist(p), atol=1e-6, rtol=1e-4)
    assert_close(world_to_camera(camera.viewmat, camera.center), torch.zeros(3), atol=1e-6, rtol=0)


@quick
@given(st.floats(5, 120), st.integers(1, 500), st.integers(1, 500))
def test_field_of_view_fills_the_image(fov, width, height):
    K = intrinsics(fov, width, height)
    half = math.tan(math.radians(fov)/2)
    assert_close(K@torch.tensor([0., half, 1]), torch.tensor([width/2, height, 1.]), atol=1e-3, rtol=1e-4)


@quick
@given(st.floats(0.05, 4))
def test_scaling_multiplies_pixels_without_a_shift(factor):
    camera = orbit(20., 10.)
    small, p = camera.scaled(factor), some_points()
    expect = project_points(camera, p)[0]*torch.tensor([small.width/256, small.height/256])
    assert_close(project_points(small, p)[0], expect, atol=1e-3, rtol=1e-4)
    assert torch.equal(small.viewmat, camera.viewmat)


def test_projection_is_differentiable_in_points_and_camera():
    base, p = orbit(20.).to(torch.float64), some_points(5).double().requires_grad_()
    V = base.viewmat.clone().requires_grad_()
    px, z = project_points(Camera(base.K, V, 256, 256), p)
    (px.sum()+z.sum()).backward()
    assert p.grad.isfinite().all() and V.grad.isfinite().all() and V.grad.abs().max() > 0
    assert torch.autograd.gradcheck(lambda x: project_points(base, x), p)


def test_to_keeps_the_view_and_changes_the_dtype():
    camera = orbit(20.).to(torch.float64)
    assert camera.K.dtype == camera.viewmat.dtype == camera.center.dtype == torch.float64
    assert camera.scaled(0.5).K.dtype == torch.float64


def test_cameras_can_be_compared_and_hashed():
    a, b = orbit(0.), orbit(0.)
    assert a == a and a != b and len({a, b}) == 2 and b in [a, b]  # By identity: comparing tensors has no single answer


V, K = torch.eye(4), intrinsics(18., 64, 64)
MIRROR, SHIFTED = torch.diag(torch.tensor([1., -1, 1, 1])), torch.eye(4).index_put((torch.tensor([3]), torch.tensor([2])), torch.tensor(1.))
SKEW = K.index_put((torch.tensor([0]), torch.tensor([1])), torch.tensor(5.))


@pytest.mark.parametrize("k, v, size, says", [
    (-K, V, 64, "focal"), (K*0, V, 64, "focal"), (K*torch.nan, V, 64, "focal"), (K.T, V, 64, "transpose K"), (SKEW, V, 64, "skew"), (2*K, V, 64, "last row"),
    (K, 2*V, 64, "rigid"), (K, MIRROR, 64, "mirror"), (K, SHIFTED, 64, "transpose it"), (K, V*torch.nan, 64, "rigid"), (K, V, 0, "at least 1 x 1")])
def test_broken_cameras_are_refused(k, v, size, says):
    with pytest.raises(ValueError, match=says): Camera(k, v, size, 64)


def test_impossible_views_are_refused():
    o, z = torch.zeros(3), torch.tensor([0., 0, 1])
    with pytest.raises(ValueError, match="one point"): look_at(z, z)
    for up in (z, -3*z, o):
        with pytest.raises(ValueError, match="up is zero or lies along"): look_at(z, o, up)
    with pytest.raises(ValueError, match="fov=180"): intrinsics(180., 64, 64)
    with pytest.raises(ValueError, match="leaves a 0 x 0"): orbit(0.).scaled(1e-3)
    with pytest.raises(ValueError, match="1 of 2 points have z <= 0"): project_points(orbit(0.), torch.tensor([[0., 0, 0], [0, 0, 2]]))


def test_a_change_in_place_is_noticed():
    c = orbit()
    c.check()
    c.K[0, 0] = -1
    with pytest.raises(ValueError, match="focal"): c.check()
    with torch.inference_mode(): d = orbit()
    d.check()
