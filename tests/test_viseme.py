"Phones to mouths: whoever wrote the names, lips meet at every b, in every style, at every frame rate, on real phone times."
import json
import random
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from talkinglab.core.assets import samples
from talkinglab.core.camera import orbit
from talkinglab.core.clip import Motion
from talkinglab.core.media import Audio, MediaError, read_audio
from talkinglab.face import viseme_tables as tables
from talkinglab.face.mesh import rasterize
from talkinglab.face.motion import mouth_opening
from talkinglab.face.rig import ARKIT, pose
from talkinglab.face.viseme import (PLAIN, STYLES, Style, check_lips, contact, guess_phones, mouth_curves, normalize_phone, normalize_phones, phone_frames,
                                    random_style, read_phones, rig_gain, score, split_phone, style_names)

JAW, CLOSE = ARKIT.index("jawOpen"), ARKIT.index("mouthClose")
TRANSCRIPTS = sorted(p for p in samples().glob("*.json") if p.stem != "en_noisy")
TEXTGRID = ('File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 0.3\ntiers? <exists>\nsize = 2\nitem []:\n    item [1]:\n        class = "IntervalTier"\n        name = "words"\n'
            '        xmin = 0\n        xmax = 0.3\n        intervals: size = 1\n        intervals [1]:\n            xmin = 0\n            xmax = 0.3\n            text = "say ""sue"" [2]"\n'
            '    item [2]:\n        class = "IntervalTier"\n        name = "phones"\n        xmin = 0\n        xmax = 0.3\n        intervals: size = 2\n'
            '        intervals [1]:\n            xmin = 0\n            xmax = 0.1\n            text = "S"\n        intervals [2]:\n            xmin = 0.1\n            xmax = 0.3\n            text = "UW1"\n')


@pytest.fixture(scope="module")
def head():
    from talkinglab.face.sculpt import sculpt_head
    return sculpt_head()


@pytest.fixture(scope="module")
def gap(head):
    "Phones to the lip gap of the procedural head, face heights."
    gain = rig_gain(head)

    def measure(phones, seconds, fps=25., style=Style()):  # noqa: B008
        return mouth_opening(head, Motion.still(mouth_curves(phones, seconds, fps, style, names=head.names, gain=gain), head.names, fps))
    return measure


def sentence(seed: int, n: int = 40, shortest: float = .02) -> list:
    "Any sounds in any order."
    r, at, out = random.Random(seed), .1, []
    for _ in range(n):
        d = r.uniform(shortest, .2)
        out.append((at, at+d, r.choice(["P", "B", "M", "F", "V", *tables.ARPABET])))
        at += d
    return out


# ---- Names and files

@pytest.mark.parametrize(("labels", "phone"), [("AA AA0 AA1 aa aa2 AA_B ɑ ɑː A:", "AA"), ("SH sh ʃ ɕ ʂ", "SH"), ("UW uː u yː ux u:", "UW"), ("CH tʃ t͡ʃ t͡ʃʰ ʧ tS", "CH"), ("ER ɝ ɚ ɜː 3:", "ER"),
                                                ("M m mː M_E", "M"), ("NG ŋ ŋ̊", "NG"), ("AY aɪ aj aI ˈaɪ", "AY"), ("SIL sil sp [SIL] <eps> <sil> pau H# (noise)", "SIL"), ("HH h hh", "HH")])
def test_one_sound_has_one_name(labels, phone): assert {normalize_phone(x) for x in labels.split()} == {phone}


def test_every_bundled_label_is_known_and_lips_keep_their_kind():
    for path in TRANSCRIPTS:
        for _, _, label in json.loads(path.read_text(encoding="utf-8"))["phones"]:
            got = split_phone(label) if label else ("SIL",)
            assert (label[:1] in "pbm" and bool(label)) == (got[0] in ("P", "B", "M")), label
            assert (label[:1] in "fv" and bool(label)) == (got[0] in ("F", "V")), label


def test_every_name_in_the_tables_leads_to_a_target():
    for name in (*tables.ARPABET, *tables.IPA, *tables.IPA_PAIRS, *tables.ESPEAK):
        for alphabet in ("arpabet", "ipa", "espeak"):
            try: found = split_phone(name, alphabet)
            except ValueError: continue
            assert all(p in tables.TARGETS or p in tables.DIPHTHONGS for p in found)
    for p, row in tables.TARGETS.items(): assert len(row) == len(tables.CHANNELS) == len(tables.rules()[p])


