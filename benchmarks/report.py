"What every result of a benchmark carries, and how it is kept: benchmarks/results/NAME.json."
import json
import platform
import subprocess
from datetime import date
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT/"benchmarks"/"results"


def machine(threads=None):
    "What this ran on, in words."
    try: cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    except (OSError, StopIteration): cpu = platform.processor()
    gpu = f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.machine()} {cpu}, {threads or torch.get_num_threads()} threads{gpu}"


def commit():
    "Of the code that ran; + where files differ from it."
    try: git = [subprocess.run(["git", *a], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() for a in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "-uno"])]
    except (OSError, subprocess.CalledProcessError): return "unknown"
    return git[0]+("+" if git[1] else "")


def where(threads=None): return dict(commit=commit(), date=str(date.today()), device=machine(threads))


def keep(name, result, folder=RESULTS):
    folder.mkdir(parents=True, exist_ok=True)
    (folder/f"{name}.json").write_text(json.dumps(result, indent=1)+"\n")
