"""Compressed messages: told by their first bytes, unpacked within the limits of HTTP's bodies.

grpcio would unpack a message whole before it looks at its size, so it is told to leave that to us; which
encoding the client named, it does not pass on. No message of the protocol begins as these encodings do:
gzip's first byte is a wire type that does not exist, deflate's is a field that no method has.
"""

from __future__ import annotations

from modelyard.serve.encoding import Encoding

_GZIP, _DEFLATE = 0x1F, 0x78


def encoding_of(data: bytes) -> Encoding | None:
    """How a message is compressed, `None` for one that is not.

    >>> import zlib
    >>> encoding_of(zlib.compress(b"x")), encoding_of(b"\\x1f\\x8b\\x08"), encoding_of(b"\\x0a\\x01m")
    ('deflate', 'gzip', None)
    """
    if len(data) < 2:
        return None
    first = data[0]
    if first == _GZIP and data[1] == 0x8B:
        return "gzip"
    if first == _DEFLATE and (first * 256 + data[1]) % 31 == 0:
        return "deflate"
    return None
