"""What the mouth does for each sound, and what each sound is called.

Lengths are *face heights*: distance of the inner lips' mid-points over forehead to chin. Real people, filmed at 25 Hz (GRID corpus,
MediaPipe points 13-14 over 10-152), have medians of .0045 in p, b, m; .0197 in f, v; .066 in open vowels. The order of the vowels
is that of the IPA chart (height, rounding); the scale is set by those three medians.
"""
from functools import cache

CHANNELS = ("jaw", "gap", "round", "wide", "tuck", "tongue")
# jaw     gap that the jaw alone would make, face heights
# gap     gap between the lips, face heights: more than the jaw's where lips draw off the teeth, less where they close over an open jaw
# round   lips forward and narrow, 0 to 1
# wide    corners apart, 0 to 1
# tuck    lower lip under the upper teeth, 0 to 1
# tongue  tongue tip at or between the teeth, 0 to 1

#           jaw    gap   round wide tuck tongue
TARGETS = {
    "SIL": (.000, .0000, .00, .00, .00, .00),
    # Vowels, open to close
    "AA":  (.090, .0940, .00, .05, .00, .00),
    "AE":  (.074, .0880, .00, .45, .00, .00),
    "AO":  (.082, .0780, .50, .00, .00, .00),
    "AH":  (.052, .0560, .00, .05, .00, .00),
    "EH":  (.046, .0580, .00, .40, .00, .00),
    "ER":  (.032, .0380, .40, .00, .00, .00),
    "IH":  (.026, .0380, .00, .45, .00, .00),
    "IY":  (.018, .0320, .00, .75, .00, .00),
    "UH":  (.036, .0340, .55, .00, .00, .00),
    "UW":  (.026, .0220, 1.0, .00, .00, .00),
    "OW":  (.056, .0480, .80, .00, .00, .00),
    # Consonants made by the lips
    "P":   (.018, .0000, .00, .00, .00, .00),
    "B":   (.018, .0000, .00, .00, .00, .00),
    "M":   (.018, .0000, .00, .00, .00, .00),
    "F":   (.006, .0205, .00, .10, 1.0, .00),
    "V":   (.006, .0205, .00, .10, 1.0, .00),
    "W":   (.020, .0130, 1.0, .00, .00, .00),
    # Consonants made by teeth and tongue
    "S":   (.010, .0260, .00, .35, .00, .00),
    "Z":   (.010, .0260, .00, .35, .00, .00),
    "SH":  (.010, .0280, .70, .00, .00, .00),
    "ZH":  (.010, .0280, .70, .00, .00, .00),
    "CH":  (.010, .0280, .70, .00, .00, .00),
    "JH":  (.010, .0280, .70, .00, .00, .00),
    "TH":  (.024, .0320, .00, .10, .00, 1.0),
    "DH":  (.022, .0300, .00, .10, .00, .80),
    "T":   (.018, .0280, .00, .10, .00, .25),
    "D":   (.018, .0280, .00, .10, .00, .25),
    "N":   (.020, .0280, .00, .10, .00, .25),
    "L":   (.032, .0360, .00, .10, .00, .50),
    "R":   (.022, .0280, .50, .00, .00, .00),
    "K":   (.032, .0380, .00, .10, .00, .00),
    "G":   (.032, .0380, .00, .10, .00, .00),
    "NG":  (.032, .0380, .00, .10, .00, .00),
    "HH":  (.036, .0400, .00, .05, .00, .00),
    "Y":   (.020, .0300, .00, .65, .00, .00),
}
# Rhubarb's nine drawn mouths, as its manual describes them
CUES = {"cue A": "M", "cue B": "S", "cue C": "EH", "cue D": "AA", "cue E": "ER", "cue F": "UW", "cue G": "F", "cue H": "L", "cue X": "SIL"}
TARGETS |= {cue: TARGETS[phone] for cue, phone in CUES.items()}

