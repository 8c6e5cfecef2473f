"""Unfolding an image into columns, and its transpose.

B batch · C channels · H W image · h w kernel · H' W' output places
options = (stride, padding, dilation), each a pair of integers
"""

from lora_np.backend import Array, get_xp

Pair = tuple[int, int]


def output_size(
    size: int, kernel: int, stride: int, padding: int, dilation: int
) -> int:
    """Number of places: ⌊(size + 2 padding - dilation (kernel - 1) - 1) / stride⌋ + 1

    Raises ValueError when the kernel does not fit.

    >>> output_size(5, 3, stride=2, padding=1, dilation=1)
    3
    """
    places = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    if places < 1:
        raise ValueError(
            f"a kernel of {kernel} with dilation {dilation} does not fit into "
            f"{size} + 2 x {padding} padding"
        )
    return places


def taps(shape: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> list:
    """For each kernel entry (i, j), the slices of the padded image that it meets."""
    (H, W), (sh, sw), (dh, dw) = shape, stride, dilation
    return [
        (
            i,
            j,
            slice(i * dh, i * dh + (H - 1) * sh + 1, sh),
            slice(j * dw, j * dw + (W - 1) * sw + 1, sw),
        )
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]


def unfold(x_BCHW: Array, kernel: Pair, places: Pair, options: tuple) -> Array:
    """Columns (B, C, h, w, H', W'): the image as each kernel entry sees it.

    options = (stride, padding, dilation), each a pair.

    >>> import numpy as np
    >>> x = np.arange(3.0).reshape(1, 1, 1, 3)
    >>> unfold(x, (1, 2), (1, 2), ((1, 1), (0, 0), (1, 1)))[0, 0, 0, :, 0]
    array([[0., 1.],
           [1., 2.]])
    """
    stride, padding, dilation = options
    xp = get_xp(x_BCHW)
    B, C, H, W = x_BCHW.shape
    padded = xp.zeros((B, C, H + 2 * padding[0], W + 2 * padding[1]), x_BCHW.dtype)
    padded[:, :, padding[0] : padding[0] + H, padding[1] : padding[1] + W] = x_BCHW
    cols = xp.empty((B, C, *kernel, *places), x_BCHW.dtype)
    for i, j, rows, columns in taps(places, kernel, stride, dilation):
        cols[:, :, i, j] = padded[:, :, rows, columns]
    return cols


def fold(cols: Array, image: Pair, options: tuple) -> Array:
    """The transpose of `unfold`: every column entry is added where it came from.

    >>> import numpy as np
    >>> fold(np.ones((1, 1, 1, 2, 1, 2)), (1, 3), ((1, 1), (0, 0), (1, 1)))[0, 0]
    array([[1., 2., 1.]])
    """
    stride, padding, dilation = options
    B, C, h, w, H2, W2 = cols.shape
    H, W = image
    xp = get_xp(cols)
    padded = xp.zeros((B, C, H + 2 * padding[0], W + 2 * padding[1]), cols.dtype)
    for i, j, rows, columns in taps((H2, W2), (h, w), stride, dilation):
        padded[:, :, rows, columns] += cols[:, :, i, j]
    return padded[:, :, padding[0] : padding[0] + H, padding[1] : padding[1] + W]
