"""Make the small encoder: hours of synthetic speech that nobody ever spoke, and the networks that learn from it.

    python data_samples/make_ears.py            # speech, both networks, data_samples/ears/*.safetensors; some 20 minutes on a free core
    python data_samples/make_ears.py --check    # and how they do on another synthesiser's speech (needs flite)

The speech is espeak-ng's (`apt-get install libespeak-ng1`): English in three accents and eight other languages, in some hundreds of
random voices (formants, breath, roughness, Klatt's synthesis), speeds and melodies, with the true time of every phone. Half of it is
heard in a made-up room, faster or slower, clipped. flite's voices (`apt-get install flite`) were made from real people's recordings:
they choose the recipe, nothing is trained on them.
"""
import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import make_speech
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.signal import fftconvolve, lfilter

from talkinglab.audio.encoders import Small
from talkinglab.audio.encoders_train import LEAD, Corpus, figures, judge, targets, train
from talkinglab.audio.features import features
from talkinglab.core.media import Audio, read_audio
from talkinglab.face.viseme import split_phone

HERE = Path(__file__).resolve().parent
ACCENTS = ["en-us"]*8 + ["en", "gmw/en-029"]
# An r has many places: in the throat (de, fr), a flap of the tongue (es, it, nl, pl, pt, sv), none after a vowel (British). What lips show differs
OTHER_R = dict(de="HH", fr="HH", es="D", it="D", nl="D", pl="D", pt="D", sv="D")
VARIANTS = ("m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 croak whisper klatt klatt2 klatt3 klatt4 Andy steph Lee Mario linda edward aunty "
            "grandma grandpa quincy rob Annie john max david norbert Gene victor").split()
MINUTES, BATCHES = 40, 4  # of speech from each batch of 150 random voices
WIDTH, STEPS = 80, 3000
# Sentences for the second synthesiser, none of which is in sentences.tsv
UNSEEN = """The boy left his old coat upon the kitchen chair.
It is late in the year, and the days are getting shorter.
A gentle wind moved across the water in the harbour.
She said that she would rather read than watch the screen.
Please remember to take your own umbrella and some warm gloves.
Higher than the clouds, a single engine could still be heard.
He sold five pounds of apples and half a dozen onions.
Why didn't you tell your friends that there was nothing to worry about?
The museum opens at half past nine, except on Thursdays.
Their little cousin has learned to count to a hundred in Greek.
I can't recall who it was that suggested the idea.
Such questions are easier to ask than they are to answer.
All the rest of the afternoon they walked along the edge of the lake.
A thin layer of snow covered the path that leads to the chapel.
When I looked again, the lights in the hall had gone out.
You and I both know how this is going to end.
Her husband was a tailor, and a rather good one too.
Three hours later, the kids were still awake and hungry.
The judge listened in silence to what the witness had to say.
Every child should get an equal chance at school.""".split("\n")


def wild_voice(r: random.Random) -> str:
    "An espeak-ng variant that no person has."
    throat, slope = r.uniform(.8, 1.26), r.uniform(-.45, .45)
    lines = ["language variant", f"name {r.random()}"]
    lines.append(f"pitch {r.randint(60, 110)} {r.randint(100, 170)}" if throat < 1.02 else f"pitch {r.randint(110, 170)} {r.randint(170, 300)}")
    for k in range(9):
        hz = throat*r.uniform(.9, 1.1) if k < 6 else 1
        height = max(.3, 1 + slope*(k - 3)/2.5)*r.uniform(.5, 1.7)
        lines.append(f"formant {k} {100*hz:.0f} {100*height:.0f} {r.randint(60, 280)}")
    if r.random() < .6: lines.append("breath " + " ".join(str(r.randint(0, 60)) for _ in range(8)))
    if r.random() < .5: lines.append("breathw " + " ".join(str(r.randint(120, 700)) for _ in range(8)))
    lines += [f"flutter {r.randint(0, 12)}", f"roughness {r.randint(0, 3)}", f"voicing {r.randint(60, 130)}",
              f"consonants {r.randint(50, 180)} {r.randint(50, 180)}"]
    if r.random() < .2: lines.append(f"klatt {r.randint(1, 4)}")
    return "\n".join(lines) + "\n"


