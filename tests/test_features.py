"What a mouth hears: no lag, no future, no memory of the microphone's distance."
import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from talkinglab.audio.features import (RATE, Cutter, Features, FeatureStream, centroid, features, loudness, measure_levels, mel,
                                       relative_loudness, voicing)
from talkinglab.core.clock import frame_count, frame_times
from talkinglab.core.media import Audio, open_audio, read_audio, write_audio

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT/"data_samples"
REAL = ROOT.parent/"shared"/"data"
ALL = ("loudness", "centroid", "voicing", "mel")


def noise(n, level=0.1, seed=0): return level*torch.randn(n, generator=torch.Generator().manual_seed(seed))
def tone(hz, n=800, level=0.25): return level*torch.sin(2*math.pi*hz*torch.arange(float(n))/RATE)


@pytest.mark.parametrize("block", [1, 7, 160, 1601, 10**6])
@pytest.mark.parametrize("fps", [25.0, 29.97])
def test_streaming_equals_offline(block, fps):
    audio = Audio(noise(2507), RATE)
    stream = FeatureStream(fps, ALL)
    live = torch.cat([*[stream.push(x) for x in audio.samples.split(block)], stream.finish(audio.seconds)])
    assert_close(live, features(audio, fps, ALL).x, atol=1e-5, rtol=0)


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
    with pytest.raises(ValueError, match="1 of 3 samples"): FeatureStream().push(torch.tensor([0., float("nan"), 0.]))
    with pytest.raises(ValueError, match="2 names for 3"): Features(torch.zeros(1, 3), 25.0, ("a", "b"))
    with pytest.raises(KeyError, match="smell"): features(Audio(noise(100), RATE))["smell"]


def test_librosa_stays_unloaded_without_mel():
    import subprocess
    import sys
    code = ("import sys, torch; from talkinglab.audio.features import features; from talkinglab.core.media import Audio;"
            "features(Audio(torch.rand(16000), 16000), 25, ('loudness','centroid','voicing')); sys.exit('librosa' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode==0
