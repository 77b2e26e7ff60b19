#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes fp8/block and fp8/mixed: small checkpoints with F8_E4M3 weights, and what they expand to.

  block  one scale per block of 128 x 128 (weight_scale_inv), all sizes multiples of 128; the answer
         is the state of transformers' model, loaded with FineGrainedFP8Config(dequantize=True)
  mixed  other sizes, experts by themselves, the three forms of scales side by side; the answer is
         NumPy's: a table of the 256 values, a product in fp32, one rounding to bf16

Each answer is a SHA-256 of the bf16 values per outer tensor (answer.json). Needs torch,
transformers (5.24 was used) and safetensors:  python3 gen_fp8.py tests/golden/fp8"""
import hashlib
import json
import os
import sys

import numpy as np
import torch
from safetensors.torch import save_file

CONFIG = {
    "architectures": ["HYV3ForCausalLM"], "model_type": "hy_v3", "hidden_act": "silu",
    "num_hidden_layers": 2, "first_k_dense_replace": 1, "num_experts": 2,
    "num_experts_per_tok": 1, "num_shared_experts": 1, "num_nextn_predict_layers": 0,
    "router_scaling_factor": 2.826, "rope_theta": 10000.0, "rms_norm_eps": 1e-05,
    "initializer_range": 0.02, "max_position_embeddings": 512, "vocab_size": 64,
    "tie_word_embeddings": False, "dtype": "bfloat16", "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}
SIZES = {
    "block": {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 1,
              "num_key_value_heads": 1, "head_dim": 128, "moe_intermediate_size": 128},
    "mixed": {"hidden_size": 136, "intermediate_size": 152, "num_attention_heads": 3,
              "num_key_value_heads": 1, "head_dim": 48, "moe_intermediate_size": 130},
}


def shapes(c):
    """Inner names and shapes of the matrices in 8 bits."""
    h, d = c["hidden_size"], c["head_dim"]
    q, kv = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
    for layer in range(2):
        p = f"model.layers.{layer}."
        yield p + "self_attn.q_proj.weight", (q, h)
        yield p + "self_attn.k_proj.weight", (kv, h)
        yield p + "self_attn.v_proj.weight", (kv, h)
        yield p + "self_attn.o_proj.weight", (h, q)
        parts = [("mlp.", c["intermediate_size"])] if layer == 0 else [
            ("mlp.shared_mlp.", c["moe_intermediate_size"]),
            ("mlp.experts.0.", c["moe_intermediate_size"]),
            ("mlp.experts.1.", c["moe_intermediate_size"])]
        for part, i in parts:
            yield p + part + "gate_proj.weight", (i, h)
            yield p + part + "up_proj.weight", (i, h)
            yield p + part + "down_proj.weight", (h, i)


def rest(c, generator):
    """The tensors that stay bf16 or fp32."""
    h, d = c["hidden_size"], c["head_dim"]
    out = {"model.embed_tokens.weight": (64, h), "lm_head.weight": (64, h),
           "model.norm.weight": (h,), "model.layers.1.mlp.router.gate.weight": (2, h)}
    for layer in range(2):
        p = f"model.layers.{layer}."
        out |= {p + "input_layernorm.weight": (h,), p + "post_attention_layernorm.weight": (h,),
                p + "self_attn.q_norm.weight": (d,), p + "self_attn.k_norm.weight": (d,)}
    out = {k: torch.randn(s, generator=generator).to(torch.bfloat16) for k, s in out.items()}
    return out | {"model.layers.1.mlp.expert_bias": torch.randn(2, generator=generator)}


def scale_shape(name, number, shape, kind):
    """The scales of a tensor, as [rows, columns] of blocks, and their name."""
    n, k = shape
    blocks = (-(-n // 128), -(-k // 128))
    form = "block" if kind == "block" else ("block", "row", "tensor")[number % 3]
    if form == "row":
        return name + "_scale", (n, 1), (1, k)
    if form == "tensor":
        return name + "_scale", () if number % 2 else (1,), (n, k)
    return name + "_scale_inv", blocks, (128, 128)


def values():
    """What the 256 codes of E4M3 are."""
    code = np.arange(256)
    exponent, fraction = code >> 3 & 15, (code & 7).astype(np.float64)
    magnitude = np.where(exponent == 0, fraction * 2.0**-9, (8 + fraction) * 2.0**(exponent - 10.0))
    return np.where(code & 128, -magnitude, magnitude).astype(np.float32)


def expand(codes, scales, block):
    n, k = codes.shape
    rows = np.minimum(np.arange(n) // block[0], 1 << 30)
    columns = np.arange(k) // block[1]
    grid = scales.reshape(-(-n // block[0]), -(-k // block[1]))
    product = values()[codes] * grid[rows][:, columns]
    bits = product.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def outer(tensors):
    """bf16 arrays under inner names to those of the outer layout."""
    out, p = dict(tensors), "model.layers.1.mlp."
    get = lambda e, part: out.pop(f"{p}experts.{e}.{part}_proj.weight")
    both = [(np.concatenate([get(e, "gate"), get(e, "up")]), get(e, "down")) for e in range(2)]
    out[p + "experts.gate_up_proj"] = np.stack([a for a, b in both])
    out[p + "experts.down_proj"] = np.stack([b for a, b in both])
    for part in ("gate", "up", "down"):
        out[f"{p}shared_experts.{part}_proj.weight"] = out.pop(
            f"{p}shared_mlp.{part}_proj.weight")
    return out


def make(directory, kind):
    generator = torch.Generator().manual_seed(8)
    config = CONFIG | SIZES[kind]
    tensors, answer = rest(config, generator), {}
    for number, (name, shape) in enumerate(shapes(config)):
        codes = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        codes[codes & 127 == 127] = 0
        scale, extents, block = scale_shape(name, number, shape, kind)
        scales = torch.rand(extents, generator=generator) * 3e-4 + 1e-6
        tensors[name] = codes.view(torch.float8_e4m3fn)
        tensors[scale] = scales
        if kind == "mixed" and number % 3 == 2:
            tensors[name.removesuffix("weight") + "input_scale"] = torch.ones(())
        answer[name] = expand(codes.numpy(), scales.numpy(), block)
    config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3",
                                     "activation_scheme": "dynamic"}
    if kind == "block":
        config["quantization_config"]["weight_block_size"] = [128, 128]
    os.makedirs(directory, exist_ok=True)
    save_file(tensors, os.path.join(directory, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(directory, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
        f.write("\n")
    return outer(answer)


def of_transformers(directory):
    from transformers import AutoModelForCausalLM, FineGrainedFP8Config
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.bfloat16,
        quantization_config=FineGrainedFP8Config(dequantize=True))
    return {name: t.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
            for name, t in model.state_dict().items()}


def main():
    for kind in SIZES:
        directory = os.path.join(sys.argv[1], kind)
        answer = make(directory, kind)
        if kind == "block":
            theirs = of_transformers(directory)
            for name, mine in answer.items():
                assert (mine == theirs[name]).all(), name
            answer = {name: theirs[name] for name in answer}
        with open(os.path.join(directory, "answer.json"), "w") as f:
            json.dump({name: hashlib.sha256(a.tobytes()).hexdigest()
                       for name, a in sorted(answer.items())}, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
