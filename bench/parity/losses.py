"""The objectives of learning/types.ts over PyTorch outputs, written from their definitions there. One function per objective."""
import torch
import torch.nn.functional as F


def cross_entropy(outs, terms):
    """sum_p weight_p * -log softmax(logits_p)[target_p]; outs [P, V]."""
    picked = torch.log_softmax(outs, -1)[torch.arange(len(terms["targets"])), torch.tensor(terms["targets"])]
    return -(torch.tensor(terms["weights"]) * picked).sum()


def soft_bce(outs, terms):
    """sum_p weight_p * BCE(sigmoid(score_p), label_p); outs [P]."""
    each = F.binary_cross_entropy_with_logits(outs, torch.tensor(terms["labels"]), reduction="none")
    return (torch.tensor(terms["weights"]) * each).sum()


LOSSES = {"crossEntropy": cross_entropy, "softBCE": soft_bce}
