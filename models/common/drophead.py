"""DropHead: heads of attention left out at random while training, for all of the models here."""

import torch


def drop_heads(L, B, H, share, kmin, device, generator):
    """[L attention layers, B, H] of 0 and 1: a share of the rows keeps k heads in each layer, k uniform in kmin .. H."""
    k = torch.randint(kmin, H + 1, (L, B, 1), generator=generator, device=device)
    chosen = torch.rand(1, B, 1, generator=generator, device=device) < share
    rank = torch.rand(L, B, H, generator=generator, device=device).argsort(-1).argsort(-1)
    return ((rank < k) | ~chosen).float()
