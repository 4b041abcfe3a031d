"What the project consists of: read from the tree, shared by the tests that guard its structure."
import ast
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
NBS = sorted(p for p in (ROOT/"nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
CHAPTERS = [p for p in NBS if re.match(r"\d\d_", p.name)]
NUMBER = {"talkinglab."+p.stem[3:]: int(p.stem[:2]) for p in CHAPTERS}


@dataclass(frozen=True)
class Module:
    name: str       # talkinglab.gs.tiles
    path: Path
    number: int     # of its chapter; a helper file belongs to the chapter whose name it begins with
    exported: bool


def modules() -> list[Module]:
    "Every module of the package but the `__init__` files and nbdev's index."
    out = []
    for path in sorted((ROOT/"talkinglab").rglob("*.py")):
        if path.name in ("__init__.py", "__main__.py", "_modidx.py"): continue
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        owner = next((k for k in sorted(NUMBER, key=len, reverse=True) if name == k or name.startswith(k+"_")), None)
        assert owner, f"{path.relative_to(ROOT)} belongs to no chapter: name it <chapter's module>_something.py"
        out.append(Module(name, path, NUMBER[owner], name == owner))
    return out


def imports(module: Module) -> set[str]:
    "Full names of everything a module imports, at its top or inside functions."
    found = set()
    package = module.name.split(".")[:-1]
    for node in ast.walk(ast.parse(module.path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import): found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package)-node.level+1] if node.level else []
            name = ".".join(base+([node.module] if node.module else []))
            found |= {name+"."+a.name if name+"."+a.name in NUMBER else name for a in node.names}
    return found


def read(path: Path): return nbformat.read(path, as_version=4)


def run_two(code: str, out: Path, timeout: float = 300):
    "Two processes on this machine's loopback, as `torchrun --nproc-per-node 2` would start them; each is given `out`."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    env = dict(os.environ, WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port, GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1")
    ps = [subprocess.Popen([sys.executable, "-c", code, out], cwd=ROOT, env=dict(env, RANK=str(r), LOCAL_RANK=str(r)), stderr=subprocess.PIPE, text=True) for r in range(2)]
    try: said = [p.communicate(timeout=timeout)[1] for p in ps]
    finally: [p.kill() for p in ps]
    assert [p.returncode for p in ps] == [0, 0], "\n".join(said)
