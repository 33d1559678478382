# SPDX-License-Identifier: Apache-2.0
"""Steps of random networks that are rarer: bodies, recurrences, moved channels, other ranks, int8."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.prune_build import P1
from tests.support.prune_net import Net


def channels_looked_up(net: Net) -> None:
    """GatherND over channels, some of them twice, some not at all."""
    count = net.pick(2, net.channels, net.channels + 1)
    chosen = [(3 * i + net.pick(0, 1)) % net.channels for i in range(count)]
    at = net.constant("int64", f"2,{count},1", chosen * 2)
    net.to(net.add(f"GatherND<batch_dims = 1>({net.last}, {at})"), count)


def places_looked_up(net: Net) -> None:
    """GatherND over places: the picture turned by a quarter."""
    side = range(net.size)
    at = net.constant("int64", f"2,{net.size**2},2", [i for y in side for x in side for i in (x, y)] * 2)
    rows = net.add(f"Transpose<perm = [0, 2, 3, 1]>({net.last})")
    found = net.add(f"Transpose<perm = [0, 2, 1]>({net.add(f'GatherND<batch_dims = 1>({rows}, {at})')})")
    net.to(net.add(f"Reshape({found}, {net.ints(0, -1, net.size, net.size)})"), net.channels)


def branch(net: Net) -> None:
    """An If whose branches read what is outside, and weights of the main graph."""
    c, s = net.channels, net.size
    outs = net.pick(4, c)
    zero = net.constant("float", "1", [0.0])
    sign = net.add(f"Greater({net.add('ReduceMean(x)')}, {zero})")
    chosen = net.add(f"Squeeze({sign})")
    n = len(net.lines)
    kind = f"float[2,{outs},{s},{s}]"
    first = f"p{n} = Conv({net.last}, {net.weight(outs, c, 1, 1)})"
    if net.pick(True, False):
        middle = net.weight(6, c, 1, 1)
        other = f"m{n} = Conv({net.last}, {middle}) n{n} = Relu(m{n})"
        other += f" q{n} = Conv(n{n}, {net.weight(outs, 6, 1, 1)})"
    elif outs == c:
        other = f"q{n} = Relu({net.last})"
    else:
        other = f"q{n} = Conv({net.last}, {net.weight(outs, c, 1, 1)})"
    call = f"""If ({chosen}) <then_branch = t{n} () => ({kind} p{n}) {{ {first} }},
        else_branch = e{n} () => ({kind} q{n}) {{ {other} }}>"""
    net.to(net.add(call), outs)


def loop(net: Net) -> None:
    """A Loop that hands an image on and adds one from outside."""
    c, s, n = net.channels, net.size, len(net.lines)
    outside = [name for name, channels in net.kept if channels == c] or [net.last]
    count = net.constant("int64", "1", [net.pick(1, 2)])
    inner, back = net.weight(6, c, 1, 1), net.weight(c, 6, 1, 1)
    kind = f"float[2,{c},{s},{s}]"
    call = f"""Loop ({net.add(f"Squeeze({count})")}, , {net.last}) <body = b{n} (int64 i{n}, bool k{n},
        {kind} h{n}) => (bool o{n}, {kind} g{n}) {{ o{n} = Identity(k{n}) m{n} = Conv(h{n}, {inner})
        r{n} = Relu(m{n}) u{n} = Conv(r{n}, {back}) g{n} = Add(u{n}, {net.pick(*outside)}) }}>"""
    net.to(net.add(call), c)


def parts(net: Net) -> None:
    """A Split into uneven parts, joined in another order, one perhaps twice."""
    c = net.channels
    if c < 4 or c > 16:
        return
    sizes = net.pick((1, c - 1), (1, 1, c - 2), (c // 2, 1, c - c // 2 - 1))
    names = [f"s{len(net.lines)}_{i}" for i in range(len(sizes))]
    net.lines.append(f"{', '.join(names)} = Split<axis = 1>({net.last}, {net.ints(*sizes)})")
    picked: tuple[int, ...] = net.pick((1, 0), (0, 0, 1), (1, 0, 1))
    joined = ", ".join(names[i] for i in picked)
    net.to(net.add(f"Concat<axis = 1>({joined})"), sum(sizes[i] for i in picked))


def strided(net: Net) -> None:
    """Channels backwards, or the even and the odd ones in turn."""
    c, axis = net.channels, net.ints(1)
    if net.pick(True, False):
        cut = f"{net.ints(-1)}, {net.ints(-(2**31))}, {axis}, {net.ints(-1)}"
        net.to(net.add(f"Slice({net.last}, {cut})"), c)
        return
    step, end = net.ints(2), net.ints(c)
    even, odd = (net.add(f"Slice({net.last}, {net.ints(i)}, {end}, {axis}, {step})") for i in (0, 1))
    if c % 2 == 0 and net.pick(True, False):
        net.to(net.add(f"Add({even}, {odd})"), c // 2)
    else:
        net.to(net.add(f"Concat<axis = 1>({odd}, {even})"), c)


def reshaped(net: Net) -> None:
    """A chain of shapes that ends with the first one."""
    c, s = net.channels, net.size
    shapes = [(2, c, s * s), (2, c * 2, s // 2, s), (2, -1), (2, c, 1, s, s), (2, c, 2, -1), (-1, s, s)]
    last = net.last
    for _ in range(net.pick(1, 2, 3)):
        last = net.add(f"Reshape({last}, {net.ints(*net.pick(*shapes))})")
        last = net.add(f"{net.pick('Relu', 'Identity', 'Tanh')}({last})")
    net.to(net.add(f"Reshape({last}, {net.ints(2, c, s, s)})"), c)


def depth(net: Net) -> None:
    """Places into channels and back, perhaps over another mode."""
    wide = net.add(f"SpaceToDepth<blocksize = 2>({net.last})")
    outs = net.pick(8, 16)
    made = net.add(f"Conv({wide}, {net.weight(outs, net.channels * 4, 1, 1)})")
    mode = net.pick("DCR", "CRD")
    net.to(net.add(f'DepthToSpace<blocksize = 2, mode = "{mode}">({made})'), outs // 4)


def line_conv(net: Net) -> None:
    """A convolution over rows of pixels."""
    c, outs = net.channels, net.pick(4, 6)
    flat = net.add(f"Reshape({net.last}, {net.ints(0, net.pick(0, c), -1)})")
    bias = net.weight(outs)
    made = net.add(f"Conv<pads = [1, 1]>({flat}, {net.weight(outs, c, 3)}, {bias})")
    net.to(net.add(f"Reshape({made}, {net.ints(2, -1, net.size, net.size)})"), outs)


def volume_conv(net: Net) -> None:
    """A convolution over volumes of one layer; or one for which channels are the depth."""
    c, axis = net.channels, net.pick(1, 2)
    whole = net.add(f"Unsqueeze({net.last}, {net.ints(axis)})")
    outs = 1 if axis == 1 else net.pick(4, 6)
    weight = net.weight(outs, 1 if axis == 1 else c, 1, 3, 3)
    made = net.add(f"Conv<pads = [0, 1, 1, 0, 1, 1]>({whole}, {weight})")
    net.to(net.add(f"Squeeze({made}, {net.ints(axis)})"), c if axis == 1 else outs)


def recurrent(net: Net) -> None:
    """A recurrence over the pixels."""
    op, gates = net.pick(("LSTM", 4), ("GRU", 3))
    c, ways, hidden = net.channels, net.pick(1, 2), 4
    way = "bidirectional" if ways == 2 else "forward"
    rows = net.add(f"Reshape({net.last}, {net.ints(2, c, -1)})")
    steps = net.add(f"Transpose<perm = [2, 0, 1]>({rows})")
    wide = gates * hidden
    shapes = (ways, wide, c), (ways, wide, hidden), (ways, 2 * wide)
    weights = ", ".join(net.weight(*shape) for shape in shapes)
    made = net.add(f'{op}<hidden_size = {hidden}, direction = "{way}">({steps}, {weights})')
    turned = net.add(f"Transpose<perm = [2, 1, 3, 0]>({made})")
    outs = ways * hidden
    net.to(net.add(f"Reshape({turned}, {net.ints(2, outs, net.size, net.size)})"), outs)


def shared_heads(net: Net) -> None:
    """Attention over the pixels in which four heads of queries share two of keys and values."""
    c, pixels = net.channels, net.size**2
    flat = net.add(f"Reshape({net.last}, {net.ints(2, c, -1)})")
    rows = net.add(f"Transpose<perm = [0, 2, 1]>({flat})")

    def heads(count: int) -> str:
        made = net.add(f"MatMul({rows}, {net.weight(c, count * 2)})")
        apart = net.add(f"Reshape({made}, {net.ints(0, 0, count, 2)})")
        return net.add(f"Transpose<perm = [0, 2, 1, 3]>({apart})")

    def repeated(name: str) -> str:
        more = net.add(f"Unsqueeze({name}, {net.ints(2)})")
        more = net.add(f"Expand({more}, {net.ints(1, 2, 2, pixels, 2)})")
        return net.add(f"Reshape({more}, {net.ints(0, 4, pixels, 2)})")

    q, k, v = heads(4), repeated(heads(2)), repeated(heads(2))
    turned = net.add(f"Transpose<perm = [0, 1, 3, 2]>({k})")
    share = net.add(f"Softmax({net.add(f'MatMul({q}, {turned})')})")
    joined = net.add(f"Transpose<perm = [0, 2, 1, 3]>({net.add(f'MatMul({share}, {v})')})")
    made = net.add(f"MatMul({net.add(f'Reshape({joined}, {net.ints(0, 0, -1)})')}, {net.weight(8, c)})")
    back = net.add(f"Transpose<perm = [0, 2, 1]>({made})")
    net.to(net.add(f"Reshape({back}, {net.ints(2, c, net.size, net.size)})"), c)


def int8(net: Net) -> None:
    """A convolution whose weights are int8 with a scale for each channel, its bias int32."""
    c, outs = net.channels, net.pick(4, 8)
    numbers = [(5 * i) % 17 - 8 for i in range(outs * c * 9)]
    weight = net.constant("int8", f"{outs},{c},3,3", numbers)
    scales = net.constant("float", str(outs), [0.02 + 0.001 * i for i in range(outs)])
    zeros = net.constant("int8", str(outs), [i % 3 for i in range(outs)])
    bias = net.constant("int32", str(outs), [7 * i - 20 for i in range(outs)])
    wide = net.add(f"DequantizeLinear<axis = 0>({weight}, {scales}, {zeros})")
    added = net.add(f"DequantizeLinear<axis = 0>({bias}, {scales})")
    net.to(net.add(f"Conv<{P1}>({net.last}, {wide}, {added})"), outs)


MORE_STEPS: tuple[Callable[[Net], None], ...] = (
    *(channels_looked_up, places_looked_up, branch, loop, parts, strided, reshaped, depth),
    *(line_conv, volume_conv, recurrent, shared_heads, int8),
)
