"""Layers, blocks and optimizers on the tape."""

from npreparam.nn import blocks
from npreparam.nn.channels import AvgPool2d, BatchNormPad2d, ChannelShuffle, Crop, Filter2d, Pad, ScalarAffine, Scale, Shift, Slice, Times
from npreparam.nn.containers import Concat, Identity, Sequential, Sum
from npreparam.nn.fusion import fuse, fuse_to_one
from npreparam.nn.init import fan_in_uniform, he_normal
from npreparam.nn.layers import BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, GlobalAvgPool, Linear, ReLU
from npreparam.nn.module import Module, count_parameters
from npreparam.nn.optim import SGD, Adagrad, Adam
from npreparam.nn.repvgg import ConvBN, RepVGGBlock
from npreparam.nn.rounded import fused_conv2d

__all__ = ["SGD", "Adagrad", "Adam", "AvgPool2d", "BatchNorm2d", "BatchNormPad2d", "ChannelShuffle", "Concat", "Conv2d", "ConvBN", "ConvTranspose2d",
           "Crop", "Filter2d", "Flatten", "GlobalAvgPool", "Identity", "Linear", "Module", "Pad", "ReLU", "RepVGGBlock", "ScalarAffine", "Scale",
           "Sequential", "Shift", "Slice", "Sum", "Times", "blocks", "count_parameters", "fan_in_uniform", "fuse", "fuse_to_one", "fused_conv2d",
           "he_normal"]
