"""The z-buffer behind `face.mesh`: which triangle does each sample see, and where on it?

Screen coordinates: x right, y down, sample (i,j) has its centre at (i+.5, j+.5). `inv_z` is one over the depth:
it is linear on the screen, so it may be interpolated with plain screen weights. 0 or less marks a vertex behind the camera.
"""
import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def project(vertices, view, fx, fy, cx, cy):
    "Columns, rows and inverse depths of points; `view` is a world-to-camera matrix."
    n = vertices.shape[0]
    x, y, inv_z = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    for v in range(n):
        p, q, r = np.float64(vertices[v, 0]), np.float64(vertices[v, 1]), np.float64(vertices[v, 2])
        z = view[2, 0]*p+view[2, 1]*q+view[2, 2]*r+view[2, 3]
        w = 1/z if z > 1e-3 else 0.
        x[v] = fx*w*(view[0, 0]*p+view[0, 1]*q+view[0, 2]*r+view[0, 3])+cx
        y[v] = fy*w*(view[1, 0]*p+view[1, 1]*q+view[1, 2]*r+view[1, 3])+cy
        inv_z[v] = w
    return x, y, inv_z


@njit(cache=True, nogil=True)
def snap(x):
    "A screen coordinate in whole 4096ths of a sample; far outside, any number beyond 2**28."
    return int(np.floor(min(max(x*4096., -3e8), 3e8)+.5))


@njit(cache=True, nogil=True)
def zbuffer(x, y, inv_z, faces, height, width):
    """Nearest face of every sample (-1: none) and its inverse depth.

    Corners are rounded to 1/4096 of a sample, so the signed areas are whole numbers and exact: faces that share an edge
    leave no gap and no sample twice. A centre on an edge belongs to the face on one fixed side of it.
    """
    face, depth = np.full((height, width), -1, np.int32), np.zeros((height, width), np.float32)
    X, Y = np.empty(x.shape[0], np.int64), np.empty(x.shape[0], np.int64)
    for v in range(x.shape[0]): X[v], Y[v] = snap(x[v]), snap(y[v])
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ya, yb, yc = Y[a], Y[b], Y[c]
        y0, y1 = max(0, (min(ya, yb, yc)+2047) >> 12), min(height-1, (max(ya, yb, yc)-2048) >> 12)
        if y0 > y1: continue
        xa, xb, xc = X[a], X[b], X[c]
        x0, x1 = max(0, (min(xa, xb, xc)+2047) >> 12), min(width-1, (max(xa, xb, xc)-2048) >> 12)
        if x0 > x1: continue                                     # no centre in its box: most small triangles end here
        za, zb, zc = inv_z[a], inv_z[b], inv_z[c]
        area = (xb-xa)*(yc-ya)-(yb-ya)*(xc-xa)
        if area == 0 or min(za, zb, zc) <= 0 or max(max(xa, xb, xc)-min(xa, xb, xc), max(ya, yb, yc)-min(ya, yb, yc)) > 1 << 28: continue
        if area < 0: xb, yb, zb, xc, yc, zc, area = xc, yc, zc, xb, yb, zb, -area
        px, py, n = (x0 << 12)+2048, (y0 << 12)+2048, x1-x0
        wa = (xc-xb)*(py-yb)-(yc-yb)*(px-xb)                     # signed areas opposite each corner, at the first centre
        wb = (xa-xc)*(py-yc)-(ya-yc)*(px-xc)
        wc = area-wa-wb
        ax, bx, cx = (yb-yc) << 12, (yc-ya) << 12, (ya-yb) << 12 # their change per sample to the right
        ay, by, cy = (xc-xb) << 12, (xa-xc) << 12, (xb-xa) << 12 # and downwards
        ka, kb = (za-zc)/area, (zb-zc)/area
        z, zx, zy = zc+wa*ka+wb*kb, ax*ka+bx*kb, ay*ka+by*kb
        if ax < 0 or (ax == 0 and ay < 0): wa -= 1
        if bx < 0 or (bx == 0 and by < 0): wb -= 1
        if cx < 0 or (cx == 0 and cy < 0): wc -= 1
        wide = n > 3                                             # worth solving for where each row begins and ends
        ra = rb = rc = 0.
        if wide: ra, rb, rc = -1./ax if ax != 0 else 0., -1./bx if bx != 0 else 0., -1./cx if cx != 0 else 0.
        for j in range(y0, y1+1):
            i0, i1 = 0, n
            if wide:
                low, high = 0., float(n)
                if ax > 0: low = max(low, wa*ra)
                elif ax < 0: high = min(high, wa*ra)
                if bx > 0: low = max(low, wb*rb)
                elif bx < 0: high = min(high, wb*rb)
                if cx > 0: low = max(low, wc*rc)
                elif cx < 0: high = min(high, wc*rc)
                i0, i1 = int(min(low, n)+.999), int(max(high, -1.)+1.001)-1
            a, b, c, w = wa+i0*ax, wb+i0*bx, wc+i0*cx, z+i0*zx
            for i in range(x0+i0, x0+i1+1):
                if (a | b | c) >= 0 and w > depth[j, i]:
                    depth[j, i], face[j, i] = w, f
                a += ax
                b += bx
                c += cx
                w += zx
            wa += ay
            wb += by
            wc += cy
            z += zy
    return face, depth


@njit(cache=True, nogil=True)
def barycentrics(x, y, inv_z, faces, face):
    "Perspective-correct weights of the three corners, and the depth, at every covered sample (infinite elsewhere)."
    height, width = face.shape
    out, depth = np.zeros((height, width, 3), np.float32), np.full((height, width), np.inf, np.float32)
    xa = ya = xb = yb = xc = yc = za = zb = zc = s = 0.
    for j in range(height):
        last = -1
        for i in range(width):
            f = face[j, i]
            if f < 0: continue
            if f != last:
                a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                xa, ya, xb, yb, xc, yc = snap(x[a])/4096, snap(y[a])/4096, snap(x[b])/4096, snap(y[b])/4096, snap(x[c])/4096, snap(y[c])/4096
                za, zb, zc, last = np.float64(inv_z[a]), np.float64(inv_z[b]), np.float64(inv_z[c]), f
                s = (xb-xa)*(yc-ya)-(yb-ya)*(xc-xa)
            px, py = i+.5, j+.5
            wa = ((xc-xb)*(py-yb)-(yc-yb)*(px-xb))*za
            wb = ((xa-xc)*(py-yc)-(ya-yc)*(px-xc))*zb
            wc = ((xb-xa)*(py-ya)-(yb-ya)*(px-xa))*zc
            k = 1/(wa+wb+wc)
            out[j, i, 0], out[j, i, 1], out[j, i, 2], depth[j, i] = wa*k, wb*k, wc*k, s*k
    return out, depth


@njit(cache=True, nogil=True)
def interpolate(attributes, faces, face, bary):
    "Blend vertex attributes (v, c) at every covered sample; zero elsewhere."
    height, width = face.shape
    out = np.zeros((height, width, attributes.shape[1]), np.float32)
    for j in range(height):
        for i in range(width):
            f = face[j, i]
            if f < 0: continue
            for k in range(3):
                v, w = faces[f, k], bary[j, i, k]
                for c in range(out.shape[2]): out[j, i, c] += w*attributes[v, c]
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
