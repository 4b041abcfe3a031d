"The bundled speech: true phone times, a card that knows every file, and a size that a clone does not feel."
import json
from pathlib import Path

import pytest
import torch

from talkinglab.core.media import open_audio, read_audio

FOLDER = Path(__file__).resolve().parent.parent/"data_samples"
RECORDS = {p.stem: r for p in sorted(FOLDER.glob("*.json")) if "phones" in (r := json.loads(p.read_text(encoding="utf-8")))
           and str(r.get("generator", "")).startswith("espeak-ng")}
LIPS = "pbm"


def test_enough_voices_and_languages():
    assert len(RECORDS)>=10 and len({r["language"] for r in RECORDS.values()})>=3
    assert len({r["voice"] for r in RECORDS.values()})>=10 and {"hello", "lesson"}<=set(RECORDS)
    assert any(r["noise"] for r in RECORDS.values()) and any("whisper" in r["voice"] for r in RECORDS.values())


@pytest.mark.parametrize("name", RECORDS)
def test_phones_tile_the_clip(name):
    record, audio = RECORDS[name], open_audio(FOLDER/f"{name}.flac")
    spans = record["phones"]
    assert audio.rate==22050 and abs(audio.seconds-record["seconds"])<1e-3 and 2<=audio.seconds<=13
    assert spans[0][0]==0 and audio.seconds-2e-3<=spans[-1][1]<=audio.seconds
    assert all(a<b for a,b,_ in spans) and all(p[1]==q[0] for p,q in zip(spans, spans[1:]))
    assert spans[0][2]==spans[-1][2]=="" and sum(label!="" for *_,label in spans)>=15
    assert record["synthetic"] is True and record["text"] and record["licence"]=="CC0-1.0"


def level(x, a, b, rate): return x[int(a*rate):max(int(b*rate), int(a*rate)+1)].square().mean().sqrt()


def test_stops_begin_with_their_closure():
    "The first 20 ms of p, t, k are quiet, and the burst comes after: the repair that the card describes."
    closed = []
    for name, record in RECORDS.items():
        if record["noise"]: continue
        audio = read_audio(FOLDER/f"{name}.flac")
        closed += [level(audio.samples, a, a+.02, audio.rate)<.02*audio.samples.abs().max()
                   for a,b,label in record["phones"] if label[:1] in tuple("ptk")]
    assert len(closed)>=50 and sum(closed)/len(closed)>.9


def test_pauses_are_quiet_and_vowels_are_not():
    for name, record in RECORDS.items():
        if record["noise"]: continue
        audio = read_audio(FOLDER/f"{name}.flac")
        quiet = [level(audio.samples, a+.04, b, audio.rate) for a,b,label in record["phones"] if label=="" and b-a>.1]
        vowels = [level(audio.samples, a, b, audio.rate) for a,b,label in record["phones"] if label[:1] in tuple("iuaɑæɛeoɔ")]
        assert max(quiet)<.3*torch.stack(vowels).median(), name


def test_demo_clips_exercise_the_lips():
    hello, lesson = RECORDS["hello"], RECORDS["lesson"]
    assert 5<=hello["seconds"]<=6.5 and 10<=lesson["seconds"]<=12.5
    assert sum(label[:1] in tuple(LIPS) for *_,label in hello["phones"])>=8
    assert sum(label=="" for *_,label in hello["phones"])>=5
    assert len({label for *_,label in lesson["phones"]})>=35


def test_noise_is_as_loud_as_stated():
    clean, noisy = (read_audio(FOLDER/f"en_{n}.flac").samples for n in ("clean", "noisy"))
    spoken = torch.zeros(len(clean), dtype=torch.bool)
    for a,b,label in RECORDS["en_clean"]["phones"]:
        if label: spoken[int(a*22050):int(b*22050)] = True
    gain = (clean*noisy).sum()/clean.square().sum()
    snr = 10*((gain*clean)[spoken].square().mean()/(noisy-gain*clean).square().mean()).log10()
    assert abs(snr-10)<.3


def test_card_names_every_file():
    card = (FOLDER/"README.md").read_text(encoding="utf-8")
    for path in FOLDER.iterdir():
        if path.name!="README.md" and path.name!="__pycache__": assert f"`{path.name}" in card, f"data_samples/README.md does not name {path.name}"


def test_speech_is_small():
    assert sum((FOLDER/f"{n}{end}").stat().st_size for n in RECORDS for end in (".flac", ".json"))<=2_000_000
