"Graphs of meshes and attention on them: who is joined, who hears whom, two programs for one formula, and what is refused."
import pytest
import torch
from hypothesis import given, settings, strategies as st
from talkinglab.nn.graph import (Graph, GraphAttention, GraphResidual, attend, bridge, by_frames, coarsen, components, mesh_graph, pool,
                                 weigh)
from torch.testing import assert_close

few = settings(max_examples=15, deadline=None)


def grid(a=5, b=6, shift=0):
    "Triangles of an a x b sheet, and its places."
    i, j = torch.meshgrid(torch.arange(a), torch.arange(b), indexing="ij")
    at = lambda i, j: (i*b+j).flatten()+shift
    i, j = i[:-1, :-1], j[:-1, :-1]
    faces = torch.cat([torch.stack([at(i, j), at(i+1, j), at(i, j+1)], 1), torch.stack([at(i+1, j), at(i+1, j+1), at(i, j+1)], 1)])
    x, y = torch.meshgrid(torch.arange(float(a)), torch.arange(float(b)), indexing="ij")
    return faces, torch.stack([x, y, 0*x], -1).reshape(-1, 3)


def two_sheets(gap=3.):
    faces, places = grid()
    return torch.cat([faces, grid(shift=30)[0]]), torch.cat([places, places+torch.tensor([0., 0., gap])])


def some(*shape, seed=0, dtype=torch.float32): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pairs(graph): return set(zip(graph.receivers.tolist(), graph.senders.tolist(), strict=True))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@few
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_everybody_hears_itself_first_then_neighbours_in_order_both_ways(seed, f):
    faces = torch.randint(0, 9, (f, 3), generator=torch.Generator().manual_seed(seed))
    if (faces == faces[:, :1]).all(): return
    g = mesh_graph(faces, 9, strict=False)
    want = {(i, i) for i in range(9)} | {(a, b) for t in faces.tolist() for a in t for b in t}
    assert pairs(g) == want and len(g.senders) == len(want) == 2*len(g.edges)+9
    assert (g.senders[g.start[:-1]] == torch.arange(9)).all()
    for i in range(9): assert (own := g.senders[g.start[i]+1:g.start[i+1]].tolist()) == sorted(own)


@pytest.mark.parametrize("faces, v, message", [
    (torch.zeros(0, 3, dtype=torch.long), 3, "0 faces"), (torch.tensor([[0, 1, 5]]), 5, "vertices 0 to 5, but there are 5"), (torch.tensor([[0, 1, -1]]), 5, "vertex -1"),
    (torch.tensor([[0, 1, 2], [3, 4, 3]]), 5, r"1 of 2 faces .* face 1: \[3, 4, 3\]"), (torch.tensor([[0, 1, 2], [0, 1, 3], [4, 1, 0]]), 5, "0-1 with 3"),
])
def test_broken_meshes_are_named(faces, v, message):
    with pytest.raises(ValueError, match=message): mesh_graph(faces, v)


def test_who_wants_it_gets_the_broken_mesh():
    assert len(mesh_graph(torch.tensor([[0, 1, 2], [0, 1, 3], [4, 1, 0], [0, 0, 2]]), strict=False)) == 5
    with pytest.raises(ValueError, match="no edge"): mesh_graph(torch.tensor([[1, 1, 1]]), strict=False)


@few
@given(st.integers(0, 10_000), st.integers(1, 20))
def test_components_are_those_of_a_search(seed, f):
    g = mesh_graph(torch.cat([torch.tensor([[0, 1, 2]]), torch.randint(0, 30, (f, 3), generator=torch.Generator().manual_seed(seed))]), 30, strict=False)
    part, seen, count = [-1]*30, set(), 0
    for i in range(30):
        if i in seen: continue
        todo = [i]
        while todo:
            a = todo.pop()
            if a in seen: continue
            seen.add(a)
            part[a] = count
            todo += g.senders[g.start[a]:g.start[a+1]].tolist()
        count += 1
    assert components(g).tolist() == part


def test_a_long_row_is_one_part():
    row = torch.arange(5000)
    assert not components(mesh_graph(torch.stack([row[:-2], row[1:-1], row[2:]], 1))).any()


