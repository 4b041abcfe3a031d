"Pictures of faces against the truth: definitions, laws, what is refused, and LPIPS against a second implementation."
import hashlib
import math
import sys
import types
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from talkinglab.core.assets import AssetError
from talkinglab.core.clip import Frames
from talkinglab.core.image import mse, psnr, ssim
from talkinglab.measure import image as m
from talkinglab.measure.image import (AlexDistance, box_mask, compare, find_landmarks, fan_detector, frame_scores, lmd, load_lpips, lpips, mediapipe_detector, mouth_box,
    pooled_psnr, pyramid_distance, relative_lmd, save_lpips, sharpness, sharpness_ratio)
from torch.testing import assert_close


def pictures(*shape, seed=0, dtype=torch.float32): return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def smooth(h=64, w=64, seed=0, dtype=torch.float32):
    "A picture with edges and slopes, not only noise."
    x = F.interpolate(pictures(h//8, w//8, seed=seed, dtype=dtype).permute(2, 0, 1)[None], (h, w), mode="bicubic")[0].permute(1, 2, 0)
    return (.8*x+.2*(x > .5)).clamp(0, 1)


def faces(t=4, seed=0):
    "Points that look like 68 landmarks to a measure: px, about (80, 80)."
    return 80+20*torch.randn(t, 68, 2, generator=torch.Generator().manual_seed(seed))


# Frames

@pytest.mark.parametrize("measure", [mse, psnr, ssim])
def test_a_films_scores_are_the_scores_of_its_frames(measure):
    a, b, masks = pictures(3, 20, 24), pictures(3, 20, 24, seed=1), torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(2))
    assert_close(frame_scores(measure, a, b), torch.stack([measure(x, y) for x, y in zip(a, b)]))
    assert_close(frame_scores(measure, a, b, masks), torch.stack([measure(x, y, w) for x, y, w in zip(a, b, masks)]))
    assert_close(frame_scores(measure, a, b, masks[0]), torch.stack([measure(x, y, masks[0]) for x, y in zip(a, b)]))


def test_films_may_be_tensors_lists_or_lazy():
    a, b = pictures(3, 20, 24), pictures(3, 20, 24, seed=1)
    drawn = []
    lazy = Frames(3, lambda i: (drawn.append(i), a[i])[1])
    assert_close(frame_scores(psnr, lazy, list(b)), frame_scores(psnr, a, b))
    assert drawn == [0, 1, 2]


def test_masks_in_bytes_are_masks():
    a, b = pictures(2, 20, 24), pictures(2, 20, 24, seed=1)
    bytes_ = torch.randint(0, 256, (2, 20, 24), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    assert_close(frame_scores(ssim, a, b, bytes_), frame_scores(ssim, a, b, bytes_.float()))
    assert_close(frame_scores(ssim, a, b, bytes_ > 127), frame_scores(ssim, a, b, (bytes_ > 127).float()))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(5, 80), min_size=1, max_size=9))
def test_the_mean_of_decibels_is_never_below_the_decibels_of_the_mean(db):
    db = torch.tensor(db, dtype=torch.float64)
    assert pooled_psnr(db) <= db.mean()+1e-9
    assert_close(pooled_psnr(db[:1]), db[0])
    assert_close(10**(-pooled_psnr(db)/10), (10**(-db/10)).mean())


def test_a_frame_without_error_makes_the_mean_infinite_and_not_the_pooled_one():
    a, b = pictures(2, 20, 24), pictures(2, 20, 24, seed=1)
    b[0] = a[0]
    db = frame_scores(psnr, a, b)
    assert db.mean() == float("inf")
    assert_close(pooled_psnr(db), 10*(a-b).square().mean().reciprocal().log10())


# The mouth

