"Laws of the three records: covariances stay positive, deltas are a vector space, raw and activated are one thing."
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from talkinglab.core.rotation import quat_to_matrix, rotvec_to_matrix
from talkinglab.gs.gaussians import Delta, Gaussians, Splats, build_doll, cover_ellipsoid, deform


def some(n=30, seed=0, sh=0, dtype=torch.float64):
    gen = torch.Generator().manual_seed(seed)
    r = lambda *shape: torch.randn(*shape, generator=gen, dtype=dtype)
    return Gaussians(r(n, 3), r(n, 4), r(n, 3).exp(), r(n).sigmoid(), r(n, sh, 3) if sh else r(n, 3).sigmoid())


def change(g, size, seed=0):
    gen = torch.Generator().manual_seed(seed)
    zero = Delta.zeros(g)
    return Delta(*(size*torch.randn(getattr(zero, f.name).shape, generator=gen, dtype=g.means.dtype) for f in fields(zero)))


def same(a, b, **kw):
    for f in fields(a): assert_close(getattr(a, f.name), getattr(b, f.name), **kw)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(-6, 3))
def test_covariance_eigenvalues_are_squared_scales(seed, log10):
    g = some(5, seed)
    g = replace(g, scales=g.scales*10**log10)
    values = torch.linalg.eigvalsh(g.covariances())
    assert_close(values/values[:, -1:], (g.scales/g.scales.amax(1, keepdim=True)).square().sort(1).values, atol=1e-12, rtol=1e-6)


def test_covariance_ignores_length_and_sign_of_the_quaternion():
    g = some()
    assert_close(replace(g, quats=-7*g.quats).covariances(), g.covariances())


def test_rigid_motion_conjugates_covariances_and_composes():
    g, A, B = some(), *(rotvec_to_matrix(torch.tensor(v, dtype=torch.float64)) for v in ([0.3, -2, 1.], [1., 1, 0]))
    t, u = torch.tensor([[1., 2, 3], [0, -1, 0.5]], dtype=torch.float64)
    assert_close(g.moved(A, t).covariances(), A@g.covariances()@A.T)
    once, twice = g.moved(B@A, B@t+u), g.moved(A, t).moved(B, u)
    assert_close(once.means, twice.means)
    assert_close(quat_to_matrix(once.quats), quat_to_matrix(twice.quats))


def test_rigid_motion_refuses_direction_dependent_colours():
    eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    assert len(some(sh=1).moved(eye, zero)) == 30
    with pytest.raises(ValueError, match="4 spherical harmonics"): some(sh=4).moved(eye, zero)


def test_join_then_split_is_the_identity():
    a, b = some(7, 1), some(5, 2)
    same((a+b)[:7], a)
    same((a+b)[torch.arange(12) >= 7], b)
    same((a+b)[torch.arange(7, 12)], b)


def test_zero_delta_is_the_identity_bit_for_bit():
    for g in (some(2000, dtype=torch.float32), some(2000), some(50, sh=9), build_doll()):
        out = deform(g, Delta.zeros(g))
        assert all(torch.equal(getattr(out, f.name), getattr(g, f.name)) for f in fields(g))


def test_deltas_add_where_the_space_is_flat():
    g = some()
    a, b = change(g, 0.5, 1), change(g, 0.5, 2)
    twice, once = deform(deform(g, a), b), deform(g, a+b)
    for name in ("means", "scales", "opacities", "colors"): assert_close(getattr(twice, name), getattr(once, name))


def test_turns_add_to_second_order():
    g = some()
    def gap(size):
        a, b = (replace(Delta.zeros(g), rotvecs=change(g, size, s).rotvecs) for s in (1, 2))
        return (quat_to_matrix(deform(deform(g, a), b).quats)-quat_to_matrix(deform(g, a+b).quats)).norm()
    assert_close(gap(0.01)/gap(0.005), torch.tensor(4., dtype=torch.float64), rtol=0.02, atol=0)


def test_a_delta_and_its_opposite_cancel():
    g = some()
    d = change(g, 1.)
    back = deform(deform(g, d), -1.*d)
    same(replace(back, quats=g.quats), g)
    assert_close(quat_to_matrix(back.quats), quat_to_matrix(g.quats))