TOUCH = .0045 # What is measured at the inner lips of people who say p, b, m, face heights
PART = .0035 # What lips that meet are given: from .0038 on the first dark specks of an open mouth show between them on the procedural head
DIPHTHONGS = {"AY": ("AA", "IH"), "AW": ("AA", "UW"), "OY": ("AO", "IH"), "EY": ("EH", "IY"), "OW": ("OW", "UW")}
BILABIAL = ("P", "B", "M", "cue A")
LABIODENTAL = ("F", "V", "cue G")
OPEN = ("AA", "AE", "AO", "AW", "AY", "cue D")
VOWELS = ("AA", "AE", "AO", "AH", "EH", "ER", "IH", "IY", "UH", "UW", "OW", "cue C", "cue D", "cue E", "cue F")
ROUNDED = ("UW", "OW", "W", "AO", "UH", "cue F")
SIBILANTS = ("S", "Z", "SH", "ZH", "CH", "JH", "cue B")


@cache
def rules()->dict:
    """Phone -> (strength, reach before, reach after) of each channel; reaches in seconds.

    A sound rules what makes it that sound and yields the rest: the jaw is precious to a sibilant, the rounding to an oo, and to a k neither.
    Anticipation reaches further than carry-over, furthest for rounding (Perkell and Matthies 1992: up to some 200 ms before an oo)."""
    table = {}
    for phone in TARGETS:
        vowel, silent = phone in VOWELS, phone in ("SIL", "cue X")
        weak = phone in ("HH", "K", "G", "NG")
        d = {c: (1., .055, .050) if vowel else (.35, .045, .040) for c in CHANNELS}
        if weak: d |= {"jaw": (.20, .045, .040), "gap": (.20, .045, .040)}
        if phone in SIBILANTS: d |= {"jaw": (1.6, .050, .045), "gap": (.9, .045, .040)}
        if phone in BILABIAL: d |= {"jaw": (1., .055, .045), "gap": (1.2, .045, .035)}
        if phone in LABIODENTAL: d |= {"jaw": (1.2, .050, .045), "gap": (1.5, .045, .040)}
        d["round"] = (1., .130, .080) if phone in ROUNDED else (.5, .080, .060) if TARGETS[phone][2] > .3 else (.8, .055, .050) if vowel else (.06, .045, .040)
        d["wide"] = (.8, .070, .060) if TARGETS[phone][3] > .3 or phone in ROUNDED else (.5, .055, .050) if vowel else (.12, .045, .040)
        d["tuck"] = (1.5, .045, .040) if phone in LABIODENTAL else (.8, .040, .040)
        d["tongue"] = (1., .040, .035) if TARGETS[phone][5] > .2 else (.6, .040, .040)
        if silent: d = {c: (.5, .060, .070) for c in CHANNELS}
        table[phone] = tuple(d[c] for c in CHANNELS)
    return table


# ---- Names ----------------------------------------------------------------------------------------------------------------
# ARPAbet with its dialects (CMUdict, TIMIT, HTK, pocketsphinx). Capitals; a stress digit is taken off before.
ARPABET = {p: (p,) for p in (*(p for p in TARGETS if " " not in p), *DIPHTHONGS)} | {
    "AX": ("AH",), "AXR": ("ER",), "AX-H": ("AH",), "IX": ("IH",), "UX": ("UW",), "OH": ("AO",), "DX": ("D",), "NX": ("N",), "EL": ("AH", "L"), "EM": ("AH", "M"),
    "EN": ("AH", "N"), "ENG": ("AH", "NG"), "HV": ("HH",), "Q": ("HH",), "WH": ("W",), "BCL": ("B",), "PCL": ("P",), "DCL": ("D",), "TCL": ("T",), "GCL": ("G",), "KCL": ("K",)}
SILENCES = {"", "SIL", "SP", "SPN", "SSIL", "PAU", "EPI", "H#", "#", "##", "BRTH", "BREATH", "NOISE", "NSN", "LAUGH", "<SIL>", "[SIL]", "<S>", "</S>", "<EPS>", "<P:>", "[NOISE]", "[SPEECH]", "+NSN+",
            "+SPN+", "++NOISE++", "++BREATH++", "UNK", "<UNK>", "_", "_:", "_!", "_^_", "||", "|"}
