"""Files of scanned talkers as arrays: vertices over time (.npy), lists of vertex numbers (.txt), triangles (.ply, .obj). Nothing in a file runs.

Every fault is a `MediaError` that names the file, what is wrong, and the remedy.
"""
from pathlib import Path
import numpy as np
from talkinglab.core.media import MediaError
from talkinglab.face.rig_files import read_obj, triangles

FEW = 1 << 14                                             # Bytes of a header; a longer one is none
KINDS = dict(char="i1", int8="i1", uchar="u1", uint8="u1", short="i2", int16="i2", ushort="u2", uint16="u2",
             int="i4", int32="i4", uint="u4", uint32="u4", float="f4", float32="f4", double="f8", float64="f8")


# Vertices over time --------------------------------------------------------------------------------------------------

def read_table(path, v):
    "The rows of a .npy as a memory map (t, 3 v), after its header and its length on disk have been checked."
    path = Path(path)
    try:
        with open(path, "rb") as f:
            version = np.lib.format.read_magic(f)
            if version not in ((1, 0), (2, 0)): raise ValueError(f"version {version}")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, columns, kind = read(f)
            start = f.tell()
    except OSError as e: raise MediaError(f"{path}: cannot be read ({e.strerror})") from None
    except (ValueError, SyntaxError, TypeError, EOFError) as e: raise MediaError(f"{path}: no .npy file, or cut within its header ({str(e).splitlines()[0]}): copy the whole file again") from None
    if kind.kind != "f": raise MediaError(f"{path}: holds {kind}, not plain numbers with a point: save vertices as float32 (objects are not read: they could run anything)")
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != 3): raise MediaError(f"{path}: is {shape}, not frames by three numbers a vertex: save it as (t, 3 v)")
    width = int(np.prod(shape[1:], dtype=object))
    if width != 3*v: raise MediaError(f"{path}: has {width} columns, the template {v} vertices, so {3*v} columns: it belongs to another mesh")
    if not shape[0]: raise MediaError(f"{path}: holds no frames: leave it out")
    held = path.stat().st_size-start
    if held < shape[0]*width*kind.itemsize: raise MediaError(f"{path}: is cut short: announces {shape[0]} frames, holds {held/(width*kind.itemsize):.1f}; copy the whole file again")
    return np.memmap(path, kind, "r", start, shape, "F" if columns else "C").reshape(shape[0], width)


# Lists of vertices ---------------------------------------------------------------------------------------------------

def read_list(path, v):
    "Vertex numbers between commas or spaces; each once, in order."
    try: words = Path(path).read_text(encoding="ascii").replace(",", " ").replace("[", " ").replace("]", " ").split()
    except (OSError, UnicodeDecodeError) as e: raise MediaError(f"{path}: cannot be read as a list of numbers ({type(e).__name__})") from None
    wrong = [w for w in words if not w.isdigit()]
    if wrong: raise MediaError(f"{path}: '{wrong[0][:20]}' is no vertex number: it should be a list such as 7, 9, 59")
    return once(path, [int(w) for w in words], v)


def once(path, index, v, what="it"):
    "Vertex numbers, each once, in order; or what is wrong with them."
    i = np.unique(np.asarray(index).ravel())
    if not len(i): raise MediaError(f"{path}: {what} names no vertex")
    if i.dtype.kind not in "iu": raise MediaError(f"{path}: {what} holds {i.dtype}, not vertex numbers")
    if i[0] < 0 or i[-1] >= v: raise MediaError(f"{path}: {what} names vertex {i[-1] if i[-1] >= v else i[0]}, the mesh has {v}: it belongs to another mesh")
    return i.astype(np.int64)


# Triangles -----------------------------------------------------------------------------------------------------------

def read_surface(path):
    "Vertices (v, 3) and triangles (f, 3) of a .ply or .obj."
    path = Path(path)
    vertices, faces = _obj(path) if path.suffix.lower() == ".obj" else _ply(path)
    if not np.isfinite(vertices).all(): raise MediaError(f"{path}: {int((~np.isfinite(vertices)).any(1).sum())} of {len(vertices)} vertices are not finite")
    if faces.size and (faces.min() < 0 or faces.max() >= len(vertices)): raise MediaError(f"{path}: a face names vertex {faces.max() if faces.max() >= len(vertices) else faces.min()} of {len(vertices)}: the file is damaged")
    return vertices.astype(np.float32), faces.astype(np.int64)


