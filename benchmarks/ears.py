"""The small encoder on real speech that it never heard, beside what loudness and one row of a spectrum can tell; its speed, its look-ahead, and the worst of sounds.

    python benchmarks/ears.py [--data ../shared/data] [--weights data_samples/ears]       # benchmarks/results/ears.json

Everything is judged at 25 frames a second as `audio/encoders_train.py` says (`rows`, `figures`), with 95 % intervals from a bootstrap over stretches of one second.
Real: LibriVox, LibriSpeech (MFA), CMU Arctic and JFK; 37 s, and their labels are forced alignments themselves. Second: another synthesiser, by which the recipe was
chosen; `predicted` says how well it foretold the real figures. Baselines learn from freshly made speech (needs espeak-ng). Weights: NAME_seed0.safetensors and so on,
or one NAME.safetensors; the seed that is shipped is 0. Parts whose data are absent are left out, and said so.
"""
import argparse
import importlib
import json
import math
import shutil
import sys
import time
from pathlib import Path

import torch
from report import RESULTS, ROOT, keep, where
from safetensors.torch import load_file, save_file
from torch import nn

from talkinglab.audio.encoders import PHONES, VISEMES, EncoderStream, Heard, Small, SmallEncoder, clip_mean, encode, load_small
from talkinglab.audio.encoders_train import Corpus, OneFrame, answers, figures, gap_curve, intervals, join, rows, targets
from talkinglab.audio.features import RATE, features
from talkinglab.core.assets import samples
from talkinglab.core.media import Audio, MediaError, read_audio

AIM = dict(accuracy=.62, in_speech=.55, bilabial_f1=.65, bilabial_f1_near=.75, gap_r=.80)
SKETCH = dict(accuracy=.54, in_speech=.45, bilabial_f1=.50, bilabial_f1_near=.60, gap_r=.73) # What the first sketch reached on the same clips, chosen on them
SYNC_AIM = dict(actor_found=.95, grid_found=.80, grid_pairs_d=.95)
PBM = VISEMES.index("PBM")


# What is heard: a list of (name, log-mel "t 80", viseme of every 10 ms "t")

def real(data):
    "Recordings of people with phone times."
    from talkinglab.face.viseme import read_phones
    found = [(p.with_suffix("").with_suffix(".wav"), p) for p in sorted((data/"speech_librivox_aligned").glob("*.phone.json"))]
    found += [(data/"speech_librispeech/5703-47212-0000.hq.ogg", data/"speech_librispeech/libri1_first8s_mfa.TextGrid"),
              (data/"speech_cmu_arctic/arctic_a0009.wav", data/"speech_cmu_arctic/arctic_a0009_phone.lab"),
              (data/"speech_jfk/jfk.flac", data/"speech_jfk/jfk_phones_pocketsphinx.json")]
    out = []
    for sound, labels in found:
        if not (sound.is_file() and labels.is_file()): continue
        audio, phones = read_audio(sound), read_phones(labels)
        end = round(min(audio.seconds, phones[-1][1])*audio.rate) # what was aligned
        mel = features(Audio(audio.samples[:end], audio.rate), 100, ("mel",)).x
        out.append((sound.stem, mel, targets(phones, len(mel))[1]))
    return out

def kept(path, make):
    "A corpus from its file (as make_ears.py --corpus keeps it), or made now, and kept if there is a path."
    if path and path.is_file(): return Corpus(**load_file(path))
    corpus = make()
    if path: save_file(vars(corpus), path)
    return corpus

def second(path):
    "Another synthesiser's speech; needs flite."
    if not (path and path.is_file()) and not shutil.which("flite"): return []
    return [(str(i), mel, visemes) for i, (mel, _, visemes) in enumerate(kept(path, maker().other_synthesiser).recordings())]

def maker(name="make_ears"):
    "The script that makes the training speech, or the judge of lip sync."
    if str(ROOT/"data_samples") not in sys.path: sys.path.insert(0, str(ROOT/"data_samples"))
    return importlib.import_module(name)

