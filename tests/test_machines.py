"The kernels are the same on machines that are not this one: AVX2 runs in a process of its own, ARM is compiled and read."
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT

LOOK = """
import sys, torch
from talkinglab.core.camera import orbit
from talkinglab.gs.gaussians import Gaussians
from talkinglab.gs.render import render
from numba.core.caching import NullCache
from talkinglab.gs import tiles_kernels
tiles_kernels.paint._cache = NullCache() # compiled here, whatever is there from elsewhere
ones = torch.ones(20, 4)
g = Gaussians(torch.zeros(20, 3), ones, ones[:, :3], ones[:, 0], ones[:, :1])
render(g, orbit(width=8, height=8), depth=False)
[kernel] = [k for k in tiles_kernels.paint.overloads.values()]
sys.stdout.write({look})
"""


def python(code, cache=os.environ["NUMBA_CACHE_DIR"], **env):
    "What a fresh process writes."
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(cache), **env})
    assert done.returncode==0, done.stderr[-3000:]
    return done.stdout


TO_ARM = LOOK.format(look='""')+r"""
import re
import llvmlite.binding as llvm
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
try: machine = llvm.Target.from_triple("aarch64-linux-gnu").create_target_machine(cpu="neoverse-n1", opt=3, reloc="pic")
except RuntimeError as error: sys.exit(f"no target: {error}")
text = kernel.library.get_llvm_str()
text = re.sub(r"target datalayout = .*", f'target datalayout = "{machine.target_data}"', text)
text = re.sub(r"target triple = .*", 'target triple = "aarch64-linux-gnu"', text)
text = re.sub(r'"target-(cpu|features)"="[^"]*"', "", text)
# The one instruction that is x86's own: numba counts references with it.
text = re.sub(r"(%\S+) = tail call i8 @llvm.x86.atomic.sub.cc.i64\(ptr nonnull (%\S+), i64 1, i32 4\)",
              r"%was = atomicrmw sub ptr \2, i64 1 seq_cst\n %last = icmp eq i64 %was, 1\n \1 = zext i1 %last to i8", text)
module = llvm.parse_assembly(text)
module.verify()
sys.stdout.write(machine.emit_assembly(module))
"""

@pytest.fixture(scope="module")
def aarch64():
    "The assembly of `paint` for 64-bit ARM, made from what numba made of it for this machine."
    if platform.machine().lower() not in ("x86_64", "amd64"): pytest.skip("on another machine than x86: the other tests run it")
    try: return python(TO_ARM)
    except AssertionError as error:
        if "no target" not in str(error): raise
        pytest.skip("this llvmlite cannot write ARM code")


def test_arm_multiplies_four_lanes_at_once(aarch64):
    assert len(re.findall(r"\bfmla\s+v\d+\.4s", aarch64))>=16
    assert not re.search(r"\bptrue\b|\bz\d+\.s", aarch64), "NEON, no SVE: what every 64-bit ARM has"

def test_arm_calls_no_function_for_a_lane(aarch64):
    "No libm, no soft float: what is called comes from numba's and the system's few."
    called = set(re.findall(r"\bbl\s+([\w.]+)", aarch64))
    assert not [f for f in called if not re.match(r"sched_yield|NRT_|numba_|Py|memset|memcpy|_ZN", f)], called
    scalar = len(re.findall(r"\bf(?:madd|mul)\s+s\d+", aarch64))
    assert scalar<len(re.findall(r"\bf(?:mla|mul|madd)\s+v\d+\.4s", aarch64)), "most arithmetic is in vectors"


x86 = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="AVX2 is x86")
HASWELL = dict(NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES="+sse2,+sse4.2,+popcnt,+avx,+avx2,+fma,+bmi,+bmi2,+lzcnt,+f16c,+movbe")

@x86
@pytest.mark.slow
def test_avx2_agrees_with_float64(tmp_path):
    "The parity scenes, in code for a processor of 2013: no wider register than ymm."
    assert "ymm" in (text := python(LOOK.format(look="kernel.library.get_asm_str()"), tmp_path/"a", **HASWELL)) and "zmm" not in text
    for other in (HASWELL, dict(NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="+sse2,+sse4.2,+popcnt")): # and of 2008: no fused multiply-add
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_parity.py", "-k", "of_float64 and (plain or wide or channels or antialiased or needles)"],
                              cwd=ROOT, capture_output=True, text=True, timeout=280, env={**os.environ, "NUMBA_CACHE_DIR": str(Path(tmp_path)/other["NUMBA_CPU_NAME"]), **other})
        assert done.returncode==0, done.stdout[-3000:]
