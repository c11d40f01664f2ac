#!/usr/bin/env python3
"""Small nets of every kind that torchvision, timm and transformers have, as ONNX files, beside PyTorch's answers in float64.

    python3 -m venv v && v/bin/pip install torch torchvision timm transformers onnx onnxscript onnxruntime
    v/bin/python tests/zoo/make.py [NET ...]

Made with torch 2.15.0, torchvision 0.29.2, timm 1.0.31, transformers 5.24.0, onnx 1.23.2, onnxscript 0.7.2.

Each net is exported by both exporters: `NET.dynamo.onnx`, and `NET.12.onnx` or `NET.17.onnx` (or both) by the older one at
that opset. Weights are numbers of half precision, stored in single precision. Batch norms have means and shifts of N(0, 0.1),
variances and scales from 0.5 to 1.5. The notes that the new exporter leaves at each node (stack traces, most of the file) and the
shapes of what is between nodes are removed, except from `resnet-basic.dynamo.onnx`.

`expected.json` has an entry for each net: `files`; `input`, the shape of the picture, whose numbers `common.py` draws;
`logits`; `target`, the largest; `moved`, how far roundings of the weights to single precision move the logits and the gradient
(the farthest of four draws, as a share of the largest number), because exporters merge batch norms in single precision; where there
is one, `or_refuse`, a word of the message where the net may be refused. `NET.npy` is the gradient of the largest logit.
"""
import copy
import functools
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
import torchvision
from common import DRAWS, FOLDER, apart, picture, record
from torch import nn
from torchvision.models import densenet, efficientnet, googlenet, mnasnet, mobilenetv2, mobilenetv3, regnet, resnet
from torchvision.models import convnext, shufflenetv2, squeezenet, vgg

CLASSES = 7
NETS = {}


def net(*size, legacy=(17,), **options):
    """Registers a net for pictures of `size`, rows and columns; `legacy` are the opsets of the older exporter."""

    def register(make):
        NETS[make.__name__.replace("_", "-")] = (make, size, legacy, options)
        return make

    return register


def conv_bn(i, o, kernel, stride=1, padding=0, groups=1, act=nn.ReLU, eps=1e-5):
    layers = [nn.Conv2d(i, o, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(o, eps)]
    return nn.Sequential(*layers, *([act()] if act else []))


def head(channels):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(channels, CLASSES))


# torchvision


def stem(channels):
    return nn.Sequential(conv_bn(3, channels, 7, 2, 3), nn.MaxPool2d(3, 2, 1))


def shortcut(i, o, stride=2):
    return conv_bn(i, o, 1, stride, act=None)


@net(23, 27, keep_notes=True)
def resnet_basic():
    Block = resnet.BasicBlock
    return nn.Sequential(stem(8), Block(8, 8), Block(8, 12, 2, shortcut(8, 12)), head(12))


@net(21, 25, dynamic=True)
def resnet_bottleneck():
    Block = resnet.Bottleneck
    return nn.Sequential(stem(8), Block(8, 4, 1, shortcut(8, 16, 1)), Block(16, 4), Block(16, 6, 2, shortcut(16, 24)), head(24))


@net(21, 19, legacy=())
def resnext():
    Block = functools.partial(resnet.Bottleneck, groups=4, base_width=32)
    return nn.Sequential(stem(8), Block(8, 8, 1, shortcut(8, 32, 1)), Block(32, 8), head(32))


@net(28, 28, external=True)
def vgg_plain():
    return vgg_of(batch_norm=False)


@net(28, 28, legacy=(12,))
def vgg_norm():
    return vgg_of(batch_norm=True)


def vgg_of(batch_norm):
    features = []
    width = 3
    for what in [6, "M", 8, 8, "M"]:
        if what == "M":
            features.append(nn.MaxPool2d(2, 2))
        else:
            features += [nn.Conv2d(width, what, 3, padding=1), *([nn.BatchNorm2d(what)] if batch_norm else []), nn.ReLU(True)]
            width = what
    dense = [nn.Linear(72, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 12), nn.ReLU(True), nn.Dropout(), nn.Linear(12, CLASSES)]
    # 7×7 to 7×7: averages of one position each, as in VGG at 224×224.
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d((7, 7)), nn.MaxPool2d(2), nn.Flatten(1), *dense)


