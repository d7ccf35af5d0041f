//! Sound GGUF files: names, row order, experts, norms, splits.

use pacer::types::{Dtype, Meta};
use pacer::weights::open::{Format, Opened, open};
use pacer::weights::quant::dequantise;
use pacer::weights::{RowOrder, Tensor};

use super::account::Scratch;
use super::build::*;

fn opened(file: &Gguf) -> Opened {
    let scratch = Scratch::new("good");
    let path = scratch.write("good.gguf", &file.bytes());
    let opened = open(&path, Format::Auto).unwrap();
    opened.weights.check().unwrap();
    opened
}

fn numbers(t: &Tensor) -> Vec<f32> {
    let mut out = vec![0.0; t.shape.iter().product()];
    dequantise(t.dtype, t.data, &mut out);
    out
}

fn counted(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32).collect()
}

#[test]
fn an_empty_file_of_version_2_opens() {
    let file = Gguf { version: 2, ..Gguf::of("llama") };
    assert!(opened(&file).weights.names().is_empty());
    let pair = file.pair("general.alignment", U32, &64u32.to_le_bytes());
    opened(&pair);
}

#[test]
fn dimensions_are_reversed_and_names_are_hugging_faces() {
    let file = Gguf::of("qwen2")
        .f32("token_embd.weight", &[4, 3], &counted(12))
        .f32("rope_freqs.weight", &[2], &[1.0, 2.0])
        .pair("qwen2.rope.freq_base", F32, &1e6f32.to_le_bytes());
    let opened = opened(&file);
    let t = opened.weights.tensor("model.embed_tokens.weight").unwrap();
    assert_eq!((t.shape, t.dtype, t.order), (&[3, 4][..], Dtype::F32, RowOrder::Plain));
    assert_eq!(numbers(&t), counted(12));
    let gguf = opened.gguf.unwrap();
    assert_eq!(gguf.f32_tensor("rope_freqs.weight"), Some(vec![1.0, 2.0]));
    assert_eq!(gguf.f32_tensor("token_embd.weight"), None);
    assert_eq!(gguf.meta.get("qwen2.rope.freq_base"), Some(&Meta::F64(1e6)));
    assert_eq!(gguf.vocab, None);
}

#[test]
fn a_wider_alignment_moves_the_data() {
    let mut file = Gguf::of("qwen2").pair("general.alignment", U32, &256u32.to_le_bytes());
    file.align = 256;
    let file = file.f32("a", &[1], &[7.0]).f32("b", &[1], &[8.0]);
    let opened = opened(&file);
    assert_eq!(numbers(&opened.weights.tensor("b").unwrap()), [8.0]);
}

#[test]
fn llama_stores_q_and_k_as_rotary_pairs() {
    // Two heads of dimension 4, rows of one number: stored row s of a head is logical row
    // 0, 2, 1, 3 (pairs (0, 2), (1, 3)).
    let file = Gguf::of("llama")
        .f32("blk.0.attn_q.weight", &[1, 8], &[0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0])
        .f32("blk.0.attn_q.bias", &[8], &[0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0])
        .f32("blk.0.attn_k.weight", &[1, 4], &[0.0, 2.0, 1.0, 3.0])
        .f32("blk.0.attn_v.weight", &[1, 4], &counted(4));
    let opened = opened(&file);
    let get = |name: &str| opened.weights.tensor(&format!("model.layers.0.self_attn.{name}"));
    let q = get("q_proj.weight").unwrap();
    assert_eq!(q.order, RowOrder::RopePairs { heads: 2 });
    assert_eq!(get("k_proj.weight").unwrap().order, RowOrder::RopePairs { heads: 1 });
    assert_eq!(get("v_proj.weight").unwrap().order, RowOrder::Plain);
    for r in 0..8 {
        assert_eq!(q.row(r), (r as f32).to_le_bytes(), "row {r}");
    }
    let bias = get("q_proj.bias").unwrap();
    assert_eq!((bias.order, numbers(&bias)), (RowOrder::Plain, counted(8)));
}

#[test]
fn head_counts_may_be_given_by_layer_or_left_out() {
    let counts = [2u32, 4].map(u32::to_le_bytes).concat();
    let file = Gguf::empty()
        .pair("general.architecture", STR, &string("smollm3"))
        .pair("smollm3.attention.head_count", ARRAY, &array(U32, 2, &counts))
        .f32("blk.1.attn_q.weight", &[1, 8], &counted(8))
        .f32("blk.0.attn_k.weight", &[1, 8], &counted(8));
    let opened = opened(&file);
    let order = |name: &str| opened.weights.tensor(name).unwrap().order;
    let q = order("model.layers.1.self_attn.q_proj.weight");
    assert_eq!(q, RowOrder::RopePairs { heads: 4 });
    let k = order("model.layers.0.self_attn.k_proj.weight");
    assert_eq!(k, RowOrder::RopePairs { heads: 2 });
}

