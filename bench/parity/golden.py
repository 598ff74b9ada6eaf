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


def cross_entropy_batch(rng):
    sequences = trees(rng, 3, SMALL["vocab_size"])
    reads = reads_of(rng, sequences, 10)
    targets = [rng.randrange(SMALL["vocab_size"]) for _ in reads]
    weights = [rng.uniform(0.02, 0.2) for _ in reads]
    return {"trees": sequences, "terms": {"objective": "crossEntropy", "reads": reads, "targets": targets, "weights": weights}}


def soft_bce_batch(rng):
    sequences = trees(rng, 3, SMALL["vocab_size"])
    reads = reads_of(rng, sequences, 10)
    labels = [rng.random() for _ in reads]
    weights = [rng.uniform(0.02, 0.2) for _ in reads]
    return {"trees": sequences, "terms": {"objective": "softBCE", "reads": reads, "labels": labels, "weights": weights}}


# --- cases -----------------------------------------------------------------------------------------------------------------------------------------

LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
CAUSAL, SCORE = LlamaForCausalLM, LlamaForSequenceClassification

# name: (class, changes to SMALL, batch maker, LoRA options or None)
CASES = {
    "grouped-query": (CAUSAL, dict(num_key_value_heads=2), cross_entropy_batch, None),
    "tied-llama3": (CAUSAL, dict(num_key_value_heads=1, tie_word_embeddings=True, head_dim=6, rope_parameters=LLAMA3), cross_entropy_batch, None),
    "linear-rotations": (CAUSAL, dict(num_hidden_layers=1, rope_parameters={"rope_type": "linear", "rope_theta": 100.0, "factor": 2.0}), cross_entropy_batch, None),
    "soft-bce": (SCORE, dict(num_key_value_heads=2, num_labels=1), soft_bce_batch, None),
    "lora": (CAUSAL, dict(num_key_value_heads=2), cross_entropy_batch, dict(r=2, lora_alpha=3, target_modules="all-linear")),
    "lora-score": (SCORE, dict(num_key_value_heads=2, num_labels=1, pad_token_id=0), soft_bce_batch, dict(r=3, lora_alpha=4, target_modules=["q_proj", "v_proj", "down_proj"], use_rslora=True)),
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
    kind, changes, make_batch, lora = CASES[name]
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
    batches = [make_batch(rng) for _ in range(4)]
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
