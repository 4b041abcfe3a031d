"What a user types: it works, or it says in one line why not, and leaves nothing half-written."
import os
import signal
import subprocess
import sys
import time
import wave

import numpy as np
import pytest
from mouth import measure

from talkinglab.app.cli import checks, doctor, main
from talkinglab.core.assets import samples
from talkinglab.core.media import read_audio, read_provenance, read_video


def write_wav(path, x, rate, width=2):
    "Samples in [-1,1], `s` or `s c`, as a plain wav."
    x = np.asarray(x)
    with wave.open(str(path), "wb") as f:
        f.setnchannels(1 if x.ndim == 1 else x.shape[1])
        f.setsampwidth(width)
        f.setframerate(rate)
        whole = (x*(2**(8*width-1)-1)).astype("<i4")
        f.writeframes(whole.astype("<i2").tobytes() if width == 2 else b"".join(int(v).to_bytes(3, "little", signed=True) for v in whole.ravel()))


def float_wav(path, x, rate):
    "32-bit float samples as a wav (format 3), which the standard library does not write."
    data = np.asarray(x, "<f4").tobytes()
    fmt = b"\x03\x00\x01\x00"+rate.to_bytes(4, "little")+(rate*4).to_bytes(4, "little")+b"\x04\x00\x20\x00"
    path.write_bytes(b"RIFF"+(36+len(data)).to_bytes(4, "little")+b"WAVEfmt "+(16).to_bytes(4, "little")+fmt+b"data"+len(data).to_bytes(4, "little")+data)


def tone(seconds, rate): return .3*np.sin(2*np.pi*180*np.arange(round(seconds*rate))/rate)*(np.sin(2*np.pi*2*np.arange(round(seconds*rate))/rate) > 0)


def one_line(capsys):
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("talkinglab: ") and err.count("\n") == 1, err
    return err


BAD = dict(missing="no such file", directory="is a directory", text="not a sound file", empty="0 bytes", no_samples="0 samples", nan="NaN", truncated="cut short")


@pytest.mark.parametrize("kind", BAD)
def test_bad_sound_is_one_line_and_no_file(kind, tmp_path, capsys):
    path, out = tmp_path/"in.wav", tmp_path/"out.mp4"
    if kind == "directory": path.mkdir()
    elif kind == "text": path.write_text("this is no sound\n"*200)
    elif kind == "empty": path.touch()
    elif kind == "no_samples": write_wav(path, np.zeros(0), 16000)
    elif kind == "nan": float_wav(path, [0., float("nan")]*800, 16000)
    elif kind == "truncated":
        write_wav(path, tone(2, 16000), 16000)
        path.write_bytes(path.read_bytes()[:30000])
    assert main(["speak", str(path), "-o", str(out)]) == 2
    assert BAD[kind] in one_line(capsys)
    assert [p.name for p in tmp_path.iterdir()] in ([], ["in.wav"])