def test_x_and_q_are_sounds_wherever_an_alphabet_says_so():
    read = lambda labels: [p for _, _, p in normalize_phones([(i, i+1, x) for i, x in enumerate(labels.split())])]
    assert read("b a x q") == ["B", "AA", "K", "K"] and read("x ɔ q") == ["K", "AO", "K"]                # IPA: Bach, Qatar
    assert read("x u: Q") == ["K", "UW", "G"]                                                           # espeak-ng
    assert read("B AA Q X") == read("b aa q x") == ["B", "AA", "HH", "SIL"]                              # ARPAbet: a glottal stop, a pause
    assert read("AH ʃ x") == ["AH", "SH", "K"] and normalize_phone("X") == normalize_phone("x", "arpabet") == "SIL"
    assert tables.TARGETS[normalize_phone("cue X")] == tables.TARGETS["SIL"]                             # Rhubarb


def test_the_alphabet_is_the_transcripts_not_the_labels():
    read = lambda *labels: [p for _, _, p in normalize_phones([(i, i+1, x) for i, x in enumerate(labels)])]
    assert read("S", "T", "UW1") == ["S", "T", "UW"]
    assert read("S", "u:", "T") == ["SH", "UW", "TH"]
    assert read("s", "y", "ʃ") == ["S", "UW", "SH"] and read("s", "y", "ih") == ["S", "Y", "IH"]


@pytest.mark.parametrize("label", ["speech", "⚡", "1234", "hello world", "AA B", "ʘʘʘʘ", "cue Z"])
def test_an_unknown_label_is_named(label):
    with pytest.raises(ValueError, match="known"): mouth_curves([(0, .2, label)], 1)


@pytest.mark.parametrize(("phones", "words"), [([(.2, .1, "AA")], "0.2 to 0.1"), ([(0, float("inf"), "AA")], "inf"), ([(-1, .1, "AA")], "-1"), ([(0, .2, "AA"), (.1, .3, "B")], "begins at 0.1"),
                                               (["AA"], "needs"), ([(0, .1)], "needs"), ([(0, .1, 7)], "needs a text"), ([("a", "b", "AA")], "needs")])
def test_bad_times_say_which(phones, words):
    with pytest.raises(ValueError, match=words): mouth_curves(phones, 1)


def test_a_sound_without_length_is_refused():
    for seconds, fps in ((0, 25), (1, 0), (float("nan"), 25)):
        with pytest.raises(ValueError): mouth_curves([], seconds, fps)


FILES = {"long.TextGrid": TEXTGRID, "short.TextGrid": 'File type = "ooTextFile"\n"TextGrid"\n0\n0.3\n<exists>\n1\n"IntervalTier"\n"phones"\n0\n0.3\n2\n0\n0.1\n"S"\n0.1\n0.3\n"UW1"\n',
         "ours.json": '{"phones": [[0, 0.1, "S"], [0.1, 0.3, "UW1"]]}', "bare.json": '[[0, 0.1, "S"], [0.1, 0.3, "UW1"]]', "sphinx.json": '{"b":0,"d":0.3,"t":"sue","w":[{"b":0,"d":0.1,"t":"S"},{"b":0.1,"d":0.2,"t":"UW"}]}',
         "words.json": '[{"word":"sue","start":0,"end":0.3,"phones":[["S",0,0.1],["UW",0.1,0.3]]}]', "dicts.json": '[{"start":0,"end":0.1,"phone":"S"},{"start":0.1,"end":0.3,"phone":"UW"}]',
         "gentle.json": '{"words":[{"start":0,"end":0.3,"phones":[{"duration":0.1,"phone":"s_B"},{"duration":0.2,"phone":"uw_E"}]}]}',
         "mfa.json": '{"start":0,"end":0.3,"tiers":{"words":{"type":"interval","entries":[[0,0.3,"sue"]]},"phones":{"type":"interval","entries":[[0,0.1,"S"],[0.1,0.3,"UW1"]]}}}',
         "htk.lab": "0 1000000 s\n1000000 3000000 uw\n", "seconds.lab": "0.0 0.1 s\n0.1 0.3 uw\n", "hts.lab": "0 1000000 x^x-s+uw=x@1_2/A:0\n1000000 3000000 x^s-uw+x=x@2_1/A:0\n",
         "state.lab": "".join(f"{a} {b} {n}[{k}]\n" for a, b, n, k in ((0, 500000, "x^x-s+uw=x@1", 2), (500000, 1000000, "x^x-s+uw=x@1", 3), (1000000, 3000000, "x^s-uw+x=x@2", 2))),
         "festival.lab": "separator ;\n#\n0.1 26 s\n0.3 26 uw\n", "timit.phn": "0 1600 s\n1600 4800 ux\n", "ipa.json": '{"phones": [[0, 0.1, "s"], [0.1, 0.3, "uː"]]}'}


