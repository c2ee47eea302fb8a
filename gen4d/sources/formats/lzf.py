"""LZF decompression, which PCD's binary_compressed needs.

A stream of items: a control byte below 32 announces that many plus one literal bytes; otherwise its upper three bits
are a length (7: one more byte follows and is added) and its lower five with the next byte the distance, less one,
back to bytes already written, of which length + 2 are repeated one by one.
"""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def lzf_expand(packed, out):
    """Fill `out` (M,) uint8 from `packed` (K,) uint8. Returns the bytes written, or -1 for a broken stream.

    Unlike other kernels this one checks every access: the stream comes from a file.
    """
    source, target = 0, 0
    packed_end, out_end = packed.size, out.size
    while source < packed_end:
        control = np.int64(packed[source])
        source += 1
        if control < 32:
            length = control + 1
            if source + length > packed_end or target + length > out_end:
                return -1
            for _ in range(length):
                out[target] = packed[source]
                source += 1
                target += 1
            continue
        length = control >> 5
        if length == 7:
            if source >= packed_end:
                return -1
            length += np.int64(packed[source])
            source += 1
        length += 2
        if source >= packed_end:
            return -1
        back = target - ((control & 31) << 8) - np.int64(packed[source]) - 1
        source += 1
        if back < 0 or target + length > out_end:
            return -1
        for _ in range(length):
            out[target] = out[back]
            back += 1
            target += 1
    return target