def studio(folder: Path, r: random.Random, n: int = 150) -> Path:
    "A copy of espeak-ng's data with n voices more (it has room for 350)."
    data = make_speech.data_folder()
    home = folder/"espeak-ng-data"
    shutil.copytree(data, home, ignore=shutil.ignore_patterns("mb"))
    for family in (home/"lang").iterdir():
        if family.name not in ("gmw", "gmq", "roa", "zlw"): shutil.rmtree(family) if family.is_dir() else family.unlink()
    for i in range(n): (home/"voices"/"!v"/f"wild{i}").write_text(wild_voice(r))
    return folder


def sentences() -> dict[str, list[str]]:
    "Language -> sentences."
    said = {}
    for line in (HERE/"ears"/"sentences.tsv").read_text(encoding="utf-8").splitlines():
        language, text = line.split("\t")
        said.setdefault(language, []).append(text)
    return said


def something_said(r: random.Random, texts: dict, n: int) -> make_speech.Speech:
    "A random text in a random voice."
    language = "en" if r.random() < .8 else r.choice([k for k in texts if k != "en"])
    if r.random() < .25: text = " ".join(r.choice(r.choice(texts[language]).split()) for _ in range(r.randint(4, 14)))
    else: text = " ".join(r.choice(texts[language]) for _ in range(r.randint(1, 3)))
    variant = r.choice(VARIANTS) if r.random() < .25 else f"wild{r.randrange(150)}"
    voice = (r.choice(ACCENTS) if language == "en" else language) + ("+" + variant if r.random() < .97 else "")
    return make_speech.Speech(str(n), language, voice, text, r.randint(110, 260), r.randint(15, 80), r.randint(20, 90))


def room(wave: np.ndarray, rate: int, g: np.random.Generator) -> np.ndarray:
    "Early echoes and a tail that loses its treble, by convolution; then perhaps a clipped, tilted microphone."
    if g.random() < .7:
        seconds = g.uniform(.12, .8)
        t = np.arange(int(seconds*rate))/rate
        tail = lfilter([1 - (a := g.uniform(.1, .8))], [1, -a], g.standard_normal(len(t))*np.exp(-6.9*t/seconds))
        response = tail*g.uniform(.05, .5)/np.sqrt((tail**2).sum())
        for at in g.uniform(.002, .03, g.integers(2, 9)): response[int(at*rate)] += g.uniform(-.5, .5)
        response[0] = 1
        wave = fftconvolve(wave, response)[:len(wave)]
    if g.random() < .5: wave = lfilter([1, g.uniform(-.6, .6)], [1], wave)
    if g.random() < .3: wave = np.clip(wave, *(np.array([-1, 1])*g.uniform(.08, .5)*np.abs(wave).max()))
    return wave


def arpabet(spans: list, speech: make_speech.Speech) -> list:
    "[start ms, end ms, IPA] to [(start s, end s, PHONES)]; a label with several phones is cut in equal parts."
    out, british = [], speech.language == "en" and not speech.voice.startswith("en-us")
    for a, b, label in spans:
        try: names = split_phone(label, "ipa") if label else ("SIL",)
        except ValueError: names = out[-1][2:] if out else ("SIL",)  # a mark we do not know lengthens what was before
        step = (b - a)/len(names)
        for i, name in enumerate(names):
            if name == "R": name = OTHER_R.get(speech.language, name)
            if name == "ER" and (british or speech.language != "en"): name = "AH"
            out.append(((a + i*step)/1000, (a + (i + 1)*step)/1000, name))
    return out


def heard(wave: np.ndarray, rate: int, phones: list, lead: float = LEAD) -> tuple:
    "What `Corpus.of` takes: log-mel, phones, visemes."
    mel = features(Audio(torch.from_numpy(wave.astype(np.float32)), rate), 100, ("mel",)).x
    return (mel, *targets(phones, len(mel), lead))


def record(job: tuple[int, float]) -> list:
    "One batch of voices speaks for so many minutes."
    seed, minutes = job
    torch.set_num_threads(1)
    r, g, texts, out, seconds = random.Random(seed), np.random.default_rng(seed), sentences(), [], 0.
    with tempfile.TemporaryDirectory() as folder:
        home = studio(Path(folder), r)
        while seconds < 60*minutes:
            said = something_said(r, texts, len(out))
            wave, rate, events = make_speech.synthesize(said, home, seed=len(out))
            if len(wave) < rate: continue
            before = r.choice([0., .1, .3])
            wave = np.concatenate([np.zeros(round(before*rate)), wave, np.zeros(round(r.choice([0, .2])*rate))])
            phones = arpabet(make_speech.phones([(t + before, name) for t, name in events], wave, rate), said)
            if r.random() < .5:
                slow = r.choice([1., r.uniform(.85, 1.18)])  # tape speed: pitch, formants and time together
                wave = np.interp(np.arange(0, len(wave) - 1, 1/slow), np.arange(len(wave)), wave)
                phones = [(a*slow, b*slow, name) for a, b, name in phones]
                wave = room(wave, rate, g)
            out.append(heard(.1*wave/(np.sqrt(np.mean(wave**2)) + 1e-6), rate, phones))
            seconds += len(out[-1][0])/100
    return out


