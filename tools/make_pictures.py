"""The README's moving picture, from the demo's real output.

    make demo && python tools/make_pictures.py     out/demo.mp4 -> nbs/images/demo.webp
"""
from pathlib import Path

from PIL import Image

from talkinglab.core.media import read_video

ROOT = Path(__file__).resolve().parent.parent


def main(width=300, every=2, seconds=6):
    frames, fps = read_video(ROOT/"out"/"demo.mp4")
    small = [Image.fromarray(f.numpy()).resize((width, width), Image.LANCZOS) for f in frames[:int(seconds*fps):every]]
    out = ROOT/"nbs"/"images"/"demo.webp"
    small[0].save(out, save_all=True, append_images=small[1:], duration=round(1000*every/fps), loop=0, quality=62, method=6)
    print(f"{out.relative_to(ROOT)}: {len(small)} frames, {out.stat().st_size/1e3:.0f} kB")


if __name__ == "__main__": main()
