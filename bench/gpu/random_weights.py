"""The random weights of `cortado --weights random:SEED`, made with torch where the model lies.

Element i of a tensor is offset + scale * (2u - 1), u being 24 bits of a counter-based generator of (seed, stream of the
tensor's name, i); src/base/rng.h has the generator. Integers are int64 that wrap around. Streams, scales and offsets
come from `cortado inspect --weights random:SEED --tensors --json`.
"""
import json
import re
import subprocess

import torch

PIECE = 1 << 24  # elements made at a time: 128 MiB for each of a few integers' arrays
WORD = 1 << 64


def signed(x):
    """A number modulo 2^64 as int64 holds it."""
    x %= WORD
    return x - WORD if x >= WORD // 2 else x


def mix_number(x):
    x = (x + 0x9E3779B97F4A7C15) % WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % WORD
    return x ^ (x >> 31)


def shifted(x, n):
    """x >> n without the sign."""
    return (x >> n) & ((1 << (64 - n)) - 1)


def mix(x):
    """mix_number of an int64 tensor, in place."""
    x += signed(0x9E3779B97F4A7C15)
    x ^= shifted(x, 30)
    x *= signed(0xBF58476D1CE4E5B9)
    x ^= shifted(x, 27)
    x *= signed(0x94D049BB133111EB)
    x ^= shifted(x, 31)
    return x


def values(seed, stream, scale, offset, first, count, device, stored="bf16"):
    """Elements first .. first + count - 1 as f32; bf16: rounded to it, as cortado would store them."""
    key = mix_number(stream ^ mix_number(seed))
    bits = mix(torch.arange(first, first + count, dtype=torch.int64, device=device) ^ signed(key))
    unit = shifted(bits, 40).to(torch.float64) * 2.0**-24 * 2 - 1
    x = (unit * scale + offset).to(torch.float32)
    return x.to(torch.bfloat16).to(torch.float32) if stored == "bf16" else x


class Tensors:
    """What cortado says of the tensors of a model folder (config.json is enough)."""

    def __init__(self, cortado, folder, seed, stored="bf16"):
        self.seed, self.stored = seed, stored
        said = subprocess.run([cortado, "inspect", folder, "--no-read", "--weights", f"random:{seed}:{stored}",
                               "--tensors", "--json"], check=True, stdout=subprocess.PIPE)
        self.info = json.loads(said.stdout)
        # scales are f32 numbers, printed such that they come back the same
        self.specs = {t["name"]: t for t in self.info["tensors"]}
        for t in self.specs.values():
            for key in ("scale", "offset"):
                t[key] = torch.tensor(t[key], dtype=torch.float32).item()
            t["stream"] = int(t["stream"])

    def fill(self, name, to):
        """Makes the tensor in `to`, contiguous, of its shape and of any float type."""
        spec = self.specs[name]
        if list(to.shape) != spec["shape"]:
            raise ValueError(f"{name}: expected shape {spec['shape']}, got {list(to.shape)}")
        if not to.is_contiguous():
            raise ValueError(f"{name}: expected contiguous memory")
        flat = to.view(-1)
        for first in range(0, flat.numel(), PIECE):
            count = min(PIECE, flat.numel() - first)
            flat[first:first + count] = values(self.seed, spec["stream"], spec["scale"], spec["offset"], first, count,
                                               to.device, self.stored).to(to.dtype)


@torch.no_grad()
def fill_model(model, tensors):
    """Makes every parameter of a transformers model, those of fused experts too; returns how many tensors."""
    used = set()

    def fill(name, to):
        tensors.fill(name, to)
        used.add(name)

    for name, parameter in model.named_parameters():
        fused = re.fullmatch(r"(.*\.feed_forward\.experts)\.(gate_up_proj|down_proj)", name)
        if name in tensors.specs:
            fill(name, parameter.data)
        elif fused:
            for e in range(parameter.shape[0]):
                if fused[2] == "down_proj":
                    fill(f"{fused[1]}.{e}.down_proj.weight", parameter.data[e])
                    continue
                half = parameter.shape[1] // 2
                fill(f"{fused[1]}.{e}.gate_proj.weight", parameter.data[e, :half])
                fill(f"{fused[1]}.{e}.up_proj.weight", parameter.data[e, half:])
        else:
            raise KeyError(f"{name}: transformers has a parameter that cortado does not list")
    left = set(tensors.specs) - used
    if left:
        raise KeyError(f"{sorted(left)[:3]}: cortado lists {len(left)} tensors that transformers lacks")
    return len(used)


def make_model(config_file, tensors, dtype, device, layers=None, attention="sdpa"):
    """A transformers model of a config.json, on the device, with these weights."""
    import transformers

    with open(config_file) as file:
        fields = json.load(file)
    kind = fields.pop("architectures")[0]
    for key in ("torch_dtype", "dtype"):
        fields.pop(key, None)
    if layers:
        fields["num_hidden_layers"] = layers
    fields.pop("model_type", None)
    config = getattr(transformers, kind.replace("ForCausalLM", "Config"))(**fields)
    config._attn_implementation = attention
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device), no_init():
            model = getattr(transformers, kind)(config)
    finally:
        torch.set_default_dtype(before)
    # Whatever the library keeps in f32 (Mamba's decay rates) stays so.
    fill_model(model, tensors)
    return model.eval()


class no_init:
    """Leaves out transformers' and torch's own random numbers, which fill_model would overwrite."""
    NAMES = ("normal_", "uniform_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "trunc_normal_")

    def __enter__(self):
        self.saved = {name: getattr(torch.nn.init, name) for name in self.NAMES}
        for name in self.NAMES:
            setattr(torch.nn.init, name, lambda tensor, *args, **kwargs: tensor)

    def __exit__(self, *unused):
        for name, function in self.saved.items():
            setattr(torch.nn.init, name, function)


def check_bits(cortado, config_file, seed, device, folder):
    """True if every tensor of a small model that `cortado synth` writes is what `values` makes, bit for bit."""
    import os
    import struct

    subprocess.run([cortado, "synth", "--config", config_file, "--seed", str(seed), "-o", folder], check=True,
                   stdout=subprocess.DEVNULL)
    tensors = Tensors(cortado, folder, seed)
    with open(os.path.join(folder, "model.safetensors"), "rb") as file:
        data = file.read()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    if set(header) != set(tensors.specs):
        return False
    for name, at in header.items():
        begin, end = at["data_offsets"]
        here = torch.frombuffer(bytearray(data[8 + length + begin:8 + length + end]), dtype=torch.int16)
        mine = torch.empty(at["shape"], dtype=torch.bfloat16, device=device)
        tensors.fill(name, mine)
        if not torch.equal(mine.view(torch.int16).flatten().cpu(), here):
            return False
    return True
