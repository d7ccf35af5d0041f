//! The flags of data sets that commands share, declared once.
//!
//! As with [`super::model_flags`], `argh` cannot nest structs: [`with_data_flags!`] appends the
//! fields to a command's own, hands the whole to another declaring macro, and gives the struct
//! `fn data(&self) -> DataFlags`.

use super::codec::TokenizerCodec;
use crate::bench::data::files::Take;
use crate::bench::data::random::Lengths;
use crate::bench::data::shared::{Distribution, Shape};
use crate::bench::data::spec::{self, Name, Spec};
use crate::bench::data::{Codec, RangeRule, Row};
use crate::choice;
use crate::error::Result;

choice! {
    /// Where prompts come from.
    Dataset {
        Random = "random", RandomIds = "random-ids", Sharegpt = "sharegpt", Custom = "custom",
        Openai = "openai", SharedPrefix = "generated-shared-prefix", Mooncake = "mooncake",
        Text = "text",
    }
}

choice! {
    /// How --random-range-ratio is read.
    Rule { Sglang = "sglang", Vllm = "vllm" }
}

choice! {
    /// How requests fall on groups.
    Groups { Uniform = "uniform", Zipf = "zipf" }
}

choice! {
    /// Which of Mooncake's published traces, where --dataset-path is the folder that has them.
    Workload {
        Conversation = "conversation", Mooncake = "mooncake", Synthetic = "synthetic",
        Toolagent = "toolagent",
    }
}

/// A number from 0 to 1.
pub fn ratio(value: &str) -> std::result::Result<f64, String> {
    super::values::real(value, 0.0, 1.0)
}

impl Dataset {
    pub fn kind(self) -> Name {
        match self {
            Dataset::Random => Name::Random,
            Dataset::RandomIds => Name::RandomIds,
            Dataset::Sharegpt => Name::ShareGpt,
            Dataset::Custom => Name::Custom,
            Dataset::Openai => Name::OpenAi,
            Dataset::SharedPrefix => Name::SharedPrefix,
            Dataset::Mooncake => Name::Mooncake,
            Dataset::Text => Name::Text,
        }
    }

    /// Prefixes are shared on purpose.
    pub fn shares_prefixes(self) -> bool {
        matches!(self, Dataset::SharedPrefix | Dataset::Mooncake | Dataset::Openai)
    }
}

/// The data set that flags ask for.
#[derive(Debug, Clone)]
pub struct DataFlags {
    pub name: Dataset,
    pub path: String,
    pub lengths: Lengths,
    pub take: Take,
    pub shape: Shape,
    pub workload: Workload,
    pub slowdown: f64,
    pub rounds: usize,
}

impl DataFlags {
    /// The rows of run `run`, each with a seed of its own; as token ids if `ids`, and rows from
    /// files too if `take.as_ids`.
    ///
    /// # Errors
    /// A file that is missing or damaged; a tokenizer that would be needed.
    pub fn rows(
        mut self,
        run: u64,
        vocab: usize,
        ids: bool,
        codec: Option<&TokenizerCodec>,
    ) -> Result<Vec<Row>> {
        self.take.seed = self.take.seed.wrapping_add(run);
        let path = std::path::Path::new(&self.path);
        if self.name == Dataset::Mooncake && !self.path.is_empty() && path.is_dir() {
            let file = path.join(format!("{}_trace.jsonl", self.workload.name()));
            self.path = file.to_string_lossy().into_owned();
        }
        let spec = Spec {
            name: self.name.kind(),
            path: self.path,
            lengths: self.lengths,
            take: self.take,
            shape: self.shape,
            slowdown: self.slowdown,
            rounds: self.rounds,
            vocab,
            ids,
        };
        spec::make(&spec, codec.map(|c| c as &dyn Codec))
    }
}

/// From flags to [`Lengths`].
pub fn lengths(input: usize, output: usize, ratio: f64, rule: Rule) -> Lengths {
    let rule = match rule {
        Rule::Sglang => RangeRule::Sglang,
        Rule::Vllm => RangeRule::Vllm,
    };
    Lengths { input, output, ratio, rule }
}