@pytest.mark.parametrize("name", FILES)
def test_every_format_tells_the_same(name, tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path/name).write_text(FILES[name], encoding=encoding)
        (a, b, s), (c, d, uw) = read_phones(tmp_path/name)
        assert (s, uw) == ("S", "UW") and [a, b, c, d] == pytest.approx([0, .1, .1, .3])


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_one_sentence(name, tmp_path):
    "Cut anywhere, or with bytes changed at random: phones, or a `MediaError` that names the file."
    whole, r = FILES[name].encode(), random.Random(name)
    for _ in range(60):
        x = bytearray(whole[:r.randrange(len(whole)+1)])
        for _ in range(r.randrange(4)):
            if x: x[r.randrange(len(x))] = r.randrange(256)
        (tmp_path/name).write_bytes(x)
        try: rows = read_phones(tmp_path/name)
        except MediaError as e:
            assert str(tmp_path/name) in str(e) and len(str(e).replace(str(tmp_path), "")) < 300
        else: assert rows and all(b > a >= 0 for a, b, _ in rows)


@pytest.mark.parametrize(("text", "words"), [("", "empty"), ("null", "line 1"), ("[]", "no phones"), ('{"segments": [{"words": []}]}', "needs an aligner"), ('{"mouthCues": [{"start":0,"end":1,"value":"Z"}]}', "cue Z"),
                                             ("["*100000, "nested|JSON"), ("0.0 0.5 speech\n", "speech"), ("hello\n", "line 1"), ('{"mouthCues": 7}', "shape")])
def test_what_is_no_transcript_says_so(text, words, tmp_path):
    (tmp_path/"x.lab").write_text(text)
    with pytest.raises(MediaError, match=words): read_phones(tmp_path/"x.lab")


@pytest.mark.parametrize("name", ["long.TextGrid", "short.TextGrid"])
@pytest.mark.parametrize("count", ["-1", "-2", "-3", "3", "1000000000", "9"*400])
def test_a_textgrid_holds_what_it_promises(name, count, tmp_path):
    "A wrong count is a sentence, not an endless loop."
    text = FILES[name].replace("intervals: size = 2", f"intervals: size = {count}").replace("0.3\n2\n", f"0.3\n{count}\n")
    assert text != FILES[name]
    (tmp_path/name).write_text(text)
    with pytest.raises(MediaError, match=r"'phones' promises \S+ intervals and holds up to 2"): read_phones(tmp_path/name)


def test_whole_numbers_in_a_lab_are_seconds_until_they_are_too_large(tmp_path):
    for text, ends in (("0 1 AA\n1 3 UW\n", [1, 3]), ("0 1 AA\n1 2.5 UW\n", [1, 2.5]), ("0 50000 AA\n50000 3000000 UW\n", [.005, .3]), ("0 5000 AA\n5000 1000000 UW\n", [.0005, .1])):
        (tmp_path/"x.lab").write_text(text)
        assert [b for _, b, _ in read_phones(tmp_path/"x.lab")] == pytest.approx(ends)


def test_a_missing_file_and_a_folder_say_so(tmp_path):
    for p in (tmp_path/"no.TextGrid", tmp_path):
        with pytest.raises(MediaError, match="cannot be read"): read_phones(p)


# ---- Movement

@pytest.mark.parametrize("fps", [12.5, 24, 25, 29.97, 60])
@pytest.mark.parametrize("seed", range(4))
def test_lips_meet_at_every_bilabial(fps, seed):
    "mouthClose equals jawOpen in a frame of every p, b, m, however short, whatever the style and the neighbours."
    phones = sentence(seed)
    style = [*STYLES.values(), random_style(torch.Generator().manual_seed(seed))][seed+2]
    w = mouth_curves(phones, phones[-1][1]+.1, fps, style)
    rows = normalize_phones(phones)
    for (_, _, p), frames in zip(rows, phone_frames(rows, len(w), fps), strict=True):
        if p in tables.BILABIAL: assert (w[frames.start:frames.stop, JAW]-w[frames.start:frames.stop, CLOSE]).abs().min() < 1e-5
    assert w.isfinite().all() and w.min() >= 0 and w.max() <= 1


