"""Histograms out of Parquet: HDR V2 bytes to the field's own type."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable

from hdrh.histogram import HdrHistogram

#: The envelope that `hdrh` reads: a compressed HDR V2 payload.
_COMPRESSED_V2 = 0x1C849304
_LOWEST_NS, _HIGHEST_NS, _DIGITS = 1, 3_600_000_000_000, 3


def decode_hdr(blob: bytes) -> HdrHistogram:
    """A histogram column's bytes (`response_hdr`, `service_hdr`, `censored_hdr`), in nanoseconds.

    Parquet's own compression is used there, so the bytes are HDR V2 without deflate.
    """
    deflated = zlib.compress(blob, 1)
    envelope = struct.pack(">ii", _COMPRESSED_V2, len(deflated)) + deflated
    return HdrHistogram.decode(base64.b64encode(envelope))


def merge_hdr(blobs: Iterable[bytes | None]) -> HdrHistogram:
    """The histogram of everything that was counted in any of them; absent ones count nothing."""
    merged = HdrHistogram(_LOWEST_NS, _HIGHEST_NS, _DIGITS)
    for blob in blobs:
        if blob is not None:
            merged.add(decode_hdr(blob))
    return merged
