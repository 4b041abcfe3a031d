"""Make the bundled speech: short clips by espeak-ng with the true time of every phone.

    python data_samples/make_speech.py

Writes NAME.flac (mono, 22.05 kHz) and NAME.json for every row of CLIPS, and the table in README.md. The same espeak-ng
gives the same bytes. Needs the espeak-ng library: apt-get install libespeak-ng1 (Debian, Ubuntu),
brew install espeak-ng (macOS), dnf install espeak-ng (Fedora).
"""
import ctypes as C
import ctypes.util
import json
import re
import sys
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from talkinglab.core.media import Audio, write_audio

HERE = Path(__file__).resolve().parent
LEAD, TAIL = 0.2, 0.3  # Silence before and after the speech, s: a mouth starts and ends at rest
CLOSURE = dict.fromkeys("ptkcqʔ", 70) | dict.fromkeys("bdɡɟ", 50)  # How long a stop is closed after a pause, ms
QUIET = 0.015  # RMS below this fraction of the peak is a closure or a pause; some voices have an echo that rings into it


@dataclass(frozen=True)
class Speech:
    name: str
    language: str
    voice: str         # espeak-ng voice, "+variant" behind it
    text: str
    rate: int = 165    # Words a minute
    pitch: int = 50    # 0 to 99
    range: int = 50    # Liveliness of the melody, 0 to 99
    snr_db: float | None = None  # Pink noise so many dB below the speech


NOISY = "Whatever the weather, I am happy to wait for you by the old bridge."
CLIPS = [
    Speech("hello", "en", "en-us+f2", "Hello! I am a talking head, made of soft blobs. "
           "Play me a voice, and watch my mouth move. Boo!", 205, 55, 80),
    Speech("lesson", "en", "en-us+m3", "Bob and Mary both hope to view a huge blue ship from the harbour. "
           "She chose five fresh plums, young cheese, and a warm apple pie. "
           "Now we pause. Then a mouse jumps the measured path, and you may laugh.", 175, 45, 60),
    Speech("gym", "en", "en-us", "Bee, boo, bah. Me, moo, mah. Pea, pooh, pah.", 150, 45, 30),
    Speech("en_quick", "en", "en+m7", "Pack the map, the lamp and a bottle of lemonade, because the bus is about to leave!", 215, 40, 70),
    Speech("en_calm", "en", "en+f4", "Look how slowly the moon moves above the rooftops.", 125, 60, 40),
    Speech("en_deep", "en", "en-us+m1", "Down below, a small boat drums against the wooden pier.", 150, 15, 45),
    Speech("en_bright", "en", "en-us+f5", "What a beautiful morning! Shall we bake some pumpkin bread?", 175, 85, 90),
    Speech("en_whisper", "en", "en+whisper", "Please be quiet, my baby is fast asleep upstairs.", 145),
    Speech("en_clean", "en", "en+m4", NOISY, 160),
    Speech("en_noisy", "en", "en+m4", NOISY, 160, snr_db=10),
    Speech("de", "de", "de+f3", "Guten Morgen! Möchten Sie ein Brötchen mit Butter und Pflaumenmus probieren?", 160, 55, 60),
    Speech("fr", "fr", "fr+m2", "Bonjour! Un beau bateau bleu passe sous le pont, puis il disparaît.", 160, 45, 60),
    Speech("es", "es", "es+f1", "Buenos días, amigo. Vamos a comprar pan y mermelada para todo el mundo.", 165, 55, 60),
    Speech("it", "it", "it+m5", "Buongiorno! Prendo un caffè e una brioche, per favore.", 155, 50, 70),
    Speech("pl", "pl", "pl+f2", "Dobry wieczór! Pada śnieg, a my pijemy ciepłe kakao.", 155, 50, 60),
]


class _Value(C.Union):
    _fields_ = [("number", C.c_int), ("name", C.c_char_p), ("string", C.c_char*8)]


class _Event(C.Structure):  # espeak_EVENT of speak_lib.h
    _fields_ = [("type", C.c_int), ("uid", C.c_uint), ("text_position", C.c_int), ("length", C.c_int),
                ("audio_position", C.c_int), ("sample", C.c_int), ("user_data", C.c_void_p), ("id", _Value)]


_Callback = C.CFUNCTYPE(C.c_int, C.POINTER(C.c_short), C.c_int, C.POINTER(_Event))
PHONEME, SYNCHRONOUS, PHONEME_EVENTS_IPA, DONT_EXIT, UTF8 = 7, 2, 1 | 2, 0x8000, 1
RATE, PITCH, RANGE = 1, 3, 4


