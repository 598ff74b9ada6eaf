"""PyTorch as a contestant. Orders: prepare (kind 'eager' or 'compiled', model folder, batch file), step (count).

'eager' is transformers' LlamaForCausalLM (sdpa attention) in a plain loop. 'compiled' is the strongest PyTorch we know for these sizes: a lean module with
merged projections under torch.compile. Both: AdamW (fused), clipping to norm 1, float32, batches padded to their longest sequence.
"""

import json
import resource
import sys
import time

import torch
import torch.nn.functional as F

state = {}


def mean_loss(logits, labels):
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=-100)


class Lean(torch.nn.Module):
    """The same function as LlamaForCausalLM, without what training at one length does not need."""

    def __init__(self, model, tokens):
        super().__init__()
        config = model.config
        self.heads, self.eps = config.num_attention_heads, config.rms_norm_eps
        weight = lambda tensor: torch.nn.Parameter(tensor.detach().clone())
        self.embedding, self.norm, self.head = (
            weight(model.model.embed_tokens.weight),
            weight(model.model.norm.weight),
            weight(model.lm_head.weight),
        )
        names = ("norm1", "qkv", "out", "norm2", "gate_up", "down")
        self.layers = torch.nn.ModuleList()
        for layer in model.model.layers:
            a, m = layer.self_attn, layer.mlp
            tensors = (
                layer.input_layernorm.weight,
                torch.cat([a.q_proj.weight, a.k_proj.weight, a.v_proj.weight]),
                a.o_proj.weight,
                layer.post_attention_layernorm.weight,
                torch.cat([m.gate_proj.weight, m.up_proj.weight]),
                m.down_proj.weight,
            )
            self.layers.append(torch.nn.ParameterDict({name: weight(tensor) for name, tensor in zip(names, tensors)}))
        cos, sin = model.model.rotary_emb(self.embedding, torch.arange(tokens)[None])
        self.register_buffer("cos", cos[0].clone())
        self.register_buffer("sin", sin[0].clone())

    def rotate(self, x):
        a, b = x.chunk(2, -1)
        return x * self.cos + torch.cat([-b, a], -1) * self.sin

    def normed(self, x, gain):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * gain

    def forward(self, ids):
        b, t = ids.shape
        x = F.embedding(ids, self.embedding)
        for p in self.layers:
            qkv = F.linear(self.normed(x, p["norm1"]), p["qkv"]).view(b, t, 3, self.heads, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            out = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v, is_causal=True)
            x = x + F.linear(out.transpose(1, 2).reshape(b, t, -1), p["out"])
            gate, up = F.linear(self.normed(x, p["norm2"]), p["gate_up"]).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, p["down"])
        return F.linear(self.normed(x, self.norm), self.head)


def prepare(order):
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(order.get("threads", 2))
    model = AutoModelForCausalLM.from_pretrained(order["model"], dtype=torch.float32, attn_implementation="sdpa")
    sequences = json.load(open(order["batch"]))
    longest = max(len(s["ids"]) for s in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    attention = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, s in enumerate(sequences):
        ids[row, : len(s["ids"])] = torch.tensor(s["ids"])
        attention[row, : len(s["ids"])] = 1
        targets = torch.tensor(s["targets"])
        labels[row, targets] = ids[row, targets]
    ragged = bool((attention == 0).any())
    if order["kind"] == "eager":
        model.train()
        # A mask is passed only where there is padding: without one transformers takes the faster causal kernel.
        mask = {"attention_mask": attention} if ragged else {}
        state["loss"] = lambda: mean_loss(model(input_ids=ids, use_cache=False, **mask).logits[:, :-1], labels[:, 1:])
    else:
        # Right padding needs no mask: causal attention never looks ahead.
        model = Lean(model, longest)
        compiled = torch.compile(model, **({"mode": order["mode"]} if order.get("mode") else {}))
        loss = torch.compile(mean_loss)
        state["loss"] = lambda: loss(compiled(ids)[:, :-1], labels[:, 1:])
    state["model"] = model
    state["optimizer"] = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, fused=True)


def step():
    loss = state["loss"]()
    state["optimizer"].zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state["model"].parameters(), 1.0)
    state["optimizer"].step()
    return loss.item()


for line in sys.stdin:
    order = json.loads(line)
    cpu, start = time.process_time(), time.perf_counter()
    answer = {}
    if order["order"] == "prepare":
        prepare(order)
    else:
        answer["losses"] = [step() for _ in range(order["count"])]
    answer["seconds"] = time.perf_counter() - start
    answer["cpuSeconds"] = time.process_time() - cpu
    answer["peakBytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(answer), flush=True)
