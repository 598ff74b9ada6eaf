"""
Makes the golden files of test/learning/parity.test.ts: what PyTorch, transformers and peft compute for small models and fixed batches. One safetensors
file per case; its metadata holds the configuration, the batches (as learning/types.ts defines them) and the versions that made it.

    node bench/parity/golden.ts [case ...]

Tensors: `weights/<name>` and `adapter/<name>` at the start; `outputs`, the head at the reads of the first batch; `gradients/<name>` of its loss;
`trained/<name>` after STEPS steps of AdamW, step i on batch i modulo their number. Only what is trained has gradients.
"""
import json
import random
import sys

import peft
import torch
import transformers
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from losses import LOSSES

STEPS = 20
ADAMW = {"kind": "adamw", "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-8, "weightDecay": 0.1, "clipNorm": 1.0}
LEARNING_RATE = 1e-3
SMALL = dict(vocab_size=24, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64)


# --- batches: plain sequences, as chains -----------------------------------------------------------------------------------------------------------


def trees(rng, count, vocabulary):
    lengths = [rng.randint(4, 12) for _ in range(count)]
    return [{"ids": [rng.randrange(vocabulary) for _ in range(n)], "parents": list(range(-1, n - 1))} for n in lengths]


def reads_of(rng, sequences, count):
    nodes = [{"tree": t, "node": n} for t, tree in enumerate(sequences) for n in range(len(tree["ids"]))]
    return rng.sample(nodes, count)


def batch_of(rng, make_terms):
    """Three sequences and ten reads, with terms for them."""
    sequences = trees(rng, 3, SMALL["vocab_size"])
    reads = reads_of(rng, sequences, 10)
    terms = make_terms(rng, len(reads))
    return {"trees": sequences, "terms": {"objective": terms.pop("objective"), "reads": reads, **terms}}


# --- terms of each objective, for so many reads ------------------------------------------------------------------------------------------------------


def cross_entropy(rng, count):
    targets = [rng.randrange(SMALL["vocab_size"]) for _ in range(count)]
    return {"objective": "crossEntropy", "targets": targets, "weights": [rng.uniform(0.02, 0.2) for _ in range(count)]}


def soft_bce(rng, count):
    labels = [rng.random() for _ in range(count)]
    return {"objective": "softBCE", "labels": labels, "weights": [rng.uniform(0.02, 0.2) for _ in range(count)]}


def bradley_terry(rng, count):
    pairs = [dict(zip(("chosen", "rejected"), rng.sample(range(count), 2)), weight=rng.uniform(0.05, 0.3)) for _ in range(6)]
    for pair in pairs[::2]:
        pair["margin"] = rng.gauss(0, 0.5)
    return {"objective": "bradleyTerry", "pairs": pairs}


def inverse(rng, count):
    def transition(j):
        now, following = rng.sample(range(count), 2)
        return {"now": now, "next": None if j % 3 == 0 else following, "label": j % 2, "weight": rng.uniform(0.05, 0.3)}

    return {"objective": "inverse", "transitions": [transition(j) for j in range(8)], "gamma": 0.95}


def regression(huber):
    def make_terms(rng, count):
        terms = {"objective": "regression", "labels": [rng.gauss(0, 1) for _ in range(count)], "weights": [rng.uniform(0.02, 0.2) for _ in range(count)]}
        return {**terms, "huber": huber} if huber else terms

    return make_terms


def action_terms(rng, count, vocabulary):
    """Actions of one to three choices, and one of none."""
    allowed = [rng.sample(range(SMALL["vocab_size"]), rng.randint(2, 6)) for _ in range(count)]
    actions = [[]]
    for _ in range(5):
        points = rng.sample(range(count), rng.randint(1, 3))
        actions.append([{"point": p, "token": rng.choice(allowed[p])} for p in points])
    return {"actions": actions} if vocabulary else {"actions": actions, "allowed": allowed}


def preference(loss, smoothing, vocabulary):
    def make_terms(rng, count):
        terms = action_terms(rng, count, vocabulary)
        pairs = []
        for _ in range(5):
            chosen, rejected = rng.sample(range(6), 2)
            pair = {"chosen": chosen, "rejected": rejected, "referenceMargin": rng.gauss(0, 1), "weight": rng.uniform(0.05, 0.3)}
            pairs.append({**pair, "labelSmoothing": rng.uniform(0, 0.5)} if smoothing else pair)
        nll = [rng.uniform(0, 0.05) for _ in range(6)]
        return {"objective": "preference", **terms, "loss": loss, "nllWeights": nll, "pairs": pairs, "beta": 0.4}

    return make_terms


def policy_gradient(ppo, vocabulary):
    def make_terms(rng, count):
        terms = {"objective": "policyGradient", **action_terms(rng, count, vocabulary)}
        terms["advantages"] = [rng.gauss(0, 1) for _ in range(6)]
        terms["weights"] = [rng.uniform(0.05, 0.3) for _ in range(6)]
        if ppo:
            terms["clip"] = {"oldLogProbabilities": [-rng.uniform(0, 8) for _ in range(6)], "low": 0.2, "high": 0.25}
            terms["reference"] = {"logProbabilities": [-rng.uniform(1, 6) for _ in range(6)], "coefficient": 0.1}
            terms["entropyWeights"] = [rng.uniform(0, 0.05) for _ in range(count)]
        return terms

    return make_terms


# --- cases -----------------------------------------------------------------------------------------------------------------------------------------

LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
CAUSAL, SCORE = LlamaForCausalLM, LlamaForSequenceClassification

# For the objectives: the architecture is checked by the other cases.
TINY = dict(num_hidden_layers=1, hidden_size=8, intermediate_size=12, num_attention_heads=2, num_key_value_heads=1)
TINY_SCORE = {**TINY, "num_labels": 1}

# name: (class, changes to SMALL, maker of terms, LoRA options or None)
CASES = {
    "grouped-query": (CAUSAL, dict(num_key_value_heads=2), cross_entropy, None),
    "tied-llama3": (CAUSAL, dict(num_key_value_heads=1, tie_word_embeddings=True, head_dim=6, rope_parameters=LLAMA3), cross_entropy, None),
    "linear-rotations": (CAUSAL, dict(num_hidden_layers=1, rope_parameters={"rope_type": "linear", "rope_theta": 100.0, "factor": 2.0}), cross_entropy, None),
    "soft-bce": (SCORE, dict(num_key_value_heads=2, num_labels=1), soft_bce, None),
    "bradley-terry": (SCORE, TINY_SCORE, bradley_terry, None),
    "inverse": (SCORE, TINY_SCORE, inverse, None),
    "regression": (SCORE, TINY_SCORE, regression(None), None),
    "huber": (SCORE, TINY_SCORE, regression(0.7), None),
    "dpo": (CAUSAL, TINY, preference("dpo", False, False), None),
    "cdpo-vocabulary": (CAUSAL, TINY, preference("dpo", True, True), None),
    "ipo-vocabulary": (CAUSAL, TINY, preference("ipo", False, True), None),
    "reinforce-vocabulary": (CAUSAL, TINY, policy_gradient(False, True), None),
    "ppo": (CAUSAL, TINY, policy_gradient(True, False), None),
    "lora": (CAUSAL, dict(num_key_value_heads=2), cross_entropy, dict(r=2, lora_alpha=3, target_modules="all-linear")),
    "lora-score": (SCORE, dict(num_key_value_heads=2, num_labels=1, pad_token_id=0), soft_bce, dict(r=3, lora_alpha=4, target_modules=["q_proj", "v_proj", "down_proj"], use_rslora=True)),
}


def randomise(model):
    """Gains around 1, matrices large enough that outputs differ, LoRA factors both unlike zero."""
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if parameter.dim() == 1:
                parameter.copy_(0.5 + torch.rand_like(parameter))
            else:
                parameter.copy_(0.3 * torch.randn_like(parameter))


def outputs(model, batch):
    """The head's outputs at the reads: [P, V] or [P]."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    states = [base.model(input_ids=torch.tensor([tree["ids"]])).last_hidden_state[0] for tree in batch["trees"]]
    picked = torch.stack([states[read["tree"]][read["node"]] for read in batch["terms"]["reads"]])
    return base.lm_head(picked) if hasattr(base, "lm_head") else base.score(picked)[:, 0]


def loss_of(model, batch):
    return LOSSES[batch["terms"]["objective"]](outputs(model, batch), batch["terms"])


def plain(name):
    """A parameter's name as it is on disk: without the name that peft gives the adapter in memory."""
    return name.replace(".default", "").replace("modules_to_save.", "")


def copies(prefix, named):
    return {f"{prefix}/{plain(name)}": tensor.detach().clone().contiguous() for name, tensor in named}


def make(name, folder):
    kind, changes, make_terms, lora = CASES[name]
    rng = random.Random(name)
    torch.manual_seed(rng.randrange(2**31))
    model = kind(LlamaConfig(**{**SMALL, **changes}))
    randomise(model)
    arrays = copies("weights", model.named_parameters())
    config = {**model.config.to_diff_dict(), **SMALL, **changes, "architectures": [kind.__name__]}
    metadata = {"config": json.dumps(config)}
    if lora is not None:
        task = "SEQ_CLS" if kind is SCORE else "CAUSAL_LM"
        options = peft.LoraConfig(task_type=task, **lora)
        model = peft.get_peft_model(model, options)
        trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        for parameter_name, parameter in trained:
            if "lora_" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.3)
        arrays.update(copies("adapter", trained))
        stored = options.to_dict()
        stored["target_modules"] = stored["target_modules"] if isinstance(stored["target_modules"], str) else sorted(stored["target_modules"])
        metadata["adapter"] = json.dumps(stored, default=str)
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    batches = [batch_of(rng, make_terms) for _ in range(4)]
    model.train()
    arrays["outputs"] = outputs(model, batches[0]).detach().clone()
    loss = loss_of(model, batches[0])
    loss.backward()
    arrays.update({f"gradients/{plain(n)}": p.grad.clone() for n, p in trained})
    matrices, vectors = [p for _, p in trained if p.dim() == 2], [p for _, p in trained if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": ADAMW["weightDecay"]}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(ADAMW["beta1"], ADAMW["beta2"]), eps=ADAMW["epsilon"])
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, batches[step % len(batches)]).backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in trained], ADAMW["clipNorm"])
        optimizer.step()
    arrays.update(copies("trained", trained))
    versions = {"script": "bench/parity/golden.py", "torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
    metadata |= {"batches": json.dumps(batches), "loss": json.dumps(loss.item()), "made_by": json.dumps(versions)}
    metadata |= {"optimizer": json.dumps(ADAMW), "learning_rate": json.dumps(LEARNING_RATE), "steps": json.dumps(STEPS)}
    save_file(arrays, f"{folder}/{name}.safetensors", metadata)
    print(f"{name}: loss {loss.item():.6f}, {len(arrays)} tensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, *names = sys.argv[1:]
    for case in names or CASES:
        make(case, folder)
