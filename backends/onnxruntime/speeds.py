# SPDX-License-Identifier: Apache-2.0
"""What work costs in onnxruntime's CPU kernels: rules of thumb that rank choices before anything is timed.

They are of one core with AVX-512 and VNNI. What was measured: 990 float convolutions of all kinds, whose time
is nine times in ten between 0.6 and 1.3 of `MAC_PS` for a product and `ELEMENT_PS` for an element; dense
layers in int8; and what stood between a layer and neighbours of the other precision. Being constants, they
rank alike on every machine.
"""

from __future__ import annotations

MAC_PS = 8.7  # a multiply-accumulate of a float kernel
INT8_MAC_PS = 2.3  # of an int8 kernel of a dense layer; one with groups gains nothing by int8
ELEMENT_PS = 87.0  # a float element that an operator reads or writes
# Going over to the other precision and back, for a byte of float activations; the layout changes as well.
BOUNDARY_PS = 60.0
CALL_US = 0.5  # calling a kernel: below it estimates say nothing
