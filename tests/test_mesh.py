"The rasteriser agrees with geometry, neighbours share their edges fairly, and film is the same picture however it is made."
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from talkinglab.core.camera import orbit, project_points
from talkinglab.core.image import psnr
from talkinglab.core.rotation import rotvec_to_matrix
from talkinglab.face.mesh import (MATERIALS, Lights, Mesh, draw, draw_many, edges, face_normals, linear_to_srgb, occlusion, paint, pncc,
    rasterize, screen, shade, srgb_to_linear, vertex_normals)
from talkinglab.face.rig import pose
from talkinglab.face.sculpt import sculpt_head
from torch.testing import assert_close

SQUARE = torch.tensor([[-1., -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
TWO = torch.tensor([[0, 1, 2], [0, 2, 3]])


@pytest.fixture(scope="module")
def head(): return sculpt_head()


@pytest.fixture(scope="module")
def skin(head): return head.surface


def ball(radius=.1, rows=50, columns=100):
    a, b = torch.linspace(0, math.pi, rows)[:, None], torch.arange(columns)*2*math.pi/columns
    i = torch.arange(rows*columns).view(rows, columns)
    k = i.roll(-1, 1)
    f = torch.cat([torch.stack([i[:-1], i[1:], k[:-1]], -1), torch.stack([k[:-1], i[1:], k[1:]], -1)]).view(-1, 3)
    return radius*torch.stack([a.sin()*b.sin(), a.cos()+0*b, a.sin()*b.cos()], -1).reshape(-1, 3), f


def jittered_grid(n, seed):
    "A sheet in front of the camera, its inner points moved at random: no two triangles alike."
    g = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(-.1, .1, n), torch.linspace(-.1, .1, n), indexing="ij")
    v = torch.stack([x, y, torch.zeros(n, n)], -1)
    v[1:-1, 1:-1, :2] += (torch.rand(n-2, n-2, 2, generator=g)-.5)*.45*.2/(n-1)
    i = torch.arange(n*n).view(n, n)
    f = torch.cat([torch.stack([i[:-1, :-1], i[:-1, 1:], i[1:, 1:]], -1), torch.stack([i[:-1, :-1], i[1:, 1:], i[1:, :-1]], -1)]).view(-1, 3)
    return v.view(-1, 3), f


# Where, and how far ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("tilt", [0., .5, 1.1])
@pytest.mark.parametrize("size", [(40, 40), (37, 53), (1, 9)])
def test_depth_and_attributes_of_a_plane_are_exact(tilt, size):
    w, h = size
    R = rotvec_to_matrix(torch.tensor([tilt, .3*tilt, 0.]))
    v, camera = SQUARE@R.T*.2, orbit(10., 5., fov=12., width=w, height=h)
    r = rasterize(v, TWO, camera, 1)
    j, i = (r.face >= 0).nonzero().T
    rays = torch.stack([(i+.5-camera.K[0, 2])/camera.K[0, 0], (j+.5-camera.K[1, 2])/camera.K[1, 1], torch.ones(len(i))], 1)@camera.viewmat[:3, :3]
    z = -(R[:, 2]*camera.center).sum()/(rays@R[:, 2])
    assert len(i) > 5
    assert_close(r.depth[j, i], z, rtol=1e-5, atol=0)
    assert_close(r.interpolate(v)[j, i], camera.center+rays*z[:, None], rtol=0, atol=1e-5)
    assert_close(r.bary.sum(-1)[j, i], torch.ones(len(i)))
    assert r.bary.min() > -1e-6 and r.depth[r.face < 0].isinf().all()


@pytest.mark.parametrize("distance", [.5, 1., 2.])
def test_outline_of_a_sphere_has_the_right_area(distance):
    v, f = ball()
    camera = orbit(radius=distance, fov=30., width=128, height=128)
    want = math.pi*(float(camera.K[0, 0])*math.tan(math.asin(.1/distance)))**2
    assert abs(float(rasterize(v, f, camera, 4).alpha.sum())/want-1) < .01
    assert_close(vertex_normals(v, f)[200:4800], v[200:4800]/.1, rtol=0, atol=.01)


@pytest.mark.parametrize("seed", range(5))
def test_of_two_triangles_through_each_other_the_nearer_is_seen(seed):
    g = torch.Generator().manual_seed(seed)
    v = (torch.rand(6, 3, generator=g)-.5)*.4
    f, camera = torch.tensor([[0, 1, 2], [3, 4, 5]]), orbit(20., 10., fov=25., width=61, height=43)
    both, one, two = (rasterize(v, f[k], camera, 2) for k in (slice(None), slice(0, 1), slice(1, 2)))
    assert_close(both.depth, torch.minimum(one.depth, two.depth), rtol=1e-6, atol=0)
    sure = (one.depth-two.depth).abs() > 1e-5
    assert torch.equal(both.face[sure], torch.where(one.depth < two.depth, 0, 1)[sure].int())
    shared = one.depth.isfinite() & two.depth.isfinite()
    assert shared.any()


@pytest.mark.parametrize("seed", range(3))
def test_faces_that_share_an_edge_leave_no_gap_and_no_sample_twice(seed):
    v, f = jittered_grid(12, seed)
    camera = orbit(radius=1., fov=12., width=61, height=57)
    whole = rasterize(v, f, camera, 2).face >= 0
    times = torch.stack([rasterize(v, f[k:k+1], camera, 2).face >= 0 for k in range(len(f))]).sum(0)
    assert times.max() == 1 and torch.equal(times == 1, whole)
    rim = rasterize(v[[0, 11, 143, 132]], TWO, camera, 2).face >= 0
    assert torch.equal(whole, rim)


def test_centres_that_lie_exactly_on_an_edge_belong_to_one_face():
    "Corners on sample centres: the hardest case for a tie."
    camera = orbit(radius=1., fov=10., width=32, height=32)
    px = float(camera.K[0, 0])
    at = lambda x, y: [(x-16)/px, (16-y)/px, 0.]
    v = torch.tensor([at(4.5, 4.5), at(20.5, 4.5), at(20.5, 20.5), at(4.5, 20.5)])
    count = [int((rasterize(v, f, camera, 1).face >= 0).sum()) for f in (TWO, TWO[:1], TWO[1:])]
    assert count[0] == 256 == count[1]+count[2]


def test_winding_and_order_do_not_matter_to_depth(head):
    camera = orbit(30., fov=15., width=48, height=48)
    want = rasterize(head.vertices, head.faces, camera, 2)
    mixed = torch.randperm(len(head.faces), generator=torch.Generator().manual_seed(0))
    for faces in (head.faces[:, [0, 2, 1]], head.faces[mixed]):
        got = rasterize(head.vertices, faces, camera, 2)
        assert torch.equal(got.alpha, want.alpha)
        same = got.depth.isfinite()
        assert_close(got.depth[same], want.depth[same], rtol=1e-5, atol=0)


# What should not break it ---------------------------------------------------------------------------------------------

def test_what_is_behind_the_camera_is_not_seen():
    v = torch.tensor([[-1., -1, 3], [1, -1, 3], [0, 1, 3]])
    camera = orbit(fov=18., width=16, height=16)
    assert (rasterize(v, torch.tensor([[0, 1, 2]]), camera).face == -1).all()
    v[0, 2] = -1.                                                          # one corner in front: left out as a whole, by contract
    assert (rasterize(v, torch.tensor([[0, 1, 2]]), camera).face == -1).all()


def test_degenerate_faces_are_not_seen():
    v = torch.tensor([[0., 0, 0], [.1, 0, 0], [.2, 0, 0], [0, 0, 0]])
    f = torch.tensor([[0, 1, 2], [0, 0, 1], [1, 1, 1], [0, 3, 1]])
    assert (rasterize(v, f, orbit(fov=18., width=31, height=17), 3).face == -1).all()


@pytest.mark.parametrize("v", [[[-9e3, -9e3, -.5], [9e3, -9e3, -.5], [0, 9e3, -.5]], [[-50., -1, 1.19], [50, -1, 1.19], [0, 50, 1.19]],
                               [[float("nan"), 0, 0], [1, 0, 0], [0, 1, 0]], [[float("inf"), 0, 0], [1, 0, 0], [0, 1, 0]]])
def test_absurd_corners_do_no_harm(v):
    r = rasterize(torch.tensor(v), torch.tensor([[0, 1, 2]]), orbit(fov=18., width=16, height=16))
    assert (r.face >= -1).all() and (r.face <= 0).all() and r.bary.isfinite().all()


def test_an_empty_mesh_is_an_empty_picture():
    v, f = torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long)
    camera = orbit(width=7, height=5)
    assert rasterize(v, f, camera).alpha.sum() == 0
    assert rasterize(torch.zeros(3, 3), f, camera).alpha.shape == (5, 7)
    assert Mesh(v, f).faces.shape == (0, 3)
    assert len(edges(f)[0]) == 0


def test_a_face_that_names_a_missing_vertex_is_refused():
    for f in (torch.tensor([[0, 1, 7]]), torch.tensor([[-1, 1, 2]])):
        with pytest.raises(ValueError, match="there are 3"): Mesh(torch.eye(3), f)
        with pytest.raises(ValueError, match="there are 3"): rasterize(torch.eye(3), f, orbit(width=4, height=4))


def test_another_mesh_is_refused(head, skin):
    with pytest.raises(ValueError, match="10 posed vertices"): draw(skin, head.vertices[:10], orbit(width=4, height=4))


def test_screen_is_the_camera_of_chapter_one():
    v, _ = ball()
    camera = orbit(20., 10., fov=18., width=64, height=48)
    x, y, inv = (torch.from_numpy(a) for a in screen(v, camera))
    uv, z = project_points(camera, v)
    assert_close(torch.stack([x, y], 1), uv, rtol=1e-4, atol=1e-3)
    assert_close(1/inv, z, rtol=1e-5, atol=1e-6)


# Neighbours, normals, sky ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("n,m", [(3, 3), (4, 7)])
def test_euler_counts_a_torus_and_its_border_is_empty(n, m):
    i = torch.arange(n*m).view(n, m)
    a, b, c = i.roll(-1, 0), i.roll(-1, 1), i.roll((-1, -1), (0, 1))
    f = torch.cat([torch.stack([i, a, c], -1), torch.stack([i, c, b], -1)]).view(-1, 3)
    ends, sides = edges(f)
    assert n*m-len(ends)+len(f) == 0 and (sides >= 0).all()
    for e, s in zip(ends, sides): assert all(set(e.tolist()) <= set(f[k].tolist()) for k in s)
    ends, sides = edges(f[1:])
    assert int((sides < 0).sum()) == 3


def test_area_vectors_of_a_closed_mesh_cancel():
    v, f = ball()
    assert face_normals(v, f).sum(0).norm() < 1e-6
    batch = torch.stack([v, 2*v])
    assert_close(face_normals(batch, f)[1], 4*face_normals(v, f))
    assert_close(vertex_normals(batch, f)[1], vertex_normals(v, f), rtol=0, atol=1e-5)


def test_a_roof_takes_the_sky_from_what_is_under_it_only():
    v, f = ball()
    n = len(v)
    roof = torch.tensor([[-.3, .11, -.3], [.3, .11, -.3], [.3, .11, .3], [-.3, .11, .3]])
    free, under = occlusion(v, f), occlusion(torch.cat([v, roof]), torch.cat([f, torch.tensor([[n, n+2, n+1], [n, n+3, n+2]])]))[:n]
    assert free.min() > .9 and under[v[:, 1] > .08].max() < .2 and under[v[:, 1] < -.08].min() > .85
    assert_close(occlusion(v*1.7+torch.tensor([.5, 0, -2.]), f).mean(), free.mean(), rtol=.02, atol=0)


def test_display_values_and_light_are_inverse():
    x = torch.linspace(0, 1, 50).double().numpy()
    assert_close(torch.from_numpy(linear_to_srgb(srgb_to_linear(x))), torch.from_numpy(x), rtol=0, atol=1e-6)


# Film -----------------------------------------------------------------------------------------------------------------

def test_coverage_is_the_rasterisers_and_the_background_arrives_untouched(head, skin):
    camera, green = orbit(30., fov=18., width=45, height=61), torch.tensor([0., 1., 0.])
    image, alpha = draw(skin, head.vertices, camera, green, supersample=3)
    assert_close(alpha, rasterize(head.vertices, head.faces, camera, 3).alpha)
    assert_close(image[alpha == 0], green.expand(int((alpha == 0).sum()), 3), rtol=0, atol=0)
    assert image.isfinite().all() and image.min() >= 0 and image.max() <= 1


def test_a_head_out_of_sight_leaves_the_wall(head, skin):
    image, alpha = draw(skin, head.vertices, orbit(target=(5., 0., 0.), width=9, height=7), torch.full((7, 9, 3), .25))
    assert alpha.max() == 0 and (image == .25).all()


def test_many_cameras_film_what_each_would_alone(head, skin):
    v = pose(head, head.expr(jawOpen=.4))
    cameras = [orbit(a, fov=17., width=40+a, height=48) for a in (0, 25, 90)]
    for camera, (image, alpha) in zip(cameras, draw_many(skin, v, cameras)):
        assert all(torch.equal(a, b) for a, b in zip((image, alpha), draw(skin, v, camera)))


def test_film_is_the_same_whichever_thread_makes_it(head, skin):
    poses = [pose(head, head.expr(jawOpen=k/8)) for k in range(8)]
    camera = orbit(fov=17., width=48, height=48)
    alone = [draw(skin, v, camera)[0] for v in poses]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with ThreadPoolExecutor(4) as crew: together = list(crew.map(lambda v: draw(skin, v, camera)[0], poses))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(alone, together))


