"""A float64 Jamba with interventions, written from the equations of docs/semantics.md alone.

As tools/griffin_oracle.py, whose attention and interventions it takes: global, without rotation.
"""
import numpy as np

from griffin_oracle import Griffin, sigmoid


def silu(v):
    return v * sigmoid(v)


class Jamba(Griffin):
    def __init__(self, folder):
        super().__init__(folder, visible=1 << 62)
        self.used = self.c["num_experts_per_tok"]
        self.router_gap = np.inf  # the least distance seen of an expert taken from the next

    def norm(self, x, w):
        eps = self.c.get("rms_norm_eps", 1e-6)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w

    def rope(self, v):
        return v

    def mamba(self, x, p):
        w, n, states = self.w, len(x), self.c["mamba_d_state"]
        u, z = np.split(x @ w[p + "in_proj.weight"].T + w.get(p + "in_proj.bias", 0), 2, -1)
        conv = w[p + "conv1d.weight"][:, 0, :]
        taps = conv.shape[1]
        padded = np.concatenate([np.zeros((taps - 1, u.shape[1])), u])
        c = sum(padded[k:k + n] * conv[:, k] for k in range(taps))
        v = silu(c + w.get(p + "conv1d.bias", 0))
        rank = w[p + "dt_proj.weight"].shape[1]
        parts = np.split(v @ w[p + "x_proj.weight"].T, [rank, rank + states], -1)
        low, b, c = (self.norm(part, w[p + f"{name}_layernorm.weight"])
                     for part, name in zip(parts, "dt b c".split()))
        step = np.log1p(np.exp(low @ w[p + "dt_proj.weight"].T + w[p + "dt_proj.bias"]))
        rate, h, y = -np.exp(w[p + "A_log"]), 0, []
        for t in range(n):
            h = np.exp(step[t][:, None] * rate) * h + (step[t] * v[t])[:, None] * b[t]
            y.append(h @ c[t] + w[p + "D"] * v[t])
        return (np.array(y) * silu(z)) @ w[p + "out_proj.weight"].T + w.get(p + "out_proj.bias", 0)

    def mlp(self, x, p):
        w = self.w
        gate = silu(x @ w[p + "gate_proj.weight"].T)
        return gate * (x @ w[p + "up_proj.weight"].T) @ w[p + "down_proj.weight"].T

    def feed_forward(self, x, p):
        if p + "router.weight" not in self.w:
            return self.mlp(x, p)
        score = np.exp(x @ self.w[p + "router.weight"].T)
        share = score / score.sum(-1, keepdims=True)
        out = np.zeros_like(x)
        for t in range(len(x)):
            best = np.argsort(-share[t], kind="stable")
            self.router_gap = min(self.router_gap, share[t][best[self.used - 1]] -
                                  share[t][best[self.used]])
            for e in best[:self.used]:
                out[t] += share[t][e] * self.mlp(x[t], p + f"experts.{e}.")
        return out

    def forward(self, ids, stages, iv):
        """Logits [T, V] and the heads kept, {layer: [T, H]}."""
        w, c, kept = self.w, self.c, {}
        x = w["model.embed_tokens.weight"][ids]
        for i in range(c["num_hidden_layers"]):
            p = f"model.layers.{i}."
            z = self.norm(x, w[p + "input_layernorm.weight"])
            if i % c["attn_layer_period"] == c["attn_layer_offset"]:
                x = x + self.attention(z, p + "self_attn.", i, stages, iv, kept)
            else:
                x = x + self.mamba(z, p + "mamba.")
            x = x + self.feed_forward(self.norm(x, w[p + "pre_ff_layernorm.weight"]),
                                      p + "feed_forward.")
        z = self.norm(x, w["model.final_layernorm.weight"])
        return z @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T, kept
