#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tokens/s of transformers in attention-only fine-tuning: the same model as hy3_sft, bf16, gradient
checkpointing, fused AdamW, all tokens with a label. Its weights are bf16 alone; hy3_sft keeps fp32
masters.

    gpu_peer.py MODEL_DIRECTORY TOKENS
"""
import sys
import time

import torch
import transformers

directory, tokens = sys.argv[1], int(sys.argv[2])
model = transformers.AutoModelForCausalLM.from_pretrained(
    directory, dtype=torch.bfloat16, attn_implementation="sdpa", device_map="cuda")
model.train()
model.gradient_checkpointing_enable()
model.config.use_cache = False
for name, parameter in model.named_parameters():
    parameter.requires_grad_("self_attn" in name)
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
generator = torch.Generator("cuda").manual_seed(0)
for step in range(14):
    ids = torch.randint(0, model.config.vocab_size, (1, tokens), device="cuda", generator=generator)
    torch.cuda.synchronize()
    begin = time.time()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    value = loss.item()
    torch.cuda.synchronize()
    print(f"transformers {transformers.__version__}: step {step + 1}, loss {value:.4f}, "
          f"{tokens / (time.time() - begin):.0f} tokens/s", flush=True)
