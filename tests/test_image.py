"Comparing pictures: closed forms, symmetry, masks, gradients, and what is refused."
import pytest
import torch
from hypothesis import given, settings, strategies as st
from talkinglab.core.image import dssim, mse, psnr, ssim, ssim_map
from torch.testing import assert_close


def pair(h=24, w=31, c=3, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    a = torch.rand(h, w, c, generator=g, dtype=dtype)
    return a, (a+0.2*torch.randn(h, w, c, generator=g, dtype=dtype)).clamp(0, 1)


def ssim_by_definition(a, b, sigma=1.5, size=11):
    "Window by window, from the deviations: no trick of variances, no separable filter."
    r = size//2
    g = torch.exp(-torch.arange(-r, r+1, dtype=a.dtype).square()/(2*sigma**2))
    w = (g[:, None]*g/g.sum()**2)[..., None]
    wide = lambda x: torch.nn.functional.pad(x.permute(2, 0, 1), (r,)*4).permute(1, 2, 0)
    A, B, out = wide(a), wide(b), torch.empty_like(a)
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            x, y = A[i:i+size, j:j+size], B[i:i+size, j:j+size]
            mx, my = (w*x).sum((0, 1)), (w*y).sum((0, 1))
            vx, vy, cov = (w*(x-mx)**2).sum((0, 1)), (w*(y-my)**2).sum((0, 1)), (w*(x-mx)*(y-my)).sum((0, 1))
            out[i, j] = (2*mx*my+1e-4)*(2*cov+9e-4)/((mx**2+my**2+1e-4)*(vx+vy+9e-4))
    return out


def test_ssim_map_is_its_definition():
    assert_close(ssim_map(*pair()), ssim_by_definition(*pair()), atol=1e-12, rtol=0)


def test_ssim_map_is_scikit_images_away_from_the_border():
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pair(40, 40)
    _, full = metrics.structural_similarity(a.numpy(), b.numpy(), data_range=1., channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True)
    assert_close(ssim_map(a, b)[5:-5, 5:-5], torch.from_numpy(full)[5:-5, 5:-5], atol=1e-6, rtol=0)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_flat_pictures_have_the_closed_form(x, y):
    a, b = torch.full((16, 16, 1), x, dtype=torch.float64), torch.full((16, 16, 1), y, dtype=torch.float64)
    assert_close(mse(a, b).item(), (x-y)**2, atol=1e-12, rtol=1e-9)
    assert_close(ssim_map(a, b)[8, 8, 0].item(), (2*x*y+1e-4)/(x*x+y*y+1e-4), atol=1e-9, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_pictures(dtype):
    a, _ = pair(dtype=dtype)
    assert mse(a, a) == 0 and psnr(a, a) == float("inf") and ssim(a, a) == 1 and dssim(a, a) == 0
    assert psnr(a, a).dtype == ssim(a, a).dtype == dtype


@pytest.mark.parametrize("measure", [mse, psnr, ssim, dssim])
def test_a_measure_is_symmetric_and_blind_to_turning_both(measure):
    a, b = pair()
    for x, y in ((b, a), (a.flip(0), b.flip(0)), (a.transpose(0, 1), b.transpose(0, 1)), (a.flip(-1), b.flip(-1))): assert_close(measure(x, y), measure(a, b))


def test_half_the_difference_is_six_decibels():
    a, b = pair()
    assert_close(psnr(torch.lerp(b, a, 0.5), a)-psnr(b, a), 20*torch.tensor(2., dtype=a.dtype).log10())


@pytest.mark.parametrize("measure", [mse, ssim, dssim])
def test_the_whole_is_the_mean_of_its_masked_parts(measure):
    a, b = pair()
    left = torch.zeros(24, 31, dtype=a.dtype)
    left[:, :11] = 1
    assert_close(measure(a, b, left)*11/31+measure(a, b, 1-left)*20/31, measure(a, b))
    assert_close(measure(a, b, torch.ones(24, 31, dtype=a.dtype)), measure(a, b))
    assert_close(measure(a, b, left > 0), measure(a, b, left*0.3))


def test_what_lies_outside_the_mask_does_not_count():
    a, b = pair()
    mask = torch.zeros(24, 31)
    mask[8:12, 8:12] = 1
    c = b.clone()
    c[:2] = 0
    assert psnr(a, b, mask) == psnr(a, c, mask) and ssim(a, b, mask) == ssim(a, c, mask) and psnr(a, b) != psnr(a, c)


def test_smooth_pictures_that_hardly_differ_keep_their_digits():
    ramp = torch.linspace(0.3, 0.9, 64)[:, None, None].expand(64, 48, 3)
    near = (ramp+1e-3*torch.rand(64, 48, 3, generator=torch.Generator().manual_seed(0))).requires_grad_()
    assert_close(ssim_map(near, ramp).double(), ssim_map(near.double(), ramp.double()), atol=2e-6, rtol=0)
    assert_close(torch.autograd.grad(dssim(near, ramp), near)[0].double(), torch.autograd.grad(dssim(near.double(), ramp.double()), near)[0].double(), atol=1e-6, rtol=1e-2)


def test_ssim_never_exceeds_one_and_falls_with_noise():
    a = pair()[0].clamp(0.3, 0.7)
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(5), dtype=a.dtype)
    marks = [ssim(a, a+s*noise).item() for s in (0, 0.02, 0.05, 0.1, 0.2)]
    assert marks == sorted(marks, reverse=True) and marks[0] == 1
    assert (ssim_map(*pair()) <= 1).all() and (ssim_map(*pair()) > -1).all()


@pytest.mark.parametrize("measure", [mse, psnr, ssim, dssim])
def test_gradients_are_slopes_and_finite_where_pictures_agree(measure):
    a, b = pair(6, 6, 1)
    assert torch.autograd.gradcheck(lambda x: measure(x, b), a.clone().requires_grad_())
    if measure is psnr: return  # infinite there, and says so
    x = b.clone().requires_grad_()
    measure(x, b).backward()
    assert_close(x.grad, torch.zeros_like(b), atol=1e-12, rtol=0)


def test_descending_dssim_recovers_a_picture():
    a, _ = pair(dtype=torch.float32)
    x = torch.full_like(a, 0.5).requires_grad_()
    adam = torch.optim.Adam([x], lr=0.02)
    start = dssim(x, a).item()
    for _ in range(60):
        adam.zero_grad()
        dssim(x, a).backward()
        adam.step()
    assert dssim(x, a) < start/10


@pytest.mark.parametrize("measure", [mse, psnr, ssim, dssim])
def test_refusals_name_the_number_and_the_remedy(measure, unchecked):
    a, b = pair()
    with pytest.raises(ValueError, match=r"\(24, 31, 3\) and \(12, 31, 3\)"): measure(a, b[::2])
    with pytest.raises(ValueError, match=r"needs \(24, 31\)"): measure(a, b, torch.ones(31, 24))
    with pytest.raises(ValueError, match="mask sums to 0"): measure(a, b, torch.zeros(24, 31))
    with pytest.raises(ValueError, match="divide by 255"): measure((a*255).to(torch.uint8), (b*255).to(torch.uint8))


def test_even_windows_are_refused():
    with pytest.raises(ValueError, match="size=10"): ssim_map(*pair(), size=10)
