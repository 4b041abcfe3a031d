"Projection against closed forms: the pinhole's derivative, the light of a splat, the sphere's harmonics."
import math
from dataclasses import replace

import pytest
import torch
from torch.autograd.functional import jacobian
from torch.testing import assert_close

from talkinglab.core.camera import Camera, intrinsics, orbit, project_points, world_to_camera
from talkinglab.gs.gaussians import Gaussians, build_doll, cover_ellipsoid
from talkinglab.gs.project import project, project_cov, sh_basis, sh_to_rgb

CAM = Camera(intrinsics(60., 96, 64), torch.eye(4), 96, 64).to(torch.float64)


def some(n=40, seed=0, spread=0.1, size=0.01, dtype=torch.float64):
    gen = torch.Generator().manual_seed(seed)
    r = lambda *shape: torch.randn(*shape, generator=gen, dtype=dtype)
    return Gaussians(r(n, 3)*spread, r(n, 4), r(n, 3).exp()*size, r(n).sigmoid(), r(n, 3).sigmoid())


@pytest.mark.parametrize("yaw,pitch", [(0., 0.), (35., 10.), (-140., -40.)])
def test_inside_the_view_it_is_the_derivative_of_the_camera(yaw, pitch):
    camera, g = orbit(yaw, pitch, 1.2, width=120, height=80).to(torch.float64), some(spread=0.03)
    p = project(g, camera, eps2d=0.)
    for k, i in enumerate(p.index.tolist()):
        J = jacobian(lambda x: project_points(camera, x)[0], g.means[i])
        A, B, C = p.conics[k]
        assert_close(torch.stack([A, B, B, C]).view(2, 2)@(J@g.covariances()[i]@J.T), torch.eye(2, dtype=torch.float64), atol=1e-8, rtol=0)


def test_twice_as_far_and_twice_as_large_looks_the_same():
    g = some(spread=0.5)
    at = g.means+torch.tensor([0, 0, 3.], dtype=torch.float64)
    assert_close(project_cov(4*g.covariances(), 2*at, CAM), project_cov(g.covariances(), at, CAM))


def test_clamp_holds_beyond_the_edge_and_only_there():
    edge = float((96-CAM.K[0, 2])/CAM.K[0, 0]+0.15*96/CAM.K[0, 0])
    cov = some(1).covariances()
    at = lambda slope: project_cov(cov, torch.tensor([[slope, 0, 1.]], dtype=torch.float64), CAM)
    assert_close(at(edge), at(edge*5))
    assert_close(at(-edge), at(-edge*5))
    assert (at(edge)-at(edge*0.99)).abs().max() > 0


def test_it_agrees_with_samples_where_the_angular_size_is_small():
    g = some(1, 3)
    g = replace(g, means=torch.tensor([[0.2, -0.1, 1.]], dtype=torch.float64), scales=torch.tensor([[0.02, 0.01, 0.01]], dtype=torch.float64))
    x = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)@torch.linalg.cholesky(g.covariances()[0]).T+g.means
    flat = project_cov(g.covariances(), g.means, CAM)[0]
    assert_close(project_points(CAM, x)[0].T.cov(), flat, rtol=0, atol=0.015*float(flat.diagonal().max()))


def test_means_depths_and_order():
    camera, g = orbit(20., 5., 1.2, width=96, height=64).to(torch.float64), some(200, spread=0.3)
    p = project(g, camera)
    uv, z = project_points(camera, g.means)
    assert 0 < len(p.index) < 200 and (p.index.diff() > 0).all()
    assert_close(p.means2d, uv[p.index])
    assert_close(p.depths, z[p.index])


def test_nothing_that_matters_is_culled():
    "Every Gaussian that reaches 1/255 at some pixel centre is kept, and lies in its box."
    camera, g = orbit(20., 5., 1.2, width=40, height=30).to(torch.float64), some(150, spread=0.15, size=0.02)
    wide = replace(camera, width=4000, height=3000, K=camera.K+torch.tensor([[0, 0, 1980.], [0, 0, 1485], [0, 0, 0]], dtype=torch.float64))
    cov = project_cov(camera.viewmat[:3, :3]@g.covariances()@camera.viewmat[:3, :3].T, world_to_camera(camera.viewmat, g.means), camera)
    v, u = torch.meshgrid(torch.arange(30)+0.5, torch.arange(40)+0.5, indexing="ij")
    d = torch.stack([u, v], -1).view(-1, 1, 2)-project_points(camera, g.means)[0]
    conic = torch.linalg.inv(cov+0.3*torch.eye(2, dtype=torch.float64))
    alpha = g.opacities*(-0.5*torch.einsum("pni,nij,pnj->pn", d, conic, d)).exp()
    p = project(g, camera)
    assert set((alpha >= 1/255).any(0).nonzero()[:, 0].tolist()) <= set(p.index.tolist())
    inside = (d[:, p.index].abs() <= p.radii).all(-1)
    assert (alpha[:, p.index][~inside] < 1/255).all()
    assert len(project(g, wide).index) >= len(p.index)


