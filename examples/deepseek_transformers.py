#!/usr/bin/env python3
"""Serves Hugging Face transformers' DeepSeek-V3 from a paged latent cache, through flash_mla.decode.

The model is transformers' own DeepseekV3ForCausalLM, small and randomly initialised; only the attention of each layer
is replaced. Per cached token a layer keeps the latent [c_kv 512 | k_pe 64], shared by all heads:

    q_h  = [W_UK,h^T q_nope,h | q_pe,h]      W_UK absorbed into the query
    u_h  = decode(q_h, paged cache)          512 wide, flash_mla
    out  = W_O [W_UV,h u_h]_h                W_UV applied once per query, not once per cached token

Prompts of different lengths are packed without padding (ragged queries); then each step adds one token per request.

    deepseek_transformers.py                  # CPU, fp32: greedy tokens equal those of model.generate()
    deepseek_transformers.py --device cuda    # GPU, bf16: logits about as far from fp32 as eager attention's
    deepseek_transformers.py --json FILE      # writes the figures too

Exits with 1 if a check fails. Needs torch >= 2.4 and transformers >= 4.51.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as hf

import flash_mla

LATENT = 512  # kv_lora_rank
ROPE = 64  # qk_rope_head_dim
NOPE, VALUE, HEADS = 64, 64, 16
PROMPTS = (1, 37, 64, 130, 250)  # tokens: less than a page, exactly one, several


def small_model(dtype: torch.dtype, device: str, seed: int = 0) -> DeepseekV3ForCausalLM:
    """DeepSeek-V3 with the published head dimensions of the cache, few layers and random weights.

    Every token visits every expert: a router's choice between near equals flips with the last bit of its input, which
    would say nothing about attention. Weights of deviation 0.08 make some cached tokens matter more than others.
    """
    config = DeepseekV3Config(
        vocab_size=1024, hidden_size=256, intermediate_size=512, moe_intermediate_size=128, num_hidden_layers=3,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, q_lora_rank=192, kv_lora_rank=LATENT,
        qk_nope_head_dim=NOPE, qk_rope_head_dim=ROPE, v_head_dim=VALUE, first_k_dense_replace=1,
        n_routed_experts=4, num_experts_per_tok=4, n_group=1, topk_group=1, n_shared_experts=1,
        max_position_embeddings=4096, initializer_range=0.08, attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(seed)
    model = DeepseekV3ForCausalLM(config).to(dtype=dtype, device=device).eval()
    model.generation_config.eos_token_id = None  # all requests run to the end
    model.generation_config.pad_token_id = 0
    return model


@dataclasses.dataclass
class Step:
    """The new tokens of one forward pass, packed without padding, and where the cache keeps their requests."""

    requests: list[int]
    counts: list[int]  # new tokens of each request
    block_table: Tensor  # int32 [b, pages]
    seqlens: Tensor  # int32 [b], new tokens included
    cu_seqlens_q: Tensor  # int32 [b + 1]
    plan: flash_mla.Plan
    schedule: Tensor  # how the step's work is shared out: once for all layers


class PagedLatentAttention(nn.Module):
    """Takes the place of DeepseekV3Attention, with its weights; hidden states come packed, [1, tokens, hidden]."""

    def __init__(self, attention: nn.Module, engine: Engine) -> None:
        super().__init__()
        self.attention, self.engine = attention, [engine]  # a list, so that the engine does not become a submodule
        up = attention.kv_b_proj.weight.view(HEADS, NOPE + VALUE, LATENT)
        self.up_key, self.up_value = up[:, :NOPE], up[:, NOPE:]  # W_UK, W_UV

    def forward(self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], **_: object):
        """Returns (output [1, tokens, hidden], None), as the original does."""
        attention, engine = self.attention, self.engine[0]
        q_nope, q_pe, c_kv, k_pe = self.project(hidden_states, position_embeddings)
        step = engine.step
        engine.cache.write(attention.layer_idx, step.requests, step.counts, c_kv.unsqueeze(1), k_pe)

        q = torch.cat([torch.einsum("thn,hnc->thc", q_nope, self.up_key), q_pe], dim=-1)
        latent = engine.attend(q, attention.layer_idx, attention.scaling)
        values = torch.einsum("thc,hvc->thv", latent, self.up_value)
        return attention.o_proj(values.reshape(1, -1, HEADS * VALUE)), None

    def project(self, hidden: Tensor, position_embeddings: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """q_nope [t, h, nope], q_pe [t, h, 64], c_kv [t, 512], k_pe [t, 1, 64], the last two as they are cached."""
        attention = self.attention
        q = attention.q_b_proj(attention.q_a_layernorm(attention.q_a_proj(hidden)))
        q_nope, q_pe = q.view(1, -1, HEADS, NOPE + ROPE).split([NOPE, ROPE], dim=-1)
        c_kv, k_pe = attention.kv_a_proj_with_mqa(hidden).split([LATENT, ROPE], dim=-1)
        cos, sin = position_embeddings
        rotate = hf.apply_rotary_pos_emb_interleave if attention.config.rope_interleave else hf.apply_rotary_pos_emb
        q_pe, k_pe = rotate(q_pe.transpose(1, 2), k_pe.unsqueeze(1), cos, sin)  # [1, heads, t, 64]
        return q_nope[0], q_pe[0].transpose(0, 1), attention.kv_a_layernorm(c_kv)[0], k_pe[0].transpose(0, 1)


class Engine:
    """A continuous batch over one paged latent cache: each step feeds some new tokens of each request."""

    def __init__(self, model: DeepseekV3ForCausalLM, prompts: Sequence[Tensor], max_new_tokens: int) -> None:
        self.model, self.device = model, model.device
        pages = sum(-(-(len(prompt) + max_new_tokens) // 64) for prompt in prompts)
        layers = model.config.num_hidden_layers
        self.cache = flash_mla.PagedKVCache(
            num_pages=pages, page_size=64, num_layers=layers, dtype=model.dtype, device=str(model.device)
        )
        self.bytes_per_token = layers * (LATENT + ROPE) * model.dtype.itemsize
        self.requests = [self.cache.add() for _ in prompts]
        self.lengths = [0] * len(prompts)
        for layer in model.model.layers:  # from the original, also if another engine has served this model
            layer.self_attn = PagedLatentAttention(getattr(layer.self_attn, "attention", layer.self_attn), self)

    @torch.inference_mode()
    def feed(self, tokens: Sequence[Tensor]) -> Tensor:
        """Feeds tokens[i] (int64 [n_i]) to request i; returns the logits of each request's last token [b, vocab]."""
        counts = [len(new) for new in tokens]
        self.cache.grow(self.requests, counts)
        block_table, seqlens = self.cache.tables(self.requests)
        starts = torch.tensor([0, *counts]).cumsum(0)
        positions = [torch.arange(old, old + new) for old, new in zip(self.lengths, counts)]
        cu_seqlens_q = starts.to(torch.int32).to(self.device)
        plan = flash_mla.plan(
            max_batch=len(counts), max_total_q=sum(counts), max_seqlen_q=max(counts), num_heads_q=HEADS,
            dtype=self.model.dtype, device=self.device, causal=True,
        )  # fmt: skip
        schedule = flash_mla.schedule(plan, seqlens, cu_seqlens_q=cu_seqlens_q)
        self.step = Step(self.requests, counts, block_table, seqlens, cu_seqlens_q, plan, schedule)
        self.lengths = [old + new for old, new in zip(self.lengths, counts)]
        hidden = self.model.model(
            input_ids=torch.cat(list(tokens)).unsqueeze(0).to(self.device),
            position_ids=torch.cat(positions).unsqueeze(0).to(self.device),
            attention_mask=torch.zeros(1, 1, 1, 1, device=self.device),  # of four dimensions: taken as it is, unused
            use_cache=False,
        ).last_hidden_state[0]
        return self.model.lm_head(hidden[(starts[1:] - 1).to(self.device)])

    def attend(self, q: Tensor, layer: int, scale: float) -> Tensor:
        """q [tokens, h, 576] -> [tokens, h, 512]; causal, since all new tokens are in the cache already."""
        step = self.step
        out, _ = flash_mla.decode(
            q, self.cache.layer(layer), step.block_table, step.seqlens, cu_seqlens_q=step.cu_seqlens_q,
            softmax_scale=scale, plan=step.plan, schedule=step.schedule,
        )  # fmt: skip
        return out


