#!/usr/bin/env python3
"""Small Keras nets as ONNX files, beside TensorFlow's answers in float64; see make.py.

    python3 -m venv v && v/bin/pip install tensorflow-cpu tf2onnx onnxruntime
    v/bin/python tests/zoo/make_keras.py [NET ...]

Made with tensorflow-cpu 2.21.0, keras 3.15.1, tf2onnx 1.17.0, onnx 1.23.2.

Files are called `NET.OPSET.onnx` (tf2onnx), `NET.keras.onnx` (Keras' own export) and `NET.nchw.onnx` (tf2onnx with the input's
channels first). Pictures are `[1, rows, columns, channels]`, and so are the gradients in `NET.npy`; `levels` says that the
picture has whole numbers from 0 to 255.
"""
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import tf2onnx  # noqa: E402
from common import DRAWS, FOLDER, apart, picture, record  # noqa: E402
from keras import layers as L  # noqa: E402

if not hasattr(np, "object"):
    np.object = object

CLASSES = 7
NETS = {}


def net(*size, ways=(13, 18), **options):
    def register(make):
        NETS["keras-" + make.__name__.replace("_", "-")] = (make, size, ways, options)
        return make

    return register


@net(23, 27, ways=(13, "keras"), levels=True)
def sequential():
    rows = [L.Rescaling(1 / 255), L.Conv2D(6, 3, strides=2, padding="same"), L.BatchNormalization(), L.ReLU()]
    rows += [L.MaxPooling2D(), L.Conv2D(8, 3, activation="relu"), L.Dropout(0.5), L.Flatten(), L.Dense(6, "relu")]
    return keras.Sequential([L.Input((23, 27, 3)), *rows, L.Dense(CLASSES, "softmax")])


def cut(inputs, outputs):
    return keras.Model(inputs, outputs)


@net(25, 29, ways=(13, 18, "nchw"))
def mobilenet():
    x = inputs = L.Input((25, 29, 3))
    x = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)))
    x = L.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = L.ReLU(6.0)(L.BatchNormalization()(L.DepthwiseConv2D(3, strides=2, padding="valid", use_bias=False)(x)))
    x = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(12, 1, use_bias=False)(x)))
    x = L.SeparableConv2D(12, 3, padding="same", depth_multiplier=2, activation="relu")(x)
    x = L.GlobalAveragePooling2D(keepdims=True)(x)
    x = L.Conv2D(CLASSES, 1)(L.Dropout(0.1)(x))
    return cut(inputs, L.Softmax()(L.Reshape((CLASSES,))(x)))


@net(21, 23, ways=(18,))
def resnet():
    x = inputs = L.Input((21, 23, 3))
    x = L.Conv2D(8, 7, strides=2)(L.ZeroPadding2D(3)(x))
    x = L.MaxPooling2D(3, 2)(L.ZeroPadding2D(1)(L.ReLU()(L.BatchNormalization(epsilon=1.001e-5)(x))))
    side = L.BatchNormalization()(L.Conv2D(12, 1, strides=2)(x))
    x = L.BatchNormalization()(L.Conv2D(12, 3, strides=2, padding="same")(x))
    x = L.LeakyReLU(negative_slope=0.1)(L.Add()([x, side]))
    x = L.Concatenate()([x, L.AveragePooling2D(3, 1, padding="same")(x)])
    return cut(inputs, L.Dense(CLASSES)(L.GlobalAveragePooling2D()(x)))


@net(19, 17, ways=(13, "keras"), levels=True)
def binary():
    rows = [L.Rescaling(1 / 127.5, offset=-1), L.Conv2D(6, 3, padding="same", activation="relu"), L.MaxPooling2D(2, padding="same")]
    rows += [L.Conv2D(8, 3, activation="elu"), L.GlobalMaxPooling2D(), L.Dense(1, "sigmoid")]
    return keras.Sequential([L.Input((19, 17, 3)), *rows])


@net(27, 25, ways=(13,), levels=True)
def efficientnet():
    x = inputs = L.Input((27, 25, 3))
    x = L.Normalization(mean=[0.485, 0.456, 0.406], variance=[0.052441, 0.050176, 0.050625])(L.Rescaling(1 / 255)(x))
    x = L.Activation("swish")(L.BatchNormalization()(L.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)))
    x = L.Activation("swish")(L.BatchNormalization()(L.DepthwiseConv2D(5, padding="same", use_bias=False)(x)))
    gate = L.Reshape((1, 1, 8))(L.GlobalAveragePooling2D()(x))
    gate = L.Conv2D(8, 1, activation="sigmoid")(L.Conv2D(2, 1, activation="swish")(gate))
    x = L.BatchNormalization()(L.Conv2D(8, 1, use_bias=False)(L.Multiply()([x, gate])))
    x = L.GlobalAveragePooling2D()(x)
    return cut(inputs, L.Dense(CLASSES, "softmax")(x))


