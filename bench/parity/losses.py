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


def negative_log_sigmoid(z):
    return -F.logsigmoid(z)


def bradley_terry(outs, terms):
    """-log sigmoid of the difference of two scores less a margin."""
    return sum(p["weight"] * negative_log_sigmoid(outs[p["chosen"]] - outs[p["rejected"]] - p.get("margin", 0.0)) for p in terms["pairs"])


def inverse(outs, terms):
    """Binary cross entropy of Q(s, a) - gamma Q(s', a'), both differentiated, against expert (1) or learner (0)."""
    total = 0.0
    for t in terms["transitions"]:
        z = outs[t["now"]] if t["next"] is None else outs[t["now"]] - terms["gamma"] * outs[t["next"]]
        total = total + t["weight"] * F.binary_cross_entropy_with_logits(z, torch.tensor(float(t["label"])))
    return total


def regression(outs, terms):
    """Squared error, or Huber's loss."""
    labels = torch.tensor(terms["labels"])
    each = F.huber_loss(outs, labels, reduction="none", delta=terms["huber"]) if "huber" in terms else F.mse_loss(outs, labels, reduction="none")
    return (torch.tensor(terms["weights"]) * each).sum()


def point_log_probabilities(outs, terms, point):
    """log softmax at one read, over the allowed tokens or the whole vocabulary; impossible tokens have -inf."""
    logits = outs[point]
    if "allowed" in terms:
        mask = torch.full_like(logits, float("-inf"))
        mask[terms["allowed"][point]] = 0.0
        logits = logits + mask
    return torch.log_softmax(logits, -1)


def action_log_probabilities(outs, terms):
    points = [point_log_probabilities(outs, terms, p) for p in range(len(terms["reads"]))]
    lp = [sum((points[c["point"]][c["token"]] for c in action), torch.zeros(())) for action in terms["actions"]]
    return points, torch.stack(lp)


def preference(outs, terms):
    """DPO (arXiv 2305.18290 Eq. 7), with label smoothing cDPO, or IPO (arXiv 2310.12036 Eq. 17); and negative log-likelihood."""
    _, lp = action_log_probabilities(outs, terms)
    loss = -(torch.tensor(terms["nllWeights"]) * lp).sum()
    for p in terms["pairs"]:
        h = lp[p["chosen"]] - lp[p["rejected"]] - p["referenceMargin"]
        if terms.get("loss") == "ipo":
            each = (h - 1 / (2 * terms["beta"])) ** 2
        else:
            smoothing, z = p.get("labelSmoothing", 0.0), terms["beta"] * h
            each = (1 - smoothing) * negative_log_sigmoid(z) + smoothing * negative_log_sigmoid(-z)
        loss = loss + p["weight"] * each
    return loss


def policy_gradient(outs, terms, values=None):
    """REINFORCE or PPO-clip (arXiv 1707.06347 Eq. 7), KL by k3, entropy, squared error of values."""
    points, lp = action_log_probabilities(outs, terms)
    advantages, weights = torch.tensor(terms["advantages"]), torch.tensor(terms["weights"])
    if "clip" in terms:
        ratio = torch.exp(lp - torch.tensor(terms["clip"]["oldLogProbabilities"]))
        clipped = torch.clamp(ratio, 1 - terms["clip"]["low"], 1 + terms["clip"]["high"])
        loss = -(weights * torch.minimum(ratio * advantages, clipped * advantages)).sum()
    else:
        loss = -(weights * advantages * lp).sum()
    if "reference" in terms:
        d = torch.tensor(terms["reference"]["logProbabilities"]) - lp
        loss = loss + terms["reference"]["coefficient"] * (weights * (torch.exp(d) - d - 1)).sum()
    for weight, point in zip(terms.get("entropyWeights", []), points):
        loss = loss - weight * torch.distributions.Categorical(logits=point).entropy()
    for value in terms.get("values", []):
        loss = loss + value["weight"] * (values[value["read"]] - value["target"]) ** 2
    return loss


LOSSES = {
    "crossEntropy": cross_entropy,
    "softBCE": soft_bce,
    "bradleyTerry": bradley_terry,
    "inverse": inverse,
    "regression": regression,
    "preference": preference,
    "policyGradient": policy_gradient,
}
