"""Networks, data and the training loop."""

from npreparam.models.agreement import fusion_bound
from npreparam.models.data import Digits, load_mnist, load_sklearn_digits, read_idx
from npreparam.models.repvgg import RepVGG, RepVGGSpec, repvgg_net, repvgg_spec
from npreparam.models.training import classifier_loss, fit, predict, vae_loss
from npreparam.models.vae import VAE

__all__ = ["VAE", "Digits", "RepVGG", "RepVGGSpec", "classifier_loss", "fit", "fusion_bound", "load_mnist", "load_sklearn_digits", "predict",
           "read_idx", "repvgg_net", "repvgg_spec", "vae_loss"]
