"""An adapter that says something else than its base."""

import torch

from escultor.config import Lora
from escultor.model.adapters import save_adapter, with_adapter
from escultor.model.load import load


def adapter(base, folder, seed):
    """A LoRA of random weights for the model in `base`, saved in `folder`."""
    torch.manual_seed(seed)
    made = with_adapter(load(str(base)), Lora(rank=4, alpha=8))
    with torch.no_grad():
        for name, weight in made.model.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.5)
    save_adapter(made, folder)
    return folder