@pytest.mark.parametrize("yaw", [0, 60])
def test_shading_once_a_pixel_does_not_show(head, skin, yaw):
    v, camera = pose(head, head.expr(jawOpen=.5, mouthSmile=.3)), orbit(yaw, fov=15., target=(0, -.02, 0), width=128, height=128)
    coarse, fine = (draw(skin, v, camera, supersample=s)[0] for s in (2, 6))
    assert psnr(coarse, fine) > 33 and abs(float((coarse-fine).mean())) < 2e-3


@pytest.mark.parametrize("material", range(len(MATERIALS)))
def test_any_mesh_can_be_painted_and_filmed(material):
    v, f = ball()
    stuff = paint(v, f, torch.full((len(v), 3), .6), torch.full((len(v),), material), uvw=v/.1)
    image, alpha = draw(stuff, v, orbit(radius=1., fov=14., width=32, height=32), torch.zeros(3))
    assert image.isfinite().all() and image[alpha == 1].mean() > .1 and alpha[16, 16] == 1 and alpha[0, 0] == 0


def test_more_light_is_never_darker_and_a_blocker_is(head, skin):
    face = torch.arange(0, len(head.faces), 40)[None].int()
    bary, eye = torch.full((*face.shape, 3), 1/3), torch.tensor([0., 0., 1.2])
    look = lambda **k: shade(skin, head.vertices, face, bary, eye, Lights(**k))
    dark = look(rgb=((0., 0., 0.),)*4)
    assert (look() >= dark-1e-4).all() and look().mean() > 1.5*dark.mean()
    v, f = ball()
    n = len(v)
    toward = torch.tensor(Lights().directions[0])
    disc = ball(.15)[0]*torch.tensor([1., 1., .02])+.5*toward/toward.norm()
    material, colors = torch.zeros(2*n, dtype=torch.long), torch.full((2*n, 3), .6)
    both = paint(torch.cat([v, disc]), torch.cat([f, f+n]), colors, material, ao=torch.ones(2*n))
    one = paint(v, f, colors[:n], material[:n], ao=torch.ones(n))
    lit = ((v*toward).sum(1) > .08)[f[:, 0]].nonzero()[:, 0][None].int()
    third = torch.full((*lit.shape, 3), 1/3)
    assert (shade(both, both.rest, lit, third, eye) < shade(one, v, lit, third, eye)-.05).all()