def test_a_box_holds_the_mouth_and_moves_with_it():
    p = faces()
    for follow in (False, True):
        box = mouth_box(p, 0., follow)
        assert (p[:, 48:] >= box[..., None, :2]).all() and (p[:, 48:] <= box[..., None, 2:]).all()
        assert torch.equal(mouth_box(p+5, .3, follow), mouth_box(p, .3, follow)+5)
    size = mouth_box(p, .2, True)[:, 2:]-mouth_box(p, .2, True)[:, :2]
    assert len(size.unique(dim=0)) == 1
    wide, narrow = mouth_box(p, .5), mouth_box(p, .1)
    assert (wide[:2] < narrow[:2]).all() and (wide[2:] > narrow[2:]).all()
    assert torch.equal(mouth_box(p[0]), mouth_box(p[:1]))


def test_only_the_mouths_points_count():
    p, q = faces(), faces()
    q[:, :48] = math.nan
    assert torch.equal(mouth_box(p), mouth_box(q))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_a_box_around_masks(dtype):
    masks = torch.zeros(3, 40, 50)
    masks[0, 10:20, 5:9] = masks[2, 30:33, 20:24] = 1
    masks = masks.to(dtype)*(255 if dtype == torch.uint8 else 1)
    assert mouth_box(masks, 0.).tolist() == [5, 10, 24, 33] and mouth_box(masks[0], 0.).tolist() == [5, 10, 9, 20]
    assert mouth_box(masks[[0, 2]], 0., True).tolist() == [[5, 10, 9, 21], [20, 26, 24, 37]]
    with pytest.raises(ValueError, match="1 of 3 masks are empty"): mouth_box(masks, follow=True)
    with pytest.raises(ValueError, match="1 of 1 masks are empty: there is no mouth"): mouth_box(masks[1])


def test_box_masks_count_the_pixels_and_are_cut_at_the_border():
    assert box_mask(torch.tensor([2, 3, 7, 9]), 20, 30).sum() == 5*6
    assert box_mask(torch.tensor([-4, -4, 2, 3]), 20, 30).nonzero().amax(0).tolist() == [2, 1]
    two = box_mask(torch.tensor([[0, 0, 1, 1], [5, 5, 8, 9]]), 20, 30)
    assert two.shape == (2, 20, 30) and two.flatten(1).sum(1).tolist() == [1, 12]
    with pytest.raises(ValueError, match=r"\[40, 0, 44, 4\].* misses the picture of 30 x 20"): box_mask(torch.tensor([[0, 0, 1, 1], [40, 0, 44, 4]]), 20, 30)


def test_psnr_under_a_box_is_psnr_of_the_cut_out():
    a, b = pictures(2, 30, 40), pictures(2, 30, 40, seed=1)
    x0, y0, x1, y1 = 7, 5, 20, 16
    assert_close(frame_scores(psnr, a, b, box_mask(torch.tensor([x0, y0, x1, y1]), 30, 40)), frame_scores(psnr, a[:, y0:y1, x0:x1], b[:, y0:y1, x0:x1]))


# Landmarks

def test_lmd_is_its_definition():
    a, b = faces(), faces(seed=1)
    total = 0.
    for f in range(4):
        ca, cb = a[f, 48:68].mean(0), b[f, 48:68].mean(0)
        for k in range(48, 68): total += float(((a[f, k]-ca)-(b[f, k]-cb)).norm())
    assert_close(lmd(a, b), torch.tensor(total/80))


def test_lmd_forgives_a_shift_and_not_a_scale_or_a_turn():
    p = faces()
    assert lmd(p+torch.tensor([30., -9.]), p) < 1e-4 and lmd(p, p) == 0
    assert_close(lmd(3*p, 3*faces(seed=1)), 3*lmd(p, faces(seed=1)))
    turn = torch.tensor([[.8, -.6], [.6, .8]])
    assert lmd(p@turn, p) > 1 and lmd(1.1*p, p) > 1
    elsewhere = p.clone()
    elsewhere[:, :48] += 50
    assert lmd(elsewhere, p) == 0


@pytest.mark.parametrize("by", ["eyes", "height"])
def test_relative_lmd_does_not_depend_on_the_pictures_size(by):
    p, q = faces(), faces(seed=1)
    assert_close(relative_lmd(7*p, 7*q, by), relative_lmd(p, q, by))
    i, j = dict(eyes=(36, 45), height=(27, 8))[by]
    assert_close(relative_lmd(p, q, by)*(q[:, i]-q[:, j]).norm(dim=-1).median(), lmd(p, q))


