#!/usr/bin/env python3
"""Makes tiny seeded checkpoints of the architectures and rope scalings that tests/golden lacks, with
the numbers that transformers computes from them, in the same format (tests/golden/README.md).

Needs torch 2.8.0 and transformers 4.57.1. Run once; its output is checked in:
    python3 tests/golden_more/make.py
"""
import json, pathlib
import torch, transformers
from transformers import (Gemma3TextConfig, Gemma3ForCausalLM, LlamaConfig, LlamaForCausalLM,
                          Olmo2Config, Olmo2ForCausalLM, Phi3Config, Phi3ForCausalLM,
                          SmolLM3Config, SmolLM3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM)

HERE = pathlib.Path(__file__).parent
GREEDY = 24
MARGIN = 2e-3
BASE = dict(vocab_size=160, hidden_size=64, intermediate_size=96, num_attention_heads=4,
            num_hidden_layers=2, num_key_value_heads=2, max_position_embeddings=256,
            bos_token_id=1, eos_token_id=2, pad_token_id=0)


def llama(**kw):
    return LlamaForCausalLM, LlamaConfig(**(BASE | kw))


MODELS = {
    # name: (class and config, quirks, prompt lengths)
    "gemma3": ((Gemma3ForCausalLM, Gemma3TextConfig(**(BASE | dict(
        num_hidden_layers=7, head_dim=32, sliding_window=16, sliding_window_pattern=6,
        query_pre_attn_scalar=24, rope_theta=1e6, rope_local_base_freq=1e4,
        rope_scaling={"rope_type": "linear", "factor": 8.0})))),
        ["local and global rope, linear scaling of the global one", "window 16 on five of six layers",
         "q/k norm and norms with (1 + weight)", "query_pre_attn_scalar 24"], [1, 7, 33, 70]),
    "olmo2": ((Olmo2ForCausalLM, Olmo2Config(**(BASE | dict(rms_norm_eps=1e-4)))),
        ["norms after the blocks only", "q/k norm over all heads together", "rms_norm_eps 1e-4"],
        [1, 7, 33, 70]),
    "smollm3": ((SmolLM3ForCausalLM, SmolLM3Config(**(BASE | dict(
        num_hidden_layers=5, no_rope_layer_interval=4)))),
        ["layers 3 (of 0..4) without rope", "tied embeddings"], [1, 7, 33, 70]),
    "llama-bias": (llama(attention_bias=True, mlp_bias=True, num_key_value_heads=1, head_dim=24,
                         rope_scaling={"rope_type": "linear", "factor": 4.0}),
        ["attention and MLP bias", "multi-query attention", "head_dim 24 where hidden / heads is 16",
         "linear rope scaling"], [1, 7, 33, 70]),
    "llama-yarn": (llama(max_position_embeddings=256, rope_scaling={
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}),
        ["yarn rope scaling with its attention factor"], [1, 7, 33, 70]),
    "phi3-longrope": ((Phi3ForCausalLM, Phi3Config(**(BASE | dict(
        original_max_position_embeddings=16, partial_rotary_factor=0.75, rope_scaling={
            "type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
            "long_factor": [1.0, 1.5, 2.5, 4.0, 8.0, 12.0]})))),
        ["longrope, long factors, attention factor", "partial rotary 12 of 16",
         "prompts longer than the original context, where transformers takes the long factors too"],
        [17, 33, 70]),
    "qwen3-moe-mixed": ((Qwen3MoeForCausalLM, Qwen3MoeConfig(**(BASE | dict(
        num_hidden_layers=4, head_dim=16, num_experts=6, num_experts_per_tok=2,
        moe_intermediate_size=48, norm_topk_prob=False, mlp_only_layers=[1], decoder_sparse_step=1)))),
        ["a dense layer among sparse ones", "expert weights not renormalised"], [1, 7, 33, 70]),
}