def _obj(path):
    vertices, _, faces, _ = read_obj(path, faces=True)
    if vertices.ndim != 2 or not len(faces): raise MediaError(f"{path}: holds no mesh")
    return vertices, triangles(faces)


def _ply(path):
    try: data = path.read_bytes()
    except OSError as e: raise MediaError(f"{path}: cannot be read ({e.strerror})") from None
    end = data.find(b"end_header", 0, FEW)
    if not data.startswith(b"ply") or end < 0: raise MediaError(f"{path}: no PLY file")
    try:
        style, elements = _header(data[:end].decode("ascii").splitlines())
        body = data[data.index(b"\n", end)+1:]
        return _text(body, elements) if style == "ascii" else _binary(body, elements, {"binary_little_endian": "<", "binary_big_endian": ">"}[style])
    except (ValueError, KeyError, IndexError, UnicodeDecodeError) as e: raise MediaError(f"{path}: not a mesh that can be read ({e}): save it as triangles, binary or ascii PLY") from None


def _header(lines):
    "Format, and of each element: name, count, properties (name, kind, kind of its count or None)."
    style, elements = "", []
    for word in (line.split() for line in lines):
        if word[:1] == ["format"]: style = word[1]
        if word[:1] == ["element"]: elements.append((word[1], int(word[2]), []))
        if word[:1] == ["property"]: elements[-1][2].append((word[4], KINDS[word[3]], KINDS[word[2]]) if word[1] == "list" else (word[2], KINDS[word[1]], None))
    if [e[0] for e in elements[:2]] != ["vertex", "face"]: raise ValueError("its first elements are not vertices and faces")
    if any(p[2] for p in elements[0][2]) or min(e[1] for e in elements[:2]) < 0: raise ValueError("its vertices hold lists, or its counts make no sense")
    return style, elements[:2]


def _place(properties):
    "Where x, y, z stand; where the corners stand among a face's properties."
    names = [p[0] for p in properties]
    return [names.index(k) for k in "xyz"]


def _corners(properties):
    lists = [i for i, p in enumerate(properties) if p[0] in ("vertex_indices", "vertex_index")]
    if not lists or properties[lists[0]][2] is None or any(p[2] for p in properties[:lists[0]]): raise ValueError("its faces hold no list of corners")
    return lists[0]


def _text(body, elements):
    rows = [line.split() for line in body.decode("ascii").splitlines() if line.strip()]
    (_, v, some), (_, f, more) = elements
    if len(rows) < v+f: raise ValueError(f"{len(rows)} of {v+f} lines are there")
    at, k = _place(some), _corners(more)
    vertices = np.array([[float(r[i]) for i in at] for r in rows[:v]]).reshape(-1, 3)
    faces = [r[k:k+1+int(r[k])] for r in rows[v:v+f]]
    if any(r[0] != "3" or len(r) != 4 for r in faces): raise ValueError("not all faces are triangles")
    return vertices, np.array([r[1:] for r in faces], dtype=np.int64).reshape(-1, 3)


def _binary(body, elements, order):
    (_, v, some), (_, f, more) = elements
    kind = np.dtype([(n, order+k) for n, k, _ in some])
    if len(body) < v*kind.itemsize: raise ValueError("it is cut short")
    table = np.frombuffer(body, kind, v)
    k = _corners(more)
    rest = [(n, order+t) if c is None else None for n, t, c in more[k+1:]]
    if None in rest: raise ValueError("its faces hold further lists")
    three = np.dtype([(n, order+t) for n, t, _ in more[:k]]+[("count", order+more[k][2]), ("corners", order+more[k][1], (3,))]+rest)
    if len(body)-v*kind.itemsize < f*three.itemsize: raise ValueError("it is cut short")
    rows = np.frombuffer(body, three, f, v*kind.itemsize)
    if (rows["count"] != 3).any(): raise ValueError("not all faces are triangles")
    return np.stack([table[c] for c in "xyz"], 1).astype(float), rows["corners"].astype(np.int64)


def write_surface(path, vertices, faces):
    "A little-endian PLY of triangles."
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\nproperty float x\nproperty float y\nproperty float z\nelement face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    rows = np.empty(len(faces), np.dtype([("count", "u1"), ("corners", "<i4", (3,))]))
    rows["count"], rows["corners"] = 3, faces
    Path(path).write_bytes(head.encode()+np.ascontiguousarray(vertices, "<f4").tobytes()+rows.tobytes())