def test_lmd_refuses_holes_lengths_and_unknown_lengths(unchecked):
    p = faces()
    q = p.clone()
    q[[1, 3]] = math.nan
    with pytest.raises(ValueError, match="2 of 4 frames of the truth"): lmd(p, q)
    with pytest.raises(ValueError, match="2 of 4 frames have no landmarks"): mouth_box(q)
    with pytest.raises(ValueError, match=r"\(4, 68, 2\) and \(3, 68, 2\)"): lmd(p, p[:3])
    with pytest.raises(ValueError, match="no frames"): lmd(p[:0], p[:0])
    with pytest.raises(ValueError, match="eyes, height"): relative_lmd(p, p, "nose")
    with pytest.raises(ValueError, match="0 px apart"): relative_lmd(p, 0*p)
    with pytest.raises(ValueError, match="margin=-1"): mouth_box(p, -1.)


def test_find_landmarks_asks_each_frame_and_marks_those_without_a_face(unchecked):
    film, p = pictures(3, 20, 24), faces()
    seen = iter([p[0], None, p[2]])
    found = find_landmarks(film, lambda x: next(seen))
    assert_close(found[[0, 2]], p[[0, 2]])
    assert found[1].isnan().all()
    with pytest.raises(ValueError, match="no face in any of 3 frames"): find_landmarks(film, lambda x: None)
    with pytest.raises(ValueError, match=r"\(5, 2\) for frame 0"): find_landmarks(film, lambda x: torch.zeros(5, 2))
    with pytest.raises(ValueError, match="divide by 255"): find_landmarks((film*255).byte(), lambda x: p[0])
    with pytest.raises(ValueError, match="no frames"): find_landmarks([], lambda x: p[0])


def module(monkeypatch, name, **names):
    made = types.ModuleType(name)
    made.__dict__.update(names)
    monkeypatch.setitem(sys.modules, name, made)
    return made


def test_mediapipes_points_are_read_at_the_68_in_pixels(monkeypatch, tmp_path):
    sync = pytest.importorskip("talkinglab.face.sync")
    got = {}
    class Landmarker:
        def __init__(self, options): got["options"] = options
        create_from_options = classmethod(lambda cls, options: cls(options))
        def detect(self, picture):
            got["picture"] = picture
            points = [types.SimpleNamespace(x=i/478, y=.25) for i in range(478)]
            return types.SimpleNamespace(face_landmarks=[points] if picture.data.max() > 0 else [])
    vision = module(monkeypatch, "mediapipe.tasks.python.vision", FaceLandmarker=Landmarker, FaceLandmarkerOptions=lambda **k: k)
    module(monkeypatch, "mediapipe", Image=lambda image_format, data: types.SimpleNamespace(data=data), ImageFormat=types.SimpleNamespace(SRGB=1))
    module(monkeypatch, "mediapipe.tasks")
    module(monkeypatch, "mediapipe.tasks.python", BaseOptions=lambda **k: k, vision=vision)
    (tmp_path/"face_landmarker.task").write_bytes(b"a model")
    with monkeypatch.context() as broken:
        def refuse(options): raise RuntimeError("Unable to open zip archive.")
        broken.setattr(Landmarker, "create_from_options", refuse)
        with pytest.raises(ValueError, match="cannot read it .Unable to open zip"): mediapipe_detector(tmp_path/"face_landmarker.task")
    detect = mediapipe_detector(tmp_path/"face_landmarker.task")
    film = torch.stack([torch.ones(20, 40, 3), torch.zeros(20, 40, 3)])
    found = find_landmarks(film, detect)
    table = torch.as_tensor(sync.MEDIAPIPE_68)
    assert_close(found[0], torch.stack([table/478*40, torch.full((68,), 5.)], 1))
    assert found[1].isnan().all() and got["picture"].data.dtype == "uint8" and got["options"]["base_options"]["model_asset_path"].endswith(".task")