@net(63, 67)
def alexnet():
    layers = [nn.Conv2d(3, 6, 11, 4, 2), nn.ReLU(True), nn.MaxPool2d(3, 2), nn.Conv2d(6, 8, 5, padding=2), nn.ReLU(True)]
    layers += [nn.MaxPool2d(3, 2), nn.Flatten(1), nn.Dropout(), nn.Linear(72, 14), nn.ReLU(True), nn.Linear(14, CLASSES)]
    return nn.Sequential(*layers)


@net(25, 21, legacy=(12,), dynamic=True)
def mobilenet_v2():
    Block = mobilenetv2.InvertedResidual
    blocks = [Block(6, 4, 1, 1), Block(4, 4, 1, 6), Block(4, 8, 2, 4)]
    return nn.Sequential(conv_bn(3, 6, 3, 2, 1, act=nn.ReLU6), *blocks, conv_bn(8, 16, 1, act=nn.ReLU6), nn.Dropout(), head(16))


@net(33, 29, legacy=(12,))
def mobilenet_v3():
    config = functools.partial(mobilenetv3.InvertedResidualConfig, dilation=1, width_mult=1.0)
    rows = [(16, 3, 16, 16, True, "RE", 2), (16, 3, 24, 16, False, "RE", 2), (16, 5, 24, 16, True, "HS", 1)]
    return mobilenetv3.MobileNetV3([config(*row) for row in rows], last_channel=16, num_classes=CLASSES)


@net(37, 33, legacy=(12,))
def efficientnet_mb():
    config = efficientnet.MBConvConfig
    rows = [config(1, 3, 1, 32, 8, 1, 1.0, 1.0), config(4, 5, 2, 8, 8, 2, 1.0, 1.0)]
    return efficientnet.EfficientNet(rows, 0.2, num_classes=CLASSES, last_channel=16)


@net(31, 33)
def efficientnet_fused():
    fused, config = efficientnet.FusedMBConvConfig, efficientnet.MBConvConfig
    rows = [fused(1, 3, 1, 8, 8, 1), fused(4, 3, 2, 8, 8, 1), config(4, 3, 1, 8, 8, 1)]
    norm = functools.partial(nn.BatchNorm2d, eps=1e-3)
    return efficientnet.EfficientNet(rows, 0.2, num_classes=CLASSES, last_channel=16, norm_layer=norm)


@net(33, 35, legacy=(12,), dynamic=True)
def densenet_small():
    return densenet.DenseNet(4, (2, 2), 8, bn_size=2, num_classes=CLASSES)


