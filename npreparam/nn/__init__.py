"""Layers, blocks and optimizers on the tape."""

from npreparam.nn.init import he_normal
from npreparam.nn.layers import BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, GlobalAvgPool, Identity, Linear, ReLU, Sequential, Sum
from npreparam.nn.module import Module, count_parameters
from npreparam.nn.optim import SGD, Adam
from npreparam.nn.repvgg import RepVGGBlock

__all__ = ["SGD", "Adam", "BatchNorm2d", "Conv2d", "ConvTranspose2d", "Flatten", "GlobalAvgPool", "Identity", "Linear", "Module", "ReLU",
           "RepVGGBlock", "Sequential", "Sum", "count_parameters", "he_normal"]