def contents(clips):
    "How much there is to judge by."
    r = join([rows(torch.zeros(len(v)//4, 12), torch.zeros(len(v)//4), v) for _, _, v in clips])
    return dict(clips=len(clips), frames=len(r["true"]), bilabial_frames=int((r["true"] == PBM).sum()), closures=int(r["event"].sum()),
                shares={v: round((r["true"] == i).float().mean().item(), 3) for i, v in enumerate(VISEMES)})


# Who answers: `normalize` and a call, as `Small` has them

class Majority:
    "Says the commonest class, and the mean gap, whatever it hears."
    def __init__(self, corpus):
        self.shares = torch.bincount(corpus.visemes.long(), minlength=12)/len(corpus.visemes)
        self.gap = gap_curve(corpus.visemes.long()[None])[0].mean()
    def normalize(self, x): return x
    def __call__(self, x):
        b, t = x.shape[0], x.shape[1]//2
        return Heard(None, self.shares.clamp_min(1e-6).log().expand(b, t, 12), self.gap.expand(b, t), None)

def disguised(corpus, batches=60, seed=0):
    "Log-mel `b t 80`, and of every 20 ms viseme and gap: what the networks learn from."
    heard = [corpus.batch(torch.Generator().manual_seed(1000*seed+i)) for i in range(batches)]
    x, seen = torch.cat([x for x, _, _ in heard]), torch.cat([v for _, _, v in heard])
    return x, seen[:, ::2].flatten(), gap_curve(seen).unflatten(1, (-1, 2)).mean(2).flatten()

class Loudness:
    "The loudness of every 20 ms, compared with the clip's own, in 24 levels; of each level the class shares and the mean gap."
    def __init__(self, x, seen, gap, levels=24):
        loud = self.normalize(x).flatten()
        self.edges = loud[::7].quantile(torch.linspace(0, 1, levels+1)[1:-1])
        level = torch.bucketize(loud, self.edges)
        count = torch.zeros(levels, 12).index_put_((level, seen), torch.ones(len(seen)), accumulate=True)+1e-3
        self.log_shares = (count/count.sum(1, keepdim=True)).log()
        self.gaps = torch.zeros(levels).index_put_((level,), gap, accumulate=True)/torch.bincount(level, minlength=levels).clamp_min(1)
    def normalize(self, x):
        loud = x.unflatten(1, (-1, 2)).logsumexp((2, 3))
        return loud-clip_mean(loud[..., None], -100.)[..., 0]
    def __call__(self, loud):
        level = torch.bucketize(loud, self.edges)
        return Heard(None, self.log_shares[level], self.gaps[level], None)

def linear(x, seen, gap, steps=100):
    "One row of 10 ms and one matrix: what a spectrum tells without its neighbours. Cross-entropy and least squares, to the bottom."
    net = OneFrame()
    rows = nn.functional.pad(net.normalize(x)[:, ::2].flatten(0, 1), (0, 1), value=1.)
    classes = torch.zeros(81, 12, requires_grad=True)
    search = torch.optim.LBFGS([classes], max_iter=steps, line_search_fn="strong_wolfe")
    def again():
        search.zero_grad()
        loss = nn.functional.cross_entropy(rows@classes, seen)
        loss.backward()
        return loss
    search.step(again)
    found = torch.cat([torch.zeros(81, len(PHONES)), classes.detach(), torch.linalg.lstsq(rows, gap[:, None]).solution], 1)
    net.heads.weight.data, net.heads.bias.data = found[:-1].T.contiguous(), found[-1]
    return net.eval()

def baselines(path, minutes=20, batches=60, seed=0):
    "Learned from the training speech, or some minutes made anew, in the same disguises as the networks."
    corpus = kept(path, lambda: maker().speech(minutes/2, 2, seed))
    heard = disguised(corpus, batches, seed)
    return dict(majority=[Majority(corpus)], loudness=[Loudness(*heard)], linear=[linear(*heard)])

def networks(folder)->dict[str, list[Small]]:
    "Name -> the networks of its seeds."
    found = {}
    for name in ("small", "small-causal"):
        paths = sorted(folder.glob(f"{name}_seed*.safetensors")) or [p for p in [folder/f"{name}.safetensors"] if p.is_file()]
        if paths: found[name] = [load_small(str(p)) for p in paths]
    return found


# Figures

def table(systems, clips, times=1000):
    "Each system's figures on the clips: the mean over its seeds, the interval, and each seed."
    rounded, out = lambda d: {k: round(v, 3) for k, v in d.items()}, {}
    for name, nets in systems.items():
        parts = [[rows(*answers(net, mel), visemes) for _, mel, visemes in clips] for net in nets]
        joined = [join(p) for p in parts]
        each = [figures(r) for r in joined]
        out[name] = dict(rounded({k: sum(f[k] for f in each)/len(each) for k in each[0]}), interval={k: [round(a, 3), round(b, 3)] for k, (a, b) in intervals(joined, times=times).items()}, seeds=[rounded(f) for f in each])
        said, true = joined[0]["said"], joined[0]["true"]
        out[name]["class_f1"] = {v: round((2*((said == i) & (true == i)).sum()/((said == i).sum()+(true == i).sum()).clamp_min(1)).item(), 3) for i, v in enumerate(VISEMES)}
        if len(clips) < 10: out[name]["clips"] = {clip: {k: round(figures(r)[k], 3) for k in ("accuracy", "gap_r")} for (clip, _, _), r in zip(clips, parts[0])}
    return out

def predicted(second, real):
    "What the second synthetic set foretold: real less second, mean over the networks' seeds; and does it put all systems in the same order (Spearman)?"
    runs = [(name, a, b) for name in second if name in real for a, b in zip(second[name]["seeds"], real[name]["seeds"])]
    rank = lambda x: ((x := torch.tensor(x))[:, None] > x).sum(1)+.5*(x[:, None] == x).sum(1)
    out = {}
    for k in AIM:
        off = [b[k]-a[k] for name, a, b in runs if name.startswith("small")]
        order = torch.corrcoef(torch.stack([rank([a[k] for _, a, _ in runs]), rank([b[k] for _, _, b in runs])]))[0, 1].item() if len(runs) > 2 else math.nan
        out[k] = dict(real_less_second=round(sum(off)/max(1, len(off)), 3), worst=round(max(off, key=abs, default=0), 3), order=round(order, 3))
    return out


def speed(nets, seconds=60, threads=2):
    "Seconds for a minute of sound, whole; and ms of work for each 40 ms that come in live."
    before, found = torch.get_num_threads(), {}
    torch.set_num_threads(threads)
    x = read_audio(samples("lesson.flac"))
    audio = Audio(x.samples.repeat(math.ceil(seconds/x.seconds))[:seconds*x.rate], x.rate)
    for name, net in nets.items():
        best = min(timed(lambda: encode(audio, SmallEncoder(net))) for _ in range(4))
        found[name] = dict(seconds_for_a_minute=round(best, 3), rate=audio.rate)
        if net.causal:
            stream, live = EncoderStream(net), x.resample(RATE).samples[:10*RATE]
            spent = [timed(lambda block=block: stream.push(block)) for block in live.split(RATE//25)]
            found[name]["ms_a_frame_live"] = dict(mean=round(1e3*sum(spent)/len(spent), 2), worst=round(1e3*max(spent[25:]), 2))
    torch.set_num_threads(before)
    return dict(threads=threads, **found)

def timed(f):
    t = time.perf_counter()
    f()
    return time.perf_counter()-t

def look_ahead(net, fps=25, span=(3., 3.2), step=.001, seconds=5):
    """How much sound after its frame's end a row hears, ms: the sound is changed from an instant on, and the first row that changes is found.

    `waits`: how long after the end of its frame a row comes out, when sound comes a millisecond at a time."""
    x = read_audio(samples("lesson.flac")).resample(RATE).samples[:seconds*RATE]
    noise, heard = .1*torch.randn(len(x), generator=torch.Generator().manual_seed(0)), []
    ask = lambda y: encode(Audio(y, RATE), SmallEncoder(net), fps).x
    usual = ask(x)
    for k in range(round((span[1]-span[0])/step)):
        at = span[0]+k*step
        changed = ask(torch.where(torch.arange(len(x)) < round(at*RATE), x, noise))
        first = int(((changed-usual).abs().amax(1) > 1e-5).float().argmax())
        heard.append(1e3*(at-(first+1)/fps))
    out = dict(hears_ms=round(max(heard), 1))
    if net.causal:
        stream, given, late = EncoderStream(net, fps), 0, []
        for i, block in enumerate(x[:round(span[0]*RATE)].split(RATE//1000)):
            for _ in stream.push(block):
                given += 1
                late.append((i+1)-1e3*given/fps)
        out["waits_ms"] = round(max(late), 1)
    return out


def hard_sounds():
    "Name -> sound: `plain` is a synthetic voice, the others that voice maltreated, or nobody."
    x = read_audio(samples("lesson.flac")).resample(RATE).samples[:8*RATE]
    g, t = torch.Generator().manual_seed(0), torch.arange(len(x))/RATE
    chord = sum(torch.sin(2*math.pi*hz*t*k)/k for hz in (220, 277.2, 329.6) for k in (1, 2, 3, 4))
    beat = torch.exp(-6*(t % .5))
    return dict(plain=x, clipped=(x*10/x.abs().max()).clamp(-1, 1), offset=x+.5, faint=x/1000, noise_20_db=x+x.std()*.1*torch.randn(len(x), generator=g),
                silence=torch.zeros(len(x)), room=1e-3*torch.randn(len(x), generator=g), music=.1*chord*beat, one_sample=torch.ones(1))

def robust(nets):
    "Is everything finite, are lips closed where nobody speaks, and how much of the plain voice's classes and gap remain?"
    found = {}
    for name, net in nets.items():
        plain = None
        found[name] = {}
        for kind, x in hard_sounds().items():
            f = encode(Audio(x, RATE), SmallEncoder(net))
            plain = plain or f
            row = dict(finite=bool(f.x.isfinite().all()), gap_mean=round(f["gap"].mean().item(), 3), gap_max=round(f["gap"].max().item(), 3),
                       rest=round((f["visemes"].argmax(1) <= PBM).float().mean().item(), 3)) # Share of silence, p, b and m
            if len(f) == len(plain) and kind not in ("silence", "room", "music"):
                row |= dict(same_class=round((f["visemes"].argmax(1) == plain["visemes"].argmax(1)).float().mean().item(), 3),
                            gap_r=round(torch.corrcoef(torch.stack([f["gap"], plain["gap"]]))[0, 1].item(), 3))
            found[name][kind] = row
    return found


def sync(data):
    """The judge of lip sync (chapter 38), examined by its own script: held-out actors, and real faces where there are any. Shares, with intervals over windows.

    `found`: the sound shifted by -8 to 8 frames, found within one; `loudness`: the same by correlating loudness with lip gap; `pairs_d`: its own sound against
    another window's has the lower distance; `pairs_c`: stands out more."""
    if not (ROOT/"data_samples"/"make_sync.py").is_file(): return "data_samples/make_sync.py is not there"
    from talkinglab.face.sync import load_expert
    from talkinglab.face.sync_train import examine
    script, out = maker("make_sync"), {}
    try: expert = load_expert()
    except (MediaError, FileNotFoundError): return "data_samples/sync has no weights: data_samples/make_sync.py makes them"
    tests = {f"actor_{head}": clips for head, clips in script.strangers(data).items()} if shutil.which("flite") else {}
    if (data/"grid_s1").is_dir(): tests["grid"] = script.grid(data/"grid_s1")
    for name, clips in tests.items():
        f = examine(expert, clips)
        each = torch.tensor([[found, *pairs] for found, pairs in zip(f["found_by_window"], f["pairs_by_window"])])
        draws = torch.randint(len(each), (1000, len(each)), generator=torch.Generator().manual_seed(0))
        low, high = each[draws].mean(1).quantile(torch.tensor([.025, .975]), 0)
        out[name] = dict({k: round(f[k], 3) for k in ("windows", "found", "loudness", "pairs", "pairs_d", "pairs_c", "lse_d", "lse_c")},
                         interval={k: [round(low[i].item(), 3), round(high[i].item(), 3)] for i, k in enumerate(("found", "pairs_d", "pairs_c"))})
    return dict(aim=SYNC_AIM, **out)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, default=ROOT.parent/"shared"/"data", help="real recordings; what is absent is left out")
    p.add_argument("--weights", type=Path, default=ROOT/"data_samples"/"ears", help="folder of small_seed0.safetensors, small-causal_seed0.safetensors, ...")
    p.add_argument("--second", type=Path, help="a file that keeps the second synthetic set for the next run")
    p.add_argument("--corpus", type=Path, help="the training speech that make_ears.py --corpus kept; else 20 minutes are made for the baselines")
    p.add_argument("--without", nargs="*", default=[], choices=("real", "second", "baselines", "speed", "look_ahead", "robust", "sync"))
    a = p.parse_args()
    old = json.loads((RESULTS/"ears.json").read_text()) if (RESULTS/"ears.json").is_file() else {}
    nets = networks(a.weights)
    first = {name: seeds[0] for name, seeds in nets.items()}
    result = dict(**where(), seeds={name: len(seeds) for name, seeds in nets.items()}, aim=AIM, sketch=SKETCH)
    systems = (baselines(a.corpus) if "baselines" not in a.without else {})|nets
    def judged(clips, why): return dict(contents(clips), systems=table(systems, clips)) if clips else why
    parts = dict(real=lambda: judged(real(a.data), f"{a.data} holds no recordings with phone times"), second=lambda: judged(second(a.second), "flite is not installed"),
                 speed=lambda: speed(first),
                 look_ahead=lambda: {name: look_ahead(net) for name, net in first.items() if net.causal}, robust=lambda: robust(first), sync=lambda: sync(a.data))
    for name, run in parts.items():
        if name not in a.without: result[name] = run()
        elif name in old: result |= {name: old[name], "kept": result.get("kept", {})|{name: old.get("kept", {}).get(name, old["commit"])}} # the last figures, and whose they are
        print(name, json.dumps(result.get(name)), flush=True)
    if all(isinstance(result.get(k), dict) for k in ("real", "second")): result["predicted"] = predicted(*(result[k]["systems"] for k in ("second", "real")))
    keep("ears", result)


if __name__ == "__main__": main()