@net(35, 41, legacy=(12,))
def squeezenet_small():
    Fire, pool = squeezenet.Fire, functools.partial(nn.MaxPool2d, 3, 2, ceil_mode=True)
    layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(True), pool(), Fire(8, 4, 8, 8), pool(), Fire(16, 4, 8, 8)]
    return nn.Sequential(*layers, nn.Dropout(), nn.Conv2d(16, CLASSES, 1), nn.ReLU(True), nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


@net(33, 29)
def googlenet_small():
    Block, pool = googlenet.Inception, functools.partial(nn.MaxPool2d, 3, 2, ceil_mode=True)
    return nn.Sequential(stem(6), Block(6, 4, 4, 6, 2, 4, 4), pool(), Block(18, 4, 4, 6, 2, 4, 4), nn.Dropout(), head(18))


class InceptionBlock(nn.Module):
    """The blocks A and C of Inception v3, with few channels."""

    def __init__(self, i):
        super().__init__()
        norm = functools.partial(conv_bn, eps=1e-3)
        self.one, self.five = norm(i, 4, 1), nn.Sequential(norm(i, 3, 1), norm(3, 4, 5, padding=2))
        self.sevens = nn.Sequential(norm(i, 3, 1), norm(3, 3, (1, 7), padding=(0, 3)), norm(3, 4, (7, 1), padding=(3, 0)))
        self.pool = norm(i, 4, 1)

    def forward(self, x):
        pooled = self.pool(F.avg_pool2d(x, 3, 1, 1))
        return torch.cat([self.one(x), self.five(x), self.sevens(x), pooled], 1)


class InceptionReduction(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.three = conv_bn(i, o, 3, 2, eps=1e-3)

    def forward(self, x):
        return torch.cat([self.three(x), F.max_pool2d(x, 3, 2)], 1)


class TransformInput(nn.Module):
    """As torchvision's GoogLeNet and Inception v3 with published weights."""

    def forward(self, x):
        scales = [(0.229 / 0.5, (0.485 - 0.5) / 0.5), (0.224 / 0.5, (0.456 - 0.5) / 0.5), (0.225 / 0.5, (0.406 - 0.5) / 0.5)]
        return torch.cat([torch.unsqueeze(x[:, c], 1) * a + b for c, (a, b) in enumerate(scales)], 1)


@net(29, 33, legacy=(17,))
def inception_v3():
    layers = [TransformInput(), conv_bn(3, 6, 3, 2), InceptionBlock(6), InceptionReduction(16, 8), InceptionBlock(24)]
    return nn.Sequential(*layers, nn.Dropout(), head(16))


@net(33, 37, legacy=(12,), dynamic=True)
def shufflenet_v2():
    return shufflenetv2.ShuffleNetV2([2, 1, 1], [8, 12, 16, 16, 24], num_classes=CLASSES)


@net(35, 33)
def regnet_y():
    return regnet_of(0.25)


@net(33, 39, legacy=(12,))
def regnet_x():
    return regnet_of(None)


def regnet_of(se):
    params = regnet.BlockParams.from_init_params(depth=3, w_0=8, w_a=8.0, w_m=2.0, group_width=4, se_ratio=se)
    return regnet.RegNet(params, CLASSES, stem_width=8)


@net(33, 35, legacy=(12,))
def convnext_small():
    rows = [convnext.CNBlockConfig(8, 12, 1), convnext.CNBlockConfig(12, None, 1)]
    return convnext.ConvNeXt(rows, 0.0, 0.5, num_classes=CLASSES)


@net(25, 27, legacy=(12,))
def mnasnet_small():
    Block = mnasnet._InvertedResidual
    layers = [conv_bn(3, 6, 3, 2, 1), Block(6, 8, 3, 2, 3), Block(8, 8, 5, 1, 3)]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.classifier = nn.Sequential(*layers), nn.Linear(8, CLASSES)

        def forward(self, x):
            return self.classifier(self.layers(x).mean([2, 3]))

    return Net()


# Small nets of tutorials


@net(28, 28, legacy=(12,), channels=1, outputs="log-softmax")
def mnist_example():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.as_logits = False
            self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, 1), nn.Conv2d(4, 3, 3, 1)
            self.fc1, self.fc2 = nn.Linear(432, 8), nn.Linear(8, CLASSES)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
            x = F.relu(self.fc1(torch.flatten(x, 1)))
            x = self.fc2(x)
            return x if self.as_logits else F.log_softmax(x, dim=1)

    return Net()


@net(28, 28, legacy=(12,), channels=1)
def lenet():
    layers = [nn.Conv2d(1, 4, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(4, 6, 5), nn.Tanh(), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(150, 12), nn.Tanh(), nn.Linear(12, CLASSES))


@net(11, 13, legacy=(17,))
def mlp():
    layers = [nn.Flatten(), nn.Linear(429, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 10), nn.LeakyReLU(0.1), nn.Linear(10, CLASSES)]
    return nn.Sequential(*layers)


@net(16, 16)
def cifar_option_a():
    class Block(nn.Module):
        def __init__(self, i, o, stride):
            super().__init__()
            self.body = nn.Sequential(conv_bn(i, o, 3, stride, 1), conv_bn(o, o, 3, 1, 1, act=None))
            self.more = o - i

        def forward(self, x):
            more = self.more // 2
            side = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, more, more)) if more else x
            return F.relu(self.body(x) + side)

    return nn.Sequential(conv_bn(3, 6, 3, 1, 1), Block(6, 6, 1), Block(6, 12, 2), head(12))


