"""Mamba's selective scan, h_t = exp(delta_t A) h_(t-1) + delta_t B_t u_t and y_t = C_t . h_t, with its gradient.

On a GPU two Triton kernels: a program walks through one row for a block of channels, SPAN time steps at once by an associative
scan in registers. Only the states at the tiles' starts are stored; the backward pass computes the rest again while it
walks from the end to the start. State and sums are float32. On a CPU a loop over time that autograd differentiates: the
reference of `python3 scan.py`, which checks the kernels (TRITON_INTERPRET=1 runs them on a CPU).
"""
import torch

try:
    import triton
    import triton.language as tl
except ImportError:         # CPU only
    triton = None

SPAN, CHANNELS, WARPS = 16, 8, 1     # tile: time steps, channels; warps a program


if triton:
    @triton.jit
    def _combine(a1, b1, a2, b2):
        return a1 * a2, b1 * a2 + b2

    @triton.jit
    def _forward(delta, u, A, B, C, y, starts, last, T, TILES, I: tl.constexpr, N: tl.constexpr, SPAN: tl.constexpr, CH: tl.constexpr):
        row = tl.program_id(0).to(tl.int64)
        ch, n, step = tl.program_id(1) * CH + tl.arange(0, CH), tl.arange(0, N), tl.arange(0, SPAN)
        state = ch[:, None] * N + n[None, :]
        a_mat = tl.load(A + state)
        h0 = tl.zeros((CH, N), tl.float32)
        for tile in range(0, TILES):
            tl.store(starts + (row * TILES + tile) * I * N + state, h0)
            t = tile * SPAN + step
            ok, at = (t < T)[:, None], row * T + t
            d = tl.load(delta + at[:, None] * I + ch[None, :], ok, 0.0)
            x = tl.load(u + at[:, None] * I + ch[None, :], ok, 0.0).to(tl.float32)
            b = tl.load(B + at[:, None] * N + n[None, :], ok, 0.0)
            c = tl.load(C + at[:, None] * N + n[None, :], ok, 0.0)
            decay = tl.exp(d[:, :, None] * a_mat[None])
            aa, hh = tl.associative_scan((decay, (d * x)[:, :, None] * b[:, None, :]), 0, _combine)
            h = aa * h0[None] + hh
            tl.store(y + at[:, None] * I + ch[None, :], tl.sum(h * c[:, None, :], 2).to(y.dtype.element_ty), ok)
            h0 = tl.sum(tl.where(step[:, None, None] == SPAN - 1, h, 0.0), 0)
        tl.store(last + row * I * N + state, h0)

    @triton.jit
    def _backward(delta, u, A, B, C, starts, gy, gdelta, gu, gA, gB, gC, T, TILES, TOTAL,
                  I: tl.constexpr, N: tl.constexpr, SPAN: tl.constexpr, CH: tl.constexpr):
        # s_t, the gradient at h_t, is C_t gy_t + exp(delta_(t+1) A) s_(t+1)
        row, part = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
        ch, n, step = tl.program_id(1) * CH + tl.arange(0, CH), tl.arange(0, N), tl.arange(0, SPAN)
        state = ch[:, None] * N + n[None, :]
        a_mat = tl.load(A + state)
        later, ga = tl.zeros((CH, N), tl.float32), tl.zeros((CH, N), tl.float32)
        for back in range(0, TILES):
            tile = TILES - 1 - back
            t = tile * SPAN + step
            ok, at = (t < T)[:, None], row * T + t
            wide, thin = at[:, None] * I + ch[None, :], at[:, None] * N + n[None, :]
            d = tl.load(delta + wide, ok, 0.0)
            x = tl.load(u + wide, ok, 0.0).to(tl.float32)
            g = tl.load(gy + wide, ok, 0.0).to(tl.float32)
            b, c = tl.load(B + thin, ok, 0.0), tl.load(C + thin, ok, 0.0)
            d_next = tl.load(delta + wide + I, (t + 1 < T)[:, None], 0.0)
            h0 = tl.load(starts + (row * TILES + tile) * I * N + state)
            inflow = (d * x)[:, :, None] * b[:, None, :]
            aa, hh = tl.associative_scan((tl.exp(d[:, :, None] * a_mat[None]), inflow), 0, _combine)
            h = aa * h0[None] + hh
            tl.store(gC + part * TOTAL * N + thin, tl.sum(h * g[:, :, None], 1), ok)
            aa, ss = tl.associative_scan((tl.exp(d_next[:, :, None] * a_mat[None]), g[:, :, None] * c[:, None, :]), 0, _combine, reverse=True)
            s = aa * later[None] + ss
            later = tl.sum(tl.where(step[:, None, None] == 0, s, 0.0), 0)
            flow = s * (h - inflow)                             # s_t times exp(delta_t A) h_(t-1)
            ga += tl.sum(flow * d[:, :, None], 0)
            sb = tl.sum(s * b[:, None, :], 2)
            tl.store(gu + wide, (sb * d).to(gu.dtype.element_ty), ok)
            tl.store(gdelta + wide, tl.sum(flow * a_mat[None], 2) + sb * x, ok)
            tl.store(gB + part * TOTAL * N + thin, tl.sum(s * (d * x)[:, :, None], 1), ok)
        tl.store(gA + row * I * N + state, ga)


class SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, delta, u, A, B, C, T):
        I, N, rows, tiles = *A.shape, delta.shape[0] // T, triton.cdiv(T, SPAN)
        delta, u, A, B, C = (t.contiguous() for t in (delta, u, A, B, C))
        y, starts = torch.empty_like(u), delta.new_empty(rows, tiles, I, N)
        last = delta.new_empty(rows, I, N)
        _forward[(rows, I // CHANNELS)](delta, u, A, B, C, y, starts, last, T, tiles, I, N, SPAN, CHANNELS, num_warps=WARPS)
        ctx.save_for_backward(delta, u, A, B, C, starts)
        ctx.T = T
        ctx.mark_non_differentiable(last)
        return y, last

    @staticmethod
    def backward(ctx, gy, _):
        delta, u, A, B, C, starts = ctx.saved_tensors
        I, N, total, parts = *A.shape, delta.shape[0], A.shape[0] // CHANNELS
        rows = total // ctx.T
        gdelta, gu, gA = torch.empty_like(delta), torch.empty_like(u), delta.new_empty(rows, I, N)
        gB, gC = delta.new_empty(parts, total, N), delta.new_empty(parts, total, N)
        _backward[(rows, parts)](delta, u, A, B, C, starts, gy.contiguous(), gdelta, gu, gA, gB, gC, ctx.T, starts.shape[1], total,
                                 I, N, SPAN, CHANNELS, num_warps=WARPS)
        return gdelta, gu, gA.sum(0), gB.sum(0), gC.sum(0), None


def loop(delta, u, A, B, C, T):
    delta, u, B, C = (t.view(-1, T, t.shape[1]) for t in (delta, u, B, C))
    h, out = delta.new_zeros(delta.shape[0], *A.shape), []
    for t in range(T):
        h = torch.exp(delta[:, t, :, None] * A) * h + (delta[:, t] * u[:, t])[:, :, None] * B[:, t, None]
        out.append((h * C[:, t, None]).sum(-1))
    return torch.stack(out, 1).reshape(-1, A.shape[0]), h


def selective_scan(delta, u, A, B, C, T):
    """delta, u [rows * T, I], A [I, N] (negative), B, C [rows * T, N]; the state is zero before each row. Returns y [rows * T, I]
    in u's type and the last state of each row [rows, I, N]. All but u are float32."""
    return SelectiveScan.apply(delta, u, A, B, C, T) if delta.is_cuda else loop(delta, u, A, B, C, T)


def check(device, rows=3, I=16, N=8, lengths=(1, 31, 32, 33, 100)):
    """Largest relative difference of values and gradients between the kernels and the loop in float64."""
    worst = 0.0
    for T in lengths:
        draw = lambda *s: torch.randn(*s, dtype=torch.float64)
        inputs = [torch.nn.functional.softplus(draw(rows * T, I) - 1), draw(rows * T, I), -torch.exp(draw(I, N)), draw(rows * T, N), draw(rows * T, N)]
        g = draw(rows * T, I)
        results = []
        for run, dtype, dev in ((loop, torch.float64, "cpu"), (SelectiveScan.apply, torch.float32, device)):
            leaves = [t.detach().to(dev, dtype).requires_grad_() for t in inputs]
            y, last = run(*leaves, T)
            y.backward(g.to(dev, dtype))
            results.append([t.detach().double().cpu() for t in (y, last, *(x.grad for x in leaves))])
        for name, a, b in zip(("y", "last", "delta", "u", "A", "B", "C"), *results):
            difference = float((a - b).norm() / a.norm().clamp(min=1e-30))
            worst = max(worst, difference)
            if not difference < 1e-5:
                print(f"T {T}, {name}: relative difference {difference:.1e}")
    return worst


if __name__ == "__main__":
    torch.manual_seed(0)
    worst = check("cuda" if torch.cuda.is_available() else "cpu")
    print(f"kernels against the loop in float64: largest relative difference {worst:.1e}")
