"""gsplat 1.5.3's own torch code, on the CPU and in any dtype: an oracle written by others.

Its compositing calls two helpers that exist for CUDA only. Both are short in torch; here they are."""
import sys
import types
from unittest.mock import patch

import torch

MAX_ALPHA, MIN_ALPHA, MIN_T = 0.999, 1/255, 1e-4


def render_weight_from_alpha(alphas, ray_indices, n_rays):
    "Each pair's share of its ray's light, and the light before it. The pairs of a ray follow each other, nearest first."
    rays, ray, counts = ray_indices.unique_consecutive(return_inverse=True, return_counts=True)
    place = torch.arange(len(ray))-(counts.cumsum(0)-counts)[ray]
    grid = alphas.new_ones(len(rays), max(counts.tolist(), default=0)+1)
    after = grid.index_put((ray, place+1), 1-alphas).cumprod(1)
    before = after[ray, place]
    return alphas*before, before

def accumulate_along_rays(weights, values, ray_indices, n_rays):
    shares = weights[:, None] if values is None else weights[:, None]*values
    return shares.new_zeros(n_rays, shares.shape[1]).index_add(0, ray_indices, shares)

NERFACC = types.SimpleNamespace(render_weight_from_alpha=render_weight_from_alpha, accumulate_along_rays=accumulate_along_rays)


def pairs(means2d, conics, opacities, depths, radii, width, height):
    "Which Gaussian shows in which pixel: (Gaussians, pixels), pixel after pixel, nearest first. In place of `rasterize_to_indices_in_range`."
    order = depths.argsort(stable=True)
    order = order[(radii[order]>0).all(1)]
    pixels = torch.cartesian_prod(torch.arange(height), torch.arange(width)).flip(1)+0.5
    dx, dy = (pixels[:, None]-means2d[order]).unbind(2)
    A, B, C = conics[order].unbind(1)
    sigma = 0.5*(A*dx**2+C*dy**2)+B*dx*dy
    alpha = (opacities[order]*torch.exp(-sigma)).clamp(max=MAX_ALPHA)
    shows = (sigma>=0) & (alpha>=MIN_ALPHA)
    shows &= (1-alpha*shows).cumprod(1)>MIN_T
    pixel, place = shows.nonzero(as_tuple=True)
    return order[place], pixel


def oracle(g, cameras, background=None, mode="classic", eps2d=0.3, near=0.01, far=1e10, depth=True):
    "What `render` promises: picture, alpha and depth (None if not asked for), each with the cameras' axis."
    from gsplat.cuda import _torch_impl as gsplat
    width, height = cameras[0].width, cameras[0].height

    def project(camera, which):
        covariances, _ = gsplat._quat_scale_to_covar_preci(g.quats[which], g.scales[which], compute_preci=False)
        radii, means2d, depths, conics, compensation = gsplat._fully_fused_projection(
            g.means[which], covariances, camera.viewmat[None], camera.K[None], width, height, eps2d, near, far, mode=="antialiased")
        opacities = g.opacities[which][None]
        return means2d, conics, opacities if compensation is None else opacities*compensation, depths, radii

    pictures = []
    for camera in cameras:
        with torch.no_grad(): who, pixel = pairs(*(x[0] for x in project(camera, slice(None))), width, height)
        seen, who = who.unique(return_inverse=True) # only these: what does not show may have a slope of 0/0
        means2d, conics, opacities, depths, _ = project(camera, seen)
        values = torch.cat([g.colors[seen], depths[0, :, None]], 1)[None] if depth else g.colors[seen][None]
        with patch.dict(sys.modules, nerfacc=NERFACC):
            pictures.append(gsplat.accumulate(means2d, conics, opacities, values, who, pixel, torch.zeros_like(who), width, height))
    values, alpha = torch.cat([p[0] for p in pictures]), torch.cat([p[1] for p in pictures])
    rgb = values[..., :-1] if depth else values
    if background is not None: rgb = rgb+(1-alpha)*background
    return rgb, alpha[..., 0], values[..., -1]/alpha[..., 0].clamp(min=1e-10) if depth else None