def test_detectors_say_what_they_miss(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match="face_landmarker.task"): mediapipe_detector(tmp_path/"no.task")
    (tmp_path/"m.task").write_bytes(b"a model")
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(ImportError, match=r"talkinglab\[face\]"): mediapipe_detector(tmp_path/"m.task")
    monkeypatch.setitem(sys.modules, "face_alignment", None)
    with pytest.raises(ImportError, match=r"talkinglab\[face\]"): fan_detector()


@pytest.mark.parametrize("age", ["1.4", "1.5"])
def test_fan_is_asked_only_when_its_weights_are_there(monkeypatch, tmp_path, age):
    made = []
    class FaceAlignment:
        def __init__(self, landmarks_type, device="cuda", flip_input=False, **options): made.append((landmarks_type, device, options))
        def get_landmarks_from_image(self, image):
            assert image.dtype == "uint8" and image.shape == (20, 40, 3)
            if not image.max(): return None
            big = faces()[0].numpy()
            return [big*.1, big, big*.5]
    if age == "1.5":
        def init(self, landmarks_type, device="cuda", flip_input=True, compile=True): made.append((landmarks_type, device, dict(compile=compile)))
        FaceAlignment.__init__ = init
    url = dict(models_urls={"2DFAN-4": "https://x/fan-1.pth.tar"}) if age == "1.5" else dict(models_urls={"1.6": {"2DFAN-4": "https://x/old.zip"}}, default_model_urls={"2DFAN-4": "https://x/fan-1.pth.tar"})
    module(monkeypatch, "face_alignment", FaceAlignment=FaceAlignment, LandmarksType=types.SimpleNamespace(TWO_D=1), api=module(monkeypatch, "face_alignment.api", **url))
    module(monkeypatch, "face_alignment.detection")
    finder = module(monkeypatch, "face_alignment.detection.sfd.sfd_detector", models_urls={"s3fd": "https://x/s3fd-2.pth"})
    module(monkeypatch, "face_alignment.detection.sfd", sfd_detector=finder)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(AssetError, match=r"fan-1.pth.tar and s3fd-2.pth.*download=True"): fan_detector()
    assert not made
    (tmp_path/"checkpoints").mkdir()
    for name in ("fan-1.pth.tar", "s3fd-2.pth"): (tmp_path/"checkpoints"/name).write_bytes(b"weights")
    found = find_landmarks(torch.stack([torch.ones(20, 40, 3), torch.zeros(20, 40, 3)]), fan_detector())
    assert_close(found[0], faces()[0])
    assert found[1].isnan().all() and made == [(1, "cpu", dict(compile=False) if age == "1.5" else {})]


def test_mediapipe_finds_a_real_face(shared):
    pytest.importorskip("mediapipe")
    pytest.importorskip("talkinglab.face.sync")
    import numpy as np
    from talkinglab.core.media import read_video
    frames, _ = read_video(shared/"grid_s1"/"bbaz7a.mpg")
    film = frames[:40:10].float()/255
    found = find_landmarks(film, mediapipe_detector(shared/"face_landmarker"/"face_landmarker.task"))
    from talkinglab.face.sync import MEDIAPIPE_68
    track = np.load(shared/"grid_s1"/"bbaz7a.track.npz")["landmarks"][:40:10, :, :2]*[360, 288]
    assert (found-torch.from_numpy(track).float()[:, torch.as_tensor(MEDIAPIPE_68)]).norm(dim=-1).max() < 3


# Sharpness

def test_sharpness_is_the_laplacian_by_definition():
    x = pictures(9, 8, dtype=torch.float64)
    y = (x*torch.tensor([.299, .587, .114], dtype=torch.float64)).sum(-1)
    at = lambda i, j: y[min(max(i, 0), 8), min(max(j, 0), 7)]
    edges = torch.stack([torch.stack([4*at(i, j)-at(i-1, j)-at(i+1, j)-at(i, j-1)-at(i, j+1) for j in range(8)]) for i in range(9)])
    assert_close(sharpness(x), edges.square().mean().sqrt())
    mask = torch.zeros(9, 8)
    mask[2:5, 3:6] = 1
    assert_close(sharpness(x, mask), edges[2:5, 3:6].square().mean().sqrt())


