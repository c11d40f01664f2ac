"""Small ONNX graphs in which channels, rows and columns lie in unusual places, and operations beside one another as files have
them; the logits of onnxruntime for the picture of `tests/drawn`. Needs numpy, onnx and onnxruntime.

    python tests/cases/onnx-arrangements/make.py
"""

import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T, helper as h, numpy_helper as nh

FOLDER = pathlib.Path(__file__).resolve().parent
sys.path.append(str(FOLDER.parents[1] / "zoo"))
from common import picture  # noqa: E402

rng = np.random.default_rng(0)
cases = {}


def R(*shape):
    return (rng.standard_normal(shape) * 0.5).astype(np.float32)


def L(*numbers):
    return np.array(numbers, dtype=np.int64)


class G:
    """A graph under construction."""

    def __init__(self, shape=(1, 3, 9, 11), opset=17):
        self.nodes, self.numbers, self.count, self.opset, self.shape = [], [], 0, opset, shape

    def const(self, a):
        self.count += 1
        name = f"c{self.count}"
        self.numbers.append(nh.from_array(np.asarray(a), name))
        return name

    def op(self, kind, inputs, outputs=1, **attributes):
        self.count += 1
        names = [f"v{self.count}_{j}" for j in range(outputs)]
        self.nodes.append(h.make_node(kind, inputs, names, name=f"{kind}_{self.count}", **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, x, ci, co, k=3, **a):
        return self.op("Conv", [x, self.const(R(co, ci, k, k)), self.const(R(co))], **({"pads": [k // 2] * 4} | a))

    def head(self, x, c, classes=5):
        flat = self.op("Flatten", [self.op("GlobalAveragePool", [x])])
        return self.op("Gemm", [flat, self.const(R(classes, c)), self.const(R(classes))], transB=1)

    def save(self, name, y):
        self.nodes.append(h.make_node("Identity", [y], ["logits"], name="out"))
        ports = [h.make_tensor_value_info("x", T.FLOAT, self.shape)], [
            h.make_tensor_value_info("logits", T.FLOAT, None)
        ]
        graph = h.make_graph(self.nodes, "g", *ports, self.numbers)
        model = h.make_model(graph, opset_imports=[h.make_opsetid("", self.opset)], ir_version=8)
        onnx.save(model, FOLDER / f"{name}.onnx")
        x = picture(self.shape)
        session = ort.InferenceSession(FOLDER / f"{name}.onnx", providers=["CPUExecutionProvider"])
        cases[name] = {
            "input": list(self.shape),
            "logits": session.run(None, {"x": x})[0].ravel().astype(float).tolist(),
        }


def simple(name, build, opset=17):
    g = G(opset=opset)
    y, c = build(g, g.conv("x", 3, 6))
    g.save(name, g.head(y, c))


simple("leaky", lambda g, x: (g.op("LeakyRelu", [x], alpha=0.2), 6))
simple(
    "avg-same-upper-inc",
    lambda g, x: (
        g.op("AveragePool", [x], kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER", count_include_pad=1),
        6,
    ),
)
simple("avg-asym", lambda g, x: (g.op("AveragePool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 2, 1]), 6))
simple(
    "avg-asym-inc-ceil",
    lambda g, x: (
        g.op(
            "AveragePool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 2, 1], count_include_pad=1, ceil_mode=1
        ),
        6,
    ),
)
simple(
    "max-asym-neg",
    lambda g, x: (
        g.op(
            "MaxPool",
            [g.op("Sub", [x, g.const(np.float32(9))])],
            kernel_shape=[3, 3],
            strides=[2, 2],
            pads=[0, 1, 2, 1],
        ),
        6,
    ),
)
simple("pad-neg", lambda g, x: (g.op("Pad", [x, g.const(L(0, 0, -1, 1, 0, 0, 2, -3))]), 6))
simple("pad-channels", lambda g, x: (g.op("Pad", [x, g.const(L(0, 1, 0, 0, 0, 2, 0, 0))]), 9))
simple("reduce-l2-channels", lambda g, x: (g.op("Mul", [x, g.op("ReduceL2", [x], axes=[1], keepdims=1)]), 6))
simple(
    "reduce-max-channels",
    lambda g, x: (g.op("Mul", [x, g.op("Sigmoid", [g.op("ReduceMax", [x], axes=[1], keepdims=1)])]), 6),
)
simple("reduce-min-positions", lambda g, x: (g.op("Mul", [x, g.op("ReduceMin", [x], axes=[2, 3], keepdims=1)]), 6))
simple("reduce-rows", lambda g, x: (g.op("Add", [x, g.op("ReduceMean", [x], axes=[2], keepdims=1)]), 6))
simple(
    "reduce-cols-sum-max",
    lambda g, x: (
        g.op("Add", [g.op("ReduceMax", [x], axes=[3], keepdims=1), g.op("ReduceSum", [x, g.const(L(3))], keepdims=1)]),
        6,
    ),
)
simple(
    "coordinate-att",
    lambda g, x: (
        g.op(
            "Mul",
            [
                g.op("Mul", [x, g.op("Sigmoid", [g.op("ReduceMean", [x], axes=[2], keepdims=1)])]),
                g.op("Sigmoid", [g.op("ReduceMean", [x], axes=[3], keepdims=1)]),
            ],
        ),
        6,
    ),
)
simple("reduce-all", lambda g, x: (g.op("Mul", [x, g.op("ReduceMean", [x], axes=[1, 2, 3], keepdims=1)]), 6))
simple(
    "sumsq-l1",
    lambda g, x: (
        g.op(
            "Add",
            [g.op("ReduceSumSquare", [x], axes=[2, 3], keepdims=1), g.op("ReduceL1", [x], axes=[-1, -2], keepdims=1)],
        ),
        6,
    ),
)


def radix(g, x):
    r = g.op("Reshape", [x, g.const(L(1, 2, 3, 9, 11))])
    gap = g.op("ReduceMean", [r], axes=[3, 4], keepdims=1)
    sm = g.op("Softmax", [gap], axis=1)
    m = g.op("Mul", [r, sm])
    s = g.op("ReduceSum", [m, g.const(L(1))], keepdims=0)
    return s, 3


simple("radix-softmax", radix)


def radix2(g, x):
    r = g.op("Reshape", [x, g.const(L(1, 3, 2, 9, 11))])
    m = g.op("ReduceMean", [r], axes=[2], keepdims=0)
    return m, 3


simple("pair-mean", radix2)


def sk(g, x):
    r = g.op("Reshape", [x, g.const(L(1, 3, 2, 9, 11))])
    sm = g.op("Softmax", [r], axis=2)
    return g.op("Reshape", [sm, g.const(L(1, 6, 9, 11))]), 6


simple("softmax-inner", sk)


def sk1(g, x):
    r = g.op("Reshape", [x, g.const(L(1, 3, 2, 9, 11))])
    sm = g.op("Softmax", [r], axis=1)
    return g.op("Reshape", [sm, g.const(L(1, 6, 9, 11))]), 6


simple("softmax-outer", sk1)


def sk_paths(g, x):
    a, b = g.op("Relu", [x]), g.op("Sigmoid", [x])
    st = g.op("Concat", [g.op("Unsqueeze", [a, g.const(L(1))]), g.op("Unsqueeze", [b, g.const(L(1))])], axis=1)
    s = g.op("ReduceSum", [st, g.const(L(1))], keepdims=0)
    p = g.op("ReduceMean", [s], axes=[2, 3], keepdims=1)
    f = g.conv(p, 6, 12, 1)
    r = g.op("Reshape", [f, g.const(L(1, 2, 6, 1, 1))])
    m = g.op("Mul", [st, g.op("Softmax", [r], axis=1)])
    return g.op("ReduceSum", [m, g.const(L(1))], keepdims=0), 6


simple("selective-kernels", sk_paths)


def eca(g, x):
    p = g.op("GlobalAveragePool", [x])
    s = g.op("Squeeze", [p, g.const(L(-1))])
    t = g.op("Transpose", [s], perm=[0, 2, 1])
    c = g.op("Conv", [t, g.const(R(1, 1, 3))], pads=[1, 1])
    t2 = g.op("Transpose", [c], perm=[0, 2, 1])
    u = g.op("Unsqueeze", [t2, g.const(L(-1))])
    return g.op("Mul", [x, g.op("Sigmoid", [u])]), 6


simple("eca", eca)


def tok(g, x):
    r = g.op("Reshape", [x, g.const(L(0, 0, -1))])
    t = g.op("Transpose", [r], perm=[0, 2, 1])
    ln = g.op("LayerNormalization", [t, g.const(R(6)), g.const(R(6))], axis=-1, epsilon=0.01)
    m = g.op("MatMul", [ln, g.const(R(6, 8))])
    a = g.op("Add", [m, g.const(R(8))])
    ge = g.op("Gelu", [a])
    mm = g.op("ReduceMean", [ge, g.const(L(1))], keepdims=0)
    return mm


g = G(opset=20)
x = g.conv("x", 3, 6)
y = tok(g, x)
g.save("tokens", g.op("Gemm", [y, g.const(R(8, 5)), g.const(R(1, 5))]))
g = G(opset=20)
x = g.conv("x", 3, 6)
r = g.op("Reshape", [x, g.const(L(1, 6, 99))])
y = g.op("MatMul", [g.const(R(4, 6)), r])
y = g.op("ReduceMean", [y, g.const(L(2))], keepdims=0)
g.save("matmul-left", g.op("Gemm", [y, g.const(R(4, 5)), g.const(np.float32(0.3))]))
g = G()
x = g.conv("x", 3, 2)
f = g.op("Flatten", [x])
bn = g.op(
    "BatchNormalization", [f] + [g.const(abs(R(198)) + 0.5) if i in (0, 3) else g.const(R(198)) for i in range(4)]
)
g.save("flatten-bn", g.op("Gemm", [bn, g.const(R(198, 5)), g.const(R(5))]))
g = G()
x = g.conv("x", 3, 2)
t = g.op("Transpose", [x], perm=[0, 2, 3, 1])
f = g.op("Reshape", [t, g.const(L(-1, 198))])
m = g.op("MatMul", [f, g.const(R(198, 7))])
a = g.op("Relu", [g.op("Add", [m, g.const(R(7))])])
g.save("nhwc-flatten", g.op("Gemm", [a, g.const(R(7, 5)), g.const(R(5))]))
g = G()
x = g.conv("x", 3, 2)
t = g.op("Transpose", [x], perm=[0, 2, 3, 1])
f = g.op("Reshape", [t, g.const(L(-1, 198))])
bn = g.op(
    "BatchNormalization", [f] + [g.const(abs(R(198)) + 0.5) if i in (0, 3) else g.const(R(198)) for i in range(4)]
)
g.save("nhwc-flatten-bn", g.op("Gemm", [bn, g.const(R(198, 5)), g.const(R(5))]))
simple(
    "slice-rows",
    lambda g, x: (g.op("Slice", [x, g.const(L(1, 2)), g.const(L(100, -1)), g.const(L(2, 3)), g.const(L(2, 1))]), 6),
)
simple(
    "slice-bgr",
    lambda g, x: (g.conv(g.op("Slice", [x, g.const(L(-1)), g.const(L(-100)), g.const(L(1)), g.const(L(-1))]), 6, 6), 6),
)
simple("concat-rows", lambda g, x: (g.conv(g.op("Concat", [x, g.op("Relu", [x])], axis=2), 6, 6), 6))
simple(
    "gather-row",
    lambda g, x: (g.op("Unsqueeze", [g.op("Gather", [x, g.const(np.int64(3))], axis=2), g.const(L(2))]), 6),
)
simple("gather-many", lambda g, x: (g.conv(g.op("Gather", [x, g.const(L(5, 0, 0, 2))], axis=1), 4, 6), 6))
simple("split-last", lambda g, x: (g.op("Mul", g.op("Split", [x], 2, axis=1)), 3), opset=13)
simple(
    "expand", lambda g, x: (g.op("Add", [x, g.op("Expand", [g.op("GlobalMaxPool", [x]), g.const(L(1, 6, 9, 11))])]), 6)
)
simple(
    "expand-channels",
    lambda g, x: (
        g.conv(g.op("Expand", [g.op("ReduceMean", [x], axes=[1], keepdims=1), g.const(L(1, 4, 9, 11))]), 4, 6),
        6,
    ),
)
simple(
    "mul-channels-of-one",
    lambda g, x: (g.op("Mul", [g.op("ReduceMean", [x], axes=[1], keepdims=1), g.const(R(6, 1, 1))]), 6),
)
simple("position-bias", lambda g, x: (g.op("Relu", [g.op("Add", [x, g.const(R(9, 11))])]), 6))
simple("full-bias", lambda g, x: (g.op("Relu", [g.op("Add", [x, g.const(R(1, 6, 9, 11))])]), 6))
simple(
    "div-const-first",
    lambda g, x: (g.op("Div", [g.const(np.float32(2)), g.op("Add", [g.op("Abs", [x]), g.const(np.float32(1))])]), 6),
)
simple("sub-const-first-channels", lambda g, x: (g.op("Sub", [g.const(R(6, 1, 1)), x]), 6))
simple(
    "pow-2-sqrt",
    lambda g, x: (g.op("Sqrt", [g.op("Add", [g.op("Pow", [x, g.const(np.float32(2))]), g.const(np.float32(0.1))])]), 6),
)
simple("exp-of-base", lambda g, x: (g.op("Pow", [g.const(np.float32(1.5)), x]), 6))
simple("softsign-tanh", lambda g, x: (g.op("Softsign", [g.op("Tanh", [x])]), 6))
simple(
    "swish-parts",
    lambda g, x: (g.op("Div", [x, g.op("Add", [g.op("Exp", [g.op("Neg", [x])]), g.const(np.float32(1))])]), 6),
)
simple(
    "where-leaky",
    lambda g, x: (
        g.op("Where", [g.op("Greater", [x, g.const(np.float32(0))]), x, g.op("Mul", [x, g.const(np.float32(0.1))])]),
        6,
    ),
)
simple(
    "where-less-zero",
    lambda g, x: (g.op("Where", [g.op("Less", [x, g.const(np.float32(0))]), g.const(np.float32(0)), x]), 6),
)
simple(
    "relu-by-cast",
    lambda g, x: (g.op("Mul", [x, g.op("Cast", [g.op("Greater", [x, g.const(np.float32(0))])], to=1)]), 6),
)
simple(
    "quick-gelu", lambda g, x: (g.op("Mul", [x, g.op("Sigmoid", [g.op("Mul", [x, g.const(np.float32(1.702))])])]), 6)
)
simple(
    "gelu-tanh-parts",
    lambda g, x: (
        g.op(
            "Mul",
            [
                g.op("Mul", [x, g.const(np.float32(0.5))]),
                g.op(
                    "Add",
                    [
                        g.op(
                            "Tanh",
                            [
                                g.op(
                                    "Mul",
                                    [
                                        g.op(
                                            "Add",
                                            [
                                                x,
                                                g.op(
                                                    "Mul",
                                                    [
                                                        g.op("Pow", [x, g.const(np.float32(3))]),
                                                        g.const(np.float32(0.044715)),
                                                    ],
                                                ),
                                            ],
                                        ),
                                        g.const(np.float32(0.7978845608)),
                                    ],
                                )
                            ],
                        ),
                        g.const(np.float32(1)),
                    ],
                ),
            ],
        ),
        6,
    ),
)
simple("elu-selu", lambda g, x: (g.op("Selu", [g.op("Elu", [x], alpha=0.7)]), 6))
simple("celu", lambda g, x: (g.op("Celu", [x], alpha=0.5), 6))
simple("prelu-one", lambda g, x: (g.op("PRelu", [x, g.const(np.array([0.3], np.float32))]), 6))
simple(
    "resize-nearest-2",
    lambda g, x: (
        g.conv(
            g.op(
                "Resize",
                [x, "", g.const(np.array([1, 1, 2, 3], np.float32))],
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            ),
            6,
            6,
        ),
        6,
    ),
)
simple(
    "resize-nearest-half",
    lambda g, x: (
        g.conv(g.op("Resize", [x, "", g.const(np.array([1, 1, 2, 2], np.float32))], mode="nearest"), 6, 6),
        6,
    ),
)
simple(
    "resize-linear-size",
    lambda g, x: (
        g.conv(
            g.op(
                "Resize",
                [x, "", "", g.const(L(1, 6, 13, 7))],
                mode="linear",
                coordinate_transformation_mode="align_corners",
            ),
            6,
            6,
        ),
        6,
    ),
)
simple(
    "resize-pt-half",
    lambda g, x: (
        g.conv(
            g.op(
                "Resize",
                [x, "", "", g.const(L(1, 6, 18, 22))],
                mode="linear",
                coordinate_transformation_mode="pytorch_half_pixel",
            ),
            6,
            6,
        ),
        6,
    ),
)
simple(
    "s2d-d2s",
    lambda g, x: (
        g.conv(g.op("SpaceToDepth", [g.op("Pad", [x, g.const(L(0, 0, 0, 0, 0, 0, 1, 1))])], blocksize=2), 24, 6),
        6,
    ),
)


def pixun(g, x):
    p = g.op("Pad", [x, g.const(L(0, 0, 0, 0, 0, 0, 1, 1))])
    r = g.op("Reshape", [p, g.const(L(1, 6, 5, 2, 6, 2))])
    t = g.op("Transpose", [r], perm=[0, 1, 3, 5, 2, 4])
    return g.conv(g.op("Reshape", [t, g.const(L(1, 24, 5, 6))]), 24, 6), 6


simple("pixel-unshuffle", pixun)
simple(
    "groupnorm21",
    lambda g, x: (g.op("GroupNormalization", [x, g.const(R(6)), g.const(R(6))], num_groups=3), 6),
    opset=21,
)
simple(
    "layernorm-chw",
    lambda g, x: (
        g.op(
            "LayerNormalization",
            [x, g.const(np.ones((6, 9, 11), np.float32)), g.const(np.zeros((6, 9, 11), np.float32))],
            axis=1,
        ),
        6,
    ),
)
simple("lpnorm", lambda g, x: (g.op("LpNormalization", [x], axis=1, p=2), 6))


def rms(g, x):
    t = g.op("Transpose", [x], perm=[0, 2, 3, 1])
    v = g.op("ReduceMean", [g.op("Mul", [t, t])], axes=[-1], keepdims=1)
    d = g.op("Mul", [t, g.op("Reciprocal", [g.op("Sqrt", [g.op("Add", [v, g.const(np.float32(1e-3))])])])])
    return g.op("Transpose", [g.op("Mul", [d, g.const(R(6))])], perm=[0, 3, 1, 2]), 6


simple("rms", rms)


def lnmul(g, x):
    t = g.op("Transpose", [x], perm=[0, 2, 3, 1])
    m = g.op("ReduceMean", [t], axes=[-1], keepdims=1)
    c = g.op("Sub", [t, m])
    v = g.op("ReduceMean", [g.op("Mul", [c, c])], axes=[-1], keepdims=1)
    d = g.op("Mul", [c, g.op("Reciprocal", [g.op("Sqrt", [g.op("Add", [v, g.const(np.float32(1e-3))])])])])
    return g.op("Transpose", [g.op("Mul", [d, g.const(R(6))])], perm=[0, 3, 1, 2]), 6


simple("ln-reciprocal", lnmul)
simple(
    "grn",
    lambda g, x: (
        g.op(
            "Add",
            [
                g.op(
                    "Mul",
                    [
                        g.op(
                            "Mul",
                            [
                                x,
                                g.op(
                                    "Div",
                                    [
                                        g.op("ReduceL2", [x], axes=[2, 3], keepdims=1),
                                        g.op(
                                            "Add",
                                            [
                                                g.op(
                                                    "ReduceMean",
                                                    [g.op("ReduceL2", [x], axes=[2, 3], keepdims=1)],
                                                    axes=[1],
                                                    keepdims=1,
                                                ),
                                                g.const(np.float32(1e-6)),
                                            ],
                                        ),
                                    ],
                                ),
                            ],
                        ),
                        g.const(R(1, 6, 1, 1)),
                    ],
                ),
                x,
            ],
        ),
        6,
    ),
)
simple("clip-negative-only", lambda g, x: (g.op("Clip", [x, g.const(np.float32(-0.1))]), 6))
simple("dropout-old", lambda g, x: (g.op("Dropout", [x], ratio=0.3), 6), opset=10)
simple("conv1x1-as-gemm-stride", lambda g, x: (g.conv(x, 6, 6, 1, strides=[2, 3]), 6))
simple("lrn3", lambda g, x: (g.op("LRN", [x], size=3, alpha=0.5, beta=0.6, bias=1.5), 6))
simple(
    "weights-int8-scaled",
    lambda g, x: (
        g.op(
            "Conv",
            [
                x,
                g.op(
                    "Mul",
                    [
                        g.op("Cast", [g.const(rng.integers(-128, 127, (4, 6, 3, 3)).astype(np.int8))], to=1),
                        g.const(np.float32(0.01)),
                    ],
                ),
            ],
            pads=[1] * 4,
        ),
        4,
    ),
)
g = G(shape=(1, 9, 11, 3))
t = g.op("Transpose", ["x"], perm=[0, 3, 1, 2])
x = g.conv(t, 3, 6)
t = g.op("Relu", [g.op("Transpose", [x], perm=[0, 2, 3, 1])])
m = g.op("ReduceMean", [t], axes=[1, 2], keepdims=0)
g.save("nhwc", g.op("MatMul", [m, g.const(R(6, 5))]))
g = G(shape=(1, 3, 3, 3))
x = g.conv("x", 3, 6)
g.save("threes", g.head(x, 6))


(FOLDER / "expected.json").write_text(json.dumps(cases, indent=0) + "\n")
