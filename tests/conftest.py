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
