"Laws of core.media: nothing moves, nothing is lost without a word, nothing half-written stays."
import math
import os
import struct
import subprocess
import sys
import wave
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from talkinglab.core.media import (Audio, MediaError, open_audio, provenance, read_audio, read_image, read_provenance, read_video, replacing,
                                   to_uint8, write_audio, write_image, write_video)

ENDINGS = (".wav", ".flac", ".ogg", ".m4a", ".mp3")
EVERY_RATE = (8000, 11025, 16000, 22050, 44100, 48000, 96000)


def noise(n, seed=0): return 0.2*torch.randn(n, generator=torch.Generator().manual_seed(seed))

def sweep(seconds, rate, top):
    t = torch.arange(round(seconds*rate), dtype=torch.float64)/rate
    return (0.5*(math.pi*top/seconds*t*t).sin()).float()

def film(t, h=48, w=64):
    "A bright disc that wanders over a gradient."
    y, x = torch.meshgrid(torch.linspace(0,1,h), torch.linspace(0,1,w), indexing="ij")
    for i in range(t):
        disc = (1-((x-0.3-0.4*i/max(1,t))**2+(y-0.5)**2).sqrt()*4).clamp(0,1)
        yield torch.stack([0.3*x+0.6*disc, 0.2+0.5*y*(1-disc), 0.5-0.3*x], -1).clamp(0,1)

