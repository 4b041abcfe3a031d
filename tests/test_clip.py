"Laws of core.clip: parts agree, frames are drawn when looked at, folders come whole or not at all."
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from talkinglab.core.camera import orbit
from talkinglab.core.clip import Clip, Frames, Motion, contact_sheet, load_clip, new_folder, read_talker, write_talker
from talkinglab.core.media import Audio, MediaError, open_audio, read_image, read_provenance, read_video

NAMES = ("jawOpen", "eyeBlinkLeft")


def noise(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

def motion(t): return Motion(noise(t,2), NAMES, 25., noise(t,3,seed=1), noise(t,3,seed=2), noise(t,2,seed=3))

def gradient(i, h=33, w=47): return torch.stack(torch.meshgrid(torch.linspace(0,1,h), torch.linspace(0,1,w), indexing="ij")+(torch.full((h,w), i/20),), -1)

def take(t=10, **kw):
    return Clip(**dict(dict(frames=Frames(t, gradient), fps=25., audio=Audio(noise(640*t).clamp(-1,1)*0.3, 16000), cameras=[orbit(float(i), width=47, height=33) for i in range(t)],
                motion=motion(t), masks=(noise(t,33,47)>0).to(torch.uint8)*255, phones=[(0.,0.1,"AA"), (0.1,0.4,"")], background=gradient(3), meta=dict(talker="x")), **kw))


@pytest.mark.parametrize("wrong", (dict(motion=motion(9)), dict(masks=torch.zeros(11,33,47,dtype=torch.uint8)), dict(cameras=[orbit()]*3), dict(cameras=[]), dict(fps=0.), dict(fps=float("nan")),
                                   dict(motion=replace(motion(10), fps=30.)), dict(frames=Frames(0, gradient), motion=None, masks=None, cameras=None)))
def test_parts_that_disagree_make_no_clip(wrong):
    with pytest.raises(ValueError): take(**wrong)

def test_names_and_columns_agree():
    for names in (("a",), ("a","a"), ("a","b","c")):
        with pytest.raises(ValueError, match="columns"): Motion.still(torch.zeros(4,2), names)
    with pytest.raises(KeyError, match="jawOpen, eyeBlinkLeft"): motion(3).curve("tongueOut")

def test_a_part_of_a_motion_is_a_motion():
    m = motion(10)
    for index in (slice(2,5), slice(None,None,2), slice(-3,None)):
        assert torch.equal(m[index].expr, m.expr[index]) and torch.equal(m[index].gaze, m.gaze[index]) and len(m[index])==len(range(10)[index])

def test_frames_are_drawn_only_when_looked_at_and_the_same_twice():
    drawn = []
    frames = Frames(1000, lambda i: (drawn.append(i), gradient(i))[1])
    assert not drawn and torch.equal(frames[-1], frames[999]) and drawn==[999, 999]
    for i in (1000, -1001):
        with pytest.raises(IndexError): frames[i]
    next(iter(frames))
    assert drawn==[999, 999, 0]

def test_a_contact_sheet_shows_the_middle_of_each_share():
    frames = Frames(60, lambda i: torch.full((1,1,3), i/60))
    assert [round(x*60) for x in contact_sheet(frames, 6, 6)[0,:,0].tolist()]==[4, 14, 24, 34, 44, 54]
    for n in range(1, 15):
        for count in (1, 5, 12):
            sheet = contact_sheet(Frames(n, lambda i: torch.zeros(2,3,3)), count)
            k = min(count, n)
            assert sheet.shape==(2*-(-k//6), 3*min(6,k), 3) and int((sheet==0).sum())==18*k

def test_a_folder_returns_the_take(tmp_path):
    clip = take()
    again = load_clip(clip.save(tmp_path/"take", quality=4))
    for k in ("expr","rotation","translation","gaze"): torch.testing.assert_close(getattr(again.motion, k), getattr(clip.motion, k), rtol=0, atol=0)
    torch.testing.assert_close(torch.stack([*again.frames]), torch.stack([*clip.frames]), rtol=0, atol=0.06) # 33 x 47: odd sides survive
    torch.testing.assert_close(again.audio.samples, clip.audio.samples, rtol=0, atol=0.51/32768)
    assert torch.equal(again.masks, clip.masks) and torch.equal(again.background, clip.background)
    assert (again.phones, again.meta, again.fps, again.motion.names)==(clip.phones, clip.meta, clip.fps, clip.motion.names)
    for i in (0, 9):
        a, b = again.camera(i), clip.camera(i)
        assert torch.equal(a.viewmat, b.viewmat) and torch.equal(a.K, b.K) and (a.width, a.height)==(b.width, b.height)

def test_a_bare_take_returns_bare(tmp_path):
    again = load_clip(Clip(Frames(3, gradient), 30.).save(tmp_path/"take"))
    assert len(again)==3 and again.fps==30 and not any((again.audio, again.cameras, again.motion, again.phones, again.meta)) and again.masks is None and again.background is None

def test_tensors_that_share_memory_can_be_saved(tmp_path):
    still = Motion.still(noise(3,2), NAMES) # rotation and translation are one tensor of zeros
    assert load_clip(Clip(Frames(3, gradient), 25., motion=still).save(tmp_path/"take")).motion.rotation.abs().max()==0
    tied = noise(4,4)
    write_talker(tmp_path/"talker", {}, dict(a=tied, b=tied, c=tied.T), "")
    assert torch.equal(read_talker(tmp_path/"talker")[1]["c"], tied.T)

def test_the_ending_chooses_the_file(tmp_path):
    clip = take()
    assert len(read_video(clip.save(tmp_path/"a.mp4"))[0])==len(read_video(clip.save(tmp_path/"a.webm"))[0])==10
    assert open_audio(tmp_path/"a.mp4").seconds==pytest.approx(clip.seconds, abs=1/25) and read_provenance(tmp_path/"a.mp4")["talker"]=="x"
    assert read_image(clip.save(tmp_path/"A.PNG")).shape==(2*33, 6*47, 3)
    with pytest.raises(MediaError, match="unknown ending '.avi'"): clip.save(tmp_path/"a.avi")
    seen = []
    with pytest.raises(MediaError): clip.save(tmp_path/"nowhere/a.mp4", progress=lambda frames: seen.append("bar") or frames)
    assert not seen
    clip.save(tmp_path/"b.mp4", progress=lambda frames: (seen.append(i) or f for i,f in enumerate(frames)))
    assert seen==[*range(10)]

def test_what_is_there_is_never_touched(tmp_path):
    (tmp_path/"take").mkdir()
    (tmp_path/"take/thesis.txt").write_text("years of work")
    (tmp_path/"file").write_text("x")
    for call in (lambda: take().save(tmp_path/"take"), lambda: write_talker(tmp_path/"take", {}, {}, ""), lambda: take().save(tmp_path/"file")):
        with pytest.raises(MediaError, match="exists already"): call()
    assert (tmp_path/"take/thesis.txt").read_text()=="years of work" and len([*tmp_path.iterdir()])==2
    (tmp_path/"empty").mkdir()
    take().save(tmp_path/"empty")
    assert len([*(tmp_path/"empty").iterdir()])==3

@pytest.mark.parametrize("stop", (KeyboardInterrupt, RuntimeError))
def test_a_broken_off_take_leaves_nothing(tmp_path, stop):
    def draw(i):
        if i==5: raise stop
        return gradient(i)
    for name in ("take", "take.mp4"):
        with pytest.raises(stop): Clip(Frames(10, draw), 25.).save(tmp_path/name)
    with pytest.raises(stop), new_folder(tmp_path/"folder"): raise stop
    assert not [*tmp_path.iterdir()]

FULL = """
import resource, sys, torch
from pathlib import Path
from talkinglab.core.clip import *
from talkinglab.core.media import MediaError
folder = Path(sys.argv[1])
clip = Clip(Frames(3, lambda i: torch.rand(32,32,3)), 25., background=torch.rand(64,64,3))
for limit in (0, 900, 20000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for job in (lambda: clip.save(folder/"take"), lambda: write_talker(folder/"talker", {}, dict(w=torch.rand(100,100)), "card")):
        try: job()
        except MediaError as e: assert "cannot be written" in str(e) and ".part" not in str(e) and "\\n" not in str(e), e
        else: raise SystemExit(f"room for {limit} bytes: no error")
        assert not [*folder.iterdir()], limit
"""

def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode==0 and done.stderr=="", done.stderr[-2000:]

def test_a_damaged_take_is_one_line(tmp_path):
    folder = take().save(tmp_path/"take")
    for name in ("clip.safetensors", "frames.mp4", "sound.flac"):
        whole = (folder/name).read_bytes()
        for cut in (0, 7, 100, len(whole)//2):
            (folder/name).write_bytes(whole[:cut])
            with pytest.raises(MediaError) as e: load_clip(folder)
            assert "\n" not in str(e.value)
        (folder/name).write_bytes(whole)
    for nothing in (tmp_path/"none", tmp_path, folder/"frames.mp4"):
        with pytest.raises(MediaError): load_clip(nothing)

def test_a_talker_returns_from_its_folder(tmp_path):
    config, weights = dict(system="hello", cfg=dict(width=3)), dict(w=noise(3,4).T, b=noise(2))
    write_talker(tmp_path/"talker", config, weights, "# Card\n")
    got, w = read_talker(tmp_path/"talker")
    assert got==config and all(torch.equal(w[k], weights[k]) for k in weights) and (tmp_path/"talker/README.md").read_text()=="# Card\n"

def test_what_is_no_talker_is_one_line(tmp_path):
    write_talker(tmp_path/"talker", dict(system="hello"), dict(w=noise(3)), "")
    for name,data in (("config.json", b"[1]"), ("config.json", b"{"), ("config.json", b"\xff\xfe"), ("weights.safetensors", b"GARBAGE!"*9), ("weights.safetensors", b"")):
        whole = (tmp_path/"talker"/name).read_bytes()
        (tmp_path/"talker"/name).write_bytes(data)
        with pytest.raises(MediaError, match="holds no talker") as e: read_talker(tmp_path/"talker")
        assert "\n" not in str(e.value)
        (tmp_path/"talker"/name).write_bytes(whole)
    with pytest.raises(MediaError): read_talker(tmp_path/"none")
    assert json.loads((tmp_path/"talker/config.json").read_text())==dict(system="hello")

def test_a_background_of_bytes_is_kept_as_bytes(tmp_path):
    from safetensors.torch import load_file
    wall = (gradient(3)*255).round()/255
    path = take(background=wall).save(tmp_path/"take")
    assert load_file(path/"clip.safetensors")["background"].dtype==torch.uint8 and torch.equal(load_clip(path).background, wall)
