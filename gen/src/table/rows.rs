//! Kernels bound by memory: embedding, norms, rotary embedding, activations, sampling, routing.

use super::{HALVES, Module, Target, Variant};

pub fn modules() -> Vec<Module> {
    let portable = |source, variants| Module::new(source, Target::Sm80, variants);
    vec![
        portable("ceiling", ceiling()),
        portable("add", widths("add", "add_rows", "AddParams", &HALVES)),
        portable("embed", widths("embed", "embed", "EmbedParams", &HALVES)),
        portable("gated", widths("gated", "gated", "GatedParams", &HALVES)),
        portable("gather", widths("gather", "gather", "GatherParams", &HALVES)),
        portable("logprobs", vec![logprobs()]),
        portable("moe_combine", widths("moe_combine", "moe_combine", "MoeCombineParams", &HALVES)),
        portable("moe_permute", vec![moe_permute()]),
        portable("moe_topk", vec![moe_topk()]),
        portable("page_copy", page_copy()),
        portable("rmsnorm", rmsnorm()),
        portable("rope", rope()),
        portable("sample", vec![sample()]),
        portable("softcap", softcap()),
    ]
}

/// The usual pair for each type: 16 bytes a thread, and any width.
fn widths(op: &str, call: &str, params: &'static str, types: &[(&str, &str)]) -> Vec<Variant> {
    let mut all = Vec::new();
    for (name, ty) in types {
        let wide = if *ty == "f32" { 4 } else { 8 };
        for (form, numbers) in [("vec", wide), ("any", 1)] {
            let symbol = format!("{name}_{op}_{form}");
            let needs = if numbers == 1 { "any" } else { "%16B" };
            let variant = Variant::new(symbol, format!("{call}<{ty}, {numbers}>"), params);
            all.push(variant.registers(48).about(format!("dtype={name} width={needs}")));
        }
    }
    all
}

/// `flops`: operations of a warp in a round; `blocks`: of a multiprocessor.
fn ceiling() -> Vec<Variant> {
    let read = Variant::new("ceiling_read", "ceiling_read", "CeilingParams");
    let mma = Variant::new("bf16_ceiling_mma", "ceiling_mma<bf16>", "CeilingParams");
    vec![
        read.registers(64).about("reads of memory"),
        mma.registers(96).about("mma.sync of registers: flops=32768 blocks=2"),
    ]
}

fn softcap() -> Vec<Variant> {
    let types = [("f32", "f32"), HALVES[0], HALVES[1]];
    widths("softcap", "softcap", "SoftcapParams", &types)
}

fn page_copy() -> Vec<Variant> {
    let copies = widths("page_copy", "page_copy", "PageCopyParams", &[("b16", "bf16")]);
    copies.into_iter().map(|v| v.block(128)).collect()
}

fn logprobs() -> Variant {
    let variant = Variant::new("f32_logprobs", "logprobs", "LogprobsParams");
    variant.block(1024).about("dtype=f32 top=any")
}

fn sample() -> Variant {
    let variant = Variant::new("f32_sample", "sample", "SampleParams");
    variant.block(1024).about("dtype=f32 vocab<=2097152")
}

fn moe_topk() -> Variant {
    let variant = Variant::new("f32_moe_topk", "moe_topk", "MoeTopkParams");
    variant.block(128).about("experts<=512 top_k<=32")
}

fn moe_permute() -> Variant {
    Variant::new("moe_permute", "moe_permute", "MoePermuteParams").about("experts=any")
}

/// Rotation with pages: 16 bytes a thread with and without the norm of q and k, and any width.
fn rope() -> Vec<Variant> {
    let angles = Variant::new("f32_rope_angles", "rope_angles", "RopeAnglesParams");
    let mut all = vec![angles.block(128).about("once per step")];
    for (name, ty) in HALVES {
        let mut add = |form: &str, args: &str, needs: &str| {
            let call = format!("rope<{ty}, {args}>");
            let variant = Variant::new(format!("{name}_rope_{form}"), call, "RopeParams");
            all.push(variant.block(128).about(format!("dtype={name} {needs}")));
        };
        add("vec", "8, false", "half%8 head_dim%8");
        add("norm", "8, true", "q and k norm; head_dim=2*half, half/8 a power of two");
        add("any", "1, false", "any width");
    }
    all
}

/// By width: a row to a warp in registers, a row to a block in registers, any width.
fn rmsnorm() -> Vec<Variant> {
    let mut all = Vec::new();
    for (name, ty) in HALVES {
        let mut add = |suffix: &str, call: String, block: u32, width: &str| {
            let about = format!("dtype={name} {width}");
            let variant = Variant::new(format!("{name}_rmsnorm_{suffix}"), call, "RmsNormParams");
            all.push(variant.block(block).about(about));
        };
        for (passes, most) in [(1, 256), (4, 1024)] {
            let call = format!("rms_norm_warp<{ty}, {passes}>");
            add(&format!("warp{passes}"), call, 128, &format!("width<={most},%8"));
        }
        for (passes, most) in [(1, 8192), (2, 16384)] {
            let call = format!("rms_norm_block<{ty}, {passes}>");
            add(&format!("block{passes}"), call, 1024, &format!("width<={most},%8"));
        }
        add("any", format!("rms_norm_any<{ty}>"), 256, "width=any");
    }
    all
}