@few
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_bridges_join_all_with_one_edge_a_part_and_the_shortest(seed, parts):
    faces, places = grid(3, 3)
    faces = torch.cat([faces+9*k for k in range(parts)])
    places = torch.cat([places+20*some(1, 3, seed=seed+k) for k in range(parts)])+.1*some(9*parts, 3, seed=seed)
    g = mesh_graph(faces)
    joined = bridge(g, places)
    assert not components(joined).any() and len(joined.edges) == len(g.edges)+parts-1
    new = torch.tensor(sorted(pairs(joined)-pairs(g)))
    far = torch.cdist(places, places).masked_fill(components(g)[:, None] == components(g), torch.inf)
    assert_close((places[new[:, 0]]-places[new[:, 1]]).norm(dim=1).min(), far.min(), rtol=1e-3, atol=1e-4)
    assert bridge(joined, places) is joined


def test_places_must_be_places():
    faces, places = grid()
    g = mesh_graph(faces)
    with pytest.raises(ValueError, match="29 places for 30"): bridge(g, places[1:])
    with pytest.raises(ValueError, match="1 of 30 places are not finite, first vertex 4"): coarsen(g, places.index_fill(0, torch.tensor([4]), torch.nan), 5)


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_clusters_are_connected_and_all_are_used(n):
    faces, places = grid()
    g = mesh_graph(faces)
    small, owner = coarsen(g, places, n)
    assert owner.unique().tolist() == list(range(n)) and len(small) == n and not components(small).any()
    for k in range(n):
        inside = torch.stack([g.receivers, g.senders], 1)[(owner[g.receivers] == k) & (owner[g.senders] == k)]
        reach = {int((owner == k).nonzero()[0])}
        for _ in range(30): reach |= {b for a, b in inside.tolist() if a in reach}
        assert len(reach) == int((owner == k).sum())
    want = {(int(owner[a]), int(owner[b])) for a, b in pairs(g)}
    assert pairs(small) == want


def test_clusters_keep_parts_apart_and_refuse_too_few():
    faces, places = two_sheets(gap=.01)
    g = mesh_graph(faces)
    small, owner = coarsen(g, places, 6)
    assert not set(owner[:30].tolist()) & set(owner[30:].tolist()) and len(components(small).unique()) == 2
    with pytest.raises(ValueError, match="60 vertices in 2 parts"): coarsen(g, places, 1)
    with pytest.raises(ValueError, match="make 2 to 60"): coarsen(g, places, 61)
    with pytest.raises(ValueError, match="weights from 0"): coarsen(g, places, 6, torch.zeros(60))


def test_vertices_in_one_place_are_still_many():
    faces, places = grid()
    assert coarsen(mesh_graph(faces), 0*places, 30)[1].unique().numel() == 30


def test_weight_draws_clusters():
    faces, places = grid(20, 20)
    heavy = places[:, 0] < 10
    owner = coarsen(mesh_graph(faces), places, 50, torch.where(heavy, 3., 1.))[1]
    assert len(owner[heavy].unique()) > 3*len(owner[~heavy].unique())


def test_pooling_is_the_mean_of_each_cluster():
    owner, x = torch.tensor([0, 1, 1, 2, 0]), some(2, 3, 5, 4)
    assert_close(pool(x, owner), torch.stack([x[..., owner == k, :].mean(-2) for k in range(3)], -2))


def attention_by_definition(hear, say, score, graph, slope=.2):
    "Vertex after vertex, head after head."
    h, k = score.shape
    out = torch.zeros_like(say)
    for i in range(len(graph)):
        near = graph.senders[graph.start[i]:graph.start[i+1]]
        for n in range(h):
            c = slice(n*k, n*k+k)
            e = torch.nn.functional.leaky_relu(hear[i, c]+say[near, c], slope)@score[n]
            out[i, c] = e.softmax(0)@say[near, c]
    return out


def test_attention_is_its_definition():
    g = mesh_graph(grid()[0], 32)
    hear, say, score = (some(*s, seed=i, dtype=torch.float64) for i, s in enumerate([(32, 6), (32, 6), (2, 3)]))
    assert_close(attend(hear, say, score, g), attention_by_definition(hear, say, score, g))


