"""PyTorch as a contestant in rollouts. Orders: prepare (kind 'static' or 'generate', model folder, the workload's numbers), turns (count).

'static' is a hand-written loop: one preallocated key/value cache, all rows of equal length (so no mask beyond causality and no padding), attention over the
filled part only, greedy tokens. 'generate' is the usual agent loop: every turn the whole history goes through transformers' generate again. Both take the
unconstrained best token; forced and admissible tokens cost them nothing.
"""

import json
import resource
import sys
import time

import torch
import torch.nn.functional as F

torch.set_grad_enabled(False)
state = {}


class Static:
    def __init__(self, model, rows, context):
        config = model.config
        self.eps, self.heads, self.rows = config.rms_norm_eps, config.num_attention_heads, rows
        self.embedding, self.norm, self.head = model.model.embed_tokens.weight, model.model.norm.weight, model.lm_head.weight
        self.layers = []
        for layer in model.model.layers:
            a, m = layer.self_attn, layer.mlp
            self.layers.append(
                (
                    layer.input_layernorm.weight,
                    torch.cat([a.q_proj.weight, a.k_proj.weight, a.v_proj.weight]),
                    a.o_proj.weight,
                    layer.post_attention_layernorm.weight,
                    torch.cat([m.gate_proj.weight, m.up_proj.weight]),
                    m.down_proj.weight,
                )
            )
        size = config.hidden_size // config.num_attention_heads
        self.caches = [torch.zeros(2, rows, self.heads, context, size) for _ in self.layers]
        cos, sin = model.model.rotary_emb(self.embedding, torch.arange(context)[None])
        self.cos, self.sin = cos[0], sin[0]
        # Row i of a chunk that starts at `length` sees the keys up to length + i.
        self.visible = torch.ones(context, context, dtype=torch.bool).tril()
        self.length = 0

    def feed(self, ids):
        """Reads ids [rows, t] after what is cached; returns the logits after the last of them."""
        b, t = ids.shape
        start, end = self.length, self.length + t
        cos, sin = self.cos[start:end], self.sin[start:end]

        def rotate(x):
            first, second = x.chunk(2, -1)
            return x * cos + torch.cat([-second, first], -1) * sin

        def normed(x, gain):
            return F.rms_norm(x, (x.shape[-1],), gain, self.eps)

        mask = None if t == 1 else self.visible[start:end, :end]
        x = F.embedding(ids, self.embedding)
        for (norm1, w_qkv, w_out, norm2, w_gate_up, w_down), cache in zip(self.layers, self.caches):
            q, k, v = F.linear(normed(x, norm1), w_qkv).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
            cache[0, :, :, start:end] = rotate(k)
            cache[1, :, :, start:end] = v
            out = F.scaled_dot_product_attention(rotate(q), cache[0, :, :, :end], cache[1, :, :, :end], attn_mask=mask)
            x = x + F.linear(out.transpose(1, 2).reshape(b, t, -1), w_out)
            gate, up = F.linear(normed(x, norm2), w_gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, w_down)
        self.length = end
        return F.linear(normed(x[:, -1], self.norm), self.head)


def prepare(order):
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(order.get("threads", 2))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(order["model"], dtype=torch.float32, attn_implementation="sdpa").eval()
    state.update(order, model=model, vocabulary=model.config.vocab_size, turn=0)
    if order["kind"] == "static":
        state["static"] = Static(model, order["rows"], order["context"])


def words(count):
    return torch.randint(0, state["vocabulary"], (state["rows"], count))


def static_turn():
    static = state["static"]
    new = words(state["observation"])
    if state["turn"] % state["cycle"] == 0:
        static.length = 0
        new = torch.cat([words(state["start"]), new], 1)
    else:
        new = torch.cat([state["last"], new], 1)
    for _ in range(state["action"]):
        new = static.feed(new).argmax(-1, keepdim=True)
    state["last"] = new


def generate_turn():
    # Histories as they are in the middle of the episodes: ragged, padded on the left.
    lengths = torch.linspace(state["start"], state["context"] - state["action"] - 1, state["rows"]).long() + state["observation"] // 2
    lengths = lengths.clamp(max=state["context"] - state["action"])
    longest = int(lengths.max())
    mask = (torch.arange(longest)[None] >= longest - lengths[:, None]).long()
    state["model"].generate(
        words(longest),
        attention_mask=mask,
        max_new_tokens=state["action"],
        min_new_tokens=state["action"],
        do_sample=False,
        pad_token_id=0,
    )


for line in sys.stdin:
    order = json.loads(line)
    cpu, start = time.process_time(), time.perf_counter()
    if order["order"] == "prepare":
        prepare(order)
    else:
        for _ in range(order["count"]):
            static_turn() if state["kind"] == "static" else generate_turn()
            state["turn"] += 1
    answer = {
        "seconds": time.perf_counter() - start,
        "cpuSeconds": time.process_time() - cpu,
        "peakBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(answer), flush=True)