def test_blur_lowers_sharpness_noise_raises_it_and_flatness_is_refused():
    x = smooth()
    blurred = F.avg_pool2d(x.permute(2, 0, 1), 3, 1, 1).permute(1, 2, 0)
    noisy = x+.05*torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    assert sharpness_ratio(blurred, x) < .9 and sharpness_ratio(noisy, x) > 1.1 and sharpness_ratio(x, x) == 1
    assert_close(sharpness_ratio(x*.25, x), torch.tensor(.25))
    with pytest.raises(ValueError, match="no detail"): sharpness_ratio(x, torch.full_like(x, .5))


# Our distance

def test_pyramid_distance_is_zero_symmetric_and_turns_with_the_pictures():
    a, b = smooth(65, 65), smooth(65, 65, seed=1) # Odd at every level: halving has a middle
    d = pyramid_distance(a, b)
    assert pyramid_distance(a, a).abs() < 1e-6 and d > .1
    assert_close(pyramid_distance(b, a), d)
    for turn in (lambda x: x.flip(0), lambda x: x.flip(1), lambda x: x.transpose(0, 1)): assert_close(pyramid_distance(turn(a).contiguous(), turn(b).contiguous()), d, rtol=1e-4, atol=0)


@pytest.mark.parametrize("damage", [lambda x, k: (x+.1*k).clamp(0, 1), lambda x, k: x+.1*k*torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
    lambda x, k: torch.lerp(x, F.avg_pool2d(x.permute(2, 0, 1), 7, 1, 3).permute(1, 2, 0), k), lambda x, k: torch.lerp(x, x.roll(2, 1), k), lambda x, k: torch.lerp(x, x.mean(-1, keepdim=True).expand_as(x), k)],
    ids=["light", "noise", "blur", "shift", "grey"])
def test_more_damage_is_more_distance(damage):
    x = smooth()
    d = torch.stack([pyramid_distance(damage(x, k), x) for k in (0., .1, .3, 1.)])
    assert (d.diff() > 0).all()


def test_small_differences_keep_their_digits():
    a = smooth()
    b = a+1e-3*torch.randn(a.shape, generator=torch.Generator().manual_seed(0))
    assert_close(pyramid_distance(a, b).double(), pyramid_distance(a.double(), b.double()), rtol=1e-3, atol=0)


def test_a_part_that_is_wrong_counts_more_than_the_same_error_spread_out():
    x = smooth()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    part = torch.zeros(64, 64, 1)
    part[24:40, 24:40] = 4
    assert pyramid_distance(x+.02*part*noise, x) > 1.2*pyramid_distance(x+.02*noise, x)


