# SPDX-License-Identifier: Apache-2.0
# See the stub of torch itself.

from collections.abc import Sequence

from .. import Tensor

def avg_pool1d(input: Tensor, kernel_size: Sequence[int], stride: Sequence[int]) -> Tensor: ...
def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = ...,
    padding: Sequence[int] = ...,
    dilation: Sequence[int] = ...,
    groups: int = 1,
) -> Tensor: ...
def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = ...,
    padding: Sequence[int] = ...,
    output_padding: Sequence[int] = ...,
    groups: int = 1,
    dilation: Sequence[int] = ...,
) -> Tensor: ...
def max_pool1d(
    input: Tensor, kernel_size: Sequence[int], stride: Sequence[int], *, dilation: Sequence[int] = ...
) -> Tensor: ...
def avg_pool2d(input: Tensor, kernel_size: Sequence[int], stride: Sequence[int]) -> Tensor: ...
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = ...,
    padding: Sequence[int] = ...,
    dilation: Sequence[int] = ...,
    groups: int = 1,
) -> Tensor: ...
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = ...,
    padding: Sequence[int] = ...,
    output_padding: Sequence[int] = ...,
    groups: int = 1,
    dilation: Sequence[int] = ...,
) -> Tensor: ...
def max_pool2d(
    input: Tensor, kernel_size: Sequence[int], stride: Sequence[int], *, dilation: Sequence[int] = ...
) -> Tensor: ...
def avg_pool3d(input: Tensor, kernel_size: Sequence[int], stride: Sequence[int]) -> Tensor: ...
def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = ...,
    padding: Sequence[int] = ...,
    dilation: Sequence[int] = ...,
    groups: int = 1,
) -> Tensor: ...
def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = ...,
    padding: Sequence[int] = ...,
    output_padding: Sequence[int] = ...,
    groups: int = 1,
    dilation: Sequence[int] = ...,
) -> Tensor: ...
def max_pool3d(
    input: Tensor, kernel_size: Sequence[int], stride: Sequence[int], *, dilation: Sequence[int] = ...
) -> Tensor: ...
def celu(input: Tensor, alpha: float = 1.0) -> Tensor: ...
def gelu(input: Tensor, approximate: str = "none") -> Tensor: ...
def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor: ...
def mish(input: Tensor) -> Tensor: ...
def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor: ...
def softplus(input: Tensor) -> Tensor: ...
def softsign(input: Tensor) -> Tensor: ...
