"Layers and the last network: exact laws, and one small thing learned."
import math

import pytest
import torch
from talkinglab.nn.finish import Refiner, StyledConv, dilate, over
from torch.testing import assert_close


@pytest.fixture
def g(): return torch.Generator().manual_seed(0)


def layer(g, h=7, w=5, c=3, dtype=torch.double):
    "Colour times coverage, and coverage."
    alpha = torch.rand(h, w, generator=g, dtype=dtype)
    return alpha[..., None]*torch.rand(h, w, c, generator=g, dtype=dtype), alpha


def awake(seed=0, **settings):
    "A refiner whose last layer is no longer zero."
    torch.manual_seed(seed)
    net = Refiner(**settings)
    torch.nn.init.normal_(net.last.weight, std=0.02)
    return net


# Layers

def test_over_is_associative_and_nothing_is_its_identity(g):
    (a, aa), (b, ba), back = layer(g), layer(g), torch.rand(7, 5, 3, generator=g, dtype=torch.double)
    assert_close(over(a, aa, over(b, ba, back)), over(over(a, aa, b), 1-(1-aa)*(1-ba), back))
    assert_close(over(0*a, 0*aa, back), back)
    assert_close(over(a, torch.ones_like(aa), back), a)


def test_one_colour_is_a_wall_of_it(g):
    a, alpha = layer(g)
    wall = torch.rand(3, generator=g, dtype=torch.double)
    assert torch.equal(over(a, alpha, wall), over(a, alpha, wall.expand(7, 5, 3)))


def test_over_sends_gradients_to_all_three(g):
    rgb, alpha = layer(g, 3, 2)
    inputs = [x.clone().requires_grad_() for x in (rgb, alpha, torch.rand(3, 2, 3, generator=g, dtype=torch.double))]
    assert torch.autograd.gradcheck(over, inputs)


def test_dilation_grows_keeps_order_and_adds_up(g):
    a, b = torch.rand(2, 13, 9, generator=g)
    for n in (1, 3, 7, 31): assert (dilate(a, n) >= a).all()
    assert torch.equal(dilate(a, 1), a)
    assert (dilate(torch.maximum(a, b), 5) >= dilate(a, 5)).all()
    assert torch.equal(dilate(dilate(a, 3), 5), dilate(a, 7))
    one = torch.zeros(13, 9)
    one[6, 4] = 0.7
    assert dilate(one, 5).sum().item() == pytest.approx(0.7*25) and dilate(one, 5)[4:9, 2:7].min() > 0


# The styled convolution

def test_kernels_have_one_length_whatever_the_style(g):
    conv = StyledConv(6, 4, style=3).double()
    for s in (torch.zeros(3), torch.randn(3, generator=g), 100*torch.randn(3, generator=g)):
        assert_close(conv.kernels(s.double()).flatten(1).norm(dim=1), torch.full((4,), math.sqrt(2), dtype=torch.double), atol=1e-4, rtol=0)


def test_only_the_ratio_of_the_gains_counts(g):
    conv, x = StyledConv(6, 4, style=3).double(), torch.randn(1, 6, 8, 8, generator=g, dtype=torch.double)
    s = torch.randn(3, generator=g, dtype=torch.double)
    before = conv(x, s)
    with torch.no_grad():
        for p in conv.gains.parameters(): p.mul_(7)
    assert_close(conv(x, s), before, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(conv(x, -s), before)


def test_styling_kernels_is_styling_channels(g):
    "StyleGAN2's identity: scale the input, convolve, divide by the kernels' length."
    conv, x, s = StyledConv(3, 5, style=2).double(), torch.randn(1, 3, 6, 7, generator=g, dtype=torch.double), torch.randn(2, generator=g, dtype=torch.double)
    gain = conv.gains(s)
    by_hand = torch.nn.functional.conv2d(x*gain[:, None, None], conv.weight, padding=1)
    length = (conv.weight*gain[:, None, None]).flatten(1).norm(dim=1)
    assert_close(conv(x, s), math.sqrt(2)*by_hand/length[:, None, None], atol=1e-6, rtol=1e-6)


# The refiner

@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 16), (33, 50)])
@pytest.mark.parametrize("settings", [dict(), dict(width=4, depth=0, shuffle=1), dict(width=6, depth=3, shuffle=4, style=5), dict(width=5, depth=1, shuffle=3, extra=2)])
def test_it_starts_as_the_identity_at_any_size(g, size, settings):
    net = Refiner(**settings)
    rgb, more = torch.rand(*size, 3, generator=g)*3-1, torch.rand(*size, settings.get("extra", 0), generator=g)
    extra = more if settings.get("extra") else None
    assert torch.equal(net(rgb, extra=extra), rgb)
    assert torch.equal(net(rgb, torch.randn(settings.get("style", 32), generator=g), extra), rgb)


