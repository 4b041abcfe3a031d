"A place knows how much it follows the head, whoever lives there."
from dataclasses import replace

import pytest
import torch
from talkinglab.core.rotation import quat_multiply, quat_to_matrix, rotvec_to_matrix, rotvec_to_quat
from talkinglab.face.bind import Skin, SkinWeights, bind, skin, turn_head
from talkinglab.face.rig import gaze_matrix, pose
from talkinglab.face.sculpt import sculpt_head
from talkinglab.gs.gaussians import Gaussians
from torch.testing import assert_close

LOOK, SHIFT, GAZE = torch.tensor([.2, -.6, .1]), torch.tensor([.01, -.02, .03]), torch.tensor([.4, -.3])


@pytest.fixture(scope="module")
def head(): return sculpt_head()


@pytest.fixture(scope="module")
def around(head): return skin(head)


def crowd(n, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    r = lambda *s: torch.randn(*s, generator=g, dtype=dtype)
    return Gaussians(.1*r(n, 3), r(n, 4), r(n, 3).exp(), r(n).sigmoid(), r(n, 3).sigmoid())


def some_weights(n, seed=1, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    side = torch.randint(3, (n,), generator=g)
    head = torch.where(side > 0, 1., torch.rand(n, generator=g)).to(dtype)
    return SkinWeights(head, torch.stack([side == 1, side == 2], 1).to(dtype), torch.tensor([0., -.1, -.03], dtype=dtype), torch.tensor([[.03, 0., .06], [-.03, 0., .06]], dtype=dtype))


def on_vertices(rig):
    n = len(rig.vertices)
    return Gaussians(rig.vertices, torch.tensor([1., 0., 0., 0.]).expand(n, 4), torch.full((n, 3), 1e-3), torch.ones(n), rig.colors)


def own_weights(rig): return SkinWeights(rig.head, torch.stack([rig.part("eyeL"), rig.part("eyeR")], 1).float(), rig.neck, rig.eyes)


def test_gaussians_on_vertices_go_where_the_rig_takes_the_vertices(head):
    g, w = on_vertices(head), own_weights(head)
    assert_close(turn_head(g, w, LOOK, SHIFT).means, pose(head, head.expr(), None, LOOK, SHIFT), rtol=0, atol=1e-6)
    ball = head.part("eyeL", "eyeR")
    got = turn_head(g, w, LOOK, SHIFT, GAZE)
    assert_close(got.means[ball], pose(head, head.expr(), GAZE, LOOK, SHIFT)[ball], rtol=0, atol=1e-6)
    assert_close(got.means[~ball], turn_head(g, w, LOOK, SHIFT).means[~ball])           # gaze moves nothing but eyes


def test_read_from_places_it_is_the_same_to_a_millimetre(head, around):
    want, shown = pose(head, head.expr(), None, LOOK, SHIFT), ~head.part("eyeL", "eyeR")
    off = (turn_head(on_vertices(head), around, LOOK, SHIFT).means-want).norm(dim=1)[shown]
    assert off.quantile(.99) < 1e-3 and off.mean() < 1e-4


def test_full_and_no_weight_are_rigid():
    g, w = crowd(50), some_weights(50)
    w = replace(w, head=(torch.arange(50) % 2).float())
    got, R = turn_head(g, w, LOOK, SHIFT), rotvec_to_matrix(LOOK)
    want = g.moved(R, w.neck-R@w.neck+SHIFT)
    along = w.head == 1
    assert_close(got.means[along], want.means[along], rtol=0, atol=1e-6)
    assert_close(got.covariances()[along], want.covariances()[along])
    for name in ("means", "quats", "scales", "opacities", "colors"): assert torch.equal(getattr(got, name)[~along], getattr(g, name)[~along])


def test_axes_turn_by_their_share_and_eyes_turn_first():
    g, w = crowd(200), some_weights(200)
    eye = quat_to_matrix(g.quats)
    inside = w.eye.sum(1) > 0
    eye[inside] = gaze_matrix(GAZE[None])[0]@eye[inside]
    want = quat_to_matrix(rotvec_to_quat(w.head[:, None]*LOOK))@eye
    assert_close(quat_to_matrix(turn_head(g, w, LOOK, None, GAZE).quats), want, rtol=0, atol=2e-6)
    assert_close(turn_head(g, w, LOOK).quats, quat_multiply(rotvec_to_quat(w.head[:, None]*LOOK), g.quats), rtol=0, atol=2e-6)


def test_no_motion_is_none_and_sizes_stay():
    g, w = crowd(30), some_weights(30)
    for still in (turn_head(g, w), turn_head(g, w, torch.zeros(3), torch.zeros(3), torch.zeros(2))):
        assert_close(still.means, g.means, rtol=0, atol=1e-7)
        assert_close(still.covariances(), g.covariances())
    assert torch.equal(turn_head(g, w, LOOK, SHIFT, GAZE).scales, g.scales)


@pytest.mark.parametrize("turn", [[.2, -.5, .1], [0., 0., 0.]])
def test_gradients_are_right_even_at_rest(turn):
    g, w = crowd(6, dtype=torch.float64), some_weights(6, dtype=torch.float64)
    f = lambda m, q, r, t, z: (lambda o: (o.means, o.quats))(turn_head(replace(g, means=m, quats=q), w, r, t, z))
    x = [g.means, g.quats, torch.tensor(turn).double(), SHIFT.double(), torch.zeros(2).double()]
    assert torch.autograd.gradcheck(f, [a.clone().requires_grad_() for a in x])


def test_weights_lie_in_bounds_and_say_what_the_rig_says(head, around):
    p = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0))*.15
    for x in (around.head(p), around.mobile(p), around.eye(p)): assert 0 <= x.min() and x.max() <= 1
    assert (around.head(head.vertices)-head.head).abs().mean() < 1e-3