/// From flags to a [`Distribution`].
pub fn distribution(groups: Groups, alpha: f64) -> Distribution {
    match groups {
        Groups::Uniform => Distribution::Uniform,
        Groups::Zipf => Distribution::Zipf(alpha),
    }
}

/// Declares a struct of flags with no others: the last macro in a chain.
#[macro_export]
macro_rules! with_own_flags {
    ($(#[$meta:meta])* pub struct $name:ident { $($own:tt)* }) => {
        #[derive(argh::FromArgs, argh::ArgsInfo, Debug, Clone, PartialEq)]
        #[argh(help_triggers("--help"))]
        $(#[$meta])*
        pub struct $name { $($own)* }
    };
}

/// Declares a struct of flags with those of data sets after its own fields, which must end with a
/// comma, by way of the macro named first.
#[macro_export]
macro_rules! with_data_flags {
    ($next:ident: $(#[$meta:meta])* pub struct $name:ident { $($own:tt)* }) => {
        $next! {
            $(#[$meta])*
            pub struct $name {
                $($own)*

                /// random, random-ids, sharegpt, custom, openai, generated-shared-prefix,
                /// mooncake or text (default random)
                #[argh(option, arg_name = "NAME", default = "Default::default()")]
                pub dataset_name: $crate::commands::data_flags::Dataset,

                /// file of the data set (default: none)
                #[argh(option, arg_name = "PATH", default = "String::new()")]
                pub dataset_path: String,

                /// requests (default 1000)
                #[argh(option, arg_name = "N", default = "1000",
                    from_str_fn($crate::commands::values::whole::<1, { 1 << 30 }>))]
                pub num_prompts: usize,

                /// output length of rows from files (default: the file's own)
                #[argh(option, arg_name = "N",
                    from_str_fn($crate::commands::values::whole::<1, { 1 << 30 }>))]
                pub sharegpt_output_len: Option<usize>,

                /// leave out rows from files that are longer together (default: none)
                #[argh(option, arg_name = "N",
                    from_str_fn($crate::commands::values::whole::<1, { 1 << 30 }>))]
                pub sharegpt_context_len: Option<usize>,

                /// put behind every prompt from a file, before a trailing "Assistant:" (default:
                /// nothing)
                #[argh(option, arg_name = "TEXT", default = "String::new()")]
                pub prompt_suffix: String,

                /// put prompts of sharegpt, custom and text through the tokenizer's chat template
                #[argh(switch)]
                pub apply_chat_template: bool,

                /// prompt length of random data sets (default 1024)
                #[argh(option, arg_name = "N", default = "1024",
                    from_str_fn($crate::commands::values::whole::<1, { 1 << 24 }>))]
                pub random_input_len: usize,

                /// output length of random data sets (default 1024)
                #[argh(option, arg_name = "N", default = "1024",
                    from_str_fn($crate::commands::values::whole::<1, { 1 << 24 }>))]
                pub random_output_len: usize,

                /// spread of random lengths, see --random-range-rule (default 0.0)
                #[argh(option, arg_name = "X", default = "0.0",
                    from_str_fn($crate::commands::data_flags::ratio))]
                pub random_range_ratio: f64,

                /// sglang: lengths from L*ratio to L, so 1 is exact; vllm: from L*(1-ratio) to
                /// L*(1+ratio), so 0 is exact (default sglang)
                #[argh(option, arg_name = "RULE", default = "Default::default()")]
                pub random_range_rule: $crate::commands::data_flags::Rule,

                /// groups of generated-shared-prefix (default 64)
                #[argh(option, arg_name = "N", default = "64",
                    from_str_fn($crate::commands::values::whole::<1, 1_000_000>))]
                pub gsp_num_groups: usize,

                /// requests of each group (default 16)
                #[argh(option, arg_name = "N", default = "16",
                    from_str_fn($crate::commands::values::whole::<1, 1_000_000>))]
                pub gsp_prompts_per_group: usize,

                /// tokens of each group's system prompt (default 2048)
                #[argh(option, arg_name = "N", default = "2048",
                    from_str_fn($crate::commands::values::whole::<1, { 1 << 24 }>))]
                pub gsp_system_prompt_len: usize,

                /// tokens of each question (default 128)
                #[argh(option, arg_name = "N", default = "128",
                    from_str_fn($crate::commands::values::whole::<1, { 1 << 24 }>))]
                pub gsp_question_len: usize,

                /// output length (default 256)
                #[argh(option, arg_name = "N", default = "256",
                    from_str_fn($crate::commands::values::whole::<1, { 1 << 24 }>))]
                pub gsp_output_len: usize,

                /// lengths from L*ratio to L (default 1.0)
                #[argh(option, arg_name = "X", default = "1.0",
                    from_str_fn($crate::commands::data_flags::ratio))]
                pub gsp_range_ratio: f64,

                /// send group after group instead of shuffled
                #[argh(switch)]
                pub gsp_ordered: bool,

                /// uniform or zipf: how requests fall on groups (default uniform)
                #[argh(option, arg_name = "LAW", default = "Default::default()")]
                pub gsp_group_distribution: $crate::commands::data_flags::Groups,

                /// exponent of zipf (default 1.5)
                #[argh(option, arg_name = "X", default = "1.5",
                    from_str_fn($crate::commands::values::positive))]
                pub gsp_zipf_alpha: f64,

                /// changes nothing: prompts are token ids, whose lengths cost no tokenizer
                #[argh(switch)]
                pub gsp_fast_prepare: bool,

                /// where --dataset-path is a folder: conversation, mooncake, synthetic or
                /// toolagent, the trace NAME_trace.jsonl in it (default conversation)
                #[argh(option, arg_name = "NAME", default = "Default::default()")]
                pub mooncake_workload: $crate::commands::data_flags::Workload,

                /// requests for each line of a trace, at the same time, each with the prompt of
                /// the one before, a made-up answer and a question more (default 1)
                #[argh(option, arg_name = "N", default = "1",
                    from_str_fn($crate::commands::values::whole::<1, 1000>))]
                pub mooncake_num_rounds: usize,

                /// factor on the times of a trace (default 1.0)
                #[argh(option, arg_name = "X", default = "1.0",
                    from_str_fn($crate::commands::values::positive))]
                pub mooncake_slowdown_factor: f64,

                /// seed of data set and arrivals (default 42)
                #[argh(option, arg_name = "N", default = "42",
                    from_str_fn($crate::commands::values::seed))]
                pub seed: u64,
            }
        }

        impl $name {
            /// The data set's flags; `as_ids`: rows from files as token ids too.
            pub fn data(&self, as_ids: bool) -> $crate::commands::data_flags::DataFlags {
                use $crate::bench::data::{files::Take, shared::Shape};
                use $crate::commands::data_flags::{DataFlags, distribution, lengths};
                DataFlags {
                    name: self.dataset_name,
                    path: self.dataset_path.clone(),
                    lengths: lengths(
                        self.random_input_len,
                        self.random_output_len,
                        self.random_range_ratio,
                        self.random_range_rule,
                    ),
                    take: Take {
                        num_prompts: self.num_prompts,
                        output_len: self.sharegpt_output_len,
                        context_len: self.sharegpt_context_len,
                        suffix: self.prompt_suffix.clone(),
                        seed: self.seed,
                        chat: self.apply_chat_template,
                        as_ids,
                    },
                    shape: Shape {
                        groups: self.gsp_num_groups,
                        prompts_per_group: self.gsp_prompts_per_group,
                        turns: 1,
                        system: self.gsp_system_prompt_len,
                        question: self.gsp_question_len,
                        output: self.gsp_output_len,
                        ratio: self.gsp_range_ratio,
                        distribution: distribution(
                            self.gsp_group_distribution,
                            self.gsp_zipf_alpha,
                        ),
                        ordered: self.gsp_ordered,
                    },
                    workload: self.mooncake_workload,
                    slowdown: self.mooncake_slowdown_factor,
                    rounds: self.mooncake_num_rounds,
                }
            }
        }
    };
}
