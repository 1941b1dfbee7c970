"""The Griffin (RecurrentGemma) forward pass of griffin-demo, for training on a GPU and for evaluation.

`train_forward` is the training path: bf16 activations, fp32 weights, all rows of a batch in one flat
[rows * length, width] matrix, so that each compiled function is compiled once for every length. Attention is causal
without a window (the training rows are the window). `Decoder` is the plain path: float32, explicit attention weights,
window, KV cache, head selection in either stage. Both are compared with Hugging Face transformers by check_hf.py.

Weights are a dict with the tensor names of the Hugging Face format. Depends on torch; on a GPU also on Triton.
"""
import math

import torch
import torch.nn.functional as F

try:
    import triton
    import triton.language as tl
except ImportError:         # CPU only: the scan is a loop
    triton = None

CONFIG = {
    "architectures": ["RecurrentGemmaForCausalLM"], "model_type": "recurrent_gemma", "torch_dtype": "bfloat16",
    "num_hidden_layers": 11, "vocab_size": 4096, "hidden_size": 256, "intermediate_size": 768,
    "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 32, "lru_width": 256, "attention_window_size": 2048,
    "conv1d_width": 4, "logits_soft_cap": 30.0, "rms_norm_eps": 1e-6, "use_cache": True,
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "hidden_activation": "gelu_pytorch_tanh",
    "partial_rotary_factor": 0.5, "rope_theta": 10000.0, "block_types": ["recurrent", "recurrent", "attention"],
    "attention_dropout": 0.0, "attention_bias": False, "w_init_variance_scale": 0.01, "final_w_init_variance_scale": 2.0 / 11,
    "tie_word_embeddings": True,
}


def is_attention(cfg, i):
    return cfg["block_types"][i % len(cfg["block_types"])] == "attention"


def attention_layers(cfg):
    return [i for i in range(cfg["num_hidden_layers"]) if is_attention(cfg, i)]