@net(17, 19, legacy=(17,), outputs="sigmoid")
def multi_label():
    return nn.Sequential(conv_bn(3, 8, 3, 2, 1), head(8), nn.Sigmoid())


@net(15, 17, legacy=(12,), outputs="softmax")
def own_normalisation():
    class Normalise(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
            self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

        def forward(self, x):
            return (x - self.mean) / self.std

    return nn.Sequential(Normalise(), conv_bn(3, 8, 3, 2, 1), head(8), nn.Softmax(1))


@net(19, 17, legacy=(17,), dtype=torch.float64)
def in_double():
    return nn.Sequential(conv_bn(3, 6, 3, 2, 1), conv_bn(6, 8, 3, 1, 1, act=nn.ELU), head(8))


@net(19, 17, legacy=(17,), dtype=torch.float16)
def in_half():
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.Hardswish(), nn.MaxPool2d(3, 2), nn.Conv2d(6, 8, 3), nn.ReLU(), head(8))


@net(18, 22, legacy=(17,))
def activations():
    acts = [nn.PReLU(6), nn.Softplus(), nn.Mish(), nn.ELU(0.7), nn.Hardsigmoid(), nn.GELU("tanh"), nn.SELU(), nn.LeakyReLU(0.3)]
    layers = [nn.Conv2d(3, 6, 3, 2, 1)]
    for act in acts:
        layers += [act, nn.Conv2d(6, 6, 1)]
    return nn.Sequential(*layers, head(6))


@net(18, 22, legacy=(17,))
def group_norms():
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.InstanceNorm2d(8, affine=True)]
    return nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(8, 8, 1), nn.GroupNorm(1, 8), nn.ReLU(), head(8))


# timm


@net(33, 37, legacy=(12,))
def timm_ghostnet():
    from timm.models.ghostnet import GhostNet

    rows = [[[3, 8, 8, 0, 1]], [[3, 16, 12, 0, 2]], [[5, 24, 12, 0.25, 1]]]
    made = GhostNet(rows, CLASSES)
    made.conv_head, made.classifier = nn.Conv2d(24, 16, 1), nn.Linear(16, CLASSES)
    return made


@net(33, 29, legacy=(12,))
def timm_repvgg():
    from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg

    blocks = (ByoBlockCfg("rep", 1, 8), ByoBlockCfg("rep", 2, 12))
    return ByobNet(ByoModelCfg(blocks, stem_type="rep", stem_chs=8, stem_pool=None), CLASSES)


def timm_resnet(block="BasicBlock", **more):
    from timm.models import resnet as timm

    more = {"channels": (6, 6, 8, 8), "stem_width": 4, "stem_type": "deep", "base_width": 64, **more}
    return timm.ResNet(getattr(timm, block), [1, 1, 1, 1], CLASSES, **more)


@net(27, 25, legacy=(12,))
def timm_resnet_d():
    return timm_resnet("Bottleneck", channels=(4, 4, 4, 6), stem_type="deep", avg_down=True)


@net(27, 29)
def timm_se_resnet():
    return timm_resnet(channels=(6, 6, 8, 8), block_args={"attn_layer": "se"})


@net(27, 25)
def timm_eca_resnet():
    return timm_resnet(block_args={"attn_layer": "eca"})


@net(33, 29, legacy=(12,))
def timm_blurpool():
    from timm.layers import BlurPool2d

    return timm_resnet(aa_layer=BlurPool2d)


@net(27, 25)
def timm_res2net():
    from timm.models.res2net import Bottle2neck
    from timm.models.resnet import ResNet

    return ResNet(Bottle2neck, [1, 1, 1, 1], CLASSES, channels=(4, 4, 4, 4), stem_width=4, stem_type="deep", base_width=26, block_args={"scale": 4})