@pytest.mark.parametrize("out,why", [("nowhere/out.mp4", "does not exist"), ("out.xyz", "unknown ending"), (".", "directory"), ("in.wav", "overwrite")])
def test_bad_output_is_one_line_and_no_file(out, why, tmp_path, capsys):
    write_wav(tmp_path/"in.wav", tone(.5, 16000), 16000)
    before = (tmp_path/"in.wav").read_bytes()
    assert main(["speak", str(tmp_path/"in.wav"), "-o", str(tmp_path/out)]) == 2
    assert why in one_line(capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["in.wav"] and (tmp_path/"in.wav").read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_one_line(tmp_path, capsys):
    write_wav(tmp_path/"in.wav", tone(.5, 16000), 16000)
    (tmp_path/"locked").mkdir(mode=0o500)
    assert main(["speak", str(tmp_path/"in.wav"), "-o", str(tmp_path/"locked"/"out.mp4")]) == 2
    assert "cannot be written" in one_line(capsys)


@pytest.mark.parametrize("flag,value,why", [("--talker", "nobody", "no talker 'nobody'"), ("--style", "grumpy", "no style"), ("--size", "5", "--size 5"), ("--fps", "0", "--fps 0"), ("--yaw", "inf", "--yaw inf"), ("--quality", "60", "--quality 60"), ("--seed", "-1", "--seed -1")])
def test_bad_choices_name_the_good_ones(flag, value, why, tmp_path, capsys):
    write_wav(tmp_path/"in.wav", tone(.5, 16000), 16000)
    assert main(["speak", str(tmp_path/"in.wav"), "-o", str(tmp_path/"out.mp4"), flag, value]) == 2
    assert why in one_line(capsys)


@pytest.mark.parametrize("name,rate,channels,width", [("8k", 8000, 1, 2), ("96k", 96000, 1, 2), ("6ch", 48000, 6, 2), ("24bit", 44100, 2, 3), ("float", 22050, 1, 4)])
def test_any_recording_speaks(name, rate, channels, width, tmp_path):
    path, x = tmp_path/"in.wav", tone(.8, rate)
    if width == 4: float_wav(path, x, rate)
    else: write_wav(path, np.repeat(x[:, None], channels, 1), rate, width)
    assert main(["speak", str(path), "-o", str(tmp_path/"out.mp4"), "--size", "64"]) == 0
    frames, fps = read_video(tmp_path/"out.mp4")
    assert len(frames) == 20 and fps == 25 and abs(read_audio(tmp_path/"out.mp4").seconds-.8) <= 1/25


def test_two_runs_write_the_same_bytes(tmp_path):
    for k in "ab": assert main(["speak", str(samples("hello.flac")), "-o", str(tmp_path/f"{k}.mp4"), "--size", "64", "--fps", "10"]) == 0
    assert (tmp_path/"a.mp4").read_bytes() == (tmp_path/"b.mp4").read_bytes()


def test_the_file_says_that_it_is_synthetic(tmp_path, capsys):
    out = str(tmp_path/"out.mp4")
    assert main(["speak", str(samples("hello.flac")), "-o", out, "--size", "64", "--fps", "5"]) == 0
    assert read_provenance(out)["synthetic"] is True and read_provenance(out)["talker"] == "d3talker"
    assert main(["provenance", out]) == 0 and "synthetic" in capsys.readouterr().out


def test_mouth_follows_loudness_in_the_written_file(tmp_path):
    "The smallest talker: correlation above 0.6 and at most one frame of lag, on the file's own pixels and samples."
    out = tmp_path/"out.mp4"
    assert main(["speak", str(samples("hello.flac")), "-o", str(out), "--size", "192", "--style", "lively", "--talker", "hello"]) == 0
    m = measure(out)
    assert m["correlation"] > .6 and abs(m["lag"]) <= 1, m
    assert abs(m["video"]-m["sound"]) <= 1/m["fps"], m


def test_ctrl_c_leaves_nothing(tmp_path):
    long = tmp_path/"long.wav"
    write_wav(long, tone(120, 16000), 16000)
    for stop in (signal.SIGINT, signal.SIGTERM):
        p = subprocess.Popen([sys.executable, "-m", "talkinglab", "speak", long, "-o", tmp_path/"out.mp4", "--size", "256"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                             preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) # a background shell may have it ignored
        limit = time.time()+90
        while not list(tmp_path.glob(".*.part.mp4")) and p.poll() is None and time.time() < limit: time.sleep(.1)
        assert list(tmp_path.glob(".*.part.mp4")), p.communicate()
        time.sleep(1)
        p.send_signal(stop)
        _, err = p.communicate(timeout=60)
        # a shell says 130 to both: Python ends by the signal itself if Ctrl-C fell into code run by exec(), as of dataclasses and Numba
        assert p.returncode in (130, -signal.SIGINT) and "Traceback" not in err and "stopped" in err, err
        assert [f.name for f in tmp_path.iterdir()] == ["long.wav"]
        with pytest.raises(ProcessLookupError): os.killpg(p.pid, 0)


def test_real_recordings_speak(shared, tmp_path):
    "Every recording beside the clone: LibriSpeech, LibriVox, CMU Arctic, JFK, acted speech."
    found = [p for p in sorted(shared.glob("speech_*/*")) if p.suffix in (".wav", ".flac", ".ogg")]
    assert len(found) >= 10
    for path in found:
        out = tmp_path/(path.stem+".mp4")
        assert main(["speak", str(path), "-o", str(out), "--size", "48", "--fps", "5", "--talker", "hello"]) == 0, path.name
        frames, fps = read_video(out)
        assert abs(len(frames)/fps-read_audio(path).seconds) <= 1/fps, path.name


def test_help_shows_examples(capsys):
    for words in (["--help"], ["speak", "--help"]):
        with pytest.raises(SystemExit) as e: main(words)
        assert e.value.code == 0 and "talkinglab speak speech.wav -o out.mp4" in capsys.readouterr().out


def test_doctor_names_what_is_missing_and_what_it_would_add(capsys):
    found = checks()
    assert {"torch", "cuda", "gsplat", "ffmpeg", "sound and video", "head models", "speech encoders"} <= {c.name for c in found}
    text = doctor(found)
    for c in found: assert c.name in text and (c.found in text if c.found else c.adds in text)
    assert main(["doctor"]) == 0 and "torch" in capsys.readouterr().out