def speech(minutes: float = MINUTES, batches: int = BATCHES, seed: int = 0) -> Corpus:
    "The training corpus: `batches` times 150 voices, `minutes` each, on two processes."
    with get_context("fork").Pool(2) as pool:
        return Corpus.of([x for part in pool.map(record, [(1000*seed + i, minutes) for i in range(batches)], 1) for x in part])


def need_flite():
    "Exit with advice when there is no flite."
    if not shutil.which("flite"): sys.exit("flite was not found: apt-get install flite (Debian, Ubuntu), brew install flite (macOS); it judges only, making the weights needs none")


def other_synthesiser(seed: int = 9) -> Corpus:
    "flite's voices read sentences nobody read before; a third in a room, a third in noise. Labels as they stand, without our lead."
    need_flite()
    g, out = np.random.default_rng(seed), []
    with tempfile.TemporaryDirectory() as folder:
        for i, (voice, text) in enumerate((v, t) for v in ("awb", "rms", "slt", "kal16") for t in UNSEEN):
            path = Path(folder)/"a.wav"
            said = subprocess.run(["flite", "-voice", voice, "-psdur", "-o", str(path), "-t", text], capture_output=True, text=True, check=True).stdout
            audio, at, phones = read_audio(path), 0., []
            for name, end in re.findall(r"(\w+):([\d.]+)", said):
                phones.append((at, float(end), split_phone("SIL" if name == "pau" else name, "arpabet")[0]))
                at = float(end)
            wave = audio.samples.double().numpy()
            if i % 3 == 1: wave = room(wave, audio.rate, g)
            if i % 3 == 2: wave = wave + make_speech.pink(len(wave), i)*np.sqrt(np.mean(wave**2))*10**(-g.uniform(8, 25)/20)
            out.append(heard(.1*wave/np.sqrt(np.mean(wave**2)), audio.rate, phones, lead=0.))
    return Corpus.of(out)


def save(net: Small, path: Path, **note):
    "16-bit weights; what they are is written in the file."
    note = dict(width=net.embed.in_features, causal=net.causal, generator="data_samples/make_ears.py", synthetic=True, licence="CC0-1.0", **note)
    save_file({k: v.half().contiguous() for k, v in net.state_dict().items()}, path, {k: str(v) for k, v in note.items()})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=HERE/"ears", help="where the weights go (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="networks of each kind; more than one: NAME_seedN.safetensors")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of speech from each of %d batches of voices" % BATCHES)
    parser.add_argument("--corpus", type=Path, help="a file that keeps the speech for the next run")
    parser.add_argument("--check", action="store_true", help="judge on flite's voices too")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    began = time.time()
    if args.check: unseen = other_synthesiser()
    if args.corpus and args.corpus.exists(): corpus = Corpus(**load_file(args.corpus))
    else: corpus = speech(args.minutes)
    if args.corpus and not args.corpus.exists(): save_file(vars(corpus), args.corpus)
    print(f"{len(corpus.mel)/6000:.0f} minutes of speech in {len(corpus.starts)-1} recordings, {time.time()-began:.0f} s", flush=True)
    for seed in range(args.seeds):
        for kind in ("small", "small-causal"):
            began = time.time()
            torch.manual_seed(seed)
            net = train(Small(WIDTH, causal=kind == "small-causal"), corpus, args.steps, seed=seed)
            save(net, args.out/(f"{kind}_seed{seed}.safetensors" if args.seeds > 1 else f"{kind}.safetensors"), seed=seed, steps=args.steps, minutes=args.minutes*BATCHES)
            told = " ".join(f"{k} {v:.3f}" for k, v in figures(judge(net, unseen)).items()) if args.check else ""
            print(f"{kind} seed {seed}: {time.time()-began:.0f} s {told}", flush=True)


if __name__ == "__main__": main()