@net(33, 29, legacy=(17,))
def timm_nfnet():
    from timm.models.nfnet import NfCfg, NormFreeNet

    config = NfCfg((1, 1), (16, 24), stem_type="3x3", stem_chs=8, attn_layer="se", attn_kwargs={"rd_ratio": 0.5}, ch_div=4)
    return NormFreeNet(config, CLASSES)


@net(33, 29)
def timm_bit():
    from timm.layers import GroupNormAct, StdConv2d
    from timm.models.resnetv2 import ResNetV2

    norm = functools.partial(GroupNormAct, num_groups=2)
    return ResNetV2([1, 1], (16, 24), CLASSES, stem_chs=8, stem_type="fixed", norm_layer=norm, conv_layer=StdConv2d)


def inverted(definition, kind="EfficientNet", **more):
    from timm.models import _efficientnet_builder as builder
    from timm.models import efficientnet as timm
    from timm.models import mobilenetv3 as timm3

    rows = builder.decode_arch_def(definition)
    norm = functools.partial(nn.BatchNorm2d, eps=more.pop("eps", 1e-5))
    round_chs = functools.partial(timm.round_channels, divisor=4)
    family = timm.EfficientNet if kind == "EfficientNet" else timm3.MobileNetV3
    return family(rows, CLASSES, num_features=16, stem_size=8, norm_layer=norm, round_chs_fn=round_chs, **more)


@net(33, 37, legacy=(17,), dynamic=True)
def timm_tf_lite():
    definition = [["ds_r1_k3_s1_e1_c8"], ["ir_r2_k3_s2_e4_c8"], ["ir_r1_k5_s2_e4_c12"]]
    return inverted(definition, pad_type="same", eps=1e-3, act_layer=nn.ReLU6)


@net(33, 37)
def timm_mobilenetv4():
    definition = [["cn_r1_k3_s2_e1_c8"], ["uir_r1_a3_k5_s2_e3_c12", "uir_r1_a0_k3_s1_e2_c12"], ["uir_r1_a5_k0_s1_e2_c12"]]
    return inverted(definition, "MobileNetV3", act_layer=nn.ReLU)


@net(33, 37, legacy=(12,))
def timm_mixnet():
    definition = [["ds_r1_k3_s1_e1_c8"], ["ir_r1_k3.5.7_s2_a1.1_p1.1_e4_c12_se0.5_nsw"]]
    return inverted(definition, act_layer=nn.ReLU)


@net(32, 64, legacy=(12,))
def timm_dla():
    from timm.models.dla import DLA, DlaBasic

    return DLA((1, 1, 1, 2, 1, 1), (4, 4, 4, 4, 4, 6), num_classes=CLASSES, block=DlaBasic)


@net(65, 67)
def timm_vovnet():
    from timm.models.vovnet import VovNet

    config = {"stem_chs": [6, 6, 8], "stage_conv_chs": [4, 4, 6, 6], "stage_out_chs": [8, 8, 12, 12], "layer_per_block": 2}
    return VovNet({**config, "block_per_stage": [1, 1, 1, 1], "residual": True, "depthwise": False, "attn": "ese"}, num_classes=CLASSES)


@net(33, 29)
def timm_csp():
    from timm.models.cspnet import CspModelCfg, CspNet, CspStagesCfg, CspStemCfg

    stages = CspStagesCfg(depth=(1, 1), out_chs=(8, 12), stride=(2, 2), expand_ratio=1.0, bottle_ratio=1.0, block_ratio=0.5,
                          cross_linear=True, block_type="dark")
    return CspNet(CspModelCfg(CspStemCfg(8, 1, 3), stages, act_layer="leaky_relu"), num_classes=CLASSES)


