"""The README's pictures, from real output.

    make demo && python tools/make_pictures.py     out/demo.mp4 -> nbs/images/demo.webp; a cast filmed -> nbs/images/cast.webp; the shipped
                                                   D3-Talker -> nbs/images/d3talker.webp
"""
from pathlib import Path

import torch
from PIL import Image

import talkinglab as tl
from talkinglab.core.assets import samples
from talkinglab.core.camera import orbit
from talkinglab.core.media import read_video, to_uint8
from talkinglab.face.actor import VIEW, cast, perform, shoot

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT/"nbs"/"images"


def demo(width=300, every=2, seconds=6):
    "What `make demo` wrote."
    frames, fps = read_video(ROOT/"out"/"demo.mp4")
    return [f.numpy() for f in frames[:int(seconds*fps):every]], width, fps/every

def people(rows=2, cols=5, size=132, every=2, seconds=2.4):
    "Ten people say the same sentence, each in a style of the list."
    styles, films = ("neutral", "lively", "crisp", "tender", "shouting"), []
    for i, person in enumerate(cast(rows*cols, seed=5)):
        take = perform(samples("hello.flac"), samples("hello.json"), identity=person, style=styles[i % 5], seed=i)
        films.append(shoot(take, orbit(-22+11*(i % 5), width=size, height=size, **VIEW)))
    picked = range(0, int(seconds*25), every)
    sheet = lambda t: torch.cat([torch.cat([films[r*cols+c].frames[t] for c in range(cols)], 1) for r in range(rows)])
    return [to_uint8(sheet(t)) for t in picked], size*cols, 25/every

def three_styles(size=200, every=2, seconds=5):
    "The shipped D3-Talker: one sentence, mumbled, plain and lively."
    talker = tl.load("d3talker")
    films = [talker.speak(samples("hello.flac"), style=style) for style in ("mumbled", "neutral", "lively")]
    return [to_uint8(torch.cat([f.frames[t] for f in films], 1)) for t in range(0, int(seconds*25), every)], 3*size, 25/every

def write(name, frames, width, fps, quality=55):
    small = [Image.fromarray(f) for f in frames]
    small = [f.resize((width, round(width*f.height/f.width)), Image.LANCZOS) if f.width != width else f for f in small]
    out = IMAGES/name
    small[0].save(out, save_all=True, append_images=small[1:], duration=round(1000/fps), loop=0, quality=quality, method=6)
    print(f"{out.relative_to(ROOT)}: {len(small)} frames, {out.stat().st_size/1e3:.0f} kB")


def main():
    write("cast.webp", *people())
    write("d3talker.webp", *three_styles())
    if (ROOT/"out"/"demo.mp4").is_file(): write("demo.webp", *demo())
    else: print("out/demo.mp4 is not there: make demo first")


if __name__ == "__main__": main()
