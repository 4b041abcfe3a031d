"""The z-buffer behind `face.mesh`: which triangle does each pixel see, and where on it?

Screen coordinates: x right, y down, pixel (i,j) has its centre at (i+.5, j+.5). `inv_z` is one over the depth:
it is linear on the screen, so it may be interpolated with plain screen barycentrics.
"""
import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def edge(ax, ay, bx, by, px, py):
    "Twice the signed area of the triangle a, b, p."
    return (bx-ax)*(py-ay)-(by-ay)*(px-ax)


@njit(cache=True, nogil=True)
def zbuffer(x, y, inv_z, faces, height, width):
    "Nearest face of every pixel (-1: none) and its inverse depth. Vertices with inv_z <= 0 lie behind the camera."
    face = np.full((height, width), -1, np.int32)
    depth = np.zeros((height, width), np.float32)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if inv_z[a] <= 0 or inv_z[b] <= 0 or inv_z[c] <= 0: continue
        xa, ya, xb, yb, xc, yc = x[a], y[a], x[b], y[b], x[c], y[c]
        y0 = max(0, int(np.ceil(min(ya, yb, yc)-.5)))
        y1 = min(height-1, int(np.floor(max(ya, yb, yc)-.5)))
        x0 = max(0, int(np.ceil(min(xa, xb, xc)-.5)))
        x1 = min(width-1, int(np.floor(max(xa, xb, xc)-.5)))
        if y0 > y1 or x0 > x1: continue                          # no pixel centre in its box: most small triangles end here
        area = edge(xa, ya, xb, yb, xc, yc)
        if abs(area) < 1e-12: continue
        s = 1./area
        step_b, step_c = (yc-ya)*s, -(yb-ya)*s                   # change of the weights of b and c per pixel to the right
        step_z = step_b*(inv_z[b]-inv_z[a])+step_c*(inv_z[c]-inv_z[a])
        for j in range(y0, y1+1):
            px, py = x0+.5, j+.5
            wb = -edge(xa, ya, xc, yc, px, py)*s
            wc = edge(xa, ya, xb, yb, px, py)*s
            z = inv_z[a]+wb*(inv_z[b]-inv_z[a])+wc*(inv_z[c]-inv_z[a])
            for i in range(x0, x1+1):
                if wb >= 0 and wc >= 0 and wb+wc <= 1 and z > depth[j, i]:
                    depth[j, i] = z
                    face[j, i] = f
                wb += step_b
                wc += step_c
                z += step_z
    return face, depth


@njit(cache=True, nogil=True)
def barycentrics(x, y, inv_z, faces, face):
    "Perspective-correct weights of the three corners at every covered pixel."
    height, width = face.shape
    out = np.zeros((height, width, 3), np.float32)
    for j in range(height):
        for i in range(width):
            f = face[j, i]
            if f < 0: continue
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            wa = edge(x[b], y[b], x[c], y[c], i+.5, j+.5)*inv_z[a]
            wb = edge(x[c], y[c], x[a], y[a], i+.5, j+.5)*inv_z[b]
            wc = edge(x[a], y[a], x[b], y[b], i+.5, j+.5)*inv_z[c]
            s = 1./(wa+wb+wc)
            out[j, i, 0], out[j, i, 1], out[j, i, 2] = wa*s, wb*s, wc*s
    return out


@njit(cache=True, nogil=True)
def interpolate(attributes, faces, face, bary):
    "Blend vertex attributes (v, c) at every covered pixel; zero elsewhere."
    height, width = face.shape
    channels = attributes.shape[1]
    out = np.zeros((height, width, channels), np.float32)
    for j in range(height):
        for i in range(width):
            f = face[j, i]
            if f < 0: continue
            for k in range(3):
                v = faces[f, k]
                for c in range(channels): out[j, i, c] += bary[j, i, k]*attributes[v, c]
    return out


@njit(cache=True, nogil=True)
def vertex_normals(vertices, faces):
    "Area-weighted normals, unit length; zero for a vertex without a face."
    out = np.zeros_like(vertices)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = vertices[b, 0]-vertices[a, 0], vertices[b, 1]-vertices[a, 1], vertices[b, 2]-vertices[a, 2]
        vx, vy, vz = vertices[c, 0]-vertices[a, 0], vertices[c, 1]-vertices[a, 1], vertices[c, 2]-vertices[a, 2]
        nx, ny, nz = uy*vz-uz*vy, uz*vx-ux*vz, ux*vy-uy*vx
        for k in range(3):
            v = faces[f, k]
            out[v, 0] += nx
            out[v, 1] += ny
            out[v, 2] += nz
    for v in range(out.shape[0]):
        length = np.sqrt(out[v, 0]**2+out[v, 1]**2+out[v, 2]**2)
        if length > 1e-20:
            for k in range(3): out[v, k] /= length
    return out