class Exchange(nn.Module):
    """Two resolutions that exchange maps, as HRNet's do."""

    def __init__(self):
        super().__init__()
        self.stem, self.down = conv_bn(3, 6, 3, 2, 1), conv_bn(6, 8, 3, 2, 1)
        self.high, self.low = conv_bn(6, 6, 3, 1, 1), conv_bn(8, 8, 3, 1, 1)
        self.up, self.again = conv_bn(8, 6, 1, act=None), conv_bn(6, 8, 3, 2, 1, act=None)
        self.head = head(14)

    def forward(self, x):
        high = self.stem(x)
        high, low = self.high(high), self.low(self.down(high))
        up = F.interpolate(self.up(low), scale_factor=2.0, mode="nearest")
        high, low = F.relu(high + up), F.relu(low + self.again(high))
        smooth = F.interpolate(low, size=high.shape[2:], mode="bilinear", align_corners=False)
        return self.head(torch.cat([high, smooth], 1))


@net(24, 28)
def hrnet_exchange():
    return Exchange()


@net(24, 28, legacy=(17,))
def focus_and_unshuffle():
    class Focus(nn.Module):
        def forward(self, x):
            return torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)

    return nn.Sequential(Focus(), conv_bn(12, 6, 3, 1, 1, act=nn.SiLU), nn.PixelUnshuffle(2), conv_bn(24, 8, 1), head(8))


