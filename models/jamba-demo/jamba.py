"""The Jamba forward pass of jamba-demo and mamba-demo, for training on a GPU and for evaluation.

`train_hidden` is the training path: bf16 activations, fp32 weights, the selective scan's state in fp32, all rows of a batch
in one flat [rows * length, width] matrix, so that each compiled function is compiled once for every length. `Decoder` is the
plain path: float32, explicit attention weights, state, head selection in either stage. check_hf.py compares both with
Hugging Face transformers.

Weights are a dict with the tensor names of the Hugging Face format, except that the training path holds the experts of a
layer as one tensor for each matrix ("...experts.gate_proj" [X, F, d]): `stack_experts` and `split_experts` convert.
Depends on torch; on a GPU also on Triton (scan.py).
"""
import math

import torch
import torch.nn.functional as F

from scan import selective_scan


def is_attention(cfg, i):
    return i % cfg["attn_layer_period"] == cfg["attn_layer_offset"]


def is_moe(cfg, i):
    return cfg["num_experts"] > 1 and i % cfg["expert_layer_period"] == cfg["expert_layer_offset"]


def attention_layers(cfg):
    return [i for i in range(cfg["num_hidden_layers"]) if is_attention(cfg, i)]


def shapes(cfg):
    """Tensor name -> shape, in the order of the file."""
    d, f, hd = cfg["hidden_size"], cfg["intermediate_size"], cfg["hidden_size"] // cfg["num_attention_heads"]
    inner, n, rank, kv = cfg["mamba_expand"] * d, cfg["mamba_d_state"], cfg["mamba_dt_rank"], cfg["num_key_value_heads"] * hd
    out = {"model.embed_tokens.weight": (cfg["vocab_size"], d), "model.final_layernorm.weight": (d,)}
    for i in range(cfg["num_hidden_layers"]):
        p = f"model.layers.{i}."
        out |= {p + "input_layernorm.weight": (d,), p + "pre_ff_layernorm.weight": (d,)}
        if is_attention(cfg, i):
            out |= {p + f"self_attn.{k}_proj.weight": s for k, s in (("q", (d, d)), ("k", (kv, d)), ("v", (kv, d)), ("o", (d, d)))}
        else:
            out |= {p + "mamba." + k: s for k, s in (
                ("in_proj.weight", (2 * inner, d)), ("conv1d.weight", (inner, 1, cfg["mamba_d_conv"])), ("conv1d.bias", (inner,)),
                ("x_proj.weight", (rank + 2 * n, inner)), ("dt_layernorm.weight", (rank,)), ("b_layernorm.weight", (n,)),
                ("c_layernorm.weight", (n,)), ("dt_proj.weight", (inner, rank)), ("dt_proj.bias", (inner,)), ("A_log", (inner, n)),
                ("D", (inner,)), ("out_proj.weight", (d, inner)))}
        if is_moe(cfg, i):
            out[p + "feed_forward.router.weight"] = (cfg["num_experts"], d)
        for e in range(cfg["num_experts"]) if is_moe(cfg, i) else (None,):
            ff = p + "feed_forward." + ("" if e is None else f"experts.{e}.")
            out |= {ff + "gate_proj.weight": (f, d), ff + "up_proj.weight": (f, d), ff + "down_proj.weight": (d, f)}
    return out


def init_weights(cfg, generator):
    """Random weights: fan-in scaled, outputs of the residual branches scaled down by the depth, Mamba's own start for A, D and
    the step size (0.001 .. 0.1)."""
    depth_scale = 1 / math.sqrt(2 * cfg["num_hidden_layers"])
    out = {}
    for name, shape in shapes(cfg).items():
        if name.endswith("A_log"):
            w = torch.log(torch.arange(1, shape[1] + 1).float()).repeat(shape[0], 1)
        elif name.endswith("dt_proj.bias"):
            step = torch.exp(torch.empty(shape).uniform_(math.log(1e-3), math.log(1e-1), generator=generator))
            w = torch.log(torch.expm1(step))
        elif name.endswith("conv1d.bias"):
            w = torch.zeros(shape)
        elif len(shape) == 1:
            w = torch.ones(shape)
        else:
            scale = depth_scale if any(k in name for k in ("o_proj", "out_proj", "down_proj")) else 1.0
            w = torch.randn(shape, generator=generator) * scale / math.sqrt(shape[-1])
        out[name] = w
    return out