def test_the_gate_is_open_in_one_frame_of_every_sound():
    s = score(sentence(9, shortest=.005), 6)
    for fps in (10, 25, 60):
        g = contact(s, (torch.arange(6*fps)+.5).double()/fps, fps, tables.BILABIAL)
        for i in s.is_in(tables.BILABIAL).nonzero()[:, 0].tolist(): assert g[int((s.start[i]+s.end[i])/2*fps)] == 1


def test_silence_is_a_mouth_at_rest():
    for phones in ([], [(0, 60, "SIL")], [(0, 2, "sp"), (3, 4, "")]): assert mouth_curves(phones, 60, style=Style(smile=0.)).abs().max() < 1e-6


def test_time_shifts_with_the_phones():
    phones = sentence(1)
    a, b = mouth_curves(phones, 8), mouth_curves([(s+2, e+2, p) for s, e, p in phones], 10)
    torch.testing.assert_close(a, b[50:], atol=1e-5, rtol=0)


def test_far_away_nothing_changes_and_no_length_is_too_long():
    a, b = sentence(2), [(s+30, e+30, p) for s, e, p in sentence(3)]
    long = mouth_curves([*a, *b], 3600)
    assert len(long) == 90000 and long.isfinite().all()
    torch.testing.assert_close(long[:200], mouth_curves(a, 8), atol=1e-5, rtol=0)


def test_names_choose_and_order_the_columns():
    phones = sentence(4)
    w = mouth_curves(phones, 5)
    torch.testing.assert_close(mouth_curves(phones, 5, names=("jawOpen", "nonsense", "mouthClose")), torch.stack([w[:, JAW], 0*w[:, 0], w[:, CLOSE]], 1))


def test_rounding_comes_before_the_round_vowel_and_leaves_sooner():
    say = lambda *p: [(.3+.1*i, .4+.1*i, x) for i, x in enumerate(p)]
    pucker = lambda p: (lambda w: w[:, ARKIT.index("mouthPucker")]+w[:, ARKIT.index("mouthFunnel")])(mouth_curves(p, 1.2, 100))
    oo, ee = pucker(say("S", "T", "UW", "T", "S")), pucker(say("S", "T", "IY", "T", "S"))
    middle = 55-2                                                   # the lips lead
    assert oo[40] > .3 > .05 > ee.max() and oo[middle-15] > oo[middle+15]


def test_mirrored_asymmetry_is_a_mirrored_face():
    phones = sentence(5)
    a, b = (mouth_curves(phones, 6, style=Style(asymmetry=x)) for x in (.6, -.6))
    swap = [ARKIT.index(n.replace("Left", "#").replace("Right", "Left").replace("#", "Right")) for n in ARKIT]
    torch.testing.assert_close(a, b[:, swap])


def test_more_jaw_opens_more_and_crisper_moves_more():
    phones = read_phones(samples("lesson.json"))
    opened = [mouth_curves(phones, 11, style=Style(jaw=k))[:, JAW].mean() for k in (.3, .7, 1, 1.4, 1.8)]
    moved = [mouth_curves(phones, 11, style=Style(crispness=k)).diff(dim=0).abs().sum() for k in (.4, .7, 1, 1.4, 2)]
    assert all(a < b for a, b in pairwise(opened)) and all(a < b for a, b in pairwise(moved))


def test_a_style_is_its_vector():
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        s = random_style(g)
        back = Style.from_vector(s.vector())
        torch.testing.assert_close(back.vector(), s.vector())
    assert len(style_names) == len(Style().vector()) == 10 and len(STYLES) == 6 and STYLES["neutral"] == Style()
    for name in style_names:
        with pytest.raises(ValueError, match=name): Style(**{name: 99.})
        with pytest.raises(ValueError, match=name): Style(**{name: float("nan")})
    with pytest.raises(ValueError, match="9 numbers"): Style.from_vector(torch.zeros(9))


