"What a mouth hears: no lag, no future, no memory of the microphone's distance."
import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from talkinglab.audio.features import (RATE, Cutter, Features, FeatureStream, centroid, features, loudness, measure_levels, mel,
                                       mel_filters, mfcc, pitch, relative_loudness, voicing)
from talkinglab.core.clock import frame_count, frame_times
from talkinglab.core.media import Audio, open_audio, read_audio, write_audio

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT/"data_samples"
REAL = ROOT.parent/"shared"/"data"
ALL = ("loudness", "centroid", "voicing", "pitch", "mel", "mfcc")


def noise(n, level=0.1, seed=0): return level*torch.randn(n, generator=torch.Generator().manual_seed(seed))
def tone(hz, n=800, level=0.25): return level*torch.sin(2*math.pi*hz*torch.arange(float(n))/RATE)


@pytest.mark.parametrize("block", [1, 7, 160, 1601, 10**6])
@pytest.mark.parametrize("fps", [25.0, 29.97])
def test_streaming_equals_offline(block, fps):
    audio = Audio(noise(2507), RATE)
    stream = FeatureStream(fps, ALL)
    live = torch.cat([*[stream.push(x) for x in audio.samples.split(block)], stream.finish(audio.seconds)])
    assert_close(live, features(audio, fps, ALL).x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("block", [1, 97, 4410, 10**6])
@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_streaming_equals_offline_at_any_rate(block, rate):
    for n in (1, 30, 3007 if block>1 else 701):
        audio = Audio(noise(n), rate)
        stream = FeatureStream(100.0, ALL, rate)
        live = torch.cat([*[stream.push(x) for x in audio.samples.split(block)], stream.push(torch.zeros(0)), stream.finish()])
        assert_close(live, features(audio, 100.0, ALL).x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["en_clean", "lesson"])
def test_streaming_equals_offline_on_speech_and_silence(name):
    "Where a coefficient is near -165, float32 itself is no finer than 1.5e-5."
    audio = read_audio(SAMPLES/f"{name}.flac")
    for gain in (1, .01):
        part = Audio(gain*audio.samples[:3*audio.rate], audio.rate)
        stream = FeatureStream(100.0, ALL, part.rate)
        live = torch.cat([*[stream.push(x) for x in part.samples.split(1777)], stream.finish()])
        assert_close(live, features(part, 100.0, ALL).x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_rows_come_as_soon_as_promised(rate):
    stream = FeatureStream(25.0, ALL, rate)
    assert 0.005<stream.lookahead<0.010
    for i, x in enumerate(noise(rate).split(rate//100)):
        stream.push(x)
        assert stream.cutter.count>=math.floor(((i+1)/100-stream.lookahead)*25+1e-9)


def test_cuts_begin_where_start_says():
    "Also where a stretch is shorter than a frame, and where a frame is no whole number of samples."
    x = noise(4000)
    for size, fps in ((400, 10.0), (400, 29.97), (800, 25.0), (32, 1000.0), (2, 8000.0)):
        cutter = Cutter(size, fps)
        cuts = torch.cat([*[cutter.push(b) for b in x.split(777)], cutter.finish()])
        padded = torch.nn.functional.pad(x, (size, 4*size+1600))
        assert_close(cuts, torch.stack([padded[(at := cutter.start(i)+size):at+size] for i in range(len(cuts))]), atol=0, rtol=0)
        assert len(cuts)==frame_count(4000/RATE, fps)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("fps", [10.0, 24.0, 25.0, 29.97, 60.0, 100.0])
def test_one_row_a_frame(rate, fps):
    for n in (1, 10, rate//25, rate//25+1, rate//2+123):
        audio = Audio(noise(n), rate)
        x = features(audio, fps).x
        assert len(x)==frame_count(audio.seconds, fps) and x.isfinite().all()


@pytest.mark.parametrize("rate", [16000, 22050, 48000])
def test_click_is_heard_in_its_own_frame(rate):
    for seconds in (0.403, 0.42, 0.437):
        x = torch.zeros(rate)
        x[round(seconds*rate)] = 1
        assert features(Audio(x, rate))["loudness"].argmax()==int(seconds*25)


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("name", ["loudness", "centroid"])
def test_no_lag(rate, name):
    "A tone that trembles (or sweeps) five times a second has its beat where the sound has it, to 1 ms."
    t, beat = torch.arange(4*rate, dtype=torch.float64)/rate, 2*math.pi*5
    if name=="loudness": x = (1+.5*torch.cos(beat*t))*torch.sin(2*math.pi*440*t)/4
    else: x = torch.sin(2*math.pi*(1000*t+200/beat*torch.sin(beat*t)))/4
    y = features(Audio(x.float(), rate), 25.0)[name].double()
    wave = torch.exp(-1j*beat*frame_times(len(y), 25.0).double())
    assert abs(((y-y.mean())*wave).sum().angle().item()/beat)<1e-3


def test_future_is_not_heard():
    x = noise(RATE)
    stream, changed = FeatureStream(25.0, ALL), x.clone()
    heard = int((0.4+stream.lookahead)*RATE)
    changed[heard:] = 0
    assert_close(features(Audio(x, RATE), 25.0, ALL).x[:10], features(Audio(changed, RATE), 25.0, ALL).x[:10])
    assert len(stream.push(x[:heard]))==10


def test_memory_stays_flat():
    cutter = Cutter(800, 25.0)
    for _ in range(100):
        cutter.push(noise(5000))
        assert len(cutter.buffer)<800


def test_file_and_memory_agree(tmp_path):
    audio = Audio(noise(44100), 44100)
    write_audio(tmp_path/"x.flac", audio)
    assert_close(features(open_audio(tmp_path/"x.flac")).x, features(audio).x, atol=.02, rtol=0) # FLAC rounds to 16 bits


def test_loudness_follows_decibels():
    x = noise(5*640).reshape(5, 640)
    assert_close(loudness(x/10), loudness(x)-20, atol=1e-3, rtol=0)
    assert_close(loudness(x+.3), loudness(x), atol=1e-3, rtol=0)
    assert (loudness(0*x)==-100).all()


def test_centroid_rises_with_pitch_and_rests_in_silence():
    hz = torch.tensor([250., 500., 1000., 2000., 4000.])
    tones = torch.stack([tone(f) for f in hz.tolist()])
    assert_close(centroid(tones), (hz/1000).log2(), atol=.05, rtol=0)
    assert_close(centroid(tones/10), centroid(tones), atol=.15, rtol=0)
    assert (centroid(0*tones)==0).all()


def test_voice_is_more_periodic_than_noise():
    buzz = sum(tone(120*k, level=.1/k) for k in range(1, 20))[None]
    assert voicing(buzz).item()>.95 and voicing(noise(800)[None]).item()<.6 and voicing(torch.zeros(1, 800)).item()==0


def test_mel_bands_are_ordered_and_gain_is_a_constant():
    tones = torch.stack([tone(f, 400) for f in (200, 400, 800, 1600, 3200, 6400)])
    y = mel(tones)
    assert y.shape==(6, 80) and (y.argmax(-1).diff()>0).all()
    assert_close(mel(tones/2).amax(-1), y.amax(-1)-math.log(4), atol=.02, rtol=0)
    with pytest.raises(ValueError, match="800 samples"): mel(torch.zeros(1, 800))


def test_mel_is_librosas():
    librosa = pytest.importorskip("librosa")
    assert_close(mel_filters(), torch.from_numpy(librosa.filters.mel(sr=RATE, n_fft=512, n_mels=80, fmin=50, fmax=8000)), atol=0, rtol=2e-7)
    x = noise(400)
    lifted = torch.cat([x[:1]*.03, x[1:]-.97*x[:-1]])
    theirs = librosa.feature.melspectrogram(y=torch.nn.functional.pad(lifted, (56, 56)).numpy(), sr=RATE, n_fft=512, win_length=400, center=False, n_mels=80, fmin=50, fmax=8000)
    assert_close(mel(x[None])[0], (torch.from_numpy(theirs[:, 0])+1e-8).log(), atol=1e-4, rtol=0)


def test_mfcc_is_librosas_and_all_of_it_loses_nothing():
    librosa = pytest.importorskip("librosa")
    bands = mel(cuts := noise(4000).reshape(10, 400))
    assert_close(mfcc(cuts), torch.from_numpy(librosa.feature.mfcc(S=bands.T.numpy(), n_mfcc=13)).T, atol=1e-4, rtol=0)
    assert_close(mfcc(cuts, 20)[:, :13], mfcc(cuts))
    assert_close(mfcc(cuts, 80)@mfcc(cuts, 80).T, bands@bands.T)
    assert_close(mfcc(4*cuts)-mfcc(cuts), torch.eye(13)[0].expand(10, 13)*math.log(16)*80**.5, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="count=81"): mfcc(cuts, 81)


@pytest.mark.parametrize("hz", [66, 100, 171.3, 250, 399])
def test_pitch_of_a_buzz(hz):
    buzz = sum(tone(hz*k, level=.1/k) for k in range(1, 8))[None]
    assert abs(math.log2(pitch(buzz).item()/hz))<.003 and abs(math.log2(pitch(buzz+.3*buzz.roll(5, 1)).item()/hz))<.003


@pytest.mark.parametrize("hz", [20, 35, 50])
def test_rumble_below_every_voice_is_no_voice(hz):
    assert voicing(tone(hz)[None]).item()<.1 and pitch(tone(hz)[None]).item()==0


def test_pitch_agrees_with_pyin():
    "librosa's tracker, which sees the whole sentence. Where both hear a voice: within a semitone in nine rows of ten, gross errors (20 %) rare."
    librosa = pytest.importorskip("librosa")
    found = []
    for name in ("gym", "de"):
        x = read_audio(SAMPLES/f"{name}.flac", RATE).samples[:3*RATE]
        ours = features(Audio(x, RATE), 100.0, ("pitch",))["pitch"]
        padded = torch.nn.functional.pad(x, (512-80, 1024)).numpy() # their rows centred where ours are
        theirs, voiced, _ = librosa.pyin(padded, fmin=65, fmax=400, sr=RATE, frame_length=1024, hop_length=160, center=False)
        found.append(torch.stack([ours, torch.from_numpy(theirs)[:len(ours)].float().nan_to_num()], 1))
    ours, theirs = torch.cat(found).T
    octaves = (ours/theirs).log2()[(ours>0) & (theirs>0)].abs()
    assert len(octaves)>200 and ((ours>0)==(theirs>0)).float().mean()>.8
    assert (octaves<1/12).float().mean()>.9 and (octaves>.26).float().mean()<.03


WORST = dict(silence=torch.zeros(RATE), clipped=(20*noise(RATE)).clamp(-1, 1), chord=sum(tone(hz, RATE, .2) for hz in (261.6, 329.6, 392.)),
             offset=noise(RATE, .01)+.9, noisy=tone(180, RATE)+noise(RATE, .025), click=torch.eye(RATE)[0], whole_numbers=(noise(RATE)*32768).round(),
             square=torch.sign(tone(100, RATE)), one_sample=torch.ones(1))


@pytest.mark.parametrize("name", WORST)
def test_whatever_comes_the_numbers_are_sensible(name):
    x = WORST[name]
    f = features(Audio(x, RATE), 100.0, ALL)
    assert f.x.isfinite().all() and (f["loudness"]>=-100).all() and (f["centroid"].abs()<2.4).all()
    assert ((f["voicing"]>=0) & (f["voicing"]<=1)).all() and ((f["pitch"]==0) | ((f["pitch"]>64) & (f["pitch"]<411))).all()
    if name=="silence": assert (f["loudness"]==-100).all() and not f["centroid"].any() and not f["voicing"].any() and f["mfcc"][:, 1:].abs().max()<1e-3
    if name=="noisy": assert (f["pitch"][5:-5]/180).log2().abs().max()<.02
    if name=="offset": assert_close(f["loudness"][5:-5], features(Audio(x-.9, RATE), 100.0)["loudness"][5:-5], atol=.01, rtol=0)


def check_gain(audio):
    near = relative_loudness(features(audio, names=("loudness",))["loudness"])
    far = relative_loudness(features(Audio(audio.samples/10, audio.rate), names=("loudness",))["loudness"])
    assert_close(far, near, atol=.02, rtol=0)
    assert near.min()==0 and near.max()==1 and .2<near.mean()<.8


@pytest.mark.parametrize("name", ["hello", "lesson", "gym", "de", "en_noisy", "en_whisper"])
def test_distance_to_the_microphone_does_not_matter(name): check_gain(read_audio(SAMPLES/f"{name}.flac"))


@pytest.mark.skipif(not REAL.is_dir(), reason="real recordings are not here")
@pytest.mark.parametrize("path", ["speech_jfk/jfk.flac", "speech_cmu_arctic/arctic_a0007.wav", "speech_a2f_samples/Claire_neutral.wav"])
def test_real_recordings_too(path): check_gain(read_audio(REAL/path))


@pytest.mark.parametrize("gain", [1, .1, .01])
def test_silence_and_low_noise_stay_closed(gain):
    for x in (torch.zeros(3*RATE), noise(3*RATE, 1e-3), torch.full((3*RATE,), .2)):
        assert relative_loudness(features(Audio(gain*x, RATE))["loudness"])[1:-1].max()==0


def test_steady_loud_vowel_opens():
    buzz = sum(tone(120*k, 3*RATE, .1/k) for k in range(1, 20))
    assert relative_loudness(features(Audio(buzz, RATE))["loudness"])[1:-1].min()>.8


def test_levels_of_an_earlier_recording_serve_live():
    curve = features(read_audio(SAMPLES/"hello.flac"))["loudness"]
    assert_close(relative_loudness(curve[40:60], measure_levels(curve)), relative_loudness(curve)[40:60])


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="smell"): FeatureStream(25.0, ("smell",))
    with pytest.raises(ValueError, match="fps=0"): FeatureStream(0.0)
    with pytest.raises(ValueError, match="rate=0"): FeatureStream(25.0, rate=0)
    with pytest.raises(ValueError, match="no sound"): FeatureStream().finish()
    with pytest.raises(ValueError, match="1 of 3 samples"): FeatureStream().push(torch.tensor([0., float("nan"), 0.]))
    with pytest.raises(ValueError, match="2 names for 3"): Features(torch.zeros(1, 3), 25.0, ("a", "b"))
    with pytest.raises(KeyError, match="smell"): features(Audio(noise(100), RATE))["smell"]


def test_nobody_waits_for_librosa():
    import subprocess
    import sys
    code = ("import sys, torch; from talkinglab.audio.features import features; from talkinglab.core.media import Audio;"
            "features(Audio(torch.rand(16000), 16000), 25, ('loudness','centroid','voicing','pitch','mel','mfcc')); sys.exit('librosa' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode==0