def pcm(path, values, rate=16000, bits=16, channels=1):
    whole = [int(v*2**(bits-1))+128*(bits==8) for v in values for _ in range(channels)]
    with wave.open(str(path), "wb") as f:
        f.setparams((channels, bits//8, rate, 0, "NONE", ""))
        f.writeframes(b"".join(x.to_bytes(bits//8, "little", signed=bits>8) for x in whole))
    return path

def float_wav(path, values, rate=16000):
    data = struct.pack(f"<{len(values)}f", *values)
    path.write_bytes(struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36+len(data), b"WAVE", b"fmt ", 16, 3, 1, rate, 4*rate, 4, 32, b"data", len(data))+data)
    return path

def one_line(call, *args, contains=""):
    with pytest.raises(MediaError) as e: call(*args)
    assert "\n" not in str(e.value) and contains in str(e.value), str(e.value)
    assert e.value.__cause__ is None and (e.value.__context__ is None or e.value.__suppress_context__)


# Resampling

@pytest.mark.parametrize("rate_in", EVERY_RATE)
@pytest.mark.parametrize("rate", EVERY_RATE)
def test_resampling_keeps_every_instant_and_the_exact_length(rate_in, rate):
    x = torch.zeros(rate_in//5)
    x[rate_in//10] = 1
    y = Audio(x, rate_in).resample(rate).samples
    assert len(y)==round(len(x)*rate/rate_in)
    assert abs(int(y.argmax())/rate-(rate_in//10)/rate_in)<=0.51/rate

@given(st.integers(1, 300), st.sampled_from(EVERY_RATE), st.sampled_from(EVERY_RATE))
@settings(max_examples=60, deadline=None)
def test_even_the_shortest_sound_survives_a_change_of_rate(n, rate_in, rate):
    assert len(Audio(noise(n), rate_in).resample(rate).samples)==max(1, round(n*rate/rate_in))

@given(st.integers(1, 5000), st.sampled_from([(44100,16000), (16000,48000), (48000,16000)]))
@settings(max_examples=15, deadline=None)
def test_samples_do_not_depend_on_how_the_input_is_cut(size, rates):
    audio = Audio(noise(7001), rates[0])
    whole = audio.resample(rates[1]).samples
    torch.testing.assert_close(torch.cat([*audio.blocks(rates[1], max(size, 7))]), whole, rtol=0, atol=0)

def test_tones_above_the_new_half_rate_vanish_and_those_below_stay():
    t = torch.arange(48000, dtype=torch.float64)/48000
    high, low = Audio((2*math.pi*11000*t).sin().float(), 48000), Audio((2*math.pi*1000*t).sin().float(), 48000)
    assert high.resample(16000).samples[500:-500].abs().max()<1e-3
    torch.testing.assert_close(low.resample(16000).samples[500:-500], low.samples[::3][500:-500], rtol=0, atol=1e-3)

def test_up_and_down_again_returns_the_sound():
    x = sweep(0.5, 16000, 6000)
    back = Audio(x, 16000).resample(48000).resample(16000).samples
    torch.testing.assert_close(back[200:-200], x[200:-200], rtol=0, atol=5e-3)

@pytest.mark.parametrize("samples,rate", [(torch.zeros(0), 16000), (torch.tensor([0., math.nan]), 16000), (torch.tensor([math.inf]), 16000), (torch.zeros(5), 0)])
def test_a_sound_is_never_empty_nor_infinite_nor_timeless(samples, rate):
    with pytest.raises(ValueError): Audio(samples, rate)


# Reading

@pytest.mark.parametrize("bits", (8,16,24,32))
@pytest.mark.parametrize("channels", (1,2,3,6))
@pytest.mark.parametrize("rate", (8000, 96000))
def test_any_depth_channels_and_rate_give_the_same_values(tmp_path, bits, channels, rate):
    values = [0, 0.25, -0.5, 0.75, -1]
    x = read_audio(pcm(tmp_path/"a.wav", values, rate, bits, channels))
    assert x.rate==rate and x.samples.tolist()==values and x.samples.dtype==torch.float32

def test_floats_beyond_one_are_kept(tmp_path):
    assert read_audio(float_wav(tmp_path/"f.wav", [0, 1.5, -2])).samples.tolist()==[0, 1.5, -2]

def test_streaming_from_disk_equals_resampling_in_memory(tmp_path):
    write_audio(tmp_path/"a.flac", Audio(noise(50000).clamp(-1,1), 44100))
    file = open_audio(tmp_path/"a.flac")
    torch.testing.assert_close(torch.cat([*file.blocks(16000)]), file.read().resample(16000).samples, rtol=0, atol=0)
    assert file.seconds==50000/44100

@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("rate", (16000, 44100))
def test_every_coding_keeps_length_and_place(tmp_path, ending, rate):
    click = torch.zeros(rate)
    click[rate//3] = 0.9
    write_audio(tmp_path/f"a{ending}", Audio(click, rate))
    back = read_audio(tmp_path/f"a{ending}", rate).samples
    assert len(back)==len(click) and abs(int(back.abs().argmax())-rate//3)<=2

def test_lossless_codings_lose_half_a_step_of_16_bits(tmp_path):
    for ending in (".wav", ".flac"):
        write_audio(tmp_path/f"a{ending}", Audio(noise(3000).clamp(-0.9,0.9), 12345))
        torch.testing.assert_close(read_audio(tmp_path/f"a{ending}").samples, noise(3000).clamp(-0.9,0.9), rtol=0, atol=0.51/32768)

def test_what_is_too_loud_is_clipped_not_wrapped(tmp_path):
    write_audio(tmp_path/"a.wav", Audio(torch.tensor([2., -2., 0.5]), 16000))
    torch.testing.assert_close(read_audio(tmp_path/"a.wav").samples, torch.tensor([1., -1., 0.5]), rtol=0, atol=1e-4)

def test_every_bad_input_is_one_clear_line(tmp_path, monkeypatch):
    p = tmp_path/"x.wav"
    one_line(read_audio, p, contains="no such file")
    one_line(read_audio, tmp_path, contains="directory")
    one_line(read_audio, tmp_path/("long"*200), contains="cannot be read")
    p.touch()
    one_line(read_audio, p, contains="empty")
    p.write_text("This is not a sound. "*200)
    one_line(read_audio, p, contains="not a sound file")
    p.write_bytes(bytes(torch.randint(0, 256, (5000,), generator=torch.Generator().manual_seed(1)).tolist()))
    one_line(read_audio, p, contains="not a sound file")
    one_line(read_audio, pcm(p, []), contains="0 samples")
    one_line(read_audio, float_wav(p, [0, math.nan, 1]), contains="1 of 3 samples")
    one_line(read_audio, float_wav(p, [0, math.inf, -math.inf]), contains="2 of 3 samples")
    one_line(read_audio, pcm(p, [0, 0.5], rate=3), contains="3 samples a second")
    write_video(tmp_path/"mute.mp4", film(3), 25)
    one_line(read_audio, tmp_path/"mute.mp4", contains="holds no sound")
    os.mkfifo(tmp_path/"pipe.wav")
    one_line(read_audio, tmp_path/"pipe.wav", contains="no ordinary file")

def test_a_file_without_permission_says_so(tmp_path, monkeypatch):
    path = pcm(tmp_path/"a.wav", [0, 0.5])
    path.chmod(0)
    if os.access(path, os.R_OK): # the superuser may read everything: let the system call refuse
        import builtins
        real = open
        def refuse(name, *a, **k):
            if str(name)==str(path): raise PermissionError(13, "Permission denied", str(name))
            return real(name, *a, **k)
        monkeypatch.setattr(builtins, "open", refuse)
    one_line(read_audio, path, contains="Permission denied")

def test_a_playlist_is_not_followed(tmp_path):
    pcm(tmp_path/"secret.wav", [0.5]*1000)
    (tmp_path/"list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.wav\n#EXT-X-ENDLIST\n")
    one_line(read_audio, tmp_path/"list.m3u8")

def test_names_and_tags_may_hold_any_character(tmp_path):
    path = pcm(tmp_path/"a:b ü%d.wav", [0, 0.5])
    data, tag = path.read_bytes(), b"LIST"+struct.pack("<I", 16)+b"INFOINAM"+struct.pack("<I", 4)+b"\xe9\xff\xfe\x00"
    path.write_bytes(data[:4]+struct.pack("<I", len(data)+len(tag)-8)+data[8:]+tag)
    assert read_audio(path).samples.tolist()==[0, 0.5]
    write_video(tmp_path/"c:d ü%d.mp4", film(3), 25)
    assert len(read_video(tmp_path/"c:d ü%d.mp4")[0])==3

@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("part", (0.02, 0.3, 0.5, 0.9, 0.97))
def test_a_truncated_file_is_refused(tmp_path, ending, part):
    write_audio(tmp_path/f"a{ending}", Audio(noise(32000), 16000))
    data = (tmp_path/f"a{ending}").read_bytes()
    (tmp_path/f"cut{ending}").write_bytes(data[:int(part*len(data))])
    one_line(read_audio, tmp_path/f"cut{ending}", contains="cut short or damaged")

@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    for ending in ENDINGS: write_audio(folder/f"a{ending}", Audio(noise(1500), 16000))
    return folder

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

def sound_or_error(path):
    try: x = read_audio(path, 16000)
    except MediaError as e: assert "\n" not in str(e)
    else: assert len(x.samples) and x.samples.isfinite().all()

@given(ending=st.sampled_from(ENDINGS), where=st.floats(0, 1))
@FUZZ
def test_a_file_cut_anywhere_is_a_sound_or_one_line(wholes, ending, where):
    data = (wholes/f"a{ending}").read_bytes()
    (wholes/f"cut{ending}").write_bytes(data[:int(where*len(data))])
    sound_or_error(wholes/f"cut{ending}")

@given(ending=st.sampled_from((".wav", ".flac")), where=st.floats(0, 1, exclude_max=True))
@FUZZ
def test_a_wav_or_flac_cut_anywhere_is_refused(wholes, ending, where):
    data = (wholes/f"a{ending}").read_bytes()
    (wholes/f"cut{ending}").write_bytes(data[:int(where*len(data))])
    one_line(read_audio, wholes/f"cut{ending}")

@given(ending=st.sampled_from(ENDINGS), flips=st.lists(st.tuples(st.integers(0, 199), st.integers(1, 255)), min_size=1, max_size=6))
@FUZZ
def test_flipped_header_bytes_give_a_sound_or_one_line(wholes, ending, flips):
    data = bytearray((wholes/f"a{ending}").read_bytes())
    for at,mask in flips: data[at] ^= mask
    (wholes/f"flip{ending}").write_bytes(data)
    sound_or_error(wholes/f"flip{ending}")

@given(data=st.binary(max_size=3000), head=st.sampled_from([b"", b"RIFF\xff\xff\xff\xffWAVE", b"fLaC", b"OggS", b"ID3\x04", b"\xff\xfb\x90\x64"]))
@FUZZ
def test_garbage_is_a_sound_or_one_line(wholes, data, head):
    (wholes/"garbage.wav").write_bytes(head+data)
    sound_or_error(wholes/"garbage.wav")

def test_real_recordings_open_and_resample(shared):
    files = sorted(p for p in shared.glob("speech_*/*") if p.suffix in (".wav",".flac",".ogg",".mp3",".m4a"))
    assert files
    for path in files:
        file = open_audio(path)
        x = file.read(16000)
        assert 0.3<file.seconds and abs(x.seconds-file.seconds)<=1/16000 and 1e-3<x.samples.square().mean().sqrt()<0.5, path


# Writing

def test_an_error_or_ctrl_c_leaves_what_was_there(tmp_path):
    (tmp_path/"a.txt").write_text("old")
    for stop in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(stop), replacing(tmp_path/"a.txt") as part:
            part.write_text("new")
            raise stop
    assert [p.name for p in tmp_path.iterdir()]==["a.txt"] and (tmp_path/"a.txt").read_text()=="old"

def test_places_that_cannot_be_written_are_one_line(tmp_path, monkeypatch):
    one_line(write_audio, tmp_path, Audio(noise(10), 16000), contains="unknown ending")
    (tmp_path/"dir.wav").mkdir()
    one_line(write_audio, tmp_path/"dir.wav", Audio(noise(10), 16000), contains="is a directory")
    one_line(write_audio, tmp_path/"no/a.wav", Audio(noise(10), 16000), contains="does not exist")
    one_line(write_audio, tmp_path/"a.xyz", Audio(noise(10), 16000), contains="unknown ending")
    one_line(write_video, tmp_path/"a.gif", film(2), 25, contains="unknown ending")
    def refuse(self, *a, **k): raise PermissionError(13, "Permission denied", str(self))
    monkeypatch.setattr(Path, "touch", refuse)
    one_line(write_audio, tmp_path/"a.wav", Audio(noise(10), 16000), contains="Permission denied")
    one_line(write_video, tmp_path/"a.mp4", film(2), 25, contains="Permission denied")
    one_line(write_image, tmp_path/"a.png", torch.zeros(4,4,3), contains="Permission denied")

def test_somebody_elses_error_keeps_its_name(tmp_path):
    def frames():
        yield torch.zeros(16,16,3)
        open(tmp_path/"texture.bin")
    with pytest.raises(FileNotFoundError, match="texture.bin"): write_video(tmp_path/"a.mp4", frames(), 25)
    assert not [*tmp_path.iterdir()]

FULL = """
import resource, sys, torch
from pathlib import Path
from talkinglab.core.media import *
folder = Path(sys.argv[1])
g = torch.Generator().manual_seed(0)
frames, audio = [torch.rand(32,32,3, generator=g) for _ in range(8)], Audio(0.1*torch.randn(8000, generator=g), 16000)
jobs = {"a.mp4": lambda p: write_video(p, frames, 25, audio), "a.webm": lambda p: write_video(p, frames, 25, audio), "a.png": lambda p: write_image(p, frames[0])}
jobs |= {f"a{e}": lambda p: write_audio(p, audio) for e in (".wav",".flac",".ogg",".m4a",".mp3")}
sizes = {}
for name,job in jobs.items():
    job(folder/name)
    sizes[name] = (folder/name).stat().st_size
    (folder/name).unlink()
for name,job in jobs.items():
    for limit in (0, 1, 700, sizes[name]//2, sizes[name]-1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try: job(folder/name)
        except MediaError as e: assert "cannot be written" in str(e), e
        else: raise SystemExit(f"{name} with room for {limit} of {sizes[name]} bytes: no error")
        assert not [*folder.iterdir()], (name, limit)
"""

def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode==0 and done.stderr=="", done.stderr[-2000:]

QUIET = """
import sys, torch
from pathlib import Path
from talkinglab.core.media import *
folder = Path(sys.argv[1])
frames = [torch.rand(33,31,3) for _ in range(5)]
for name in ("a.mp4", "a.webm"):
    write_video(folder/name, frames, 25, Audio(torch.zeros(4000), 22050))
    data = (folder/name).read_bytes()
    for n in (20, len(data)//2, len(data)-9):
        (folder/name).write_bytes(data[:n])
        for read in (read_video, read_audio, read_provenance):
            try: read(folder/name)
            except MediaError: pass
"""

def test_libraries_do_not_talk_to_the_user(tmp_path):
    done = subprocess.run([sys.executable, "-c", QUIET, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr)==(0, "", "")


# Film

def psnr(a, b): return float(-10*(a-b).square().mean().log10())

@pytest.mark.parametrize("ending", (".mp4", ".webm"))
def test_a_film_returns_its_pictures(tmp_path, ending):
    write_video(tmp_path/f"a{ending}", film(12), 30)
    frames, fps = read_video(tmp_path/f"a{ending}")
    assert frames.shape==(12,48,64,3) and fps==30
    assert psnr(frames.float()/255, torch.stack([*film(12)]))>34

@pytest.mark.parametrize("ending", (".mp4", ".webm"))
def test_colours_are_bt709_and_say_so(tmp_path, ending):
    colors = torch.tensor([[.9,.1,.1],[.1,.8,.2],[.2,.2,.9],[.93,.74,.6],[.5,.5,.5],[0,0,0],[1,1,1]])
    for color in colors:
        write_video(tmp_path/f"a{ending}", [color.expand(16,16,3)]*2, 25, quality=5)
        got = read_video(tmp_path/f"a{ending}")[0].float().mean((0,1,2))/255
        torch.testing.assert_close(got, color, rtol=0, atol=0.02)
    with av.open(str(tmp_path/f"a{ending}")) as f:
        frame = next(f.decode(video=0))
        assert (int(frame.colorspace), int(frame.color_range))==(1, 1) and frame.format.name=="yuv420p"

@pytest.mark.parametrize("ending", (".mp4", ".webm"))
@pytest.mark.parametrize("seconds", (0.2, 1.0, 3.0))
@pytest.mark.parametrize("fps,rate", ((25, 16000), (Fraction(30000,1001), 44100), (24, 8000)))
def test_sound_and_pictures_end_together(tmp_path, ending, seconds, fps, rate):
    write_video(tmp_path/f"a{ending}", film(round(fps)), float(fps), Audio(noise(round(seconds*rate)), rate)) # one second of pictures
    frames, got_fps = read_video(tmp_path/f"a{ending}")
    sound, pictures = open_audio(tmp_path/f"a{ending}").seconds, len(frames)/got_fps
    assert len(frames)==round(fps) and abs(got_fps-float(fps))<1e-3 and abs(sound-pictures)<=0.5/got_fps
    with av.open(str(tmp_path/f"a{ending}")) as f:
        ends = []
        for stream in (f.streams.video[0], f.streams.audio[0]):
            f.seek(0)
            ends.append(max(float((p.pts+(p.duration or 0))*p.time_base) for p in f.demux(stream) if p.pts is not None))
    assert abs(ends[0]-ends[1])<=1/got_fps

@pytest.mark.parametrize("ending", (".mp4", ".webm"))
def test_a_click_in_a_film_is_heard_when_it_is_seen(tmp_path, ending):
    click = torch.zeros(16000)
    click[8000] = 0.9
    write_video(tmp_path/f"a{ending}", [torch.full((16,16,3), float(i==13)) for i in range(25)], 26, Audio(click, 16000))
    heard = int(read_audio(tmp_path/f"a{ending}", 16000).samples.abs().argmax())/16000
    seen = int(read_video(tmp_path/f"a{ending}")[0].float().mean((1,2,3)).argmax())/26
    assert abs(heard-0.5)<3e-4 and seen==0.5

@pytest.mark.parametrize("h,w", ((33,47), (16,17), (2,2), (1,1)))
def test_odd_sides_become_even_by_repeating_the_edge(tmp_path, h, w):
    write_video(tmp_path/"a.mp4", film(3, h, w), 25, quality=10)
    frames, _ = read_video(tmp_path/"a.mp4")
    assert frames.shape==(3, h+h%2, w+w%2, 3)

def test_bad_frames_are_named_and_nothing_stays(tmp_path):
    path = tmp_path/"a.mp4"
    one_line(write_video, path, iter([torch.zeros(16,16,3)]*4+[torch.zeros(16,18,3)]), 25, contains="frame 4 is (16, 18, 3)")
    one_line(write_video, path, iter([torch.zeros(16,16,3)]*2+[torch.full((16,16,3), math.nan)]), 25, contains="frame 2: 768 values")
    one_line(write_video, path, iter([]), 25, contains="no frames")
    one_line(write_video, path, film(3), 0, contains="fps=0")
    one_line(write_video, path, film(3), math.nan, contains="fps=nan")
    assert not [*tmp_path.iterdir()]

@pytest.mark.parametrize("after", (0, 1, 20))
@pytest.mark.parametrize("ending", (".mp4", ".webm"))
def test_ctrl_c_while_drawing_leaves_no_file(tmp_path, ending, after):
    def frames():
        yield from film(after)
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): write_video(tmp_path/f"a{ending}", frames(), 25, Audio(noise(16000), 16000))
    assert not [*tmp_path.iterdir()]

def test_frames_are_drawn_one_at_a_time(tmp_path):
    import weakref
    alive, most = weakref.WeakSet(), 0
    class Frame(torch.Tensor): pass
    def frames():
        nonlocal most
        for _ in range(80):
            f = torch.zeros(16,16,3).as_subclass(Frame)
            alive.add(f)
            most = max(most, len(alive))
            yield f
            del f
    write_video(tmp_path/"a.mp4", frames(), 25)
    assert most<=3

@pytest.mark.parametrize("part", (0.05, 0.5, 0.9))
@pytest.mark.parametrize("ending", (".mp4", ".webm"))
def test_a_truncated_film_is_refused(tmp_path, ending, part):
    g = torch.Generator().manual_seed(0)
    write_video(tmp_path/f"a{ending}", [torch.rand(32,32,3, generator=g) for _ in range(50)], 25)
    data = (tmp_path/f"a{ending}").read_bytes()
    (tmp_path/f"a{ending}").write_bytes(data[:int(part*len(data))])
    one_line(read_video, tmp_path/f"a{ending}", contains="cut short or damaged")

def test_sounds_and_letters_are_no_films(tmp_path):
    one_line(read_video, pcm(tmp_path/"a.wav", [0, 0.5]), contains="holds no video")
    (tmp_path/"a.mp4").write_text("not a film")
    one_line(read_video, tmp_path/"a.mp4", contains="not a video file")
    one_line(read_video, tmp_path, contains="directory")
    one_line(read_video, tmp_path/"none.mp4", contains="no such file")


# Pictures and labels

def test_bytes_survive_the_round_trip(tmp_path):
    image = torch.arange(256).reshape(16,16,1).expand(16,16,3).float()/255
    write_image(tmp_path/"a.png", image)
    torch.testing.assert_close(read_image(tmp_path/"a.png"), image, rtol=0, atol=0)
    assert (to_uint8(image)[...,0].ravel()==range(256)).all()

def test_what_is_no_picture_is_one_line(tmp_path):
    one_line(read_image, tmp_path/"a.png", contains="No such file")
    one_line(read_image, tmp_path, contains="directory")
    (tmp_path/"a.png").write_text("hello")
    one_line(read_image, tmp_path/"a.png", contains="unknown format")
    write_image(tmp_path/"b.png", torch.rand(64,64,3))
    data = (tmp_path/"b.png").read_bytes()
    for n in (10, 100, len(data)//2):
        (tmp_path/"b.png").write_bytes(data[:n])
        one_line(read_image, tmp_path/"b.png")

@pytest.mark.parametrize("name", ("a.mp4", "a.webm", "a.png"))
def test_every_film_and_picture_says_that_it_is_synthetic(tmp_path, name):
    meta = dict(talker="demo", folder=Path("x"), synthetic=False)
    write_image(tmp_path/name, torch.zeros(16,16,3), meta) if name.endswith("png") else write_video(tmp_path/name, film(3), 25, meta=meta)
    said = read_provenance(tmp_path/name)
    assert said["synthetic"] is True and said["talker"]=="demo" and said["generator"].startswith("talkinglab") and provenance()["synthetic"]

def test_a_file_that_says_nothing_is_asked_politely(tmp_path):
    from PIL import Image
    Image.new("RGB", (4,4)).save(tmp_path/"a.png")
    assert read_provenance(tmp_path/"a.png") is None
    one_line(read_provenance, tmp_path/"none.png")
    one_line(read_provenance, tmp_path/"none.mp4")