def test_it_leaves_its_input_alone(g):
    for settings in (dict(shuffle=1), dict()):
        rgb = torch.rand(16, 16, 3, generator=g)
        before = rgb.clone()
        awake(**settings)(rgb)
        assert torch.equal(rgb, before)


def test_no_style_is_the_zero_style_and_styles_matter(g):
    net, rgb, s = awake(), torch.rand(20, 12, 3, generator=g), torch.randn(32, generator=g)
    assert torch.equal(net(rgb), net(rgb, torch.zeros(32)))
    assert not torch.allclose(net(rgb), net(rgb, s))


def test_padding_repeats_the_border(g):
    net, rgb = awake(width=4), torch.rand(13, 18, 3, generator=g)
    grown = torch.nn.functional.pad(rgb.movedim(-1, 0)[None], (0, 6, 0, 3), mode="replicate")[0].movedim(0, -1)
    assert_close(net(rgb), net(grown)[:13, :18])


def reach(depth, shuffle):
    "How far a pixel can see, px: 3 x 3 convolutions on each level, in cells of that level, and the width of one cell of the coarsest."
    down, up = [2**i for i in range(depth+1)], [2**i for i in range(1, depth+1)]
    return shuffle*(sum(down)+sum(up)+2**depth+sum(down[:-1])+1)+shuffle*2**depth


