"""The builders of ``tests.models``, by the names that these tests know."""

from tests.models import HF_SMALL as SMALL
from tests.models import PEER_LENGTH as LENGTH
from tests.models import PEER_VOCAB as VOCAB
from tests.models import hf_model, peer_config, tokens

__all__ = ["LENGTH", "SMALL", "VOCAB", "hf_model", "peer_config", "tokens"]
