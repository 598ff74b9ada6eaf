"""
The half of greedy.ts that transformers does.

    greedy.py make FOLDER VOCABULARY           a Llama model with random weights
    greedy.py generate FOLDER PROMPTS ANSWERS  greedy continuations of the prompts, with the difference of the two best log-probabilities of each token
"""
import json
import sys

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM


def make(folder, vocabulary):
    torch.manual_seed(5)
    size = dict(hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=512)
    # A larger spread than the default, so that outputs differ from token to token.
    LlamaForCausalLM(LlamaConfig(vocab_size=int(vocabulary), initializer_range=0.15, **size)).save_pretrained(folder)


def generate(folder, prompts, answers):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    asked = json.load(open(prompts))
    out = [None] * len(asked["prompts"])
    for length in sorted({len(ids) for ids in asked["prompts"]}):
        # Prompts of one length make a batch without padding.
        places = [i for i, ids in enumerate(asked["prompts"]) if len(ids) == length]
        ids = torch.tensor([asked["prompts"][i] for i in places])
        done = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=asked["maxTokens"],
            eos_token_id=None,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        best = torch.stack([torch.log_softmax(logits.double(), -1).topk(2).values for logits in done.logits], 1)
        for i, sequence, two in zip(places, done.sequences, best):
            out[i] = {"ids": sequence[length:].tolist(), "margins": (two[:, 0] - two[:, 1]).tolist()}
    json.dump(out, open(answers, "w"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"make": make, "generate": generate}[sys.argv[1]](*sys.argv[2:])
