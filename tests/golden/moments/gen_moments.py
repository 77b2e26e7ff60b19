# SPDX-License-Identifier: Apache-2.0
"""Answers for AdamW with 8-bit and bf16 moments: every bit of the state after each of 20 steps.

    python gen_moments.py >moments.json

Needs NumPy. The tests need no Python: they read moments.json. Nothing here comes from hy3's
sources: the code is that of Dettmers et al. 2022 with -1 as its lowest number, the random words are
Philox 4x32-10, sums and products are single precision, one after the other. `margin` is how near
any number came to an edge between two codes, or any random rounding to its turn, relative to the
number: programs whose products are rounded in another order must stay below it.
"""
import json
import sys

import numpy as np

f32 = np.float32
N, FIRST, STEPS, BLOCK = 430, 200, 20, 256
LR, BETA1, BETA2, EPS, DECAY, SCALE = 1e-2, 0.9, 0.999, 1e-8, 0.1, 0.25
SEED, TENSOR, PURPOSE = 1 << 33 | 9, 11, 10


def code(signed):
    numbers = [0.0, 1.0]
    for decade in range(7):
        edges = np.linspace(0.1, 1, (2**decade if signed else 2 ** (decade + 1)) + 1)
        means = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - 6)
        numbers += list(means)
        if signed:
            numbers += list(-means)
    numbers = sorted(numbers)
    if signed:
        numbers[0] = -1.0
    assert len(numbers) == 256
    return np.array(numbers, f32)


def edges_of(numbers, signed):
    edges = (numbers[:-1] + numbers[1:]) / f32(2)
    if not signed:
        edges[0] = 0  # a second moment that is not 0 never becomes 0
    return edges


NUMBERS = {signed: code(signed) for signed in (True, False)}
EDGES = {signed: edges_of(NUMBERS[signed], signed) for signed in (True, False)}
margin = [1.0]


def blocks():
    """The parts of the tensor's blocks that N elements from FIRST on have."""
    at = 0
    while at < N:
        end = min(N, at + BLOCK - (FIRST + at) % BLOCK)
        yield slice(at, end)
        at = end


def encode(x, signed):
    codes, scales = np.zeros(N, np.uint8), []
    for b in blocks():
        scale = np.max(np.abs(x[b]))
        scales.append(scale)
        y = x[b] / scale if scale > 0 else x[b]
        codes[b] = np.searchsorted(EDGES[signed], y, side="left")
        edges = EDGES[signed][EDGES[signed] != 0]
        near = np.abs(y[:, None] - edges[None]) / np.abs(edges)[None]
        margin[0] = min(margin[0], float(near.min()))
    return codes, np.array(scales, f32)


def decode(codes, scales, signed):
    x = np.zeros(N, f32)
    for b, scale in zip(blocks(), scales):
        x[b] = NUMBERS[signed][codes[b]] * scale
    return x


def philox(seed, purpose, high, low):
    mask = 0xFFFFFFFF
    key = [seed & mask, (seed >> 32) ^ (purpose * 0x9E3779B1 & mask)]
    c = [low & mask, low >> 32, high & mask, high >> 32]
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(q >> 32) ^ c[1] ^ key[0], q & mask, (p >> 32) ^ c[3] ^ key[1], p & mask]
        key = [(key[0] + 0x9E3779B9) & mask, (key[1] + 0xBB67AE85) & mask]
    return c


def words(step):
    out = []
    for i in range(FIRST, FIRST + N):
        out.append(philox(SEED, PURPOSE, step << 32 | TENSOR, i // 4)[i % 4])
    return np.array(out, np.uint32)


def round_bf16(x, random):
    bits = x.view(np.uint32)
    low = (bits & 0xFFFF).astype(np.int64) + random
    turn = np.abs(low - 0x10000 + 0.5)[bits & 0xFFFF != 0] / 2.0**24
    margin[0] = min(margin[0], float(turn.min()) if len(turn) else 1.0)
    return ((bits.astype(np.uint64) + random.astype(np.uint64)) >> 16).astype(np.uint16)


def widen_bf16(x):
    return (x.astype(np.uint32) << 16).view(f32)


def hashed(i, step, salt):
    h = ((i + 1) * 2654435761 + step * 2246822519 + salt * 3266489917) & 0xFFFFFFFF
    h ^= h >> 15
    h = h * 2246822519 & 0xFFFFFFFF
    return h ^ h >> 13


def gradient(step, salt):
    """Of many sizes; some are 0, and from step 12 on all of the last block."""
    g = np.zeros(N, f32)
    for i in range(N):
        if i % 50 and not (i >= 320 and step >= 12):
            g[i] = f32((hashed(i, step, salt) & 0xFFFF) - 32768) * f32(2.0 ** -(15 + i * 7 % 23))
    return g


def weights(salt):
    return np.array([f32((hashed(i, 0, salt) & 0xFFFF) - 32768) * f32(2.0**-16) for i in range(N)], f32)


def hexed(x):
    return x.astype(x.dtype.newbyteorder("<")).tobytes().hex()


def run(kind, salt):
    w = weights(salt)
    m8, v8 = np.full(N, 0, np.uint8), np.zeros(N, np.uint8)
    count = len(list(blocks()))
    ms, vs = np.zeros(count, f32), np.zeros(count, f32)
    m16, v16 = np.zeros(N, np.uint16), np.zeros(N, np.uint16)
    out = []
    for step in range(1, STEPS + 1):
        g = gradient(step, salt) * f32(SCALE)
        m = decode(m8, ms, True) if kind == "8bit" else widen_bf16(m16)
        v = decode(v8, vs, False) if kind == "8bit" else widen_bf16(v16)
        m = m + f32(1 - BETA1) * (g - m)
        v = f32(BETA2) * v + f32(1 - BETA2) * g * g
        size, root = f32(LR / (1 - BETA1**step)), f32(1 / np.sqrt(1 - BETA2**step))
        w = w * f32(1 - LR * DECAY) - size * (m / (np.sqrt(v) * root + f32(EPS)))
        if kind == "8bit":
            m8, ms = encode(m, True)
            v8, vs = encode(v, False)
            out.append({"m": hexed(m8), "v": hexed(v8), "m_scale": hexed(ms), "v_scale": hexed(vs), "w": hexed(w)})
        else:
            random = words(step)
            m16, v16 = round_bf16(m, random >> 16), round_bf16(v, random & 0xFFFF)
            out.append({"m": hexed(m16), "v": hexed(v16), "w": hexed(w)})
        assert w.dtype == m.dtype == v.dtype == f32
    return out


def best(kind):
    """The salt, of some, with the widest margin."""
    found = None
    for salt in range(200):
        margin[0] = 1.0
        steps = run(kind, salt)
        if not found or margin[0] > found["margin"]:
            found = {"salt": salt, "margin": margin[0], "steps": steps}
    return found


json.dump({"n": N, "first": FIRST, "lr": LR, "beta1": BETA1, "beta2": BETA2, "eps": EPS, "decay": DECAY,
           "grad_scale": SCALE, "seed": SEED, "tensor": TENSOR,
           "signed": hexed(NUMBERS[True]), "unsigned": hexed(NUMBERS[False]),
           "8bit": best("8bit"), "bf16": best("bf16")}, sys.stdout, indent=0)
print()