#[test]
fn stacked_experts_become_one_tensor_each() {
    let file = Gguf::of("llama").f32("blk.0.ffn_gate_inp.weight", &[8, 3], &counted(24)).f32(
        "blk.0.ffn_gate_exps.weight",
        &[8, 16, 3],
        &counted(384),
    );
    let opened = opened(&file);
    assert_eq!(opened.weights.names().len(), 4);
    for e in 0..3 {
        let name = format!("model.layers.0.block_sparse_moe.experts.{e}.w1.weight");
        let t = opened.weights.tensor(&name).unwrap();
        assert_eq!(t.shape, [16, 8]);
        assert_eq!(numbers(&t), counted(384)[e * 128..][..128]);
    }
    assert!(opened.weights.tensor("model.layers.0.block_sparse_moe.gate.weight").is_some());
}

#[test]
fn gemma_norms_lose_the_one_that_the_file_adds() {
    let f16: Vec<u8> =
        [1.5f32, 0.25].iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
    let file = Gguf::of("gemma3")
        .f32("blk.0.attn_norm.weight", &[3], &[1.0, 1.5, 0.0])
        .tensor("blk.0.attn_q_norm.weight", &[2], 1, &f16)
        .f32("blk.0.attn_q.weight", &[2, 2], &[1.0; 4]);
    let opened = opened(&file);
    let get = |name: &str| {
        numbers(&opened.weights.tensor(&format!("model.layers.0.{name}.weight")).unwrap())
    };
    assert_eq!(get("input_layernorm"), [0.0, 0.5, -1.0]);
    assert_eq!(get("self_attn.q_norm"), [0.5, -0.75]);
    assert_eq!(get("self_attn.q_proj"), [1.0; 4]);
}

#[test]
fn a_vocabulary_is_moved_out_of_the_metadata() {
    let file = Gguf::of("llama")
        .pair("tokenizer.ggml.model", STR, &string("llama"))
        .pair("tokenizer.ggml.tokens", ARRAY, &strings(&["<unk>", "▁a"]))
        .pair("tokenizer.ggml.scores", ARRAY, &array(F32, 2, &[0, 0, 0, 0, 0, 0, 0x80, 0xbf]))
        .pair("tokenizer.ggml.token_type", ARRAY, &array(I32, 2, &[2, 0, 0, 0, 1, 0, 0, 0]))
        .pair("tokenizer.ggml.unknown_token_id", U32, &0u32.to_le_bytes())
        .pair("tokenizer.ggml.padding_token_id", U32, &u32::MAX.to_le_bytes())
        .pair("tokenizer.ggml.add_space_prefix", BOOL, &[0]);
    let gguf = opened(&file).gguf.unwrap();
    let vocab = gguf.vocab.unwrap();
    assert_eq!(vocab.tokens, ["<unk>", "▁a"]);
    assert_eq!((vocab.scores, vocab.token_types), (vec![0.0, -1.0], vec![2, 1]));
    assert_eq!((vocab.unk_id, vocab.pad_id, vocab.bos_id), (Some(0), None, None));
    assert_eq!((vocab.add_space_prefix, vocab.add_bos), (Some(false), None));
    assert!(!gguf.meta.contains_key("tokenizer.ggml.tokens"));
}

#[test]
fn a_split_file_opens_whole_from_any_part() {
    let part = |no: u16, name: &str| {
        Gguf::of("qwen2")
            .pair("split.no", U16, &no.to_le_bytes())
            .pair("split.count", U16, &2u16.to_le_bytes())
            .pair("split.tensors.count", I32, &2i32.to_le_bytes())
            .f32(name, &[1], &[f32::from(no)])
    };
    let scratch = Scratch::new("split");
    scratch.write("m-00001-of-00002.gguf", &part(0, "output_norm.weight").bytes());
    let second = scratch.write("m-00002-of-00002.gguf", &part(1, "b").bytes());
    for path in [&second, scratch.path()] {
        let opened = open(path, Format::Auto).unwrap();
        assert_eq!(opened.weights.names(), ["model.norm.weight", "b"]);
        assert_eq!(numbers(&opened.weights.tensor("b").unwrap()), [1.0]);
        assert_eq!(opened.files.len(), 2);
    }
}
