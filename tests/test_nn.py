"The bricks of a talker and its losses: what each starts as, what it may see, closed forms, gradients, and what is refused."
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from talkinglab.core.camera import orbit
from talkinglab.core.clock import windows
from talkinglab.core.image import dssim
from talkinglab.nn.blocks import MLP, TCN, DifferenceEncoder, FiLM
from talkinglab.nn.losses import depth_normals, geometry, photometric, sparsity, velocity
from torch.testing import assert_close

few = settings(max_examples=15, deadline=None)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def some(*shape, seed=0, dtype=torch.float32): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---- blocks

@pytest.mark.parametrize("sizes", [(3, 2), (3, 16, 2), (3, 16, 8, 2)])
def test_an_mlp_that_starts_at_zero_learns_its_last_layer_first(sizes):
    net, x = MLP(sizes, zero_last=True), some(5, 4, 3)
    assert net(x).shape == (5, 4, 2) and not net(x).any()
    (net(x)-1).square().sum().backward()
    assert net[-1].weight.grad.any()
    assert not any(p.grad.any() for p in net[:-1].parameters())
    assert_close(net[-1](net[:-1](x)), net(x))


@few
@given(st.floats(0, 100))
def test_without_bias_the_answer_grows_with_the_question(a):
    x = some(6, 8, dtype=torch.float64)
    for net in (MLP((8, 16, 8), bias=False), TCN(8, 3, bias=False)):
        net.double()
        assert_close(net(a*x), a*net(x))


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 4, 5, 8, 11])
def test_a_tcn_sees_its_window_and_all_of_it(radius):
    net, x = TCN(16, radius), some(2*radius+7, 16)
    seen = torch.autograd.functional.jacobian(net, x).abs().sum((1, 3))
    i = torch.arange(len(x))
    near = (i[:, None]-i).abs() <= radius
    assert (seen[near] > 0).all() and not seen[~near].any()


def test_a_tcn_says_of_a_window_what_it_says_of_the_film():
    net, x = TCN(6, 4).double(), some(13, 6, dtype=torch.float64)
    assert_close(torch.stack([net(w)[4] for w in windows(x, 4)]), net(x))
    assert_close(net(windows(x, 4))[:, 4], net(x))                       # As a batch


def test_a_tcn_starts_near_the_identity_and_repeats_the_ends():
    net, x = TCN(32, 4), some(50, 32)
    assert 0 < (net(x)-x).norm() < .1*x.norm()
    assert_close(net(x[:1].expand(9, 32)), net(x[:1]).expand(9, 32))
    assert net(x[:1]).shape == (1, 32) and net(x.expand(2, 3, 50, 32)).shape == (2, 3, 50, 32)


@pytest.mark.parametrize("size", [4, 8, 32, 64])
def test_no_change_has_no_code_and_half_the_change_half_of_it(size):
    net, x = DifferenceEncoder(size, 16), some(3, 3, size, size)
    assert not net(0*x).any() and net(x).shape == (3, 16)
    for p in net.parameters(): p.data += .1*some(*p.shape)               # After any training
    assert not net(0*x).any()
    assert_close(net(x/2), net(x)/2)


def test_the_difference_encoder_averages_finer_pictures():
    net, x = DifferenceEncoder(16), some(2, 3, 16, 16)
    assert_close(net(x.repeat_interleave(3, 2).repeat_interleave(2, 3)), net(x))