@settings(max_examples=25, deadline=None)
@given(st.floats(-1e4, 1e4))
def test_no_delta_leaves_the_legal_opacities(logit):
    g = some(3, dtype=torch.float32)
    o = torch.tensor([0., 0.5, 1.], requires_grad=True)
    out = deform(replace(g, opacities=o), replace(Delta.zeros(g), logits=torch.full((3,), logit))).opacities
    assert (out >= 0).all() and (out <= 1).all() and out[0] == 0 and out[2] == 1
    assert torch.autograd.grad(out.sum(), o)[0].isfinite().all()


def test_deform_is_differentiable():
    g = some(4)
    def f(*d): return tuple(getattr(deform(g, Delta(*d)), f.name) for f in fields(Gaussians))
    d = change(g, 0.3)
    assert torch.autograd.gradcheck(f, [getattr(d, f.name).requires_grad_() for f in fields(Delta)])


@pytest.mark.parametrize("sh", [0, 1, 4, 9, 16])
def test_splats_round_trip(sh):
    g = some(sh=sh)
    same(Splats(g)(), g)


@pytest.mark.parametrize("n", [1, 30, 80])
def test_splats_load_any_number(n):
    many, s = Splats(some(sh=4)), Splats(some(sh=4)[:n%31] if n < 31 else some(sh=4)+some(sh=4)+some(sh=4)[:20])
    s.params["quats"].requires_grad_(False)
    s.load_state_dict(many.state_dict())
    same(s(), many())
    assert [k for k, p in s.params.items() if not p.requires_grad] == ["quats"]
    mixed = dict(many.state_dict(), **{"params.means": torch.zeros(7, 3)})
    with pytest.raises(RuntimeError, match="size mismatch"): s.load_state_dict(mixed)
    with pytest.raises(RuntimeError, match="size mismatch"): s.load_state_dict(dict(many.state_dict(), **{"params.shN": torch.zeros(30, 8, 3)}))
    with pytest.raises(RuntimeError, match="Missing"): Splats(some()).load_state_dict(many.state_dict())


def test_splats_are_legal_wherever_the_optimiser_goes():
    s = Splats(some(dtype=torch.float32))
    for v in s.params.values(): v.data.normal_(0, 10, generator=torch.Generator().manual_seed(0))
    g = s()
    assert (g.scales > 0).all() and (g.opacities >= 0).all() and (g.opacities <= 1).all() and g.covariances().isfinite().all()
    assert set(Splats(some(sh=4)).params) == {"means", "quats", "scales", "opacities", "sh0", "shN"}


def test_wrong_shapes_and_sizes_are_named():
    g = some()
    with pytest.raises(ValueError, match=r"colors are \(30, 5, 3\)"): replace(g, colors=torch.zeros(30, 5, 3))
    with pytest.raises(ValueError, match="10 rows for 30"): deform(g, Delta.zeros(g[:10]))
    with pytest.raises(ValueError, match="1 of 30"): Splats(replace(g, scales=torch.where(torch.arange(30)[:, None] == 3, 0., g.scales)))
    with pytest.raises(ValueError, match="n=0"): cover_ellipsoid((0., 0., 0.), (1., 1., 1.), (1., 1., 1.), 0)


@pytest.mark.parametrize("radii", [(1., 1., 1.), (0.07, 0.1, 0.08), (0.15, 0.06, 0.07)])
def test_discs_lie_on_the_ellipsoid_and_cover_its_area(radii):
    r = torch.tensor(radii)
    g = cover_ellipsoid((0.1, 0., 0.), radii, (1., 1., 1.), 2000)
    unit = (g.means-torch.tensor([0.1, 0., 0.]))/r
    assert_close(unit.norm(dim=1), torch.ones(2000))
    normal = torch.nn.functional.normalize(unit/r, dim=1)
    assert_close((quat_to_matrix(g.quats)[:, :, 2]*normal).sum(1).abs(), torch.ones(2000))
    a, b, c = radii
    area = 4*torch.pi*(((a*b)**1.6075+(a*c)**1.6075+(b*c)**1.6075)/3)**(1/1.6075) # Thomsen's formula, within 1.1 %
    assert_close(g.scales[:, 0].square().sum()/0.65**2, torch.tensor(area), rtol=0.015, atol=0)
