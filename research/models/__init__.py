"""Models by name. A new one is a file and a line here: its Linen fields are its config."""

from research.models.cnn import CNN
from research.models.mlp import MLP
from research.models.resnet import ResNet
from research.models.vgg import VGG

MODELS = {"cnn": CNN, "mlp": MLP, "resnet": ResNet, "vgg": VGG}
