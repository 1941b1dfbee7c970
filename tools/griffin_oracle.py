"""A float64 Griffin with interventions, written from the equations of docs/semantics.md alone.

An oracle for tests: it recomputes the whole sequence for every token, keeps no cache, and knows
nothing of the C code. Attention weights are an explicit [H, T, T] array, so that every edit is one
line of array arithmetic. Semantics: `paper`, with kv_cache and prefill_window as options.
"""
import json
import pathlib
import struct

import numpy as np


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    out = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        raw = np.frombuffer(data[8 + size + begin:8 + size + end], dtype=np.uint8)
        if info["dtype"] == "BF16":
            value = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            value = raw.view({"F32": np.float32, "F16": np.float16, "I32": np.int32}[info["dtype"]])
        out[name] = value.reshape(info["shape"])
    return out


def bf16_round(x):
    bits = np.float32(x).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16
    return np.uint32(bits).view(np.float32)


def gelu(v):
    return 0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v ** 3)))


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


class Griffin:
    def __init__(self, folder, visible=None):
        folder = pathlib.Path(folder)
        self.c = json.loads((folder / "config.json").read_text())
        weights = read_safetensors(folder / "model.safetensors")
        self.w = {k: v.astype(np.float64) for k, v in weights.items()}
        self.visible = visible or self.c["attention_window_size"] + 1
        self.head_gap = np.inf  # the least distance seen of a head kept from the next

    def norm(self, x, w):
        eps = self.c.get("rms_norm_eps", 1e-6)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * (1 + w)

    def recurrent(self, x, p):
        w, heads = self.w, self.c["num_attention_heads"]
        y = gelu(x @ w[p + "linear_y.weight"].T + w[p + "linear_y.bias"])
        a = x @ w[p + "linear_x.weight"].T + w[p + "linear_x.bias"]
        conv = w[p + "conv_1d.weight"][:, 0, :]
        taps, n = conv.shape[1], len(a)
        padded = np.concatenate([np.zeros((taps - 1, a.shape[1])), a])
        c = sum(padded[k:k + n] * conv[:, k] for k in range(taps)) + w[p + "conv_1d.bias"]
        blocks = c.reshape(n, heads, -1)

        def gate(name):
            value = np.einsum("tbi,bij->tbj", blocks, w[p + f"rg_lru.{name}_weight"])
            return sigmoid(value + w[p + f"rg_lru.{name}_bias"]).reshape(n, -1)

        log_a = -8 * gate("recurrent_gate") * np.log1p(np.exp(w[p + "rg_lru.recurrent_param"]))
        a_t, m_t = np.exp(log_a), np.sqrt(1 - np.exp(2 * log_a))
        a_t[0], m_t[0] = 0, 1
        drive, h, r = m_t * gate("input_gate") * c, 0, []
        for t in range(n):
            h = a_t[t] * h + drive[t]
            r.append(h)
        return (np.array(r) * y) @ w[p + "linear_out.weight"].T + w[p + "linear_out.bias"]

    def rope(self, v):
        """v: [heads, T, D]"""
        rotary = int(v.shape[-1] * self.c.get("partial_rotary_factor", 0.5))
        half = rotary // 2
        theta = self.c.get("rope_theta", 10000.0) ** (-2 * np.arange(half) / rotary)
        angle = np.arange(v.shape[1])[:, None] * theta
        a, b, rest = v[..., :half], v[..., half:rotary], v[..., rotary:]
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], -1)

    def attention(self, x, p, layer, stages, iv, kept):
        """stages[t]: 'prefill' or 'generation', the stage whose intervention row t gets."""
        w, n, heads = self.w, len(x), self.c["num_attention_heads"]
        groups = self.c["num_key_value_heads"]
        q = (x @ w[p + "q_proj.weight"].T).reshape(n, heads, -1).transpose(1, 0, 2)
        k = (x @ w[p + "k_proj.weight"].T).reshape(n, groups, -1).transpose(1, 0, 2)
        v = (x @ w[p + "v_proj.weight"].T).reshape(n, groups, -1).transpose(1, 0, 2)
        q, k = self.rope(q), self.rope(k)
        k, v = np.repeat(k, heads // groups, 0), np.repeat(v, heads // groups, 0)
        row, col = np.arange(n)[:, None], np.arange(n)[None, :]
        local = row - col < self.visible
        full = np.array([s == "prefill" and iv.get("prefill_window") == "full" for s in stages])
        mask = (col <= row) & (local | full[:, None])
        score = np.where(mask, q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]), -np.inf)
        weight = np.exp(score - score.max(-1, keepdims=True))
        weight /= weight.sum(-1, keepdims=True)

        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.where(weight > 0, weight * np.log2(weight), 0).sum(-1)  # [H, T]
        value = {"entropy": -entropy, "l2": np.sqrt((weight ** 2).sum(-1))}
        keep = np.ones((n, heads), bool)
        for t, stage in enumerate(stages):
            select = iv.get("heads")
            if select and stage in select["stages"]:
                # rounding makes the exact ties of row 0 ties again; the lowest index wins
                scores, k = np.round(value[select["metric"]][:, t], 12), select["keep"]
                order = np.argsort(-scores, kind="stable")
                keep[t] = False
                keep[t, order[:k]] = True
                if 0 < k < heads and scores[order[k - 1]] > scores[order[k]]:
                    self.head_gap = min(self.head_gap, scores[order[k - 1]] - scores[order[k]])
            edit = iv.get("weights", {}).get(stage)
            if edit and edit["mode"] != "keep":
                marked = np.zeros(n, bool)
                marked[[i for i in edit["positions"] if i < n]] = True
                marked &= mask[t]
                was = weight[:, t]
                weight[:, t] = {
                    "null": np.zeros_like(was),
                    "only": np.where(marked, was, 0),
                    "omit": np.where(marked, 0, was),
                    "binary": np.where(marked, was[:, marked].mean(-1, keepdims=True)
                                       if marked.any() else 0, 0),
                }[edit["mode"]]
        out = (weight @ v) * keep.T[:, :, None]
        kept[layer] = keep
        out = out.transpose(1, 0, 2).reshape(n, -1)
        return out @ w[p + "o_proj.weight"].T + w.get(p + "o_proj.bias", 0)

    def forward(self, ids, stages, iv):
        """Logits [T, V] and the heads kept, {layer: [T, H]}."""
        w, c, kept = self.w, self.c, {}
        x = w["model.embed_tokens.weight"][ids] * float(bf16_round(np.sqrt(c["hidden_size"])))
        types = c.get("block_types") or c["_block_types"]
        for i in range(c["num_hidden_layers"]):
            p = f"model.layers.{i}."
            z = self.norm(x, w[p + "temporal_pre_norm.weight"])
            if types[i % len(types)] == "attention":
                x = x + self.attention(z, p + "temporal_block.", i, stages, iv, kept)
            else:
                x = x + self.recurrent(z, p + "temporal_block.")
            z = self.norm(x, w[p + "channel_pre_norm.weight"])
            m = p + "mlp_block."
            gate = gelu(z @ w[m + "gate_proj.weight"].T + w[m + "gate_proj.bias"])
            up = z @ w[m + "up_proj.weight"].T + w[m + "up_proj.bias"]
            x = x + (gate * up) @ w[m + "down_proj.weight"].T + w[m + "down_proj.bias"]
        z = self.norm(x, w["model.final_norm.weight"])
        cap = c.get("logits_soft_cap", 30.0)
        return cap * np.tanh(z @ w["model.embed_tokens.weight"].T / cap), kept

    def generate(self, prompt, count, iv):
        """Greedy ids, logits [count, V], heads kept [count, attention layers, H].

        Row t of the sequence is computed once, in its own stage, so that recomputing everything is
        the same as a cache; with kv_cache off every row gets the stage of the step.
        """
        ids, logits, heads = [], [], []
        for step in range(count):
            fed = prompt + ids
            if iv.get("kv_cache") == "off":
                stages = ["prefill" if step == 0 else "generation"] * len(fed)
            else:
                stages = ["prefill"] * len(prompt) + ["generation"] * step
            out, kept = self.forward(fed, stages, iv)
            logits.append(out[-1])
            heads.append([kept[layer][-1] for layer in sorted(kept)])
            ids.append(int(out[-1].argmax()))
        return ids, np.array(logits), np.array(heads)
