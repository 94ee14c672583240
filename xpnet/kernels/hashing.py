"""Random numbers by hashing, the same on every device: nothing is copied from the host."""

from xpnet.device import get_array_module
from xpnet.kernels.operations import kernel
from xpnet.typing import Array

__all__ = ["advance", "dropout", "random_mask"]

# The multipliers of Pelle Evensen's mixer "moremur" (2019), and the negative of SplitMix64's golden-ratio step. All are
# odd, and below 2**63: NumPy and CuPy then take them as unsigned 64-bit integers. kernels.cu has them too.
STEP, MULTIPLIERS = 0x61C8864680B583EB, ((27, 0x3C79AC492BA7B653), (33, 0x1C69B3F74AC4AE35))


@kernel
def random_mask(x: Array, state: Array, least: int, factor: float, out: Array | None = None, first: int = 0) -> Array:
    """Return `factor` where a random integer in [0, 2**32) is at least `least`, else 0, in x's shape and dtype.

    The integer is a hash of `state`, an unsigned 64-bit integer of shape (1,), and of the element's index in C order,
    counted from `first`.
    """
    xp = get_array_module(x=x, state=state)
    elements = xp.arange(first, first + x.size, dtype="uint64")
    elements *= STEP
    elements += _mixed(state.copy())
    is_one = ((_mixed(elements) >> 32) >= least).reshape(x.shape)
    return xp.multiply(is_one, factor, out=out, dtype=x.dtype)


@kernel
def dropout(
    x: Array,
    state: Array,
    least: int,
    factor: float,
    mask: Array | None = None,
    out: Array | None = None,
    first: int = 0,
) -> tuple[Array, Array]:
    """Return x times a mask, and the mask, from `random_mask`. `mask` and `out` are arrays for them."""
    mask = random_mask(x, state, least, factor, mask, first)
    return get_array_module(x).multiply(x, mask, out=out), mask


def advance(state: Array) -> None:
    """Change the state of `random_mask` in place, for other numbers."""
    state += STEP


def _mixed(z: Array) -> Array:
    """Hash unsigned 64-bit integers in place and return them: each input bit flips about half of the output bits."""
    for shift, multiplier in MULTIPLIERS:
        z ^= z >> shift
        z *= multiplier
    z ^= z >> 27
    return z
