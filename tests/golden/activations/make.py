"""PyTorch's activations in float64: values and slopes, and the gradients of small nets. Needs PyTorch.

values.txt, one line a number: name, parameters or `-`, bits of x, of the value, of the slope.
nets.txt, one line a net and picture: name, parameters or `-`, the logits, then the gradient of logit 1 at every pixel.
"""
import struct
from pathlib import Path

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)

ACTIVATIONS = [
    ("sigmoid", (), torch.sigmoid),
    ("silu", (), F.silu),
    # The backward of F.hardsigmoid multiplies by 1/6 rounded to single precision, in float64 too; this does not.
    ("hard_sigmoid", (), lambda x: F.relu6(x + 3) / 6),
    ("hard_swish", (), F.hardswish),
    ("tanh", (), torch.tanh),
    ("gelu", (), F.gelu),
    ("gelu_tanh", (), lambda x: F.gelu(x, approximate="tanh")),
    ("leaky_relu", (0.01,), lambda x: F.leaky_relu(x, 0.01)),
    ("leaky_relu", (-0.25,), lambda x: F.leaky_relu(x, -0.25)),
    ("elu", (1.0,), lambda x: F.elu(x, 1.0)),
    ("elu", (0.75,), lambda x: F.elu(x, 0.75)),
    ("softplus", (1.0, 20.0), lambda x: F.softplus(x, 1.0, 20.0)),
    ("softplus", (2.5, 5.0), lambda x: F.softplus(x, 2.5, 5.0)),
    ("abs", (), torch.abs),
]
# Functions without a bound on their slope, some of them of positive numbers only.
WILD = [("exp", (), torch.exp), ("log", (), torch.log)]
WILD += [("power", (p,), lambda x, p=p: x**p) for p in (2.0, 3.0, -1.0, 0.5, -0.5, 0.25, 0.75, 1.3, -2.5, 5.0)]
# The slopes of the first and of the second activation of a net, and one for all channels.
PRELU = [("prelu", tuple((i % 5 - 1) / 8 for i in range(9)), None), ("prelu", (0.25,), None)]


def bits(x):
    return f"{struct.unpack('<Q', struct.pack('<d', x))[0]:016x}"


def points():
    """Single-precision numbers: corners and their neighbours, tiny and large ones, many between -12 and 12."""
    out = [0.0, 1e-30, 1e-6, 2.0**-12, 3.0, 6.0, 3.0 - 2.0**-20, 3.0 + 2.0**-20, 2.0, 20.0, 20.5, 30.0, 90.0]
    out += [i * 0.8125 + i * i / 64 for i in range(1, 13)]
    return [float(torch.tensor(sign * x, dtype=torch.float32)) for x in out for sign in (1.0, -1.0)]


def positive(x):
    """Numbers from 0.75 to 1.25, for the wild functions in nets."""
    return 0.25 * torch.tanh(x) + 1


def drawn(salt, *shape):
    """Multiples of 1/64 that look drawn."""
    count = 1
    for n in shape:
        count *= n
    i = torch.arange(count)
    return (((i * 37 + salt * 53 + i * i * 11) % 97 - 48) / 64).reshape(shape)


def net(x, first, second):
    x = F.conv2d(x, drawn(1, 5, 3, 3, 3), drawn(2, 5), padding=1)
    x = F.conv2d(first(x), drawn(3, 4, 5, 3, 3), drawn(4, 4), stride=2, padding=1)
    return F.linear(second(x).flatten(1), drawn(5, 3, 4 * 3 * 4), drawn(6, 3))


def main():
    here = Path(__file__).parent
    text = lambda parameters: ",".join(map(repr, parameters)) or "-"
    lines = []
    for name, parameters, f in ACTIVATIONS + WILD:
        for x in points():
            t = torch.tensor([x], requires_grad=True)
            y = f(t)
            y.sum().backward()
            # Single precision has no larger numbers, and a slope that is infinite is 0 by our convention.
            if not (abs(y.item()) < 1e37 and abs(t.grad.item()) < 1e37):
                continue
            lines.append(f"{name} {text(parameters)} {bits(x)} {bits(y.item())} {bits(t.grad.item())}\n")
    (here / "values.txt").write_text("".join(lines))
    lines = []
    for name, parameters, f in ACTIVATIONS + WILD + PRELU:
        first = second = f
        if (name, parameters, f) in WILD:
            first = second = lambda x, f=f: f(positive(x))
        if name == "prelu":
            all_channels = len(parameters) == 1
            slopes = torch.tensor(parameters)
            first = lambda x: F.prelu(x, slopes if all_channels else slopes[:5])
            second = lambda x: F.prelu(x, slopes if all_channels else slopes[5:])
        x = (2 * drawn(7, 2, 3, 5, 7)).requires_grad_()
        logits = net(x, first, second)
        logits[:, 1].sum().backward()
        for i in range(2):
            numbers = logits[i].tolist() + x.grad[i].flatten().tolist()
            lines.append(" ".join([name, text(parameters)] + [f"{v!r}" for v in numbers]) + "\n")
    (here / "nets.txt").write_text("".join(lines))


main()