def test_a_linear_probe_tells_the_styles_on_sentences_it_never_heard():
    "Leave one sentence out, windows of four seconds, mean and spread of every curve."
    def habits(path, style):
        phones = read_phones(path)
        w = mouth_curves(phones, phones[-1][1], style=style)
        return [torch.cat([x.mean(0), x.std(0)]) for x in (w[i:i+100] for i in range(0, max(1, len(w)-99), 25))]
    rows = [(k, i, h) for k, path in enumerate(TRANSCRIPTS) for i, s in enumerate(STYLES.values()) for h in habits(path, s)]
    of, y, x = torch.tensor([r[0] for r in rows]), torch.tensor([r[1] for r in rows]), torch.stack([r[2] for r in rows])
    right = 0
    for k in range(len(TRANSCRIPTS)):
        train = of != k
        z = torch.cat([(x-x[train].mean(0))/(x[train].std(0)+1e-3), torch.ones(len(x), 1)], 1)
        probe = torch.linalg.solve(z[train].T@z[train]+torch.eye(z.shape[1]), z[train].T@torch.nn.functional.one_hot(y[train], 6).float())
        right += int(((z[~train]@probe).argmax(1) == y[~train]).sum())
    assert right/len(rows) > .95, f"{right} of {len(rows)}"


# ---- On heads

def test_the_stored_gain_is_the_procedural_heads(head):
    "If the head was changed: write what is measured into viseme_tables.PLAIN."
    now, stored = rig_gain(head), PLAIN
    for name, x in vars(now).items(): assert x == pytest.approx(getattr(stored, name), rel=.1, abs=.004), f"measured: {now}"


def classes(gap, transcripts, fps=25., style=Style()):  # noqa: B008
    "Medians over several recordings, as `check_lips` gives them for one."
    rows, parts, at = [], [], 0.
    for phones in transcripts:
        seconds = phones[-1][1]
        g = gap(phones, seconds, fps, style)
        parts.append(g)
        rows += [(a+at, b+at, p) for a, b, p in phones]
        at += len(g)/fps
    return check_lips(rows, torch.cat(parts), fps)


@pytest.mark.parametrize("style", STYLES)
def test_bundled_sentences_close_touch_and_open(gap, style):
    f = classes(gap, [read_phones(p) for p in TRANSCRIPTS], style=STYLES[style])
    assert f["closed"] == 1 and f["open"] > 5*f["bilabial"] and 1.5*f["bilabial"] < f["labiodental"] < f["open"]/1.5, f


def closures(head, styles, step=1):
    "Expressions of the frames in which lips are shut, over the bundled sentences."
    rows, gain = [], rig_gain(head)
    for style in styles:
        for path in TRANSCRIPTS[::step]:
            phones = read_phones(path)
            w = mouth_curves(phones, phones[-1][1], style=style, names=head.names, gain=gain)
            gate = contact(score(phones, phones[-1][1]), (torch.arange(len(w))+.5).double()/25, 25, tables.BILABIAL, style)
            rows += [w[max(f, key=lambda i: gate[i].item())] for f, (_, _, p) in zip(phone_frames(phones, len(w), 25), phones, strict=True) if p in tables.BILABIAL]  # noqa: B023
    return torch.stack(rows)


@pytest.mark.parametrize("style", [*STYLES.values(), Style(asymmetry=-1., spread=2., jaw=1.8), Style(asymmetry=1., rounding=0.)], ids=[*STYLES, "left", "right"])
def test_lips_that_meet_hide_the_mouth(head, style):
    "From the front and from the side: at 256 x 256 samples of a 7 cm square nothing behind the lips is seen."
    inside = head.part("mouth", "teeth", "tongue")[head.faces[:, 0]]
    cameras = [orbit(yaw, fov=4., target=(0., -.066, .08), width=64, height=64) for yaw in (0., 16., 30.)]
    for v in pose(head, closures(head, [style], step=3)):
        for camera in cameras:
            face = rasterize(v, head.faces, camera, 4).face
            assert not inside[face[face >= 0].long()].any()


def jaw_only(head):
    "A head that has a jaw and shut lips, and no other muscle."
    still = torch.tensor([n not in ("jawOpen", "mouthClose") for n in head.names])
    return replace(head, basis=head.basis.masked_fill(still[:, None, None], 0), swing=head.swing.masked_fill(still[:, None], 0))


def test_a_head_with_nothing_but_a_jaw_speaks_and_closes(head):
    bare = jaw_only(head)
    gain = rig_gain(bare)
    assert gain.lower == gain.upper == gain.tuck == 0
    phones = sentence(6)
    assert mouth_curves(phones, 8, names=bare.names, gain=gain).isfinite().all()
    measure = lambda p, seconds, fps, style: mouth_opening(bare, Motion.still(mouth_curves(p, seconds, fps, style, bare.names, gain), bare.names, fps))
    f = classes(measure, [read_phones(p) for p in TRANSCRIPTS])
    assert f["closed"] == 1 and f["bilabial"] < 1.5*HUMAN["bilabial"] and f["open"] > 5*f["bilabial"], f
    w = closures(bare, [Style()], step=4)
    assert (w[:, JAW]-w[:, CLOSE]).abs().max() < 1e-5 and w[:, ARKIT.index("mouthLowerDownLeft")].max() == 0


