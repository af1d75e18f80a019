"""Models by name. A new one is a file and a line here: its Linen fields are its config."""

from research.models.cnn import CNN
from research.models.decoder import Decoder
from research.models.encoder import Encoder
from research.models.mlp import MLP
from research.models.recurrent import RecurrentClassifier, RecurrentLM
from research.models.resnet import ResNet
from research.models.seq2seq import Seq2Seq
from research.models.vgg import VGG
from research.models.word2vec import Glove, WordVectors

MODELS = {
    "cnn": CNN,
    "decoder": Decoder,
    "encoder": Encoder,
    "glove": Glove,
    "mlp": MLP,
    "recurrent_classifier": RecurrentClassifier,
    "recurrent_lm": RecurrentLM,
    "resnet": ResNet,
    "seq2seq": Seq2Seq,
    "vgg": VGG,
    "word_vectors": WordVectors,
}