def test_the_code_is_about_as_loud_as_the_change():
    for size in (16, 64):
        x = .04*torch.nn.functional.interpolate(some(8, 3, size//8, size//8), scale_factor=8)
        assert .2 < DifferenceEncoder(size)(x).square().mean().sqrt()/x.square().mean().sqrt() < 5


def test_film_starts_as_the_identity_and_takes_one_condition_or_one_a_row():
    net, x, c = FiLM(6, 3), some(7, 6), some(7, 3)
    assert torch.equal(net(x, c), x) and torch.equal(net(x, c[0]), x)
    for p in net.parameters(): p.data += some(*p.shape)
    assert_close(net(x, c)[2], net(x[2], c[2]))
    assert_close(net(x, c[0])[2], net(x[2], c[0]))
    assert_close(net(2*x, c)-net(x, c), net(x, c)-net(0*x, c))           # Affine in the features


@pytest.mark.parametrize("build, message", [
    (lambda: MLP((3,)), "at least two"), (lambda: TCN(8, -1), "radius=-1"), (lambda: TCN(8)(torch.zeros(0, 8)), "0 frames"),
    (lambda: DifferenceEncoder(48), "size=48"), (lambda: DifferenceEncoder(2), "size=2"), (lambda: DifferenceEncoder(16)(torch.zeros(1, 3, 16, 20)), "20 x 16"),
])
def test_bricks_say_what_does_not_fit(build, message):
    with pytest.raises(ValueError, match=message): build()


# ---- losses

def test_photometric_is_its_two_parts_under_the_mask():
    a, b = some(20, 24, 3).sigmoid(), some(20, 24, 3, seed=1).sigmoid()
    left = torch.zeros(20, 24)
    left[:, :9] = 1
    assert photometric(a, a) == dict(l1=0, dssim=0)
    out = photometric(a, b, left)
    assert_close(out["l1"], (a-b)[:, :9].abs().mean())
    assert_close(out["dssim"], dssim(a, b, left))
    with pytest.raises(ValueError, match="sums to 0"): photometric(a, b, 0*left)


def test_sparsity_counts_entries_not_tensors():
    a, b = some(5, 3).requires_grad_(), some(40, seed=1)
    assert_close(sparsity(a, b), torch.cat([a.flatten(), b]).abs().mean())
    assert_close(sparsity(3*a, 3*b), 3*sparsity(a, b))
    sparsity(a, b).backward()
    assert_close(a.grad, a.detach().sign()/55)
    for nothing in ((), (torch.zeros(0, 3),)):
        with pytest.raises(ValueError, match="0 entries"): sparsity(*nothing)


@few
@given(st.floats(-5, 5), st.floats(-2, 2))
def test_velocity_is_blind_to_place_and_squares_a_drift(place, drift):
    x = some(9, 4, 2, dtype=torch.float64)
    moved = x+place+drift*torch.arange(9, dtype=x.dtype)[:, None, None]
    assert_close(velocity(moved, x).item(), drift**2, atol=1e-12, rtol=1e-9)


def test_velocity_of_noise_is_twice_its_power():
    x, noise = some(20000), some(20000, seed=1)
    assert abs(velocity(x+noise, x)/noise.square().mean()-2) < .1
    with pytest.raises(ValueError, match="1 frames"): velocity(x[:1], x[:1])


def test_velocity_refuses_other_shapes(unchecked):
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(3, 1\)"): velocity(some(3, 2), some(3, 1))


# ---- geometry

def rays(camera):
    x, y = ((torch.arange(n)+.5-camera.K[i, 2])/camera.K[i, i] for i, n in ((0, camera.width), (1, camera.height)))
    return torch.stack([x.expand(len(y), len(x)), y[:, None].expand(len(y), len(x)), torch.ones(len(y), len(x))], -1).double()


def bumpy(camera, seed=0):
    "Some surface about 1.1 m away, smooth and without a plane in it."
    r, (a, b) = rays(camera), some(2, seed=seed).tolist()
    return 1.1+.05*torch.sin((20+3*a)*r[..., 0])*torch.cos((25+3*b)*r[..., 1])+.1*r[..., 0]


CAMERA = orbit(fov=20, width=32, height=24)
SOLID = torch.ones(24, 32, dtype=torch.float64)


@few
@given(st.floats(-.9, .9), st.floats(-.9, .9), st.floats(.3, 3))
def test_a_plane_has_one_normal_wherever_it_is(a, b, far):
    n = torch.nn.functional.normalize(torch.tensor([a, b, -1.], dtype=torch.float64), dim=0)
    depth = far*n[2]/(rays(CAMERA)@n)
    assert_close(depth_normals(depth, CAMERA), n.expand(24, 32, 3), atol=1e-6, rtol=0)


@few
@given(st.integers(0, 10_000))
def test_normals_are_unit_vectors_towards_the_camera_on_any_surface(seed):
    depth = some(24, 32, seed=seed, dtype=torch.float64).exp()
    n = depth_normals(depth, CAMERA)
    assert_close(n.norm(dim=-1), SOLID)
    assert ((n*rays(CAMERA)).sum(-1) < 0).all()


@pytest.mark.parametrize("unknown", [0., math.inf, math.nan, -1.])
def test_next_to_the_unknown_there_is_no_normal_and_the_gradient_is_finite(unknown):
    depth = bumpy(CAMERA)
    depth[10, 12] = unknown
    depth.requires_grad_()
    n = depth_normals(depth, CAMERA)
    assert not n[9:12, 11:14].any() and (n.norm(dim=-1) > 0).sum() == 24*32-9
    n.square().sum().backward()
    assert depth.grad.isfinite().all() and depth.grad[10, 12] == 0


def test_equal_geometry_costs_nothing_and_pulls_nowhere():
    depth = bumpy(CAMERA).requires_grad_()
    out = geometry(depth, SOLID, depth.detach(), CAMERA)
    assert out == dict(depth=0, normal=0)
    sum(out.values()).backward()
    assert depth.grad.isfinite().all() and depth.grad.abs().max() < 1e-9


@few
@given(st.floats(.2, 5), st.floats(-.5, 3))
def test_the_depth_part_needs_no_unit_and_no_origin_and_the_normals_no_unit(unit, origin):
    depth, prior = bumpy(CAMERA), bumpy(CAMERA, seed=1)
    out = geometry(depth, SOLID, prior, CAMERA)
    assert_close(geometry(depth, SOLID, prior*unit+origin, CAMERA)["depth"], out["depth"])
    assert_close(geometry(depth, SOLID, prior*unit, CAMERA)["normal"], out["normal"])
    assert geometry(depth, SOLID, 1/prior, CAMERA)["depth"] > 0


def test_the_normal_part_is_one_minus_the_cosine():
    depth, prior = bumpy(CAMERA), bumpy(CAMERA, seed=1)
    n, m = depth_normals(depth, CAMERA), depth_normals(prior, CAMERA)
    assert_close(geometry(depth, SOLID, prior, CAMERA)["normal"], (1-(n*m).sum(-1)).mean())


def test_geometry_looks_where_both_are_known_and_asked_for():
    depth, prior = bumpy(CAMERA), bumpy(CAMERA, seed=1)
    odd, alpha, mask = prior.clone(), SOLID.clone(), torch.ones(24, 32)
    odd[:, :8] = torch.where(torch.arange(24)[:, None] % 2 == 0, math.inf, 0.)
    alpha[:6] = .5                                                       # Not more solid than not
    mask[:, 28:] = 0
    want = geometry(depth[6:, 8:28].contiguous(), SOLID[6:, 8:28], prior[6:, 8:28].contiguous(), orbit(fov=20, width=20, height=18))
    out = geometry(depth, alpha, odd, CAMERA, mask)
    assert_close(out["depth"], want["depth"])
    nonsense = depth.clone()
    nonsense[:6], nonsense[:, :8], nonsense[:, 28:] = 9., 9., 9.
    assert_close(geometry(nonsense, alpha, odd, CAMERA, mask > 0), out)


@pytest.mark.parametrize("part", ["depth", "normal"])
def test_geometry_has_the_gradient_of_its_differences(part):
    depth, prior = bumpy(CAMERA)[::2, ::2].contiguous(), bumpy(CAMERA, seed=1)[::2, ::2].contiguous()
    small = CAMERA.scaled(.5)
    f = lambda d: geometry(d, SOLID[::2, ::2], prior, small)[part]
    d = depth.clone().requires_grad_()
    f(d).backward()
    way = some(*depth.shape, dtype=torch.float64)
    assert_close((f(depth+1e-7*way)-f(depth-1e-7*way))/2e-7, (d.grad*way).sum(), rtol=1e-4, atol=1e-6)


def test_with_nothing_to_compare_geometry_is_zero_and_trainable():
    depth = bumpy(CAMERA).requires_grad_()
    for alpha, prior, mask in ((0*SOLID, bumpy(CAMERA), None), (SOLID, 0*SOLID, None), (SOLID, bumpy(CAMERA), 0*SOLID)):
        out = geometry(depth, alpha, prior, CAMERA, mask)
        assert out == dict(depth=0, normal=0)
        sum(out.values()).backward()
    flat = geometry(torch.full((24, 32), 1.2).requires_grad_(), torch.ones(24, 32), bumpy(CAMERA).float(), CAMERA)
    sum(flat.values()).backward()
    assert all(x.isfinite() for x in flat.values()) and not depth.grad.any()


def test_geometry_says_what_does_not_fit(unchecked):
    with pytest.raises(ValueError, match="32 x 24 px, the camera 16 x 12"): depth_normals(SOLID, CAMERA.scaled(.5))
    with pytest.raises(ValueError, match="at least 2 x 2"): depth_normals(SOLID[:1, :1], orbit(width=1, height=1))
    with pytest.raises(ValueError, match=r"prior is \(12, 32\)"): geometry(SOLID, SOLID, SOLID[::2], CAMERA)
    with pytest.raises(ValueError, match=r"mask is \(24, 16\)"): geometry(SOLID, SOLID, SOLID, CAMERA, SOLID[:, ::2])