def test_points_off_the_mesh_stay_black(head, skin):
    face = torch.tensor([[-1, 5], [7, -1]], dtype=torch.int32)
    c = shade(skin, head.vertices, face, torch.full((2, 2, 3), 1/3), torch.tensor([0., 0., 1.2]))
    assert (c[face < 0] == 0).all() and (c[face >= 0].sum(-1) > 0).all()


def test_light_follows_the_world_not_the_camera(head, skin):
    "The same point from two sides differs by its highlights only."
    face = (skin.material[head.faces[:, 0]] == MATERIALS.index("cloth")).nonzero()[::20, 0][None].int()
    bary = torch.full((*face.shape, 3), 1/3)
    eyes = [torch.tensor(e) for e in ([.3, 0., 1.], [-.3, 0., 1.])]
    a, b = (shade(skin, head.vertices, face, bary, e)[0] for e in eyes)
    n, p = torch.nn.functional.normalize(face_normals(head.vertices, head.faces), dim=1)[face[0].long()], head.vertices[head.faces[face[0].long()]].mean(1)
    facing = torch.stack([((e-p)*n).sum(1) > .3 for e in eyes]).all(0)
    assert facing.sum() > 10
    assert_close(a[facing], b[facing], rtol=0, atol=.02)


# Codes ----------------------------------------------------------------------------------------------------------------