def test_what_is_far_from_the_mask_does_not_count():
    a = smooth(128, 128)
    b = (a+.1*torch.randn(a.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    mask, c = torch.zeros(128, 128), b.clone()
    mask[:16, :16] = 1
    c[80:, 80:] = 0
    assert_close(pyramid_distance(a, b, mask, levels=2), pyramid_distance(a, c, mask, levels=2))
    assert_close(pyramid_distance(a, b, mask, levels=2), pyramid_distance(a, b, .3*mask, levels=2), rtol=1e-4, atol=0)
    assert_close(pyramid_distance(a, b, torch.ones(128, 128)), pyramid_distance(a, b))
    assert_close(pyramid_distance(a, b, mask > 0), pyramid_distance(a, b, mask))


def test_pyramid_distance_has_the_slope_it_claims_and_none_where_pictures_agree():
    a, b = pictures(4, 5, dtype=torch.float64), pictures(4, 5, seed=1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: pyramid_distance(x, b, levels=1), a.requires_grad_())
    x = b.clone().requires_grad_()
    pyramid_distance(x, b, levels=1).backward()
    assert x.grad.abs().max() < 1e-3


def test_pictures_too_small_for_the_levels_are_refused():
    with pytest.raises(ValueError, match="40 x 50 px are too few for 5 levels: needs 64"): pyramid_distance(pictures(50, 40), pictures(50, 40))
    with pytest.raises(ValueError, match="at least 1"): pyramid_distance(pictures(50, 40), pictures(50, 40), levels=0)


# LPIPS

def published_files(tmp_path, seed=0):
    "Files in the published layout, filled by lot, and the tensors in them."
    g = torch.Generator().manual_seed(seed)
    shapes = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
    alex = {f"features.{k}.weight": torch.randn(*s, generator=g)/math.sqrt(s[1]*s[2]*s[3]) for k, s in shapes.items()} | {f"features.{k}.bias": .1*torch.randn(s[0], generator=g) for k, s in shapes.items()} | {"classifier.1.weight": torch.zeros(4)}
    lin = {f"lin{i}.model.1.weight": torch.rand(1, s[0], 1, 1, generator=g) for i, s in enumerate(shapes.values())}
    torch.save(alex, tmp_path/"alexnet-owt-7be5be79.pth")
    torch.save(lin, tmp_path/"alex.pth")
    return alex, lin


@pytest.fixture
def weights(tmp_path, monkeypatch):
    "An LPIPS whose published files are ours."
    tensors = published_files(tmp_path)
    for name, file in (("ALEXNET", "alexnet-owt-7be5be79.pth"), ("LPIPS_LAYERS", "alex.pth")):
        monkeypatch.setattr(m, name, replace(getattr(m, name), sha256=hashlib.sha256((tmp_path/file).read_bytes()).hexdigest()))
    return tmp_path, tensors


def lpips_again(a, b, alex, lin):
    "Straight from the paper and the published code's layout, in double."
    def maps(x):
        x = (2*x.double()-1-torch.tensor([-.030, -.088, -.188]).double())/torch.tensor([.458, .448, .450]).double()
        x, out = x.permute(2, 0, 1)[None], []
        for k, (stride, pad) in {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}.items():
            if k in (3, 6): x = F.max_pool2d(x, 3, 2)
            x = torch.relu(F.conv2d(x, alex[f"features.{k}.weight"].double(), alex[f"features.{k}.bias"].double(), stride, pad))
            out.append(x/(x.pow(2).sum(1, keepdim=True).sqrt()+1e-10))
        return out
    return sum(float(F.conv2d((x-y)**2, lin[f"lin{i}.model.1.weight"].double()).mean()) for i, (x, y) in enumerate(zip(maps(a), maps(b))))


def test_lpips_is_a_second_implementation(weights):
    folder, (alex, lin) = weights
    net = load_lpips(folder/"alexnet-owt-7be5be79.pth", folder/"alex.pth")
    a, b = smooth(71, 90), smooth(71, 90, seed=1)
    assert_close(lpips(a, b, net).double().item(), lpips_again(a, b, alex, lin), rtol=1e-4, atol=0)
    assert lpips(a, a, net) == 0 and not any(p.requires_grad for p in net.parameters())
    x = a.clone().requires_grad_()
    lpips(x, b, net).backward()
    assert x.grad.isfinite().all() and x.grad.abs().max() > 0


def test_one_file_holds_the_same_lpips(weights):
    folder, _ = weights
    net = load_lpips(folder/"alexnet-owt-7be5be79.pth", folder/"alex.pth")
    save_lpips(net, folder/"lpips.safetensors")
    again = load_lpips(folder/"lpips.safetensors")
    a, b = smooth(64, 64), smooth(64, 64, seed=1)
    assert lpips(a, b, again) == lpips(a, b, net) and (folder/"lpips.safetensors").stat().st_size < 10_000_000


def test_lpips_is_a_name_for_published_bytes_only(weights, monkeypatch):
    folder, _ = weights
    a, b = smooth(64, 64), smooth(64, 64, seed=1)
    with pytest.raises(ValueError, match="not the published ones"): lpips(a, b, AlexDistance())
    with pytest.raises(ValueError, match="not the published ones"): compare(a[None], b[None], lpips_weights=AlexDistance())
    with pytest.raises(ValueError, match="not recognised"): save_lpips(AlexDistance(), folder/"x.safetensors")
    net = load_lpips(folder/"alexnet-owt-7be5be79.pth", folder/"alex.pth")
    with pytest.raises(ValueError, match="must end in"): save_lpips(net, folder/"x.pth")
    with open(folder/"alex.pth", "ab") as f: f.write(b"?")
    with pytest.raises(ValueError, match="sha256 begins with"): load_lpips(folder/"alexnet-owt-7be5be79.pth", folder/"alex.pth")
    with pytest.raises(AssetError, match="is not there.*BSD"): load_lpips(folder/"alexnet-owt-7be5be79.pth", folder/"lost.pth")
    with pytest.raises(AssetError, match="save_lpips"): load_lpips(folder/"lost.safetensors")
    monkeypatch.setenv("TALKINGLAB_ASSETS", str(folder/"empty"))
    with pytest.raises(AssetError, match="download=True"): load_lpips()


def test_a_safetensors_of_other_origin_or_shape_is_refused(weights):
    from safetensors.torch import save_file
    folder, _ = weights
    tensors, about = AlexDistance().state_dict(), {"alexnet": m.ALEXNET.sha256, "layers": m.LPIPS_LAYERS.sha256}
    save_file(tensors, folder/"other.safetensors")
    with pytest.raises(ValueError, match="does not say"): load_lpips(folder/"other.safetensors")
    save_file({k: v[:1].contiguous() if k == "lins.2" else v for k, v in tensors.items() if k != "lins.3"}, folder/"wrong.safetensors", about)
    with pytest.raises(ValueError, match=r"lins.2 is \(1,\), needs \(384,\), and 1 more"): load_lpips(folder/"wrong.safetensors")
    (folder/"text.safetensors").write_text("no tensors")
    with pytest.raises(ValueError, match="cannot be read"): load_lpips(folder/"text.safetensors")


def test_pictures_too_small_for_alexnet_are_refused():
    with pytest.raises(ValueError, match="31 x 40 px"): AlexDistance()(pictures(40, 31), pictures(40, 31))
    assert AlexDistance()(pictures(32, 32), pictures(32, 32, seed=1)).isfinite()


# All at once

def test_compare_gives_what_the_measures_give_and_none_for_the_rest():
    a, b, p, q = pictures(3, 64, 70), pictures(3, 64, 70, seed=1), faces(3)*.4, faces(3, 1)*.4
    bare = compare(a, b)
    assert_close(bare.psnr_db, frame_scores(psnr, a, b).mean().item())
    assert_close(bare.psnr_pooled_db, 10*math.log10(1/(a-b).square().mean().item()), rtol=1e-5, atol=0)
    assert_close(bare.pyramid, frame_scores(pyramid_distance, a, b).mean().item())
    assert (bare.frames, bare.size, bare.where) == (3, (70, 64), "whole pictures")
    assert all(getattr(bare, k) is None for k in ("lpips", "mouth", "mouth_psnr_db", "mouth_ssim", "mouth_pyramid", "mouth_sharpness", "lmd_px", "lmd_eyes", "lmd_frames"))
    full = compare(a, b, landmarks=p, true_landmarks=q)
    mouth = box_mask(mouth_box(q), 64, 70)
    assert_close(full.mouth_ssim, frame_scores(ssim, a, b, mouth).mean().item())
    assert_close(full.mouth_sharpness, frame_scores(sharpness_ratio, a, b, mouth).mean().item())
    assert_close(full.lmd_px, lmd(p, q).item())
    assert full.psnr_db == bare.psnr_db and full.mouth == tuple(mouth_box(q).double().tolist()) and full.lmd_frames == 3
    following = compare(a, b, mouth=mouth_box(q, follow=True))
    assert_close(following.mouth_psnr_db, frame_scores(psnr, a, b, box_mask(mouth_box(q, follow=True), 64, 70)).mean().item())


def test_compare_leaves_out_and_counts_frames_without_a_face():
    a, b, p, q = pictures(3, 64, 70), pictures(3, 64, 70, seed=1), faces(3)*.4, faces(3, 1)*.4
    p[0], q[2] = math.nan, math.nan
    scores = compare(a, b, landmarks=p, true_landmarks=q)
    assert scores.lmd_frames == 1 and scores.mouth == tuple(mouth_box(q[:2]).double().tolist())
    assert_close(scores.lmd_px, lmd(p[1:2], q[1:2]).item())
    nobody = compare(a, b, landmarks=p*math.nan, true_landmarks=q)
    assert nobody.lmd_px is None and nobody.lmd_frames == 0


def test_compare_says_none_for_small_pictures_and_flat_truths():
    scores = compare(pictures(2, 30, 30), torch.full((2, 30, 30, 3), .5))
    assert scores.pyramid is None and scores.sharpness is None and scores.psnr_db > 0
    assert "| sharpness, of the truth's | – |" in scores.table()


def test_tables_hold_only_what_was_measured_alike():
    a, b = pictures(2, 64, 64), pictures(2, 64, 64, seed=1)
    scores = compare(a, b)
    assert scores.table(x=scores, y=compare(b, a)).splitlines()[0] == "|  | x | y |" and scores._repr_markdown_() == scores.table()
    with pytest.raises(ValueError, match="where differs"): scores.table(masked=compare(a, b, torch.ones(64, 64)))
    with pytest.raises(ValueError, match="mouth differs"): scores.table(mouth=compare(a, b, mouth=torch.tensor([3, 4, 20, 22])))


@pytest.mark.parametrize("call", [lambda a, b, *w: frame_scores(psnr, a, b, *w), compare], ids=["frame_scores", "compare"])
def test_refusals_name_the_frame_and_the_remedy(call, unchecked):
    a, b = pictures(3, 64, 64), pictures(3, 64, 64, seed=1)
    with pytest.raises(ValueError, match="prediction has 2 frames, truth 3"): call(a[:2], b)
    with pytest.raises(ValueError, match="no frames"): call(a[:0], b[:0])
    with pytest.raises(ValueError, match="frame 0: pictures are"): call(a[:, ::2], b)
    with pytest.raises(ValueError, match="frame 0: a picture is torch.uint8: divide by 255"): call((a*255).byte(), b)
    with pytest.raises(ValueError, match="2 masks for 3 frames"): call(a, b, torch.ones(2, 64, 64))
    with pytest.raises(ValueError, match="frame 1: the mask sums to 0"): call(a, b, torch.stack([torch.ones(64, 64), torch.zeros(64, 64), torch.ones(64, 64)]))
    with pytest.raises(ValueError, match="frame 0: mask is"): call(a, b, torch.ones(32, 64))
    holes = b.clone()
    holes[2, :2, 0] = math.nan
    with pytest.raises(ValueError, match="frame 2 of the truth has 6 values that are not finite"): call(a, holes)


def test_compare_refuses_rows_that_do_not_fit(unchecked):
    a, b = pictures(3, 64, 64), pictures(3, 64, 64, seed=1)
    with pytest.raises(ValueError, match="landmarks has 2 frames, the truth 3"): compare(a, b, landmarks=faces(2))
    with pytest.raises(ValueError, match="2 mouth boxes for 3 frames"): compare(a, b, mouth=torch.zeros(2, 4, dtype=torch.long))


def test_what_is_no_picture_and_no_68_points_is_refused(unchecked):
    film, points = pictures(2, 64, 64), torch.rand(2, 478, 2)
    for call, words in ((lambda: compare(film*255, film*255), "divide by 255"), (lambda: compare(film.movedim(3, 1), film.movedim(3, 1)), "channels first"),
                        (lambda: lmd(points, points), "MEDIAPIPE_68"), (lambda: mouth_box(points), "MEDIAPIPE_68"), (lambda: compare(film, film, true_landmarks=points), "MEDIAPIPE_68")):
        with pytest.raises(ValueError, match=words): call()