@pytest.mark.parametrize("frames", [1, 3, 16, 37])
@pytest.mark.parametrize("h, k", [(1, 1), (4, 4), (3, 5)])
def test_two_programs_give_one_answer_and_one_gradient(frames, h, k):
    g = mesh_graph(grid(7, 8)[0], 58)
    args = [some(*s, seed=i).requires_grad_() for i, s in enumerate([(frames, 58, h*k), (frames, 58, h*k), (h, k)])]
    loss = some(frames, 58, h*k, seed=9)
    out = [attend(*args, g, backend=b) for b in ("numba", "torch")]
    assert_close(*out, rtol=1e-4, atol=1e-5)
    for a, b in zip(*(torch.autograd.grad((y*loss).sum(), args) for y in out), strict=True): assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_threads_change_nothing():
    g, x, score = mesh_graph(grid()[0]), some(50, 30, 8), some(2, 4)
    before, out = torch.get_num_threads(), []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            s = score.clone().requires_grad_()
            y = attend(x, x, s, g)
            out.append((y.detach(), torch.autograd.grad(y.square().sum(), s)[0]))
    finally: torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*out, strict=True))


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_large_scores_do_not_overflow_and_nan_is_not_hidden(backend):
    g, x = mesh_graph(grid()[0]), some(2, 30, 4)
    y = attend(1e4*x, 1e4*x, torch.ones(2, 2), g, backend=backend)
    assert y.isfinite().all() and y.abs().max() <= 1e4*x.abs().max()*1.001
    x[0, 3, 0] = torch.nan
    bad = attend(x, x, torch.ones(2, 2), g, backend=backend).isnan().any(-1)
    assert bad[0, 3] and not bad[1].any() and not bad[0, 29]


def test_no_scores_are_the_mean_and_shares_sum_to_one():
    g, x = mesh_graph(grid()[0]), some(30, 4)
    near = torch.stack([x[g.senders[g.start[i]:g.start[i+1]]].mean(0) for i in range(30)])
    assert_close(attend(x, x, torch.zeros(2, 2), g), near)
    total = torch.zeros(30, 2).index_add(0, g.receivers, weigh(x, 3*x, some(2, 2), g))
    assert_close(total, torch.ones(30, 2))


def test_gradients_in_double():
    g = mesh_graph(torch.tensor([[0, 1, 2], [1, 3, 2]]), 5)
    args = [some(*s, seed=i, dtype=torch.float64).requires_grad_() for i, s in enumerate([(2, 5, 4), (2, 5, 4), (2, 2)])]
    assert torch.autograd.gradcheck(lambda *a: attend(*a, g), args)


def test_the_names_of_vertices_mean_nothing():
    faces, layer, x = grid()[0], GraphAttention(3, 8, 2), some(4, 30, 3)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assert_close(layer(x[:, order], mesh_graph(order.argsort()[faces])), layer(x, mesh_graph(faces))[:, order], rtol=1e-4, atol=1e-6)


def test_frames_do_not_see_each_other_and_the_lonely_hear_themselves():
    g, layer, x = mesh_graph(grid()[0], 31), GraphAttention(3, 8, 2), some(2, 20, 31, 3)
    assert_close(layer(x[1, 7], g), layer(x, g)[1, 7])
    assert_close(layer(x, g)[..., 30, :], layer.say(x[..., 30, :]))
    assert layer(x[:, :0], g).shape == (2, 0, 31, 8) and layer.attention(x, g).shape == (2, 20, len(g.senders), 2)


def test_the_residual_starts_as_the_identity_and_wakes():
    g, layer, x = mesh_graph(grid()[0]), GraphResidual(8, 2), some(3, 30, 8)
    assert torch.equal(layer(x, g), x)
    opt = torch.optim.SGD(layer.parameters(), .1)
    for _ in range(2):
        opt.zero_grad()
        (layer(x, g)-some(3, 30, 8, seed=1)).square().sum().backward()
        opt.step()
    assert layer.look.score.grad.abs().max() > 0


def test_by_frames_changes_no_value_and_no_gradient():
    g, layer, x = mesh_graph(grid()[0]), GraphAttention(3, 8, 2), some(21, 30, 3).requires_grad_()
    out = [by_frames(lambda x: layer(x, g), x, 4), layer(x, g)]
    assert_close(*out)
    leaves = [x, *layer.parameters()]
    for a, b in zip(*(torch.autograd.grad(y.square().sum(), leaves) for y in out), strict=True): assert_close(a, b, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="frames=0"): by_frames(layer, x, 0)


def test_layers_say_what_does_not_fit():
    g = mesh_graph(grid()[0])
    with pytest.raises(ValueError, match="leave=10 features do not divide among heads=4"): GraphAttention(3, 10, 4)
    with pytest.raises(ValueError, match="29 vertices for a graph of 30"): GraphAttention(3, 8, 4)(some(29, 3), g)
    with pytest.raises(ValueError, match="backend='gpu'"): attend(some(30, 4), some(30, 4), some(2, 2), g, backend="gpu")
    with pytest.raises(ValueError, match="numba takes float32"): attend(*[some(30, 4).double()]*2, some(2, 2).double(), g, backend="numba")


def test_a_graph_moves():
    g = mesh_graph(grid()[0])
    assert isinstance(g.to("cpu"), Graph) and len(g.to("cpu")) == 30 and g.to("meta").start.device.type == "meta"