def test_a_code_decodes_to_the_place_it_shows(head, skin):
    camera = orbit(20., fov=15., target=(0, -.02, 0), width=72, height=80)
    code = pncc(skin, head.vertices, camera, supersample=1)
    q = head.vertices[skin.material == 0]
    j, i = (code.sum(-1) > 0).nonzero().T
    at, _ = project_points(camera, code[j, i]*(q.amax(0)-q.amin(0))+q.amin(0))
    assert_close(at, torch.stack([i+.5, j+.5], 1), rtol=0, atol=.02)
    assert code.min() >= 0 and code.max() <= 1


def test_a_code_knows_expression_and_neither_colour_nor_gaze(head, skin):
    camera = orbit(fov=15., target=(0, -.02, 0), width=64, height=64)
    rest = pncc(skin, head.vertices, camera)
    assert_close(pncc(replace(skin, colors=1-skin.colors), head.vertices, camera), rest, rtol=0, atol=0)
    away = pose(head, head.expr(), torch.tensor([.4, 0.]))
    assert (pncc(skin, away, camera)-rest).abs().max() < .02
    assert (pncc(skin, pose(head, head.expr(jawOpen=.5)), camera)-rest).abs().max() > .1
    with pytest.raises(ValueError, match="wood"): pncc(skin, head.vertices, camera, coded=("wood",))


def test_eyes_are_cut_out_of_the_code(head, skin):
    camera = orbit(fov=3., target=(.033, 0., .06), width=64, height=64)
    r = rasterize(head.vertices, head.faces, camera, 1)
    eye = (skin.material[head.faces[r.face.clamp(min=0).long(), 0]] == MATERIALS.index("eye")) & (r.face >= 0)
    assert eye.sum() > 100 and (pncc(skin, head.vertices, camera, supersample=1)[eye] == 0).all()