def test_near_far_and_faint_are_dropped():
    g = some(100, spread=1.)
    p = project(g, CAM, near=0.3, far=1.)
    assert len(p.index) and p.depths.min() >= 0.3 and p.depths.max() <= 1
    assert len(project(replace(g, opacities=g.opacities*0+0.9/255), CAM).index) == 0
    assert len(project(replace(g, means=g.means-torch.tensor([0, 0, 10.])), CAM).index) == 0


def test_antialiased_keeps_the_light_of_the_undilated_splat():
    g = replace(some(50, spread=0.03, size=0.002), opacities=torch.full((50,), 0.9, dtype=torch.float64))
    camera = orbit(0., 0., 1.2, width=96, height=64).to(torch.float64)
    light = lambda p: p.opacities/(p.conics[:, 0]*p.conics[:, 2]-p.conics[:, 1]**2).sqrt()
    sharp, blurred = project(g, camera, eps2d=0.), project(g, camera, mode="antialiased")
    both = torch.isin(sharp.index, blurred.index)
    assert both.any()
    assert_close(light(blurred), light(sharp)[both])


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_needles_seen_from_any_side_have_finite_gradients(mode):
    g = some(200, spread=0.05, dtype=torch.float32)
    scales = torch.tensor([[0.05, 1e-7, 1e-7]]).repeat(200, 1).requires_grad_()
    p = project(replace(g, scales=scales), orbit(10., width=64, height=64), mode=mode)
    (p.opacities.sum()+p.conics.sum()).backward()
    assert scales.grad.isfinite().all()


def test_projection_is_differentiable():
    g = replace(some(6, spread=0.03), opacities=torch.full((6,), 0.5, dtype=torch.float64))
    camera = orbit(10., 5., 1.2, width=64, height=64).to(torch.float64)
    def f(means, quats, scales, pose):
        viewmat = torch.cat([pose, camera.viewmat[3:]])
        p = project(Gaussians(means, quats, scales, g.opacities, g.colors), replace(camera, viewmat=viewmat), mode="antialiased")
        return p.means2d, p.conics, p.depths, p.opacities
    assert torch.autograd.gradcheck(f, [x.clone().requires_grad_() for x in (g.means, g.quats, g.scales)]+[camera.viewmat[:3].clone().requires_grad_()])


def test_resolution_scales_the_ellipses():
    doll, camera = build_doll(), orbit(20., 5., 1.2, width=96, height=96)
    a, b = project(doll, camera, eps2d=0.), project(doll, camera.scaled(2.), eps2d=0.)
    ia, ib = torch.isin(a.index, b.index), torch.isin(b.index, a.index)
    assert_close(b.means2d[ib], a.means2d[ia]*2, atol=1e-3, rtol=0)
    assert_close(b.conics[ib]*4, a.conics[ia], rtol=0.02, atol=1e-2)


def test_harmonics_are_orthonormal_and_no_direction_is_special():
    dirs = cover_ellipsoid((0., 0., 0.), (1., 1., 1.), (1., 1., 1.), 20_000).means.double()
    basis = sh_basis(dirs, 3)
    assert_close(basis.T@basis*4*math.pi/20_000, torch.eye(16, dtype=torch.float64), atol=1e-4, rtol=0)
    for degree in range(4):
        power = basis[:, degree**2:(degree+1)**2].square().sum(1)
        assert_close(power, torch.full_like(power, (2*degree+1)/(4*math.pi)), atol=1e-6, rtol=1e-5)
        assert_close(sh_basis(-dirs, degree), sh_basis(dirs, degree)*torch.tensor([(-1)**math.isqrt(k) for k in range((degree+1)**2)]))


def test_harmonic_colours():
    gen = torch.Generator().manual_seed(0)
    dirs = torch.randn(50, 3, generator=gen)
    constant = torch.rand(50, 1, 3, generator=gen)
    assert_close(sh_to_rgb(constant, dirs), sh_to_rgb(constant, -5*dirs))
    assert (sh_to_rgb(torch.randn(50, 16, 3, generator=gen)*9, dirs) >= 0).all()
    assert sh_to_rgb(constant, 0*dirs).isfinite().all()
    lobe = torch.zeros(1, 4, 3)
    lobe[:, 2] = 1 # brighter along +z
    assert (sh_to_rgb(lobe, torch.tensor([[0., 0, 1]])) > sh_to_rgb(lobe, torch.tensor([[0., 0, -1]]))).all()


def test_wrong_arguments_are_named():
    g = some()
    with pytest.raises(ValueError, match="mode='sharp'"): project(g, CAM, mode="sharp")
    with pytest.raises(ValueError, match="degree=4"): sh_basis(torch.ones(1, 3), 4)
    with pytest.raises(ValueError, match="2 of 3 centres"): project_cov(g.covariances()[:3], torch.tensor([[0, 0, -1.], [0, 0, 1], [0, 0, 0]], dtype=torch.float64), CAM)
