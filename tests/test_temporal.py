"Attention over time: one frame after the other gives the numbers of all at once; nobody hears the future."
import math

import pytest
import torch
from torch.testing import assert_close

from talkinglab.nn.temporal import Attention, Decoder, alignment, causal_bias, positions, slopes


def decoder(seed=0, **change):
    torch.manual_seed(seed)
    return Decoder(**(dict(width=16, heads=2, layers=2, window=7, period=3, reach=1) | change)).eval().requires_grad_(False)


def clip(t, b=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(b, t, 16, generator=g), torch.randn(b, t, 16, generator=g)


def unroll(net, tokens, sound):
    memory = net.start(sound)
    return torch.stack([net.step(tokens[:, i], memory) for i in range(tokens.shape[1])], 1)


@pytest.mark.parametrize("change", [{}, dict(window=1), dict(window=40), dict(window=3, period=5), dict(reach=0), dict(reach=None), dict(layers=3, heads=4), dict(period=1)], ids=str)
def test_step_by_step_is_all_at_once(change):
    net = decoder(**change)
    for t in (1, 6, 7, 8, 30): assert_close(unroll(net, *clip(t)), net(*clip(t)), atol=1e-5, rtol=0)


def test_training_changes_what_both_ways_say():
    "They read the same parameters."
    net, (tokens, sound) = decoder(), clip(12)
    before = net(tokens, sound)
    for p in net.parameters(): p.add_(.1)
    assert (net(tokens, sound)-before).abs().max() > .01
    assert_close(unroll(net, tokens, sound), net(tokens, sound), atol=1e-5, rtol=0)


def test_nobody_sees_the_future_or_hears_beyond_its_reach():
    net, (tokens, sound) = decoder(), clip(30)
    base = net(tokens, sound)
    for x, first in ((0, 12), (1, 11)):
        pushed = [tokens.clone(), sound.clone()]
        pushed[x][:, 12, 0] += 1
        felt = (net(*pushed)-base).abs().amax((0, 2)) > 1e-7
        assert not felt[:first].any() and felt[first]


def test_the_past_is_forgotten_after_a_window_a_layer():
    net, (tokens, sound) = decoder(layers=1), clip(30)
    pushed = tokens.clone()
    pushed[:, 5, 0] += 1
    felt = (net(pushed, sound)-net(tokens, sound)).abs().amax((0, 2))
    assert (felt[5:12] > 0).all() and not felt[12:].any()


def test_what_is_remembered_does_not_grow():
    net, (tokens, sound) = decoder(), clip(50)
    memory = net.start(sound)
    places = [x.data_ptr() for ring in memory.rings for x in ring]
    for i in range(50): net.step(tokens[:, i], memory)
    assert places == [x.data_ptr() for ring in memory.rings for x in ring] and memory.rings[0][0].shape == (2, 2, 7, 8)


def test_gradients_reach_tokens_and_sound():
    net, (tokens, sound) = decoder(), clip(10)
    tokens.requires_grad_(), sound.requires_grad_()
    net(tokens, sound)[:, -1].sum().backward()
    assert (tokens.grad[:, -7:].abs().amax((0, 2)) > 0).all() and sound.grad[:, -1].any()


def test_double_precision_agrees():
    net, (tokens, sound) = decoder(), clip(9)
    assert_close(net.double()(tokens.double(), sound.double()).float(), decoder()(tokens, sound), atol=1e-5, rtol=0)


@pytest.mark.parametrize("t,s", [(1, 1), (5, 5), (5, 10), (12, 29), (30, 71), (7, 8)])
def test_every_row_of_sound_belongs_to_one_frame(t, s):
    hears = alignment(t, s) == 0
    assert hears.sum(0).eq(1).all() and hears.sum(1).ge(1).all()
    assert (hears.float().argmax(1).diff() > 0).all() # in order
    assert ((alignment(t, s, 2) == 0) >= hears).all()


def test_bias_is_zero_now_and_falls_by_whole_periods():
    bias = causal_bias(20, 4, 12, period=4)
    assert bias.diagonal(dim1=1, dim2=2).eq(0).all()
    assert bias[:, 0, 1:].eq(-math.inf).all() and bias[:, 19, :8].eq(-math.inf).all()
    for k, slope in enumerate(slopes(4)): assert_close(bias[k, 19, 8:], -slope*torch.tensor([2., 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0]))


def test_positions_repeat():
    assert_close(positions(torch.arange(7), 8, 7), positions(torch.arange(70, 77), 8, 7))
    assert len(positions(torch.arange(25), 64).unique(dim=0)) == 25


def test_weights_are_those_that_attention_uses():
    torch.manual_seed(0)
    look, x, bias = Attention(16, 4), torch.randn(2, 9, 16), causal_bias(9, 4, 5)
    w = look.weights(x, x, bias)
    assert_close(look.leave((w@look.told(x)[1]).transpose(1, 2).flatten(2)), look(x, look.told(x), bias), atol=1e-5, rtol=0)


@pytest.mark.parametrize("call,why", [
    (lambda: positions(torch.arange(3), 5), "width=5"), (lambda: positions(torch.arange(3), 4, 0), "period=0"), (lambda: causal_bias(4, 2, 0), "window=0"),
    (lambda: alignment(5, 4), "5 frames, 4 rows"), (lambda: alignment(0, 4), "0 frames"), (lambda: alignment(4, 4, -1), "reach=-1"), (lambda: Attention(10, 3), "width=10 does not divide")])
def test_what_cannot_be_is_named(call, why):
    with pytest.raises(ValueError, match=why): call()


def test_the_sound_ends():
    net, (tokens, sound) = decoder(), clip(3)
    memory = net.start(sound)
    for i in range(3): net.step(tokens[:, i], memory)
    with pytest.raises(ValueError, match="frame 3 of a sound of 3 frames"): net.step(tokens[:, 0], memory)