def load():
    "The espeak-ng library; exit with advice when there is none."
    for name in ("libespeak-ng.so.1", ctypes.util.find_library("espeak-ng")):
        try: lib = C.CDLL(name) if name else None
        except OSError: lib = None
        if lib: break
    else:
        print(__doc__.split("\n\n")[-1].strip(), file=sys.stderr)
        print("espeak-ng was not found; the clips that are already in data_samples/ need nothing.", file=sys.stderr)
        sys.exit(2)
    lib.espeak_Info.restype = C.c_char_p
    return lib


def data_folder() -> Path:
    "Where espeak-ng keeps its voices."
    lib, path = load(), C.c_char_p()
    lib.espeak_Initialize(SYNCHRONOUS, 0, None, DONT_EXIT)
    lib.espeak_Info(C.byref(path))
    return Path(path.value.decode())


def synthesize(clip: Speech, home: Path | None = None, seed: int = 1) -> tuple[np.ndarray, int, list[tuple[float, str]]]:
    "Samples, rate in Hz, and (start in s, IPA) of every phone; a pause has an empty name. `home` holds another espeak-ng-data."
    lib, wave, events = load(), [], []

    @_Callback
    def collect(samples, n, event):
        if n > 0 and samples: wave.append(np.ctypeslib.as_array(samples, (n,)).copy())
        i = 0
        while event and event[i].type:
            if event[i].type == PHONEME:
                name = C.string_at(C.addressof(event[i]) + _Event.id.offset, 8).split(b"\0")[0].decode("utf8", "ignore")
                events.append((event[i].audio_position/1000, name.strip()))
            i += 1
        return 0

    C.CDLL(None).srand(seed)  # breath and whisper draw from rand()
    rate = lib.espeak_Initialize(SYNCHRONOUS, 0, str(home).encode() if home else None, PHONEME_EVENTS_IPA | DONT_EXIT)
    lib.espeak_SetSynthCallback(collect)
    if lib.espeak_SetVoiceByName(clip.voice.encode()): sys.exit(f"{clip.name}: this espeak-ng has no voice {clip.voice!r}")
    for key, value in ((RATE, clip.rate), (PITCH, clip.pitch), (RANGE, clip.range)): lib.espeak_SetParameter(key, value, 0)
    text = clip.text.encode()
    lib.espeak_Synth(text, C.c_size_t(len(text) + 1), 0, 1, 0, UTF8, None, None)
    lib.espeak_Synchronize()
    return np.concatenate(wave).astype(np.float64)/32768, rate, events


def quiet_cells(wave: np.ndarray, rate: int) -> np.ndarray:
    "Are the 3 ms that end with each millisecond quiet?"
    edges = np.arange(int(len(wave)/rate*1000) + 1)*rate//1000
    power = np.convolve(np.add.reduceat(wave**2, edges[:-1])/np.diff(edges), np.ones(3)/3)
    return power < (QUIET*np.abs(wave).max())**2


def phones(events: list[tuple[float, str]], wave: np.ndarray, rate: int) -> list[list]:
    """Spans [start, end, IPA] in whole ms that tile the clip.

    espeak-ng dates a stop at its burst when silence comes before: the closure is left to the phone before, or to the pause.
    A mouth closes earlier. So the start of a stop walks back over that silence, at most 90 ms; out of a pause, which has
    no other end, by 70 ms (voiceless) or 50 ms (voiced). Silence of more than 130 ms inside a phone becomes a pause, and
    a gap of less than 60 ms belongs to the phone before it."""
    quiet, total = quiet_cells(wave, rate), int(len(wave)/rate*1000)
    spans = [[0, ""]]
    for t, name in events:
        t, name = min(round(t*1000), total), name.strip("-_|;:, ")
        if name and not re.search(r"[^\W_ʰ-ʸˠ-ˤːˑ]", name): spans[-1][1] += name  # a modifier alone
        else: spans.append([t, name])
    spans.append([total, ""])
    for before, now in zip(spans, spans[1:]):
        if now[1][:1] not in tuple(CLOSURE): continue
        if before[1]:
            least = max(before[0] + 20, now[0] - 90)  # the phone before keeps something
            start = now[0] - 2  # events are good to a millisecond or two
            while start > least and quiet[start - 1]: start -= 1
            if start < now[0] - 2: now[0] = start
        else: now[0] = max(before[0], now[0] - CLOSURE[now[1][0]])
    out = []
    for (a, name), (b, _) in zip(spans, spans[1:]):
        for c, d, label in split_silence(a, b, name, quiet):
            if out and label == "" and (out[-1][2] == "" or d - c < 60): out[-1][1] = d
            elif d > c: out.append([c, d, label])
    return out