PAUSES = {"X"} # In label files of ARPAbet only: elsewhere x is the sound of Bach

# One IPA sign -> the sound nearest to it *for the lips*: a German y is an English oo to look at.
IPA = {k: v for v, signs in {
    "AA": "aɑä", "AE": "æ", "AO": "ɔɒ", "AH": "ʌəɐɘɵɤᵊ", "EH": "ɛe", "ER": "ɜɝɚɞœɶ", "IH": "ɪᵻɨ", "IY": "i", "UH": "ʊøᵿ", "UW": "uʉyɯʏ", "OW": "o",
    "P": "pʘ", "B": "bɓ", "M": "m", "F": "fɱɸ", "V": "vʋβⱱ", "W": "wɥʍ", "S": "sɬ", "Z": "zɮ", "SH": "ʃɕʂ", "ZH": "ʒʑʐ", "TH": "θ", "DH": "ð", "T": "tʈ", "D": "dɖɗɾɽ", "N": "nɳɲ",
    "L": "lɫɭʎʟɺ", "R": "rɹɻʁʀ", "K": "kqcxχ", "G": "gɡɢɟɣɠ", "NG": "ŋɴ", "HH": "hɦħʕʔɧ", "Y": "jçʝɰ"}.items() for k in signs}
IPA_PAIRS = {k: v for v, pairs in {"AY": "aɪ ai aj ɑɪ ɑj äɪ", "AW": "aʊ au aw ɑʊ æʊ", "OY": "ɔɪ ɔi ɔj oɪ oi ɔʏ ɔø", "EY": "eɪ ei ej ɛɪ", "OW": "oʊ əʊ ou ow",
    "CH": "tʃ tɕ tʂ ʧ ʨ", "JH": "dʒ dʑ dʐ ʤ ʥ", "S": "ts ʦ", "Z": "dz ʣ"}.items() for k in pairs.split()}
# Length, stress, ties, aspiration, and what else changes no lips
MARKS = set("ːˑˈˌ.ʰʲʷˠˤˀⁿˡʱ‿͜͡'ˈ-")

# espeak-ng's own (ASCII) names, longest first when a label is cut up
ESPEAK = {k: tuple(v.split()) for k, v in {
    "@": "AH", "a": "AE", "A": "AA", "A:": "AA", "A@": "AA R", "aI": "AY", "aU": "AW", "aI@": "AY AH", "aU@": "AW AH", "aa": "AE", "a#": "AH", "3": "ER", "3:": "ER", "@L": "AH L", "@2": "AH", "@5": "UH",
    "E": "EH", "E2": "EH", "E#": "EH", "e": "EH", "eI": "EY", "e@": "EH R", "I": "IH", "I2": "IH", "I#": "IH", "i": "IY", "i:": "IY", "i@": "IY AH", "i@3": "IH R", "O": "AO", "O2": "AO", "O:": "AO", "OI": "OY",
    "O@": "AO R", "o@": "AO R", "oU": "OW", "oU#": "OW", "o": "OW", "0": "AA", "0#": "AA", "U": "UH", "U@": "UH R", "u": "UW", "u:": "UW", "V": "AH", "y": "UW", "y:": "UW", "Y": "UH", "W": "ER",
    "p": "P", "b": "B", "t": "T", "d": "D", "k": "K", "g": "G", "tS": "CH", "dZ": "JH", "f": "F", "v": "V", "T": "TH", "D": "DH", "s": "S", "z": "Z", "S": "SH", "Z": "ZH", "h": "HH", "m": "M", "n": "N",
    "N": "NG", "n^": "N", "l": "L", "l^": "L", "L": "L", "r": "R", "r-": "R", "R": "R", "*": "D", "j": "Y", "w": "W", "x": "K", "C": "Y", "Q": "G", "t2": "D", "?": "HH", "n-": "AH N", "m-": "AH M", "l-": "AH L"}.items()}

# What `rig_gain` measures on the procedural head (a test holds them together)
PLAIN = dict(rest=.0030, jaw=.183, lower=.0317, upper=.0291, funnel=.0777, pucker=-.0053, tuck=.0436)
