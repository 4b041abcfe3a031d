"""How much memory does half an hour of speech take? A row a minute of film, from a real run of `talkinglab speak`.

    python benchmarks/long_speech.py [--minutes 30] [--size 64]     writes benchmarks/results/long_speech.json

The sound is the bundled clips, one after the other, written as a 16-bit wav; the process is the command line's own.
"""
import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from report import keep, where


def long_wav(path, minutes):
    "Bundled speech until `minutes` are full, 22.05 kHz."
    from talkinglab.core.assets import samples
    from talkinglab.core.media import Audio, read_audio, write_audio
    clips = [read_audio(p, 22050).samples for p in sorted(samples().glob("*.flac"))]
    x, n = torch.cat(clips), int(minutes*60*22050)
    write_audio(path, Audio(x.repeat(n//len(x)+1)[:n], 22050))


def rss(pid):
    "Resident memory of a process, MB; None once it is over."
    try: return int(next(line for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS")).split()[1])/1e3
    except (OSError, StopIteration): return None


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--minutes", type=float, default=30)
    p.add_argument("--size", type=int, default=64)
    a = p.parse_args()
    here = where()
    with tempfile.TemporaryDirectory() as tmp:
        long_wav(Path(tmp)/"long.wav", a.minutes)
        start, rows = time.time(), []
        log = open(Path(tmp)/"log", "w+")
        run = subprocess.Popen([sys.executable, "-m", "talkinglab", "speak", f"{tmp}/long.wav", "-o", f"{tmp}/out.mp4", "--size", str(a.size)], stdout=log, stderr=log)
        while run.poll() is None:
            m = rss(run.pid)
            if m: rows.append(dict(second=round(time.time()-start), rss_mb=round(m)))
            time.sleep(10)
        log.seek(0)
        said = log.read().splitlines()[-1]
        if run.returncode: sys.exit(said)
        from talkinglab.core.media import open_audio
        seconds = open_audio(f"{tmp}/out.mp4").seconds
    drawing = [r["rss_mb"] for r in rows[len(rows)//10:]]
    x = torch.linspace(0, a.minutes*.9, len(drawing))
    slope = float(((x-x.mean())*(torch.tensor(drawing)-sum(drawing)/len(drawing))).sum()/((x-x.mean())**2).sum())
    result = dict(**here, seeds=[0], minutes=a.minutes, size=a.size,
                  seconds_of_sound_written=round(seconds, 2), peak_mb=max(r["rss_mb"] for r in rows), growth_mb_per_minute_of_film=round(slope, 2), rows=rows[::max(1, len(rows)//40)])
    keep("long_speech", result)
    print(said, {k: v for k, v in result.items() if k != "rows"}, sep="\n")


if __name__ == "__main__": main()
