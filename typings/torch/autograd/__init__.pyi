# SPDX-License-Identifier: Apache-2.0
# See the stub of torch itself.

from collections.abc import Sequence

from .. import Tensor

def grad(
    outputs: Tensor, inputs: Sequence[Tensor], *, allow_unused: bool = False
) -> tuple[Tensor | None, ...]: ...
