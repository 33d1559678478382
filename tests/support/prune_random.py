# SPDX-License-Identifier: Apache-2.0
"""Random networks out of the topologies a channel pruner must cut, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from tersor.graph_ir import Model
from tests.support.prune_build import P1
from tests.support.prune_net import Net
from tests.support.prune_random_more import MORE_STEPS
from tests.support.runtime import NORMALISES_ONE


def plain(net: Net) -> None:
    channels = net.pick(4, 6, 8, 12)
    made = net.conv(net.last, net.channels, channels)
    net.to(net.add(f"{net.pick('Relu', 'Sigmoid', 'Tanh')}({made})"), channels)


def norm(net: Net) -> None:
    c = net.channels
    gain, beta = net.weight(c, kind="gain"), net.weight(c)
    # A cut may leave one channel.
    if not NORMALISES_ONE or net.pick(True, False):
        rest = f"{gain}, {beta}, {net.weight(c)}, {net.weight(c, kind='var')}"
        net.to(net.add(f"BatchNormalization({net.last}, {rest})"), c)
        return
    turned = net.add(f"Transpose<perm = [0, 2, 3, 1]>({net.last})")
    done = net.add(f"LayerNormalization({turned}, {gain}, {beta})")
    net.to(net.add(f"Transpose<perm = [0, 3, 1, 2]>({done})"), c)


def residual(net: Net) -> None:
    middle = net.pick(4, 6)
    inner = net.add(f"Relu({net.conv(net.last, net.channels, middle)})")
    back = net.conv(inner, middle, net.channels)
    net.to(net.add(f"Add({net.last}, {back})"), net.channels)


def concat(net: Net) -> None:
    others = [*net.kept, (net.last, net.channels)]
    name, channels = net.pick(*others)
    if net.channels + channels <= 24:
        order = net.pick((net.last, name), (name, net.last))
        net.to(net.add(f"Concat<axis = 1>({', '.join(order)})"), net.channels + channels)


def skip(net: Net) -> None:
    """An addition of an earlier image of as many channels."""
    fits = [name for name, channels in net.kept if channels == net.channels]
    if fits:
        net.to(net.add(f"{net.pick('Add', 'Mul')}({net.last}, {net.pick(*fits)})"), net.channels)


def grouped(net: Net) -> None:
    groups = [g for g in (2, 3, 4, net.channels) if net.channels % g == 0]
    if groups:
        group = net.pick(*groups)
        outs = group * net.pick(1, 2) if group * 2 <= 24 else group
        net.to(net.conv(net.last, net.channels, outs, group=group), outs)


def split(net: Net) -> None:
    """C2f: a part goes through a convolution, then all are joined."""
    if net.channels < 4:
        return
    cut = net.pick(2, net.channels // 2, net.channels - 2)
    at, ends = net.ints(0), net.ints(cut)
    whole, axis = net.ints(net.channels), net.ints(1)
    first = net.add(f"Slice({net.last}, {at}, {ends}, {axis})")
    second = net.add(f"Slice({net.last}, {ends}, {whole}, {axis})")
    made = net.conv(second, net.channels - cut, 4)
    net.to(net.add(f"Concat<axis = 1>({first}, {made})"), cut + 4)


def shuffle(net: Net) -> None:
    groups = [g for g in (2, 3, 4) if net.channels % g == 0 and net.channels > g]
    if groups:
        g, c, s = net.pick(*groups), net.channels, net.size
        apart = net.add(f"Reshape({net.last}, {net.ints(2, g, c // g, s, s)})")
        turned = net.add(f"Transpose<perm = [0, 2, 1, 3, 4]>({apart})")
        net.to(net.add(f"Reshape({turned}, {net.ints(2, net.pick(c, -1), s, s)})"), c)


def squeeze(net: Net) -> None:
    pooled = net.add(f"GlobalAveragePool({net.last})")
    inner = net.add(f"Relu({net.conv(pooled, net.channels, 4)})")
    gate = net.add(f"Sigmoid({net.conv(inner, 4, net.channels)})")
    net.to(net.add(f"Mul({net.last}, {gate})"), net.channels)


def pool(net: Net) -> None:
    kind = net.pick("MaxPool", "AveragePool")
    net.to(net.add(f"{kind}<kernel_shape = [3, 3], {P1}>({net.last})"), net.channels)


def group_norm(net: Net) -> None:
    groups = [g for g in (2, 3, 4) if net.channels % g == 0 and net.channels > g]
    if groups:
        g = net.pick(*groups)
        apart = net.add(f"Reshape({net.last}, {net.ints(0, g, -1)})")
        done = net.add(f"InstanceNormalization({apart}, {net.weight(g, kind='gain')}, {net.weight(g)})")
        net.to(net.add(f"Reshape({done}, {net.add(f'Shape({net.last})')})"), net.channels)


def padded(net: Net) -> None:
    low, high = net.pick(0, 2), net.pick(0, 3)
    if net.channels + low + high <= 24:
        pads = net.ints(0, low, 0, 0, 0, high, 0, 0)
        grown = net.add(f"Pad({net.last}, {pads})")
        other = net.conv(net.last, net.channels, net.channels + low + high)
        net.to(net.add(f"Add({grown}, {other})"), net.channels + low + high)


def tokens(net: Net) -> None:
    """An MLP or attention over the pixels."""
    c, pixels = net.channels, net.size**2
    flat = net.add(f"Reshape({net.last}, {net.ints(2, c, net.pick(pixels, -1))})")
    rows = net.add(f"Transpose<perm = [0, 2, 1]>({flat})")
    if net.pick(True, False):
        hidden = net.add(f"Relu({net.add(f'MatMul({rows}, {net.weight(c, 6)})')})")
        made = net.add(f"MatMul({hidden}, {net.weight(6, c)})")
    else:
        apart = net.ints(2, pixels, 4, 2)
        heads = [net.add(f"MatMul({rows}, {net.weight(c, 8)})") for _ in range(3)]
        heads = [net.add(f"Reshape({name}, {apart})") for name in heads]
        q, k, v = (
            net.add(f"Transpose<perm = [0, 2, {turn}]>({name})")
            for name, turn in zip(heads, ("1, 3", "3, 1", "1, 3"), strict=True)
        )
        share = net.add(f"Softmax({net.add(f'MatMul({q}, {k})')})")
        joined = net.add(f"Transpose<perm = [0, 2, 1, 3]>({net.add(f'MatMul({share}, {v})')})")
        made = net.add(
            f"MatMul({net.add(f'Reshape({joined}, {net.ints(2, pixels, 8)})')}, {net.weight(8, c)})"
        )
    summed = net.add(f"Add({rows}, {made})")
    turned = net.add(f"Transpose<perm = [0, 2, 1]>({summed})")
    net.to(net.add(f"Reshape({turned}, {net.ints(2, c, net.size, net.size)})"), c)


def twice(net: Net) -> None:
    """One weight for two convolutions."""
    weight = net.weight(net.channels, net.channels, 1, 1)
    first = net.add(f"Relu({net.add(f'Conv({net.last}, {weight})')})")
    net.to(net.add(f"Conv({first}, {weight})"), net.channels)


STEPS = (
    *(plain, norm, residual, concat, skip, grouped, split, shuffle, squeeze, pool, group_norm, padded),
    *(tokens, twice),
    *MORE_STEPS,
)


@st.composite
def networks(draw: st.DrawFn) -> Model:
    """A stem, two to six random steps, one or two heads."""
    net = Net(draw)
    plain(net)
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=2, max_size=6)):
        net.keep()
        step(net)
        if draw(st.booleans()):
            plain(net)
    return net.model(draw(st.integers(0, 2**16)))