def shapes(cfg):
    """Tensor name -> shape, in the order of the file."""
    d, r, e = cfg["hidden_size"], cfg["lru_width"], cfg["intermediate_size"] // 2
    h, hd = cfg["num_attention_heads"], cfg["head_dim"]
    out = {"model.embed_tokens.weight": (cfg["vocab_size"], d), "model.final_norm.weight": (d,)}
    for i in range(cfg["num_hidden_layers"]):
        p, t = f"model.layers.{i}.", f"model.layers.{i}.temporal_block."
        out |= {p + "temporal_pre_norm.weight": (d,), p + "channel_pre_norm.weight": (d,)}
        if is_attention(cfg, i):
            out |= {t + "q_proj.weight": (h * hd, d), t + "k_proj.weight": (hd, d), t + "v_proj.weight": (hd, d),
                    t + "o_proj.weight": (d, h * hd), t + "o_proj.bias": (d,)}
        else:
            for name, shape in (("linear_x", (r, d)), ("linear_y", (r, d)), ("linear_out", (d, r))):
                out |= {t + name + ".weight": shape, t + name + ".bias": shape[:1]}
            out |= {t + "conv_1d.weight": (r, 1, 4), t + "conv_1d.bias": (r,), t + "rg_lru.recurrent_param": (r,)}
            for gate in ("input_gate", "recurrent_gate"):
                out |= {t + f"rg_lru.{gate}_weight": (h, r // h, r // h), t + f"rg_lru.{gate}_bias": (h, r // h)}
        for name, shape in (("gate_proj", (e, d)), ("up_proj", (e, d)), ("down_proj", (d, e))):
            out |= {p + f"mlp_block.{name}.weight": shape, p + f"mlp_block.{name}.bias": shape[:1]}
    return out


def init_weights(cfg, generator, device):
    """Random weights: fan-in scaled, outputs of the residual branches scaled down by the depth; a^8 in 0.9 .. 0.999."""
    depth_scale = 1 / math.sqrt(2 * cfg["num_hidden_layers"])
    out = {}
    for name, shape in shapes(cfg).items():
        if name.endswith("recurrent_param"):
            a = torch.empty(shape).uniform_(0.9 ** 2, 0.999 ** 2, generator=generator).sqrt()
            w = torch.log(torch.expm1(-torch.log(a)))
        elif len(shape) == 1 or name.endswith("_gate_bias"):
            w = torch.zeros(shape)
        else:
            scale = depth_scale if any(k in name for k in ("o_proj", "linear_out", "down_proj")) else 1.0
            w = torch.randn(shape, generator=generator) * scale / math.sqrt(shape[-1])
        out[name] = w.to(device)
    return out


def embed_scale(cfg):
    return float(torch.tensor(math.sqrt(cfg["hidden_size"])).bfloat16())


# ---------------------------------------------------------------- linear recurrence h_t = a_t h_(t-1) + b_t

if triton:
    @triton.jit
    def _combine(a1, b1, a2, b2):
        return a1 * a2, b1 * a2 + b2

    @triton.jit
    def _scan_fwd(a_ptr, b_ptr, h_ptr, T, R: tl.constexpr, STEPS: tl.constexpr, CH: tl.constexpr):
        ch = tl.program_id(1) * CH + tl.arange(0, CH)
        base = tl.program_id(0).to(tl.int64) * T * R
        carry = tl.zeros((CH,), tl.float32)
        step = tl.arange(0, STEPS)
        for t0 in range(0, T, STEPS):
            at = base + (t0 + step)[:, None] * R + ch[None, :]
            ok = (t0 + step)[:, None] < T
            a = tl.load(a_ptr + at, ok, 1.0)
            b = tl.load(b_ptr + at, ok, 0.0)
            aa, bb = tl.associative_scan((a, b), 0, _combine)
            h = aa * carry[None, :] + bb
            tl.store(h_ptr + at, h, ok)
            carry = tl.sum(tl.where(step[:, None] == STEPS - 1, h, 0.0), 0)

    @triton.jit
    def _scan_bwd(a_ptr, h_ptr, g_ptr, da_ptr, db_ptr, T, R: tl.constexpr, STEPS: tl.constexpr, CH: tl.constexpr):
        # runs backwards in time: s_t = g_t + a_(t+1) s_(t+1); db_t = s_t, da_t = s_t h_(t-1)
        ch = tl.program_id(1) * CH + tl.arange(0, CH)
        base = tl.program_id(0).to(tl.int64) * T * R
        carry = tl.zeros((CH,), tl.float32)
        step = tl.arange(0, STEPS)
        for r0 in range(0, T, STEPS):
            t = T - 1 - (r0 + step)
            at = base + t[:, None] * R + ch[None, :]
            ok = t[:, None] >= 0
            a_next = tl.load(a_ptr + at + R, ok & (t[:, None] < T - 1), 1.0)
            g = tl.load(g_ptr + at, ok, 0.0).to(tl.float32)
            aa, bb = tl.associative_scan((a_next, g), 0, _combine)
            s = aa * carry[None, :] + bb
            h_prev = tl.load(h_ptr + at - R, ok & (t[:, None] > 0), 0.0)
            tl.store(db_ptr + at, s, ok)
            tl.store(da_ptr + at, s * h_prev, ok)
            carry = tl.sum(tl.where(step[:, None] == STEPS - 1, s, 0.0), 0)


class Scan(torch.autograd.Function):
    """a, b: float32 [rows * T, R]; returns h, float32, zero before each row. Time steps 32 and channels 16 a tile."""

    @staticmethod
    def forward(ctx, a, b, T):
        R, h = a.shape[1], torch.empty_like(b)
        grid = (a.shape[0] // T, R // 16)
        _scan_fwd[grid](a, b, h, T, R, 32, 16, num_warps=1)
        ctx.save_for_backward(a, h)
        ctx.T = T
        return h

    @staticmethod
    def backward(ctx, g):
        a, h = ctx.saved_tensors
        R, da, db = a.shape[1], torch.empty_like(a), torch.empty_like(a)
        _scan_bwd[(a.shape[0] // ctx.T, R // 16)](a, h, g.contiguous(), da, db, ctx.T, R, 32, 16, num_warps=1)
        return da, db, None


def scan(a, b, T):
    if a.is_cuda:
        return Scan.apply(a, b, T)
    a, b = a.view(-1, T, a.shape[1]), b.view(-1, T, b.shape[1])
    h, out = torch.zeros_like(b[:, 0]), []
    for t in range(T):
        h = a[:, t] * h + b[:, t]
        out.append(h)
    return torch.stack(out, 1).reshape(-1, a.shape[2])


# ---------------------------------------------------------------- pieces shared by both paths

def rms_norm(x, w, eps=1e-6):
    x32 = x.float()
    return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps) * (1 + w)).to(x.dtype)


def linear(x, w, b=None):
    return F.linear(x, w.to(x.dtype), None if b is None else b.to(x.dtype))


def gelu(x):
    return F.gelu(x, approximate="tanh")


def mlp(x, norm, gw, gb, uw, ub, dw, db):
    n = rms_norm(x, norm)
    return x + linear(gelu(linear(n, gw, gb)) * linear(n, uw, ub), dw, db)


def block_linear(x, w, b):
    """x [N, R]; w [blocks, in, out]."""
    n, (k, i, j) = x.shape[0], w.shape
    return (torch.einsum("nki,kij->nkj", x.view(n, k, i), w.to(x.dtype)) + b.to(x.dtype)).reshape(n, k * j)


def gates(c, pos, param, iw, ib, rw, rb):
    """The decay a and the input b of the recurrence, float32 [N, R], for the convolution's output c."""
    i = torch.sigmoid(block_linear(c, iw, ib).float())
    log_a = -8.0 * torch.sigmoid(block_linear(c, rw, rb).float()) * F.softplus(param)
    start = (pos == 0)[:, None]
    m = torch.sqrt(torch.clamp(-torch.expm1(2 * log_a), min=1e-8))
    return torch.where(start, 0.0, torch.exp(log_a)), torch.where(start, 1.0, m) * i * c.float()


def rotate(x, cos, sin):
    """RoPE on the first half of each head's dimensions; x [N, heads, hd], cos and sin [N, hd / 4]."""
    r = x.shape[-1] // 4
    a, b, rest = x[..., :r].float(), x[..., r:2 * r].float(), x[..., 2 * r:]
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([(a * cos - b * sin).to(x.dtype), (b * cos + a * sin).to(x.dtype), rest], -1)


def rope_tables(cfg, pos):
    r = cfg["head_dim"] // 4
    theta = cfg["rope_theta"] ** (-torch.arange(r, device=pos.device, dtype=torch.float64) / r)
    angle = pos.double()[:, None] * theta
    return angle.cos().float(), angle.sin().float()


# ---------------------------------------------------------------- training path

def recurrent_in(x, pos, norm, xw, xb, yw, yb, cw, cb, param, iw, ib, rw, rb):
    n = rms_norm(x, norm)
    y, a = gelu(linear(n, yw, yb)), linear(n, xw, xb)
    c = a * cw[:, 0, 3].to(a.dtype) + cb.to(a.dtype)
    for back in (1, 2, 3):
        shifted = torch.where((pos >= back)[:, None], torch.roll(a, back, 0), 0.0)
        c = c + shifted * cw[:, 0, 3 - back].to(a.dtype)
    decay, inp = gates(c, pos, param, iw, ib, rw, rb)
    return decay, inp, y


def recurrent_out(x, h, y, ow, ob, *mlp_weights):
    x = x + linear(h.to(y.dtype) * y, ow, ob)
    return mlp(x, *mlp_weights)


def attention_in(x, cos, sin, norm, qw, kw, vw):
    n = rms_norm(x, norm)
    hd = kw.shape[0]
    q, k = linear(n, qw).view(x.shape[0], -1, hd), linear(n, kw).view(x.shape[0], 1, hd)
    return rotate(q, cos, sin), rotate(k, cos, sin), linear(n, vw).view(x.shape[0], 1, hd)


def attention_out(x, o, heads, ow, ob, *mlp_weights):
    """o [N, H, hd]; heads [N, H] is 1 for a head that is kept, 0 for one that is dropped."""
    x = x + linear((o * heads[:, :, None]).reshape(x.shape[0], -1), ow, ob)
    return mlp(x, *mlp_weights)


def loss_sums(x, norm, embed, target, weight):
    """Cross entropy, weighted by each column of weight [N, classes] and summed."""
    logits = linear(rms_norm(x, norm), embed).float()
    logits = 30.0 * torch.tanh(logits / 30.0)
    ce = torch.logsumexp(logits, -1) - logits.gather(-1, target[:, None])[:, 0]
    return (ce[:, None] * weight).sum(0)


def layer_weights(w, cfg, i):
    p, t = f"model.layers.{i}.", f"model.layers.{i}.temporal_block."
    ffn = [w[p + "channel_pre_norm.weight"]] + [w[p + f"mlp_block.{n}.{k}"] for n in ("gate_proj", "up_proj", "down_proj") for k in ("weight", "bias")]
    norm = w[p + "temporal_pre_norm.weight"]
    if is_attention(cfg, i):
        return ([norm] + [w[t + f"{n}_proj.weight"] for n in "qkv"], [w[t + "o_proj.weight"], w[t + "o_proj.bias"]] + ffn)
    first = [norm] + [w[t + f"{n}.{k}"] for n in ("linear_x", "linear_y", "conv_1d") for k in ("weight", "bias")]
    first += [w[t + "rg_lru." + n] for n in ("recurrent_param", "input_gate_weight", "input_gate_bias", "recurrent_gate_weight", "recurrent_gate_bias")]
    return first, [w[t + "linear_out.weight"], w[t + "linear_out.bias"]] + ffn


class Pieces:
    """The five functions of the training path, compiled on a GPU."""

    def __init__(self, compiled):
        wrap = (lambda f: torch.compile(f, dynamic=False)) if compiled else (lambda f: f)
        self.recurrent_in, self.recurrent_out = wrap(recurrent_in), wrap(recurrent_out)
        self.attention_in, self.attention_out = wrap(attention_in), wrap(attention_out)
        self.loss_sums = wrap(loss_sums)


def train_hidden(w, cfg, ids, heads, pieces, tables, dtype):
    """ids [B, T]; heads [layers, B, H] or None; tables = (pos, cos, sin) for the flat batch. Returns hidden states [B * T, d]."""
    B, T = ids.shape
    pos, cos, sin = tables
    x = F.embedding(ids.reshape(-1), w["model.embed_tokens.weight"]).to(dtype) * embed_scale(cfg)
    H, hd, n = cfg["num_attention_heads"], cfg["head_dim"], 0
    for i in range(cfg["num_hidden_layers"]):
        first, second = layer_weights(w, cfg, i)
        if is_attention(cfg, i):
            q, k, v = pieces.attention_in(x, cos, sin, *first)
            q = q.view(B, T, H, hd).transpose(1, 2)
            k, v = (z.view(B, T, 1, hd).transpose(1, 2).expand(B, H, T, hd) for z in (k, v))
            o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            o = o.transpose(1, 2).reshape(B * T, H, hd)
            keep = torch.ones(B * T, H, dtype=dtype, device=x.device) if heads is None else \
                heads[n].to(dtype)[:, None].expand(B, T, H).reshape(B * T, H)
            x = pieces.attention_out(x, o, keep, *second)
            n += 1
        else:
            decay, inp, y = pieces.recurrent_in(x, pos, *first)
            x = pieces.recurrent_out(x, scan(decay, inp, T), y, *second)
    return x


def flat_tables(cfg, B, T, device):
    pos = torch.arange(T, device=device).repeat(B)
    return (pos, *rope_tables(cfg, pos))


# ---------------------------------------------------------------- plain path: cache, window

class Decoder:
    """Plain float32 forward with state. A query sees itself and the `window` tokens before it (DeepMind's count).

    prefill(ids, lengths, select) takes right-padded ids [B, T] and returns (logits at each row's last token, state);
    step(state, ids, select) feeds one token a row. select(P) -> keep [B, H, Q], or None for all heads.
    """

    def __init__(self, weights, cfg, window, device, bf16_weights=True):
        self.cfg, self.window, self.device = cfg, window, device
        self.w = {n: (v.bfloat16() if bf16_weights else v).float().to(device) for n, v in weights.items()}

    def _attend(self, i, q, k, v, qpos, kpos, select):
        """q [B, Q, H, hd]; k, v [B, S, hd]; positions qpos [B, Q], kpos [B, S] (negative: empty)."""
        s = torch.einsum("bqhd,bsd->bhqs", q, k) / math.sqrt(self.cfg["head_dim"])
        see = (kpos[:, None] >= 0) & (kpos[:, None] <= qpos[:, :, None]) & (kpos[:, None] >= qpos[:, :, None] - self.window)
        P = torch.softmax(s.masked_fill_(~see[:, None], -2.3819763e38), -1)
        o = torch.einsum("bhqs,bsd->bqhd", P, v)
        if select is not None:
            o = o * select(P).transpose(1, 2)[..., None]
        del s, P, see
        return o

    def _logits(self, x):
        x = linear(rms_norm(x, self.w["model.final_norm.weight"]), self.w["model.embed_tokens.weight"])
        return 30.0 * torch.tanh(x / 30.0)

    @torch.no_grad()
    def prefill(self, ids, lengths, select=None, room=64, all_logits=False):
        cfg, w, (B, T) = self.cfg, self.w, ids.shape
        pos, cos, sin = flat_tables(cfg, B, T, self.device)
        rows, last = torch.arange(B, device=self.device), lengths - 1
        qpos = pos.view(B, T)
        kpos = torch.where(qpos < lengths[:, None], qpos, -1)
        state = {"n": lengths.clone(), "kpos": F.pad(kpos, (0, room), value=-1), "layers": [], "used": T}
        x = F.embedding(ids.reshape(-1), w["model.embed_tokens.weight"]) * embed_scale(cfg)
        for i in range(cfg["num_hidden_layers"]):
            first, second = layer_weights(w, cfg, i)
            if is_attention(cfg, i):
                q, k, v = attention_in(x, cos, sin, *first)
                k, v = k.view(B, T, -1), v.view(B, T, -1)
                o = self._attend(i, q.view(B, T, *q.shape[1:]), k, v, qpos, kpos, select)
                x = x + linear(o.reshape(B * T, -1), *second[:2])
                x = mlp(x, *second[2:])
                state["layers"].append([F.pad(z, (0, 0, 0, room)) for z in (k, v)])
            else:
                norm, xw, xb, yw, yb, cw, cb, *gate = first
                n = rms_norm(x, norm)
                y, a = gelu(linear(n, yw, yb)), linear(n, xw, xb).view(B, T, -1)
                padded = F.pad(a, (0, 0, 3, 0))
                c = sum(padded[:, j:j + T] * cw[:, 0, j] for j in range(4)) + cb
                decay, inp = gates(c.reshape(B * T, -1), pos, *gate)
                h = scan(decay, inp, T)
                x = mlp(x + linear(h * y, *second[:2]), *second[2:])
                tail = torch.stack([padded[rows, last + j] for j in (1, 2, 3)], 1)
                state["layers"].append([tail, h.view(B, T, -1)[rows, last]])
        if all_logits:
            return self._logits(x).view(B, T, -1), state
        return self._logits(x.view(B, T, -1)[rows, last]), state

    @torch.no_grad()
    def step(self, state, ids, select=None):
        cfg, w, B = self.cfg, self.w, ids.shape[0]
        pos, slot = state["n"], state["used"]
        cos, sin = rope_tables(cfg, pos)
        state["kpos"][:, slot] = pos
        x = F.embedding(ids, w["model.embed_tokens.weight"]) * embed_scale(cfg)
        for i in range(cfg["num_hidden_layers"]):
            first, second = layer_weights(w, cfg, i)
            if is_attention(cfg, i):
                q, k, v = attention_in(x, cos, sin, *first)
                K, V = state["layers"][i]
                K[:, slot], V[:, slot] = k[:, 0], v[:, 0]
                S = slot + 1
                o = self._attend(i, q[:, None], K[:, :S], V[:, :S], pos[:, None], state["kpos"][:, :S], select)
                x = x + linear(o.reshape(B, -1), *second[:2])
            else:
                norm, xw, xb, yw, yb, cw, cb, *gate = first
                n = rms_norm(x, norm)
                y, a = gelu(linear(n, yw, yb)), linear(n, xw, xb)
                taps = torch.cat([state["layers"][i][0], a[:, None]], 1)
                decay, inp = gates((taps * cw[:, 0].T).sum(1) + cb, pos, *gate)
                h = decay * state["layers"][i][1] + inp
                state["layers"][i] = [taps[:, 1:], h]
                x = x + linear(h * y, *second[:2])
            x = mlp(x, *second[2:])
        state["n"], state["used"] = pos + 1, slot + 1
        return self._logits(x)
