"Shapes and types written in signatures are checked while the tests run."
import os
import sys
from pathlib import Path

import pytest
from jaxtyping import config, install_import_hook

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT/".cache"/"numba"))
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(ROOT/"tests"))

from project import modules  # noqa: E402

# Exported modules only: numba must see its kernels as they are written.
install_import_hook([m.name for m in modules() if m.exported], "typecheck.check")


@pytest.fixture(scope="session")
def shared():
    "Real recordings, heads and splats beside the clone; tests that use them are skipped where they are not."
    folder = ROOT.parent/"shared"/"data"
    if not folder.is_dir(): pytest.skip("real test data (../shared/data) is not beside this clone")
    return folder


@pytest.fixture
def unchecked():
    "As users call it: without the signature checks that would speak first under pytest."
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


# Files that draw, so need the compiled kernels; and long ones that need none of them.
DRAW = "tiles render endurance mesh parity splat bad_scenes rig face bind skin actor cli hello field sync viseme motion d3talker finish graph machines benchmarks".split()
PLAIN = "features encoders encoders_train media io fit image clip docs assets show gaussians project rotation camera clock temporal package".split()


@pytest.hookimpl(trylast=True) # of those that are left
def pytest_collection_modifyitems(items):
    """For two workers that take a half each and later help one another (`--dist worksteal`): one begins with what compiles the kernels, the other with what
    needs none and then the notebooks. So nothing is compiled twice at once, and what is long is not last: the systems' notebooks come before the core's."""
    draw, plain, runs, rest = [], [], [], []
    for item in items:
        name = item.path.stem.removeprefix("test_")
        (runs if getattr(item, "originalname", "") == "test_notebook_runs" else draw if name in DRAW else plain if name in PLAIN else rest).append(item)
    draw.sort(key=lambda item: DRAW.index(item.path.stem.removeprefix("test_")))
    plain.sort(key=lambda item: PLAIN.index(item.path.stem.removeprefix("test_")))
    room = max(len(items)//2-len(draw), 0)
    items[:] = draw+rest[:room]+plain+runs[::-1]+rest[room:]