@pytest.mark.parametrize("depth,shuffle", [(0, 1), (1, 2), (2, 2), (2, 1)])
def test_it_is_local(g, depth, shuffle):
    net, n = awake(width=4, depth=depth, shuffle=shuffle).double(), reach(depth, shuffle)
    rgb = torch.rand(2*n+8, 16, 3, generator=g, dtype=torch.double)
    other = rgb.clone()
    other[0] += 1
    change = (net(other)-net(rgb)).abs().amax((1, 2))
    assert change[0] > 0 and change[n//3] > 0 and not change[n:].any()


def test_it_moves_along_with_the_picture(g):
    "By whole cells of the coarsest level; far from the border, where zeros are padded."
    net, n = awake(width=4, depth=1, shuffle=2).double(), reach(1, 2)
    rgb = torch.rand(2*n+24, 2*n+24, 3, generator=g, dtype=torch.double)
    moved = net(rgb[4:, 8:])
    assert_close(moved[n:-n, n:-n], net(rgb)[4:, 8:][n:-n, n:-n])


def test_shuffled_pixels_come_back_in_their_places(g):
    "A last layer that reads a cell's own pixels draws each where it was."
    from talkinglab.nn.finish import _blocks, _unblock
    x = torch.rand(12, 8, 5, generator=g)
    for s, multiple in ((1, 4), (2, 4), (4, 4)): assert_close(_unblock(_blocks(x, multiple, s), s)+0.5, x)
    odd = _unblock(_blocks(x[:11, :7], 4, 2), 2)+0.5
    assert odd.shape == (12, 8, 5) and torch.allclose(odd[:11, :7], x[:11, :7]) and torch.allclose(odd[11, :7], x[10, :7])


def test_gradients_are_right(g):
    net = awake(width=2, depth=1, style=2, shuffle=1, extra=1).double()
    rgb, s, more = torch.rand(4, 6, 3, generator=g, dtype=torch.double), torch.randn(2, generator=g, dtype=torch.double), torch.rand(4, 6, 1, generator=g, dtype=torch.double)
    assert torch.autograd.gradcheck(net, [x.requires_grad_() for x in (rgb, s, more)], fast_mode=True)


def test_every_parameter_learns_after_the_first_step(g):
    net, rgb = Refiner(width=4, style=3), torch.rand(16, 16, 3, generator=g)
    opt = torch.optim.Adam(net.parameters())
    for step in range(2):
        opt.zero_grad()
        net(rgb, torch.ones(3)).square().sum().backward()
        still = {k for k, p in net.named_parameters() if p.grad is None or not p.grad.any()}
        assert still == ({k for k, _ in net.named_parameters() if not k.startswith("last")} if step == 0 else set())
        opt.step()


def test_it_learns_what_its_style_says():
    "Told 1, darken; told -1, leave. Judged on pictures that it has not learned from."
    pictures = torch.rand(12, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    pictures = torch.nn.functional.interpolate(pictures, size=(16, 16), mode="bilinear").movedim(1, -1)
    orders = [(torch.tensor([1.]), 0.4), (torch.tensor([-1.]), 1.)]
    torch.manual_seed(0)
    net = Refiner(width=8, depth=1, style=1)
    opt = torch.optim.Adam(net.parameters(), lr=0.01)
    def error():
        with torch.no_grad(): return sum((net(p, s)-f*p).abs().mean().item() for p in pictures[8:] for s, f in orders)
    before = error()
    for it in range(60):
        picture, (s, f) = pictures[it//2 % 8], orders[it % 2]
        opt.param_groups[0]["lr"] = 0.01*(1-it/60)
        opt.zero_grad()
        (net(picture, s)-f*picture).abs().mean().backward()
        opt.step()
    assert error() < 0.6*before


def test_it_is_saved_and_read_to_the_same_bits(g, tmp_path):
    net, rgb = awake(), torch.rand(16, 16, 3, generator=g)
    torch.save(net.state_dict(), tmp_path/"net.pt")
    other = Refiner()
    other.load_state_dict(torch.load(tmp_path/"net.pt", weights_only=True))
    assert torch.equal(other(rgb), net(rgb))


def test_bad_input_is_named(g, unchecked):
    net, rgb, alpha = Refiner(), torch.rand(8, 8, 3, generator=g), torch.rand(8, 8, generator=g)
    for call, says in [
        (lambda: net(rgb.movedim(-1, 0)), r"\(3, 8, 8\): needs \(h, w, 3\)"), (lambda: net(rgb[None]), "a batch one call a picture"),
        (lambda: net(rgb, torch.zeros(8)), r"\(8,\): this refiner was built for \(32,\)"), (lambda: net(rgb, extra=rgb), "built for extra=0"),
        (lambda: Refiner(extra=1)(rgb), "None, the picture"), (lambda: Refiner(extra=1)(rgb, extra=rgb[:4, :, :1]), r"extra is \(4, 8, 1\)"),
        (lambda: Refiner(width=0), "width=0"), (lambda: Refiner(depth=-1), "depth=-1"), (lambda: dilate(alpha, 4), "size=4"), (lambda: dilate(alpha, -1), "size=-1"),
        (lambda: over(rgb, alpha[:4], rgb), r"its alpha \(4, 8\)"), (lambda: over(rgb, alpha, rgb[:4]), r"the back \(4, 8, 3\)"), (lambda: over(rgb, alpha, rgb[0, 0, :2]), r"the back \(2,\)")]:
        with pytest.raises(ValueError, match=says): call()