@net(17, 21, ways=(13,), or_refuse="StatefulPartitionedCall")  # tf2onnx leaves TensorFlow's grouped convolution in the file
def convnext():
    x = inputs = L.Input((17, 21, 3))
    x = L.LayerNormalization(epsilon=1e-6)(L.Conv2D(8, 4, strides=4)(x))
    y = L.LayerNormalization(epsilon=1e-6)(L.Conv2D(8, 7, padding="same", groups=8)(x))
    y = L.Dense(8)(L.Activation("gelu")(L.Dense(16)(y)))
    x = L.LayerNormalization(epsilon=1e-6)(L.GlobalAveragePooling2D()(L.Add()([x, y])))
    return cut(inputs, L.Dense(CLASSES)(x))


@net(14, 14, ways=(13,), channels=1)
def digits():
    rows = [L.Conv2D(6, 3, activation="relu"), L.MaxPooling2D(), L.Flatten(), L.Dropout(0.5), L.Dense(CLASSES), L.Activation("softmax")]
    return keras.Sequential([L.Input((14, 14, 1)), *rows])


def built(make, kind):
    keras.config.set_floatx(kind)
    return make()


def drawn(model, seed):
    generator = np.random.default_rng(seed)
    values = []
    for weight in model.weights:
        shape, name = weight.shape, weight.path.split("/")[-1]
        if name == "seed_generator_state" or "seed" in name:
            values.append(weight.numpy())
            continue
        if len(shape) > 1:
            fan = np.prod(shape[:2]) if "depthwise" in weight.path else np.prod(shape[:-1])
            value = generator.normal(size=shape) * (2 / fan) ** 0.5
        elif name in ("bias", "beta", "moving_mean"):
            value = 0.1 * generator.normal(size=shape)
        else:
            value = 0.5 + generator.random(shape)
        values.append(value.astype(np.float16).astype(np.float64))
    return values


def without_end(model):
    """The net up to the numbers that its last activation takes."""
    last = model.layers[-1]
    if getattr(last, "activation", None) in (keras.activations.softmax, keras.activations.sigmoid) and hasattr(last, "units"):
        last.activation = keras.activations.linear
        return model
    ends = isinstance(last, (L.Softmax, L.Activation))
    return keras.Model(model.inputs, model.layers[-2].output) if ends else model


def answer(model, values, x, target=None):
    model.set_weights(values)
    x = tf.constant(x[None].astype(np.float64))
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = model(x, training=False)[0]
        target = int(np.argmax(logits)) if target is None else target
        score = logits[target]
    return logits.numpy(), tape.gradient(score, x).numpy(), target


def export(model, shape, path, way):
    if way == "keras":
        model.export(str(path), format="onnx", verbose=False)
        return
    signature = [tf.TensorSpec((1 if way == 18 else None, *shape), tf.float32, name="picture")]
    run = tf.function(lambda picture: model(picture, training=False))
    more = {"inputs_as_nchw": ["picture"]} if way == "nchw" else {}
    opset = 15 if way == "nchw" else way
    made, _ = tf2onnx.convert.from_function(run, input_signature=signature, opset=opset, **more)
    path.write_bytes(made.SerializeToString())


def make(name):
    made, size, ways, options = NETS[name]
    shape = (*size, options.get("channels", 3))
    x = picture(shape, options.get("levels", False))
    double = without_end(built(made, "float64"))
    for seed in range(40):
        values = drawn(double, seed)
        logits, gradient, target = answer(double, values, x)
        off = [0.0, 0.0]
        for k in range(DRAWS):
            generator = np.random.default_rng(k)
            signs = [np.sign(generator.random(v.shape) - 0.5) for v in values]
            found = answer(double, [v if v.dtype != np.float64 else v * (1 + 2.0**-23 * s) for v, s in zip(values, signs)], x, target)
            off = [max(off[0], apart(found[0], logits)), max(off[1], apart(found[1], gradient))]
        two = np.sort(logits)[:-3:-1]
        if max(off) < 1e-5 and (len(two) < 2 or two[0] - two[1] > 1e-2 * np.abs(logits).max()):
            break
    else:
        raise SystemExit(f"{name}: no draw without decisions near a tie: {off}")
    single = built(made, "float32")
    single.set_weights(values)
    files = []
    for way in ways:
        file = f"{name}.{way}.onnx"
        export(single, shape, FOLDER / file, way)
        files.append(file)
    entry = {"files": files, "input": list(shape), "target": target, "logits": logits.tolist(), "moved": off, "rows": True}
    if options.get("levels"):
        entry["levels"] = True
    if "or_refuse" in options:
        entry["or_refuse"] = options["or_refuse"]
    record(name, entry, gradient)
    print(f"{name}: seed {seed}, moved {off[0]:.1e} {off[1]:.1e}, bytes {[(FOLDER / f).stat().st_size for f in files]}", flush=True)


if __name__ == "__main__":
    for chosen in sys.argv[1:] or NETS:
        try:
            make(chosen)
        except Exception as error:
            print(f"{chosen}: FAILED {type(error).__name__}: {str(error)[:600]}", flush=True)
