"""ECDSA on P-256 in plain Python: for tests only, slow and not constant in time. (FIPS 186-4, SEC 1)"""

import secrets

P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def add(a, b):
    """The sum of two points; None is the point at infinity."""
    if a is None:
        return b
    if b is None:
        return a
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, P) % P
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P) % P
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def multiply(scalar, point):
    result = None
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def generate():
    """A private key and its public point, 04 || X || Y."""
    secret = secrets.randbelow(N - 1) + 1
    x, y = multiply(secret, G)
    return secret, b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big")


def sign(secret, digest):
    """A DER signature of a digest of 32 octets."""
    while True:
        nonce = secrets.randbelow(N - 1) + 1
        r = multiply(nonce, G)[0] % N
        s = pow(nonce, -1, N) * (int.from_bytes(digest, "big") + r * secret) % N
        if r and s:
            body = integer(r) + integer(s)
            return bytes([0x30, len(body)]) + body


def verify(point, digest, signature):
    assert point[0] == 4 and len(point) == 65
    public = (int.from_bytes(point[1:33], "big"), int.from_bytes(point[33:], "big"))
    assert signature[0] == 0x30 and signature[1] == len(signature) - 2
    assert signature[2] == 0x02
    length = signature[3]
    r = int.from_bytes(signature[4 : 4 + length], "big")
    assert signature[4 + length] == 0x02
    s = int.from_bytes(signature[6 + length :], "big")
    inverse = pow(s, -1, N)
    first = multiply(int.from_bytes(digest, "big") * inverse % N, G)
    second = multiply(r * inverse % N, public)
    sum_ = add(first, second)
    return sum_ is not None and sum_[0] % N == r


def integer(value):
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes([0x02, len(body)]) + body