def stack_experts(w, cfg):
    """Hugging Face's names -> the training path's."""
    out = {n: t for n, t in w.items() if ".experts." not in n}
    for i in range(cfg["num_hidden_layers"]):
        if is_moe(cfg, i):
            p = f"model.layers.{i}.feed_forward.experts."
            for k in ("gate_proj", "up_proj", "down_proj"):
                out[p + k] = torch.stack([w[p + f"{e}.{k}.weight"] for e in range(cfg["num_experts"])])
    return out


def split_experts(w, cfg):
    """The training path's names -> Hugging Face's."""
    out = {}
    for n, t in w.items():
        head, experts, k = n.partition(".experts.")
        if experts:
            out |= {f"{head}.experts.{e}.{k}.weight": t[e].clone() for e in range(cfg["num_experts"])}
        else:
            out[n] = t
    return {n: out[n] for n in shapes(cfg)}


# ---------------------------------------------------------------- pieces shared by both paths

def rms_norm(x, w, eps=1e-6):
    x32 = x.float()
    return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps) * w).to(x.dtype)


def linear(x, w):
    return F.linear(x, w.to(x.dtype))


def steps_of(c, xw, dtn, bn, cn, dw, db):
    """The scan's inputs for the convolution's output c [N, inner]: step size [N, inner], B and C [N, d_state], all float32."""
    rank, n = dtn.shape[0], bn.shape[0]
    dt, b, cc = linear(c, xw).split([rank, n, n], -1)
    delta = F.softplus(linear(rms_norm(dt, dtn), dw).float() + db)
    return delta, rms_norm(b.float(), bn), rms_norm(cc.float(), cn)


def dense(x, norm, gate, up, down):
    n = rms_norm(x, norm)
    return x + linear(F.silu(linear(n, gate)) * linear(n, up), down)


def router_weights(n, router, top):
    """(probabilities [N, X], the same with all but the `top` largest zero). Ties go to the lower expert, as torch.topk has it."""
    logits = linear(n, router).float()
    p, order = torch.softmax(logits, -1), torch.arange(router.shape[0], device=n.device)
    a, b = logits[:, None, :], logits[:, :, None]
    rank = ((a > b) | ((a == b) & (order[None, None, :] < order[None, :, None]))).sum(-1)
    return p, torch.where(rank < top, p, 0.0)


def experts(x, top: int, norm, router, gate, up, down):
    """gate, up [X, F, d], down [X, d, F]. All experts are computed and weighted, by 0 where not chosen: the same sum as choosing first.
    Also returns the share of tokens [X] that each expert gets and the mean probability [X], for the balance loss."""
    n, (X, f, d) = rms_norm(x, norm), gate.shape
    p, kept = router_weights(n, router, top)
    a = F.silu(linear(n, gate.reshape(X * f, d))) * linear(n, up.reshape(X * f, d))
    a = (a.view(-1, X, f) * kept.to(a.dtype)[:, :, None]).view(-1, X * f)
    return x + linear(a, down.permute(1, 0, 2).reshape(d, X * f)), (kept > 0).float().mean(0), p.mean(0)


# ---------------------------------------------------------------- training path

def mamba_in(x, pos, norm, iw, cw, cb, *steps):
    u, z = linear(rms_norm(x, norm), iw).chunk(2, -1)
    c = u * cw[:, 0, 3].to(u.dtype) + cb.to(u.dtype)
    for back in (1, 2, 3):
        shifted = torch.where((pos >= back)[:, None], torch.roll(u, back, 0), 0.0)
        c = c + shifted * cw[:, 0, 3 - back].to(u.dtype)
    c = F.silu(c)
    return (c, z, *steps_of(c, *steps))


def mamba_out(x, y, c, z, D, ow):
    y = (y.float() + D * c.float()) * F.silu(z.float())
    return x + linear(y.to(x.dtype), ow)


def attention_in(x, hd: int, norm, qw, kw, vw):
    n = rms_norm(x, norm)
    return tuple(linear(n, w).view(x.shape[0], -1, hd) for w in (qw, kw, vw))


def attention_out(x, o, heads, ow):
    """o [N, H, hd]; heads [N, H] is 1 for a head that is kept, 0 for one that is dropped."""
    return x + linear((o * heads[:, :, None]).reshape(x.shape[0], -1), ow)


def loss_sums(x, norm, embed, target, weight):
    """Cross entropy, weighted by each column of weight [N, classes] and summed."""
    logits = linear(rms_norm(x, norm), embed).float()
    ce = torch.logsumexp(logits, -1) - logits.gather(-1, target[:, None])[:, 0]
    return (ce[:, None] * weight).sum(0)


MAMBA = ("in_proj.weight", "conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_layernorm.weight", "b_layernorm.weight", "c_layernorm.weight",
         "dt_proj.weight", "dt_proj.bias")


