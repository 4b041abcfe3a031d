"""Run notebooks in fresh kernels and keep their outputs, byte for byte the same on a second run.

    python tools/run_nbs.py                      every notebook under nbs/
    python tools/run_nbs.py nbs/00_*.ipynb -j 2  these, two at a time

Cells flagged `slow`, `gpu`, `notest` or `eval: false` keep the outputs they have. Progress bars (stderr) and live
widgets are not kept: neither means anything without a kernel.
"""
import argparse
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

ROOT = Path(__file__).resolve().parent.parent
SKIP = re.compile(r"^#\|\s*(slow|gpu|notest|eval:\s*false)\b", re.M)
WIDGET = "application/vnd.jupyter.widget-view+json"


class Client(NotebookClient):
    async def async_execute_cell(self, cell, cell_index, **kw):
        if cell.cell_type == "code" and SKIP.search(cell.source): return cell
        return await super().async_execute_cell(cell, cell_index, **kw)


def tidy(nb):
    "Make `nb` independent of the run: ids by position, no counts, no times, no widgets, no stderr."
    nb.metadata = nbformat.from_dict({"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}})
    nb.nbformat, nb.nbformat_minor = 4, 5
    for i, cell in enumerate(nb.cells):
        cell.id, cell.metadata = f"c{i:03d}", nbformat.from_dict({})
        if cell.cell_type != "code": continue
        cell.execution_count = None
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and WIDGET not in o.get("data", {})]
        for o in cell.outputs:
            if "execution_count" in o: o.execution_count = None
            o.pop("metadata", None)
            if o.output_type in ("display_data", "execute_result"): o.metadata = nbformat.from_dict({})
            text = o.get("data", {}).get("text/plain")
            if text: o.data["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", text)
    return nb


def run(path: Path) -> str | None:
    "Execute the notebook at `path` in place; return the error, if any."
    nb = nbformat.read(path, as_version=4)
    env = dict(os.environ, IN_NOTEBOOK_RUN="1", PYTHONHASHSEED="0", OMP_WAIT_POLICY="PASSIVE")
    for last in (False, True):  # now and then a kernel that has finished a cell is never heard of again: a second one is asked
        try: Client(nb, timeout=900 if last else 150, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute(env=env)
        except CellTimeoutError as e:
            if last: return f"{path.relative_to(ROOT)}: {e}"
            continue
        except CellExecutionError as e: return f"{path.relative_to(ROOT)}: {e}"
        break
    text = nbformat.writes(tidy(nb)) + "\n"
    if text != path.read_text(encoding="utf-8"): path.write_text(text, encoding="utf-8")
    return None


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("paths", nargs="*", type=Path)
    p.add_argument("-j", type=int, default=1, help="notebooks at a time")
    a = p.parse_args()
    paths = [q.resolve() for q in a.paths] or sorted(q for q in (ROOT/"nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in q.parts)
    with ThreadPoolExecutor(a.j) as pool: errors = [e for e in pool.map(run, paths) if e]
    for e in errors: print(e, file=sys.stderr)
    sys.exit(bool(errors))


if __name__ == "__main__": main()