class Padded(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.first, self.second, self.third = conv_bn(3, 6, 3, 2), conv_bn(6, 6, 3), conv_bn(6, 8, 3)
        self.head, self.mode = head(8), mode

    def forward(self, x):
        x = self.first(F.pad(x, (0, 1, 0, 1)))
        x = F.max_pool2d(F.pad(self.second(F.pad(x, (1, 2, 1, 0), mode=self.mode)), (1, 1, 1, 1)), 3, 2)
        return self.head(self.third(F.pad(x, (1, 1, 1, 1), mode=self.mode)))


@net(21, 23, legacy=(12,))
def paddings():
    return Padded("constant")


@net(21, 23, legacy=(12,), or_refuse="reflect")
def paddings_reflect():
    return Padded("reflect")


@net(21, 23, legacy=(17,), or_refuse="edge")
def paddings_replicate():
    return Padded("replicate")


# transformers


class Logits(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x).logits


def of_transformers(name, **config):
    import transformers

    made = getattr(transformers, f"{name}Config")(num_labels=CLASSES, **config)
    return Logits(getattr(transformers, f"{name}ForImageClassification")(made))


@net(33, 35, legacy=(17,))
def hf_resnet():
    return of_transformers("ResNet", embedding_size=8, hidden_sizes=[16, 24], depths=[1, 1])


@net(33, 35, legacy=(12,))
def hf_regnet():
    return of_transformers("RegNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=4)


@net(41, 37, legacy=())
def hf_mobilenet_v2():
    more = {"finegrained_output": False, "expand_ratio": 2.0, "depth_divisible_by": 4, "min_depth": 4}
    return of_transformers("MobileNetV2", depth_multiplier=0.03, **more)


@net(33, 37, legacy=(17,))
def hf_convnext():
    return of_transformers("ConvNext", hidden_sizes=[8, 12], depths=[1, 1], num_stages=2, layer_scale_init_value=0.5)


# Exports and answers


def draw(module, seed):
    """Weights of half precision, batch norms that change something."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda like: torch.randn(like.shape, generator=generator)
    between = lambda like: 0.5 + torch.rand(like.shape, generator=generator)
    for part in module.modules():
        for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            if not tensor.is_floating_point() or name in ("mean", "std", "filt"):
                continue
            if tensor.dim() > 1 and name not in ("layer_scale", "layer_scale_parameter"):
                fan = max(1, tensor[0].numel())
                value = normal(tensor) * (2 / fan) ** 0.5
            elif name in ("running_mean", "bias"):
                value = 0.1 * normal(tensor)
            else:
                value = between(tensor)
            tensor.data = value.half().to(tensor.dtype)


def answer(module, x, target=None):
    x = torch.from_numpy(x).double()[None].requires_grad_()
    logits = module(x)[0]
    target = int(logits.argmax()) if target is None else target
    (gradient,) = torch.autograd.grad(logits[target], x)
    return logits.detach().numpy(), gradient.numpy(), target


def without_end(module, outputs):
    """The net without the activation at its end."""
    if outputs == "log-softmax":
        module.as_logits = True
        return module
    return module[:-1] if outputs else module


def moved(module, x, logits, gradient, target, units):
    """How far roundings of all weights move the logits and the gradient."""
    farthest = [0.0, 0.0]
    for k in range(DRAWS):
        other = copy.deepcopy(module)
        generator = torch.Generator().manual_seed(k)
        with torch.no_grad():
            for tensor in [*other.parameters(), *other.buffers()]:
                if tensor.is_floating_point():
                    sign = torch.randint(0, 2, tensor.shape, generator=generator) * 2 - 1
                    tensor.mul_(1 + units * sign)
        found = answer(other, x, target)
        farthest = [max(farthest[0], apart(found[0], logits)), max(farthest[1], apart(found[1], gradient))]
    return farthest


def export(module, x, path, opset, options):
    x = torch.from_numpy(x)[None].to(options.get("dtype", torch.float32))
    names = {"input_names": ["picture"], "output_names": ["scores"]}
    dynamic = options.get("dynamic")
    if opset:
        axes = {"picture": {0: "batch", 2: "rows", 3: "columns"}, "scores": {0: "batch"}} if dynamic else None
        torch.onnx.export(module, (x,), path, dynamo=False, opset_version=opset, dynamic_axes=axes, **names)
        return
    if dynamic:
        x = torch.cat([x, x])
    shapes = ({0: "batch"},) if dynamic else None
    external = bool(options.get("external"))
    torch.onnx.export(module, (x,), path, dynamo=True, external_data=external, dynamic_shapes=shapes, verbose=False, **names)
    if not options.get("keep_notes"):
        made = onnx.load(path, load_external_data=False)
        for message in [made, made.graph, *made.graph.node, *made.graph.value_info, *made.graph.input, *made.graph.output]:
            del message.metadata_props[:]
        del made.graph.value_info[:]
        onnx.save(made, path)


def make(name):
    made, size, opsets, options = NETS[name]
    torch.manual_seed(0)
    shape = (options.get("channels", 3), *size)
    x = picture(shape)
    units = 2.0**-23
    for seed in range(40):
        module = made().eval()
        draw(module, seed)
        module = module.to(options.get("dtype", torch.float32))
        whole = without_end(copy.deepcopy(module).double(), options.get("outputs"))
        logits, gradient, target = answer(whole, x)
        off = moved(whole, x, logits, gradient, target, units)
        first, second = np.sort(logits)[:-3:-1]
        if max(off) < 1e-5 and first - second > 1e-2 * np.abs(logits).max():
            break
    else:
        raise SystemExit(f"{name}: no draw without decisions near a tie: {off}")
    files = []
    for opset in [None, *opsets]:
        file = f"{name}.{opset or 'dynamo'}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            export(module, x, FOLDER / file, opset, options)
        files.append(file)
        if options.get("dtype") == torch.float64:
            continue  # onnxruntime has no such convolution
        session = onnxruntime.InferenceSession(str(FOLDER / file), providers=["CPUExecutionProvider"])
        kind = {"tensor(double)": np.float64, "tensor(float16)": np.float16}.get(session.get_inputs()[0].type, np.float32)
        (found,) = session.run(None, {session.get_inputs()[0].name: x[None].astype(kind)})
        wanted = module.double()(torch.from_numpy(x).double()[None])[0].detach().numpy()
        module = module.to(options.get("dtype", torch.float32))
        difference = apart(found[0], wanted)
        assert difference < (1e-2 if kind == np.float16 else 2e-5), f"{file}: onnxruntime differs by {difference}"
    entry = {"files": files, "input": list(shape), "target": target, "logits": logits.tolist(), "moved": off}
    if "or_refuse" in options:
        entry["or_refuse"] = options["or_refuse"]
    record(name, entry, gradient)
    sizes = [(FOLDER / file).stat().st_size for file in files]
    print(f"{name}: seed {seed}, moved {off[0]:.1e} {off[1]:.1e}, bytes {sizes}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[1:] or NETS:
        try:
            make(chosen)
        except Exception as error:
            print(f"{chosen}: FAILED {type(error).__name__}: {str(error)[:600]}", flush=True)