def layer_weights(w, cfg, i):
    """(first part of the mixer, its output part, feed-forward part) of layer i; experts stacked."""
    p = f"model.layers.{i}."
    norm, ff = w[p + "input_layernorm.weight"], [w[p + "pre_ff_layernorm.weight"]]
    kinds = ("gate_proj", "up_proj", "down_proj")
    if is_moe(cfg, i):
        ff += [w[p + "feed_forward.router.weight"]] + [w[p + f"feed_forward.experts.{k}"] for k in kinds]
    else:
        ff += [w[p + f"feed_forward.{k}.weight"] for k in kinds]
    if is_attention(cfg, i):
        return [norm] + [w[p + f"self_attn.{k}_proj.weight"] for k in "qkv"], [w[p + "self_attn.o_proj.weight"]], ff
    m = p + "mamba."
    return [norm] + [w[m + k] for k in MAMBA], [w[m + "A_log"], w[m + "D"], w[m + "out_proj.weight"]], ff


class Pieces:
    """The functions of the training path, compiled on a GPU."""

    def __init__(self, compiled):
        wrap = (lambda f: torch.compile(f, dynamic=False)) if compiled else (lambda f: f)
        self.mamba_in, self.mamba_out, self.attention_in, self.attention_out = (wrap(f) for f in (mamba_in, mamba_out, attention_in, attention_out))
        self.dense, self.experts, self.loss_sums = wrap(dense), wrap(experts), wrap(loss_sums)