def test_what_moves_is_never_held(head, around):
    far, v = (pose(head, torch.eye(52))-head.vertices).norm(dim=2).amax(0), head.vertices
    assert (around.mobile(v) >= (far/.0015).clamp(0, 1)-1e-4).all()
    back, chest = head.part("hair") & (v[:, 2] < -.05), head.part("torso") & (v[:, 1] < -.22)
    assert around.mobile(v[back]).mean() < .05 and around.mobile(v[chest]).mean() < .01


def test_eyeballs_are_spheres_around_all_of_their_vertices(head, around):
    for i, name in enumerate(("eyeL", "eyeR")):
        assert around.eye(head.vertices[head.part(name)])[:, i].all()
        assert around.eye(head.eyes)[i].tolist() == [float(i == 0), float(i == 1)]
    visible = head.part("lashes", "hair", "torso", "teeth")
    assert not around.eye(head.vertices[visible]).any()


def test_half_precision_is_enough_and_small(around):
    kept = around.tensors()
    assert sum(x.numel()*x.element_size() for x in kept.values()) < 150_000
    again, p = Skin(**kept), torch.randn(2000, 3, generator=torch.Generator().manual_seed(3))*.1
    assert_close(again.head(p), around.head(p), rtol=0, atol=1e-3)
    assert torch.equal(again.eye(p), around.eye(p)) and set(kept) == set(around.state_dict())


def test_whoever_is_born_gets_weights_and_the_old_ones_are_refused(head, around):
    g = bind(head, 300, torch.Generator().manual_seed(0)).gaussians
    w, more = around.weights(g.means), g+g[:50]
    with pytest.raises(ValueError, match="weights of 300 places for 350 Gaussians"): turn_head(more, w, LOOK)
    assert_close(turn_head(more, around, LOOK).means[:300], turn_head(g, w, LOOK).means)
    with pytest.raises(ValueError, match="4 spherical harmonics"): turn_head(replace(g, colors=torch.zeros(300, 4, 3)), w, LOOK)
    with pytest.raises(ValueError, match="cells=3"): skin(head, cells=3)


def test_a_long_way_off_the_nearest_edge_answers(around):
    assert around.head(torch.tensor([[0., 3., 0.], [0., -3., 0.], [2., -.3, 0.]])).tolist() == [1., 0., 0.]
