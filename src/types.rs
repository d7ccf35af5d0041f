//! Plain types that every room may use: no behaviour beyond conversions and sizes.

/// A vocabulary index.
pub type TokenId = u32;

/// How numbers are stored in a weight tensor. The quantised names are GGUF's block formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dtype {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q4K,
    Q5K,
    Q6K,
}

impl Dtype {
    /// Elements in one block: 1 for plain numbers, 32 or 256 for quantised formats.
    pub const fn block_len(self) -> usize {
        match self {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => 1,
            Dtype::Q8_0 | Dtype::Q4_0 | Dtype::Q4_1 | Dtype::Q5_0 | Dtype::Q5_1 => 32,
            Dtype::Q4K | Dtype::Q5K | Dtype::Q6K => 256,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            Dtype::Q8_0 => 34,
            Dtype::Q4_0 => 18,
            Dtype::Q4_1 => 20,
            Dtype::Q5_0 => 22,
            Dtype::Q5_1 => 24,
            Dtype::Q4K => 144,
            Dtype::Q5K => 176,
            Dtype::Q6K => 210,
        }
    }

    /// Bytes of `elements` numbers, or `None` if they do not fill whole blocks or overflow.
    pub fn bytes(self, elements: usize) -> Option<usize> {
        if elements % self.block_len() != 0 {
            return None;
        }
        (elements / self.block_len()).checked_mul(self.block_bytes())
    }

    pub const fn is_quantised(self) -> bool {
        self.block_len() > 1
    }

    /// The name users write and see: `bfloat16`, `q4_1`, `q6_k`.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "float32",
            Dtype::F16 => "float16",
            Dtype::BF16 => "bfloat16",
            Dtype::Q8_0 => "q8_0",
            Dtype::Q4_0 => "q4_0",
            Dtype::Q4_1 => "q4_1",
            Dtype::Q5_0 => "q5_0",
            Dtype::Q5_1 => "q5_1",
            Dtype::Q4K => "q4_k",
            Dtype::Q5K => "q5_k",
            Dtype::Q6K => "q6_k",
        }
    }
}

/// The vocabulary that a GGUF file carries in its metadata (`tokenizer.ggml.*`), as plain data:
/// read by `weights`, made into a tokenizer by `text`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufVocab {
    /// `tokenizer.ggml.model`: `gpt2` (byte-level BPE) or `llama` (SentencePiece).
    pub model: String,
    /// `tokenizer.ggml.pre`: which pre-tokenizer (`smollm`, `llama-bpe`, `qwen2`, …).
    pub pre: Option<String>,
    /// Token texts, index = id.
    pub tokens: Vec<String>,
    /// SentencePiece scores, same length as `tokens`, or empty.
    pub scores: Vec<f32>,
    /// 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte; or empty.
    pub token_types: Vec<i32>,
    /// BPE merges as `left right`, in rank order, or empty.
    pub merges: Vec<String>,
    pub bos_id: Option<TokenId>,
    pub eos_id: Option<TokenId>,
    pub eot_id: Option<TokenId>,
    pub eom_id: Option<TokenId>,
    pub unk_id: Option<TokenId>,
    pub pad_id: Option<TokenId>,
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
    pub add_space_prefix: Option<bool>,
    pub remove_extra_whitespaces: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

/// A GGUF metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Meta {
    U64(u64),
    I64(i64),
    F64(f64),
    Bool(bool),
    Str(String),
    U64s(Vec<u64>),
    I64s(Vec<i64>),
    F64s(Vec<f64>),
    Bools(Vec<bool>),
    Strs(Vec<String>),
}

/// A GGUF file's metadata by key.
pub type MetaMap = std::collections::BTreeMap<String, Meta>;