REAL = {"librivox": ("speech_librivox_aligned", "*.json"), "librispeech": ("speech_librispeech", "*.TextGrid"), "rhubarb": ("rhubarb_cues", "*.json"), "arctic": ("speech_cmu_arctic", "*phone.lab"), "jfk": ("speech_jfk", "*.json")}
HUMAN = {"bilabial": tables.TOUCH, "labiodental": .0197, "open": .066} # Medians of real people (GRID), face heights


@pytest.mark.parametrize("source", REAL)
def test_real_phone_times_move_the_lips_as_people_do(shared, gap, source):
    folder, pattern = REAL[source]
    f = classes(gap, [read_phones(p) for p in sorted((shared/folder).glob(pattern))])
    assert f["count"] and f["closed"] >= .95 and f["open"] >= 5*f["bilabial"] and f["bilabial"] < f["labiodental"] < f["open"], f


def test_neutral_speech_is_within_a_factor_of_a_real_persons(shared, gap):
    "All real phone times together."
    f = classes(gap, [read_phones(p) for folder, pattern in REAL.values() for p in sorted((shared/folder).glob(pattern))])
    for name, x in HUMAN.items(): assert x/1.5 <= f[name] <= 1.5*x, f"{name}: {f[name]:.4f}, a person {x}; all: {f}"


@pytest.mark.parametrize("name", ["ict", "makehuman"])
def test_other_heads_close_touch_and_open_with_their_own_gain(shared, name):
    from talkinglab.face import rig as rigs
    path = next((shared/{"ict": "ict_facekit", "makehuman": "makehuman_head"}[name]).glob("*.npz"))
    other = getattr(rigs, f"load_{name}")(path)
    gain = rig_gain(other)
    measure = lambda phones, seconds, fps, style: mouth_opening(other, Motion.still(mouth_curves(phones, seconds, fps, style, other.names, gain), other.names, fps))
    f = classes(measure, [read_phones(p) for p in TRANSCRIPTS])
    assert f["closed"] >= .95 and f["open"] >= 5*f["bilabial"] and f["bilabial"] < f["labiodental"] < f["open"], f


def test_every_style_closes_on_real_phone_times(shared, gap):
    phones = read_phones(next((shared/"speech_librispeech").glob("*.TextGrid")))
    for style in STYLES.values(): assert classes(gap, [phones], style=style)["closed"] == 1


# ---- The guess

def test_a_guess_has_no_holes_and_hears_silence_as_silence():
    for audio in (read_audio(samples("en_quick.flac")), read_audio(samples("en_whisper.flac")), Audio(torch.randn(300, generator=torch.Generator().manual_seed(0)), 16000), Audio(torch.ones(1), 8000)):
        g = guess_phones(audio)
        assert g[0][0] == 0 and all(a[1] == b[0] for a, b in pairwise(g)) and abs(g[-1][1]-audio.seconds) < .02
        assert mouth_curves(g, audio.seconds).isfinite().all()
    for x in (torch.zeros(32000), torch.full((32000,), .3), torch.randn(32000, generator=torch.Generator().manual_seed(1))*1e-4):
        assert {p for _, _, p in guess_phones(Audio(x, 16000))} == {"SIL"}


def test_a_guess_opens_where_people_do():
    "Better than nothing, and no more is promised: the gap that the curves would make on the procedural head."
    g, r = PLAIN, []
    make = {"jawOpen": g.jaw, "mouthClose": -g.jaw, "mouthLowerDownLeft": g.lower, "mouthUpperUpLeft": g.upper, "mouthFunnel": g.funnel, "mouthRollLower": g.tuck}
    for path in TRANSCRIPTS:
        audio = read_audio(path.with_suffix(".flac"))
        a, b = (mouth_curves(p, audio.seconds, names=tuple(make))@torch.tensor([*make.values()]) for p in (guess_phones(audio), read_phones(path)))
        r.append(torch.corrcoef(torch.stack([a, b]))[0, 1].item())
    assert sum(r)/len(r) > .4, r
