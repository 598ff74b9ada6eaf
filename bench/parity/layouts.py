"""
Both directions of the file layouts, with the real libraries. Called by layouts.ts.

    layouts.py write FOLDER   makes models and adapters with transformers and peft, each with `expected.safetensors`: token ids and outputs
    layouts.py check FOLDER   loads every model and adapter in FOLDER that Ratchet wrote, and prints the largest difference from its expected outputs
"""
import glob
import json
import os
import sys

import peft
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

SMALL = dict(vocab_size=24, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
LENGTH = 24


def outputs(model, ids):
    """Logits [T, V] of a causal model, or a score per position [T]."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    states = base.model(input_ids=ids[None]).last_hidden_state[0]
    return base.lm_head(states) if hasattr(base, "lm_head") else base.score(states)[:, 0]


def expected(model, folder):
    ids = torch.randint(SMALL["vocab_size"], (LENGTH,), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        save_file({"ids": ids.float(), "outputs": outputs(model.eval(), ids).contiguous()}, f"{folder}/expected.safetensors")


def randomise(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 + torch.rand_like(parameter) if parameter.dim() == 1 else 0.3 * torch.randn_like(parameter))


def write(folder):
    torch.manual_seed(11)
    cases = {
        "sharded-bfloat16": (LlamaForCausalLM, {}, torch.bfloat16, "4KB"),
        "tied-float16": (LlamaForCausalLM, dict(tie_word_embeddings=True, head_dim=6, rope_parameters=LLAMA3), torch.float16, "1GB"),
        "score": (LlamaForSequenceClassification, dict(num_labels=1, pad_token_id=0), torch.float32, "1GB"),
    }
    for name, (kind, changes, dtype, shard) in cases.items():
        model = kind(LlamaConfig(max_position_embeddings=64, **SMALL, **changes))
        randomise(model)
        path = f"{folder}/{name}"
        model.to(dtype).save_pretrained(path, max_shard_size=shard)
        # Loaded again: in a model made half precision the table of rotations is rounded too, in one that was loaded it is not.
        expected(kind.from_pretrained(path, dtype=torch.float32), path)
    adapters = {
        "adapter": ("sharded-bfloat16", LlamaForCausalLM, "CAUSAL_LM", dict(r=3, lora_alpha=5, target_modules="all-linear")),
        "adapter-score": ("score", LlamaForSequenceClassification, "SEQ_CLS", dict(r=2, lora_alpha=3, target_modules=["q_proj", "o_proj"], use_rslora=True)),
    }
    for name, (base, kind, task, options) in adapters.items():
        model = peft.get_peft_model(kind.from_pretrained(f"{folder}/{base}", dtype=torch.float32), peft.LoraConfig(task_type=task, **options))
        randomise(torch.nn.ParameterList([p for p in model.parameters() if p.requires_grad]))
        model.save_pretrained(f"{folder}/{name}")
        expected(model, f"{folder}/{name}")
    for extra in glob.glob(f"{folder}/*/README.md") + glob.glob(f"{folder}/*/generation_config.json"):
        os.remove(extra)
    for path in glob.glob(f"{folder}/*/adapter_config.json"):
        # Made reproducible: the base by its folder's name, the targets in order.
        config = json.load(open(path))
        config["base_model_name_or_path"] = os.path.basename(config["base_model_name_or_path"])
        if isinstance(config["target_modules"], list):
            config["target_modules"].sort()
        json.dump(config, open(path, "w"), indent=2)


def check(folder):
    failed = False
    for path in sorted(glob.glob(f"{folder}/*")):
        config = json.load(open(glob.glob(f"{path}/*config.json")[0]))
        want = load_file(f"{path}/expected.safetensors")
        if "peft_type" in config:
            score = config["task_type"] == "SEQ_CLS"
            kind = AutoModelForSequenceClassification if score else AutoModelForCausalLM
            base = kind.from_pretrained(config["base_model_name_or_path"], dtype=torch.float32)
            model, problems = peft.PeftModel.from_pretrained(base, path), {}
        else:
            kind = AutoModelForSequenceClassification if "Sequence" in config["architectures"][0] else AutoModelForCausalLM
            model, problems = kind.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
        complaints = {k: sorted(v) for k, v in problems.items() if v}
        with torch.no_grad():
            found = outputs(model.eval(), want["ids"].long())
        difference = (found - want["outputs"]).abs().max().item()
        ok = difference <= 1e-4 and not complaints
        failed |= not ok
        print(f"{'ok' if ok else 'WRONG'}: {os.path.basename(path)}: outputs differ by at most {difference:.2e} {complaints or ''}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"write": write, "check": check}[sys.argv[1]](sys.argv[2])