def train_hidden(w, cfg, ids, heads, pieces, pos, dtype):
    """ids [B, T]; heads [attention layers, B, H] or None; pos = positions of the flat batch. Returns the hidden states [B * T, d], the
    balance loss (1 in each layer when all experts are used alike, summed over layers) and the smallest share of tokens an expert gets."""
    B, T = ids.shape
    x = F.embedding(ids.reshape(-1), w["model.embed_tokens.weight"]).to(dtype)
    H, hd, n = cfg["num_attention_heads"], cfg["hidden_size"] // cfg["num_attention_heads"], 0
    group, balance, least = H // cfg["num_key_value_heads"], [], []
    for i in range(cfg["num_hidden_layers"]):
        first, second, ff = layer_weights(w, cfg, i)
        if is_attention(cfg, i):
            q, k, v = pieces.attention_in(x, hd, *first)
            q, k, v = (t.view(B, T, -1, hd).transpose(1, 2) for t in (q, k, v))
            k, v = (t[:, :, None].expand(B, H // group, group, T, hd).reshape(B, H, T, hd) for t in (k, v))
            o = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B * T, H, hd)
            keep = torch.ones(B * T, H, dtype=dtype, device=x.device) if heads is None else \
                heads[n].to(dtype)[:, None].expand(B, T, H).reshape(B * T, H)
            x = pieces.attention_out(x, o, keep, *second)
            n += 1
        else:
            a_log, D, ow = second
            c, z, delta, b, cc = pieces.mamba_in(x, pos, *first)
            y, _ = selective_scan(delta, c, -torch.exp(a_log), b, cc, T)
            x = pieces.mamba_out(x, y, c, z, D, ow)
        if is_moe(cfg, i):
            x, share, p = pieces.experts(x, cfg["num_experts_per_tok"], *ff)
            balance.append((share * p).sum() * cfg["num_experts"] / cfg["num_experts_per_tok"])
            least.append(share.min())
        else:
            x = pieces.dense(x, *ff)
    zero = x.new_zeros(())
    return x, sum(balance, zero), torch.stack(least).min() if least else zero


def positions(B, T, device):
    return torch.arange(T, device=device).repeat(B)


# ---------------------------------------------------------------- plain path: state, head selection

class Decoder:
    """Plain float32 forward with state: the model that ../common/niah.py asks for. Attention is global: the window is only a number."""

    window = 1 << 30

    def __init__(self, weights, cfg, device, bf16_weights=True):
        self.cfg, self.device = cfg, device
        self.w = {n: (v.bfloat16() if bf16_weights else v).float().to(device) for n, v in stack_experts(weights, cfg).items()}

    def _attend(self, q, k, v, qpos, kpos, select):
        """q [B, Q, H, hd]; k, v [B, S, KV, hd]; positions qpos [B, Q], kpos [B, S] (negative: empty)."""
        B, Q, H, hd = q.shape
        k, v = (t.repeat_interleave(H // t.shape[2], 2) for t in (k, v))
        s = torch.einsum("bqhd,bshd->bhqs", q, k) / math.sqrt(hd)
        see = (kpos[:, None] >= 0) & (kpos[:, None] <= qpos[:, :, None])
        P = torch.softmax(s.masked_fill_(~see[:, None], -torch.inf), -1)
        o = torch.einsum("bhqs,bshd->bqhd", P, v)
        return o if select is None else o * select(P).transpose(1, 2)[..., None]

    def _feed_forward(self, x, i, ff):
        return experts(x, self.cfg["num_experts_per_tok"], *ff)[0] if is_moe(self.cfg, i) else dense(x, *ff)

    def _logits(self, x):
        return linear(rms_norm(x, self.w["model.final_layernorm.weight"]), self.w["model.embed_tokens.weight"])

    @torch.no_grad()
    def prefill(self, ids, lengths, select=None, room=64, all_logits=False):
        cfg, w, (B, T) = self.cfg, self.w, ids.shape
        hd, K = cfg["hidden_size"] // cfg["num_attention_heads"], cfg["mamba_d_conv"]
        rows, last = torch.arange(B, device=self.device), lengths - 1
        qpos = positions(B, T, self.device).view(B, T)
        kpos = torch.where(qpos < lengths[:, None], qpos, -1)
        state = {"n": lengths.clone(), "kpos": F.pad(kpos, (0, room), value=-1), "layers": [], "used": T}
        x = F.embedding(ids.reshape(-1), w["model.embed_tokens.weight"])
        for i in range(cfg["num_hidden_layers"]):
            first, second, ff = layer_weights(w, cfg, i)
            if is_attention(cfg, i):
                q, k, v = (t.view(B, T, -1, hd) for t in attention_in(x, hd, *first))
                o = self._attend(q, k, v, qpos, kpos, select)
                x = x + linear(o.reshape(B * T, -1), *second)
                state["layers"].append([F.pad(t, (0, 0, 0, 0, 0, room)) for t in (k, v)])
            else:
                (norm, iw, cw, cb, *steps), (a_log, D, ow) = first, second
                u, z = linear(rms_norm(x, norm), iw).chunk(2, -1)
                padded = F.pad(u.reshape(B, T, -1), (0, 0, K - 1, 0))
                c = F.silu(sum(padded[:, j:j + T] * cw[:, 0, j] for j in range(K)) + cb).reshape(B * T, -1)
                delta, b, cc = steps_of(c, *steps)
                delta = torch.where((qpos < lengths[:, None]).reshape(-1, 1), delta, 0.0)     # the state stands still after a row's end
                y, h = selective_scan(delta, c, -torch.exp(a_log), b, cc, T)
                x = mamba_out(x, y, c, z, D, ow)
                state["layers"].append([torch.stack([padded[rows, last + j] for j in range(1, K)], 1), h])
            x = self._feed_forward(x, i, ff)
        if all_logits:
            return self._logits(x).view(B, T, -1), state
        return self._logits(x.view(B, T, -1)[rows, last]), state

    @torch.no_grad()
    def step(self, state, ids, select=None):
        cfg, w, B = self.cfg, self.w, ids.shape[0]
        hd, pos, slot = cfg["hidden_size"] // cfg["num_attention_heads"], state["n"], state["used"]
        state["kpos"][:, slot] = pos
        x = F.embedding(ids, w["model.embed_tokens.weight"])
        for i in range(cfg["num_hidden_layers"]):
            first, second, ff = layer_weights(w, cfg, i)
            if is_attention(cfg, i):
                q, k, v = attention_in(x, hd, *first)
                K, V = state["layers"][i]
                K[:, slot], V[:, slot] = k, v
                o = self._attend(q[:, None], K[:, :slot + 1], V[:, :slot + 1], pos[:, None], state["kpos"][:, :slot + 1], select)
                x = x + linear(o.reshape(B, -1), *second)
            else:
                (norm, iw, cw, cb, *steps), (a_log, D, ow) = first, second
                u, z = linear(rms_norm(x, norm), iw).chunk(2, -1)
                taps = torch.cat([state["layers"][i][0], u[:, None]], 1)
                c = F.silu((taps * cw[:, 0].T).sum(1) + cb)
                delta, b, cc = steps_of(c, *steps)
                h = torch.exp(delta[:, :, None] * -torch.exp(a_log)) * state["layers"][i][1] + (delta * c)[:, :, None] * b[:, None]
                state["layers"][i] = [taps[:, 1:], h]
                x = mamba_out(x, (h * cc[:, None]).sum(-1), c, z, D, ow)
            x = self._feed_forward(x, i, ff)
        state["n"], state["used"] = pos + 1, slot + 1
        return self._logits(x)