def initialise(model, seed):
    """Weights large enough that every part of the formula shows in the logits."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1 and "norm" in name:
                shift = 0.0 if "Gemma" in type(model).__name__ else 1.0
                p.copy_(shift + 0.3 * torch.randn(p.shape, generator=g))
            elif p.dim() == 1:
                p.copy_(0.5 * torch.randn(p.shape, generator=g))
            elif "embed_tokens" in name:
                p.copy_(torch.randn(p.shape, generator=g) * (1.0 if model.config.tie_word_embeddings is False else 0.25))
            else:
                p.copy_(torch.randn(p.shape, generator=g) * 1.5 / p.shape[1] ** 0.5)
        # Only the weights are rounded: buffers hold rotary frequencies, which stay float32.
        for p in model.parameters():
            p.copy_(p.to(torch.bfloat16).float())
    return model


def stats(h):
    last = h[-1]
    r = lambda x: float(f"{x:.9g}")
    return dict(mean=r(h.mean().item()), l2=r(h.norm().item()), last_mean=r(last.mean().item()),
                last_l2=r(last.norm().item()), last_first8=[r(v) for v in last[:8].tolist()])


@torch.no_grad()
def entry(model, name, ids):
    out = model(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    logits, hs = out.logits[0].float(), out.hidden_states
    lp = torch.log_softmax(logits.double(), -1)
    top8 = []
    for row in lp:
        v, i = row.topk(8)
        top8.append([[int(a), float(f"{b:.7g}")] for a, b in zip(i, v)])
    # hidden_states: embedding, after each layer but the last, and after the last norm.
    names = ["embed"] + [f"layers.{i}" for i in range(len(hs) - 2)] + ["norm"]
    hidden = [dict(name=n, **stats(h[0].float())) for n, h in zip(names, hs)]
    seq, greedy = list(ids), dict(ids=[], logprobs=[], margins=[])
    for _ in range(GREEDY):
        row = model(torch.tensor([seq]), use_cache=False).logits[0, -1].double()
        v, i = row.topk(2)
        greedy["ids"].append(int(i[0]))
        greedy["logprobs"].append(float(f"{torch.log_softmax(row, -1)[i[0]]:.7g}"))
        greedy["margins"].append(float(f"{v[0] - v[1]:.7g}"))
        seq.append(int(i[0]))
    greedy["first_eos"] = next((n for n, t in enumerate(greedy["ids"]) if t == 2), None)
    return dict(name=name, text=None, ids=ids,
                last_logits=[float(f"{x:.9g}") for x in logits[-1].tolist()], top8=top8, hidden=hidden,
                greedy=greedy)


def build(name, spec, quirks, lengths):
    cls, config = spec
    config._attn_implementation = "eager"
    for seed in range(200):
        torch.manual_seed(seed)
        model = initialise(cls(config).float(), seed).eval()
        g = torch.Generator().manual_seed(seed + 1000)
        ids = lambda n: torch.randint(3, config.vocab_size, (n,), generator=g).tolist()
        prompts = [entry(model, f"len{n}", ids(n)) for n in lengths]
        shortest = 20 if "longrope" in name else 5
        batch = [entry(model, f"seq{k}", ids(n)) for k, n in enumerate((shortest, 27, 40, 21))]
        least = min(min(p["greedy"]["margins"]) for p in prompts + batch)
        if least >= MARGIN:
            break
    else:
        raise SystemExit(f"{name}: no seed keeps greedy margins above {MARGIN}")
    folder = HERE / name
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    golden = dict(format_version=1, name=name, architecture=cls.__name__, dtype_saved="bfloat16",
                  reference_dtype="float32",
                  reference="transformers, eager attention, CPU, float32 on the saved weights, no cache",
                  transformers_version=transformers.__version__, torch_version=torch.__version__,
                  vocab_size=config.vocab_size, tokenizer_size=None, num_layers=config.num_hidden_layers,
                  eos_ids=[2], quirks=quirks, prompts=prompts, batch=dict(sequences=batch),
                  min_greedy_margin=least, seed=seed,
                  tolerances=dict(float32=dict(logit_abs=1e-3, logprob_abs=1e-3, hidden_l2_rel=1e-4,
                                               greedy="all 24 tokens equal")),
                  mistakes=[], tokenizer_cases=[], chat_cases=[])
    (folder / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(name, "seed", seed, "least margin", least)


for name, (spec, quirks, lengths) in MODELS.items():
    build(name, spec, quirks, lengths)