def make_prompts(vocab_size: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(1, vocab_size, (length,), generator=generator) for length in PROMPTS]


def padded(prompts: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts aligned at their ends and the mask of what is no padding, both [b, longest], as transformers wants."""
    width = max(len(prompt) for prompt in prompts)
    rows = [nn.functional.pad(prompt, (width - len(prompt), 0)) for prompt in prompts]
    mask = [nn.functional.pad(torch.ones_like(prompt), (width - len(prompt), 0)) for prompt in prompts]
    return torch.stack(rows).to(device), torch.stack(mask).to(device)


def cache_bytes(cache: object) -> int:
    return sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))


@torch.inference_mode()
def eager_generate(model: DeepseekV3ForCausalLM, prompts: Sequence[Tensor], steps: int) -> tuple[Tensor, float]:
    """transformers' own greedy generation: tokens [b, steps] and the bytes that its cache holds per real token."""
    tokens, mask = padded(prompts, model.device)
    result = model.generate(
        tokens, attention_mask=mask, max_new_tokens=steps, do_sample=False, return_dict_in_generate=True
    )
    real_tokens = sum(len(prompt) + steps - 1 for prompt in prompts)  # the last token was never fed
    return result.sequences[:, tokens.shape[1] :].cpu(), cache_bytes(result.past_key_values) / real_tokens


def paged_generate(model: DeepseekV3ForCausalLM, prompts: Sequence[Tensor], steps: int) -> tuple[Tensor, float]:
    """The same through the paged cache: tokens [b, steps] and the bytes of the pages in use per token."""
    engine = Engine(model, prompts, steps)
    generated = [engine.feed(prompts).argmax(-1).cpu()]
    while len(generated) < steps:
        generated.append(engine.feed(generated[-1].unsqueeze(1)).argmax(-1).cpu())
    stats = engine.cache.stats()
    return torch.stack(generated, dim=1), engine.bytes_per_token * stats.pages_in_use * 64 / stats.tokens


@torch.inference_mode()
def eager_logits(model: DeepseekV3ForCausalLM, prompts: Sequence[Tensor], forced: Tensor) -> Tensor:
    """Logits [steps, b, vocab] of eager attention that is fed `forced` [b, steps], one token a step."""
    tokens, mask = padded(prompts, model.device)
    cache, logits = None, []
    for step in range(forced.shape[1]):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        result = model(tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
        cache = result.past_key_values
        logits.append(result.logits[:, -1].float())
        tokens = forced[:, step : step + 1].to(model.device)
        mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
    return torch.stack(logits)


def paged_logits(model: DeepseekV3ForCausalLM, prompts: Sequence[Tensor], forced: Tensor) -> Tensor:
    engine = Engine(model, prompts, forced.shape[1])
    logits = [engine.feed(prompts).float()]
    logits += [engine.feed(forced[:, step : step + 1]).float() for step in range(forced.shape[1] - 1)]
    return torch.stack(logits)


def timed(function: Callable[[], tuple[Tensor, float]]) -> tuple[Tensor, float, float]:
    """The second of two calls: tokens, bytes per token, tokens per second (prompts included)."""
    function()
    started = time.perf_counter()
    tokens, bytes_per_token = function()  # tokens are on the host: the device has finished
    return tokens, bytes_per_token, tokens.numel() / (time.perf_counter() - started)


def compare_logits(device: str, prompts: Sequence[Tensor], forced: Tensor) -> dict[str, float | bool]:
    """How far bf16 logits are from those of an fp32 run, eager and ours; where fp32 is decided, ours must agree."""
    exact = eager_logits(small_model(torch.float32, device), prompts, forced)
    eager = eager_logits(small_model(torch.bfloat16, device), prompts, forced)
    paged = paged_logits(small_model(torch.bfloat16, device), prompts, forced)
    eager_error, paged_error = (float((logits - exact).abs().max()) for logits in (eager, paged))
    top = exact.topk(2, dim=-1).values
    decided = top[..., 0] - top[..., 1] > 2 * eager_error
    agrees = bool((paged.argmax(-1) == exact.argmax(-1))[decided].all())
    return {
        "eager_max_error": eager_error,
        "paged_max_error": paged_error,
        "eager_rms_error": float((eager - exact).square().mean().sqrt()),
        "paged_rms_error": float((paged - exact).square().mean().sqrt()),
        "logits_rms": float(exact.square().mean().sqrt()),
        "decided": int(decided.sum()),
        "rows": decided.numel(),
        "ok": agrees and int(decided.sum()) > 0 and paged_error <= 1.5 * eager_error,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: float32 on the CPU, else bfloat16")
    parser.add_argument("--steps", type=int, default=24, help="new tokens per request")
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    device, steps = arguments.device, arguments.steps
    name = arguments.dtype or ("float32" if device == "cpu" else "bfloat16")
    dtype = getattr(torch, name)

    model = small_model(dtype, device)
    prompts = make_prompts(model.config.vocab_size)
    eager, eager_bytes, eager_speed = timed(lambda: eager_generate(model, prompts, steps))
    paged, paged_bytes, paged_speed = timed(lambda: paged_generate(model, prompts, steps))
    figures = {"device": device, "dtype": name, "prompts": list(PROMPTS), "steps": steps, "eager": {}, "paged": {}}
    figures["eager"] = {"tokens_per_s": eager_speed, "kv_bytes_per_token": eager_bytes}
    figures["paged"] = {"tokens_per_s": paged_speed, "kv_bytes_per_token": paged_bytes}
    for which in ("eager", "paged"):
        row = figures[which]
        print(f"{which}: {row['tokens_per_s']:8.1f} tokens/s, {row['kv_bytes_per_token']:8.0f} KV bytes per token")

    if dtype == torch.float32:
        figures["ok"] = torch.equal(eager, paged)
        print(f"greedy tokens: {int((eager == paged).sum())} of {paged.numel()} equal those of model.generate()")
    else:
        figures["logits"] = compare_logits(device, prompts, eager)
        figures["ok"] = figures["logits"]["ok"]
        print("logits against fp32: " + ", ".join(f"{key} {value:.4g}" for key, value in figures["logits"].items()))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)
    print("passed" if figures["ok"] else "FAILED")
    return 0 if figures["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
