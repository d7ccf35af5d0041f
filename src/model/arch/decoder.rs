//! The decoder-only transformer with rotary attention and a gated MLP, dense or of experts:
//! Llama, Mistral, Qwen 2/3, Gemma 2/3, Phi-3, OLMo 2, SmolLM3, Mixtral, Qwen3-MoE.
//! What they differ in are fields of [`Config`].

use crate::model::builder::{Attend, Builder, Heads, MoeOp, Norm};
use crate::model::config::{Config, QkNorm};
use crate::model::plan::{Expert, View};

pub fn decoder(p: &mut Builder, c: &Config) {
    let x = p.embed("model.embed_tokens", c.vocab_size, c.hidden, c.embed_scale);
    for i in 0..c.layers.len() {
        p.layer(i, x, |p| {
            block(p, c, x, c.norms.attn_in, c.norms.attn_out, |p, h, out| {
                p.scope("self_attn", |p| attention(p, c, i, h, out));
            });
            block(p, c, x, c.norms.mlp_in, c.norms.mlp_out, |p, h, out| {
                if c.layers[i].moe { experts(p, c, h, out) } else { mlp(p, c, h, out) }
            });
        });
    }
    let head = if c.tied { "model.embed_tokens" } else { "lm_head" };
    p.logits(x, ("model.norm", norm(c)), (head, c.vocab_size), c.final_softcap);
}

fn norm(c: &Config) -> Norm {
    Norm { eps: c.norm_eps, plus_one: c.norm_plus_one }
}

/// `x += after(body(before(x)))`, either norm optional.
fn block(
    p: &mut Builder,
    c: &Config,
    x: View,
    before: Option<&str>,
    after: Option<&str>,
    body: impl FnOnce(&mut Builder, View, View),
) {
    let (h, y) = (p.tokens("h", c.hidden), p.tokens("y", c.hidden));
    if let Some(name) = before {
        p.norm(name, x, h, 1, norm(c));
    }
    body(p, if before.is_some() { h } else { x }, y);
    if let Some(name) = after {
        p.norm(name, y, y, 1, norm(c));
    }
    p.add(x, y);
}

fn attention(p: &mut Builder, c: &Config, i: usize, h: View, out: View) {
    let heads = Heads { heads: c.heads, kv_heads: c.kv_heads, head_dim: c.head_dim };
    let (wide, narrow) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    let qkv = p.tokens("qkv", wide + 2 * narrow);
    let parts = [("q_proj", wide), ("k_proj", narrow), ("v_proj", narrow)];
    let fused = [("qkv_proj", qkv.width)];
    p.linear("qkv_proj", if c.fused { &fused } else { &parts }, h, qkv, c.qkv_bias);
    let q = qkv.columns(0, wide);
    let k = qkv.columns(wide, narrow);
    let v = qkv.columns(wide + narrow, narrow);
    if let Some(kind) = c.qk_norm {
        let groups = |heads| if kind == QkNorm::PerHead { heads } else { 1 };
        p.norm("q_norm", q, q, groups(c.heads), norm(c));
        p.norm("k_norm", k, k, groups(c.kv_heads), norm(c));
    }
    if let Some(rope) = c.layers[i].rope {
        p.rope(q, k, heads, rope);
    }
    let mixed = p.tokens("attn", wide);
    let window = c.layers[i].window;
    let attend = Attend { scale: c.attention_scale, softcap: c.attention_softcap, window };
    p.attention(i, [q, k, v], mixed, heads, attend);
    p.linear("o_proj", &[("o_proj", c.hidden)], mixed, out, c.o_bias);
}

fn mlp(p: &mut Builder, c: &Config, h: View, out: View) {
    p.scope("mlp", |p| {
        let n = c.intermediate;
        let (gate_up, act) = (p.tokens("gate_up", 2 * n), p.tokens("act", n));
        let fused = [("gate_up_proj", 2 * n)];
        let parts = [("gate_proj", n), ("up_proj", n)];
        p.linear("gate_up_proj", if c.fused { &fused } else { &parts }, h, gate_up, c.mlp_bias);
        p.gated_act(gate_up, act, c.activation);
        p.linear("down_proj", &[("down_proj", c.hidden)], act, out, c.mlp_bias);
    });
}

fn experts(p: &mut Builder, c: &Config, h: View, out: View) {
    let Some(moe) = &c.moe else { return };
    p.scope(moe.names.block, |p| {
        let n = moe.intermediate;
        let router = p.matrix("gate", &[("gate", moe.experts)], c.hidden);
        let expert = |e: usize| {
            p.scope(&format!("experts.{e}"), |p| {
                let parts = [(moe.names.gate, n), (moe.names.up, n)];
                let gate_up = p.matrix("gate_up_proj", &parts, c.hidden);
                Expert { gate_up, down: p.matrix("down", &[(moe.names.down, c.hidden)], n) }
            })
        };
        let experts = (0..moe.experts).map(expert).collect();
        let (intermediate, top_k, renormalise) = (n, moe.top_k, moe.renormalise);
        let act = c.activation;
        p.moe(h, out, MoeOp { router, experts, intermediate, top_k, renormalise, act });
    });
}
