"""Networks, data and the training loop."""

from npreparam.models.agreement import fusion_bound
from npreparam.models.autoencoder import Autoencoder
from npreparam.models.conv_vae import ConvVAE
from npreparam.models.data import Digits, load_mnist, load_sklearn_digits, read_idx
from npreparam.models.evaluate import Evaluation, LogLikelihood, evaluate, log_likelihood
from npreparam.models.images import Images, load_images
from npreparam.models.likelihoods import LIKELIHOODS
from npreparam.models.mobileone import MobileOne, MobileOneSpec, mobileone_net, mobileone_spec
from npreparam.models.repvgg import RepVGG, RepVGGSpec, repvgg_net, repvgg_spec
from npreparam.models.session import Session
from npreparam.models.training import classifier_loss, fit, predict, vae_loss
from npreparam.models.vae import IWAE, VAE

__all__ = ["IWAE", "LIKELIHOODS", "VAE", "Autoencoder", "ConvVAE", "Digits", "Evaluation", "Images", "LogLikelihood", "MobileOne",
           "MobileOneSpec", "RepVGG", "RepVGGSpec", "Session", "classifier_loss", "evaluate", "fit", "fusion_bound", "load_images", "load_mnist",
           "load_sklearn_digits", "log_likelihood", "mobileone_net", "mobileone_spec", "predict", "read_idx", "repvgg_net", "repvgg_spec", "vae_loss"]