def split_silence(a: int, b: int, name: str, quiet: np.ndarray) -> list[tuple[int, int, str]]:
    "A span, less silence at its end of more than 130 ms (closures and all, nothing voiced is so long and so still)."
    end = b
    while end > a and quiet[end - 1]: end -= 1
    return [(a, end, name), (end, b, "")] if name and b - end > 130 else [(a, b, name)]


def pink(n: int, seed: int) -> np.ndarray:
    "Noise with 3 dB less an octave, RMS 1."
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(n))
    f = np.arange(len(spectrum), dtype=float)
    noise = np.fft.irfft(np.where(f > 0, spectrum/np.sqrt(np.maximum(f, 1)), 0), n)
    return noise/np.sqrt(np.mean(noise**2))


def make(clip: Speech, version: str) -> tuple[Audio, dict]:
    "The sound and its record."
    with get_context("fork").Pool(1) as fresh: wave, rate, events = fresh.apply(synthesize, (clip,))  # no clip hears the one before
    wave = np.concatenate([np.zeros(round(LEAD*rate)), wave])
    spans = phones([(t + LEAD, name) for t, name in events], wave, rate)
    if spans[-1][2] == "": spans.pop()
    end = spans[-1][1]/1000
    wave = np.concatenate([wave[:round(end*rate)], np.zeros(round(TAIL*rate))])
    wave *= 0.7/np.abs(wave).max()
    if clip.snr_db is not None:
        spoken = np.concatenate([wave[a*rate//1000:b*rate//1000] for a, b, name in spans if name])
        wave += pink(len(wave), seed=0)*np.sqrt(np.mean(spoken**2))*10**(-clip.snr_db/20)
        wave *= 0.7/np.abs(wave).max()
    seconds = len(wave)/rate
    spans.append([spans[-1][1], int(seconds*1000), ""])
    record = dict(text=clip.text, language=clip.language, voice=clip.voice, rate_wpm=clip.rate, pitch=clip.pitch, pitch_range=clip.range,
                  noise=None if clip.snr_db is None else f"pink, {clip.snr_db:g} dB below the speech", seconds=round(seconds, 4),
                  generator="espeak-ng " + version, synthetic=True, licence="CC0-1.0",
                  phones=[[a/1000, b/1000, s] for a, b, s in spans])
    return Audio(torch.from_numpy(wave.astype(np.float32)), rate), record


def dump(record: dict) -> str:
    "JSON with one phone a line."
    head = json.dumps({k: v for k, v in record.items() if k != "phones"}, ensure_ascii=False, indent=1)[:-2]
    return head + ',\n "phones": [\n  ' + ",\n  ".join(json.dumps(p, ensure_ascii=False) for p in record["phones"]) + "\n ]\n}\n"


def table(records: dict[str, dict]) -> str:
    "The card's rows."
    rows = ["| files | what is spoken | voice | s |", "|---|---|---|---|"]
    for name, r in records.items():
        what = r["text"] + (f" *({r['noise']})*" if r["noise"] else "")
        rows.append(f"| `{name}.flac`, `{name}.json` | {what} | `{r['voice']}`, {r['rate_wpm']} words/min | {r['seconds']:.1f} |")
    return "\n".join(rows)


def main():
    version, records = load().espeak_Info(None).decode().split()[0], {}
    for clip in CLIPS:
        audio, record = make(clip, version)
        write_audio(HERE/f"{clip.name}.flac", audio)
        (HERE/f"{clip.name}.json").write_text(dump(record), encoding="utf-8")
        records[clip.name] = record
        print(f"{clip.name:12} {record['seconds']:5.2f} s  {(HERE/f'{clip.name}.flac').stat().st_size//1000:4} kB  {len(record['phones'])} phones")
    card = HERE/"README.md"
    if card.exists():
        begin, end = "<!-- speech: written by make_speech.py -->", "<!-- end of speech -->"
        head, _, rest = card.read_text(encoding="utf-8").partition(begin)
        card.write_text(f"{head}{begin}\n{table(records)}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


if __name__ == "__main__": main()
