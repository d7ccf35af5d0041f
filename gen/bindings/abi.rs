// Made by pacer-gen from cuda/abi.h; do not edit.

pub type u8_ = ::core::ffi::c_uchar;
pub type u32_ = ::core::ffi::c_uint;
pub type u64_ = ::core::ffi::c_ulonglong;
pub type i32_ = ::core::ffi::c_int;
pub type f32_ = f32;
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct RmsNormParams {
    pub x: u64_,
    pub add: u64_,
    pub weight: u64_,
    pub out: u64_,
    pub rows: u32_,
    pub groups: u32_,
    pub width: u32_,
    pub x_stride: u32_,
    pub add_stride: u32_,
    pub out_stride: u32_,
    pub eps: f32_,
    pub offset: f32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of RmsNormParams"][::core::mem::size_of::<RmsNormParams>() - 64usize];
    ["Alignment of RmsNormParams"][::core::mem::align_of::<RmsNormParams>() - 8usize];
    [
        "Offset of field: RmsNormParams::x",
    ][::core::mem::offset_of!(RmsNormParams, x) - 0usize];
    [
        "Offset of field: RmsNormParams::add",
    ][::core::mem::offset_of!(RmsNormParams, add) - 8usize];
    [
        "Offset of field: RmsNormParams::weight",
    ][::core::mem::offset_of!(RmsNormParams, weight) - 16usize];
    [
        "Offset of field: RmsNormParams::out",
    ][::core::mem::offset_of!(RmsNormParams, out) - 24usize];
    [
        "Offset of field: RmsNormParams::rows",
    ][::core::mem::offset_of!(RmsNormParams, rows) - 32usize];
    [
        "Offset of field: RmsNormParams::groups",
    ][::core::mem::offset_of!(RmsNormParams, groups) - 36usize];
    [
        "Offset of field: RmsNormParams::width",
    ][::core::mem::offset_of!(RmsNormParams, width) - 40usize];
    [
        "Offset of field: RmsNormParams::x_stride",
    ][::core::mem::offset_of!(RmsNormParams, x_stride) - 44usize];
    [
        "Offset of field: RmsNormParams::add_stride",
    ][::core::mem::offset_of!(RmsNormParams, add_stride) - 48usize];
    [
        "Offset of field: RmsNormParams::out_stride",
    ][::core::mem::offset_of!(RmsNormParams, out_stride) - 52usize];
    [
        "Offset of field: RmsNormParams::eps",
    ][::core::mem::offset_of!(RmsNormParams, eps) - 56usize];
    [
        "Offset of field: RmsNormParams::offset",
    ][::core::mem::offset_of!(RmsNormParams, offset) - 60usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct EmbedParams {
    pub table: u64_,
    pub tokens: u64_,
    pub out: u64_,
    pub rows: u32_,
    pub width: u32_,
    pub out_stride: u32_,
    pub scale: f32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of EmbedParams"][::core::mem::size_of::<EmbedParams>() - 40usize];
    ["Alignment of EmbedParams"][::core::mem::align_of::<EmbedParams>() - 8usize];
    [
        "Offset of field: EmbedParams::table",
    ][::core::mem::offset_of!(EmbedParams, table) - 0usize];
    [
        "Offset of field: EmbedParams::tokens",
    ][::core::mem::offset_of!(EmbedParams, tokens) - 8usize];
    [
        "Offset of field: EmbedParams::out",
    ][::core::mem::offset_of!(EmbedParams, out) - 16usize];
    [
        "Offset of field: EmbedParams::rows",
    ][::core::mem::offset_of!(EmbedParams, rows) - 24usize];
    [
        "Offset of field: EmbedParams::width",
    ][::core::mem::offset_of!(EmbedParams, width) - 28usize];
    [
        "Offset of field: EmbedParams::out_stride",
    ][::core::mem::offset_of!(EmbedParams, out_stride) - 32usize];
    [
        "Offset of field: EmbedParams::scale",
    ][::core::mem::offset_of!(EmbedParams, scale) - 36usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct AddParams {
    pub x: u64_,
    pub y: u64_,
    pub rows: u32_,
    pub width: u32_,
    pub x_stride: u32_,
    pub y_stride: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of AddParams"][::core::mem::size_of::<AddParams>() - 32usize];
    ["Alignment of AddParams"][::core::mem::align_of::<AddParams>() - 8usize];
    ["Offset of field: AddParams::x"][::core::mem::offset_of!(AddParams, x) - 0usize];
    ["Offset of field: AddParams::y"][::core::mem::offset_of!(AddParams, y) - 8usize];
    [
        "Offset of field: AddParams::rows",
    ][::core::mem::offset_of!(AddParams, rows) - 16usize];
    [
        "Offset of field: AddParams::width",
    ][::core::mem::offset_of!(AddParams, width) - 20usize];
    [
        "Offset of field: AddParams::x_stride",
    ][::core::mem::offset_of!(AddParams, x_stride) - 24usize];
    [
        "Offset of field: AddParams::y_stride",
    ][::core::mem::offset_of!(AddParams, y_stride) - 28usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct GatedParams {
    pub gate_up: u64_,
    pub out: u64_,
    pub rows: u32_,
    pub width: u32_,
    pub gate_up_stride: u32_,
    pub out_stride: u32_,
    pub act: u32_,
    pub reserved: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GatedParams"][::core::mem::size_of::<GatedParams>() - 40usize];
    ["Alignment of GatedParams"][::core::mem::align_of::<GatedParams>() - 8usize];
    [
        "Offset of field: GatedParams::gate_up",
    ][::core::mem::offset_of!(GatedParams, gate_up) - 0usize];
    [
        "Offset of field: GatedParams::out",
    ][::core::mem::offset_of!(GatedParams, out) - 8usize];
    [
        "Offset of field: GatedParams::rows",
    ][::core::mem::offset_of!(GatedParams, rows) - 16usize];
    [
        "Offset of field: GatedParams::width",
    ][::core::mem::offset_of!(GatedParams, width) - 20usize];
    [
        "Offset of field: GatedParams::gate_up_stride",
    ][::core::mem::offset_of!(GatedParams, gate_up_stride) - 24usize];
    [
        "Offset of field: GatedParams::out_stride",
    ][::core::mem::offset_of!(GatedParams, out_stride) - 28usize];
    [
        "Offset of field: GatedParams::act",
    ][::core::mem::offset_of!(GatedParams, act) - 32usize];
    [
        "Offset of field: GatedParams::reserved",
    ][::core::mem::offset_of!(GatedParams, reserved) - 36usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct GatherParams {
    pub x: u64_,
    pub index: u64_,
    pub out: u64_,
    pub rows: u32_,
    pub width: u32_,
    pub x_stride: u32_,
    pub out_stride: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GatherParams"][::core::mem::size_of::<GatherParams>() - 40usize];
    ["Alignment of GatherParams"][::core::mem::align_of::<GatherParams>() - 8usize];
    [
        "Offset of field: GatherParams::x",
    ][::core::mem::offset_of!(GatherParams, x) - 0usize];
    [
        "Offset of field: GatherParams::index",
    ][::core::mem::offset_of!(GatherParams, index) - 8usize];
    [
        "Offset of field: GatherParams::out",
    ][::core::mem::offset_of!(GatherParams, out) - 16usize];
    [
        "Offset of field: GatherParams::rows",
    ][::core::mem::offset_of!(GatherParams, rows) - 24usize];
    [
        "Offset of field: GatherParams::width",
    ][::core::mem::offset_of!(GatherParams, width) - 28usize];
    [
        "Offset of field: GatherParams::x_stride",
    ][::core::mem::offset_of!(GatherParams, x_stride) - 32usize];
    [
        "Offset of field: GatherParams::out_stride",
    ][::core::mem::offset_of!(GatherParams, out_stride) - 36usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct SoftcapParams {
    pub x: u64_,
    pub rows: u32_,
    pub width: u32_,
    pub stride: u32_,
    pub cap: f32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SoftcapParams"][::core::mem::size_of::<SoftcapParams>() - 24usize];
    ["Alignment of SoftcapParams"][::core::mem::align_of::<SoftcapParams>() - 8usize];
    [
        "Offset of field: SoftcapParams::x",
    ][::core::mem::offset_of!(SoftcapParams, x) - 0usize];
    [
        "Offset of field: SoftcapParams::rows",
    ][::core::mem::offset_of!(SoftcapParams, rows) - 8usize];
    [
        "Offset of field: SoftcapParams::width",
    ][::core::mem::offset_of!(SoftcapParams, width) - 12usize];
    [
        "Offset of field: SoftcapParams::stride",
    ][::core::mem::offset_of!(SoftcapParams, stride) - 16usize];
    [
        "Offset of field: SoftcapParams::cap",
    ][::core::mem::offset_of!(SoftcapParams, cap) - 20usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct RopeAnglesParams {
    pub turns: u64_,
    pub positions: u64_,
    pub angles: u64_,
    pub rows: u32_,
    pub half: u32_,
    pub scale: f32_,
    pub reserved: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of RopeAnglesParams"][::core::mem::size_of::<RopeAnglesParams>() - 40usize];
    [
        "Alignment of RopeAnglesParams",
    ][::core::mem::align_of::<RopeAnglesParams>() - 8usize];
    [
        "Offset of field: RopeAnglesParams::turns",
    ][::core::mem::offset_of!(RopeAnglesParams, turns) - 0usize];
    [
        "Offset of field: RopeAnglesParams::positions",
    ][::core::mem::offset_of!(RopeAnglesParams, positions) - 8usize];
    [
        "Offset of field: RopeAnglesParams::angles",
    ][::core::mem::offset_of!(RopeAnglesParams, angles) - 16usize];
    [
        "Offset of field: RopeAnglesParams::rows",
    ][::core::mem::offset_of!(RopeAnglesParams, rows) - 24usize];
    [
        "Offset of field: RopeAnglesParams::half",
    ][::core::mem::offset_of!(RopeAnglesParams, half) - 28usize];
    [
        "Offset of field: RopeAnglesParams::scale",
    ][::core::mem::offset_of!(RopeAnglesParams, scale) - 32usize];
    [
        "Offset of field: RopeAnglesParams::reserved",
    ][::core::mem::offset_of!(RopeAnglesParams, reserved) - 36usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct RopeParams {
    pub q: u64_,
    pub k: u64_,
    pub v: u64_,
    pub angles: u64_,
    pub k_pages: u64_,
    pub v_pages: u64_,
    pub slots: u64_,
    pub q_weight: u64_,
    pub k_weight: u64_,
    pub rows: u32_,
    pub heads: u32_,
    pub kv_heads: u32_,
    pub head_dim: u32_,
    pub half: u32_,
    pub page_size: u32_,
    pub q_stride: u32_,
    pub k_stride: u32_,
    pub v_stride: u32_,
    pub eps: f32_,
    pub offset: f32_,
    pub reserved: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of RopeParams"][::core::mem::size_of::<RopeParams>() - 120usize];
    ["Alignment of RopeParams"][::core::mem::align_of::<RopeParams>() - 8usize];
    ["Offset of field: RopeParams::q"][::core::mem::offset_of!(RopeParams, q) - 0usize];
    ["Offset of field: RopeParams::k"][::core::mem::offset_of!(RopeParams, k) - 8usize];
    ["Offset of field: RopeParams::v"][::core::mem::offset_of!(RopeParams, v) - 16usize];
    [
        "Offset of field: RopeParams::angles",
    ][::core::mem::offset_of!(RopeParams, angles) - 24usize];
    [
        "Offset of field: RopeParams::k_pages",
    ][::core::mem::offset_of!(RopeParams, k_pages) - 32usize];
    [
        "Offset of field: RopeParams::v_pages",
    ][::core::mem::offset_of!(RopeParams, v_pages) - 40usize];
    [
        "Offset of field: RopeParams::slots",
    ][::core::mem::offset_of!(RopeParams, slots) - 48usize];
    [
        "Offset of field: RopeParams::q_weight",
    ][::core::mem::offset_of!(RopeParams, q_weight) - 56usize];
    [
        "Offset of field: RopeParams::k_weight",
    ][::core::mem::offset_of!(RopeParams, k_weight) - 64usize];
    [
        "Offset of field: RopeParams::rows",
    ][::core::mem::offset_of!(RopeParams, rows) - 72usize];
    [
        "Offset of field: RopeParams::heads",
    ][::core::mem::offset_of!(RopeParams, heads) - 76usize];
    [
        "Offset of field: RopeParams::kv_heads",
    ][::core::mem::offset_of!(RopeParams, kv_heads) - 80usize];
    [
        "Offset of field: RopeParams::head_dim",
    ][::core::mem::offset_of!(RopeParams, head_dim) - 84usize];
    [
        "Offset of field: RopeParams::half",
    ][::core::mem::offset_of!(RopeParams, half) - 88usize];
    [
        "Offset of field: RopeParams::page_size",
    ][::core::mem::offset_of!(RopeParams, page_size) - 92usize];
    [
        "Offset of field: RopeParams::q_stride",
    ][::core::mem::offset_of!(RopeParams, q_stride) - 96usize];
    [
        "Offset of field: RopeParams::k_stride",
    ][::core::mem::offset_of!(RopeParams, k_stride) - 100usize];
    [
        "Offset of field: RopeParams::v_stride",
    ][::core::mem::offset_of!(RopeParams, v_stride) - 104usize];
    [
        "Offset of field: RopeParams::eps",
    ][::core::mem::offset_of!(RopeParams, eps) - 108usize];
    [
        "Offset of field: RopeParams::offset",
    ][::core::mem::offset_of!(RopeParams, offset) - 112usize];
    [
        "Offset of field: RopeParams::reserved",
    ][::core::mem::offset_of!(RopeParams, reserved) - 116usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct PageCopyParams {
    pub k_layers: u64_,
    pub v_layers: u64_,
    pub from: u32_,
    pub to: u32_,
    pub tokens: u32_,
    pub kv_heads: u32_,
    pub page_size: u32_,
    pub head_dim: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PageCopyParams"][::core::mem::size_of::<PageCopyParams>() - 40usize];
    ["Alignment of PageCopyParams"][::core::mem::align_of::<PageCopyParams>() - 8usize];
    [
        "Offset of field: PageCopyParams::k_layers",
    ][::core::mem::offset_of!(PageCopyParams, k_layers) - 0usize];
    [
        "Offset of field: PageCopyParams::v_layers",
    ][::core::mem::offset_of!(PageCopyParams, v_layers) - 8usize];
    [
        "Offset of field: PageCopyParams::from",
    ][::core::mem::offset_of!(PageCopyParams, from) - 16usize];
    [
        "Offset of field: PageCopyParams::to",
    ][::core::mem::offset_of!(PageCopyParams, to) - 20usize];
    [
        "Offset of field: PageCopyParams::tokens",
    ][::core::mem::offset_of!(PageCopyParams, tokens) - 24usize];
    [
        "Offset of field: PageCopyParams::kv_heads",
    ][::core::mem::offset_of!(PageCopyParams, kv_heads) - 28usize];
    [
        "Offset of field: PageCopyParams::page_size",
    ][::core::mem::offset_of!(PageCopyParams, page_size) - 32usize];
    [
        "Offset of field: PageCopyParams::head_dim",
    ][::core::mem::offset_of!(PageCopyParams, head_dim) - 36usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct MoeTopkParams {
    pub logits: u64_,
    pub chosen: u64_,
    pub shares: u64_,
    pub rows: u32_,
    pub experts: u32_,
    pub top_k: u32_,
    pub stride: u32_,
    pub renormalise: u32_,
    pub reserved: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of MoeTopkParams"][::core::mem::size_of::<MoeTopkParams>() - 48usize];
    ["Alignment of MoeTopkParams"][::core::mem::align_of::<MoeTopkParams>() - 8usize];
    [
        "Offset of field: MoeTopkParams::logits",
    ][::core::mem::offset_of!(MoeTopkParams, logits) - 0usize];
    [
        "Offset of field: MoeTopkParams::chosen",
    ][::core::mem::offset_of!(MoeTopkParams, chosen) - 8usize];
    [
        "Offset of field: MoeTopkParams::shares",
    ][::core::mem::offset_of!(MoeTopkParams, shares) - 16usize];
    [
        "Offset of field: MoeTopkParams::rows",
    ][::core::mem::offset_of!(MoeTopkParams, rows) - 24usize];
    [
        "Offset of field: MoeTopkParams::experts",
    ][::core::mem::offset_of!(MoeTopkParams, experts) - 28usize];
    [
        "Offset of field: MoeTopkParams::top_k",
    ][::core::mem::offset_of!(MoeTopkParams, top_k) - 32usize];
    [
        "Offset of field: MoeTopkParams::stride",
    ][::core::mem::offset_of!(MoeTopkParams, stride) - 36usize];
    [
        "Offset of field: MoeTopkParams::renormalise",
    ][::core::mem::offset_of!(MoeTopkParams, renormalise) - 40usize];
    [
        "Offset of field: MoeTopkParams::reserved",
    ][::core::mem::offset_of!(MoeTopkParams, reserved) - 44usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct MoePermuteParams {
    pub chosen: u64_,
    pub offsets: u64_,
    pub gather: u64_,
    pub places: u64_,
    pub count: u32_,
    pub top_k: u32_,
    pub experts: u32_,
    pub reserved: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of MoePermuteParams"][::core::mem::size_of::<MoePermuteParams>() - 48usize];
    [
        "Alignment of MoePermuteParams",
    ][::core::mem::align_of::<MoePermuteParams>() - 8usize];
    [
        "Offset of field: MoePermuteParams::chosen",
    ][::core::mem::offset_of!(MoePermuteParams, chosen) - 0usize];
    [
        "Offset of field: MoePermuteParams::offsets",
    ][::core::mem::offset_of!(MoePermuteParams, offsets) - 8usize];
    [
        "Offset of field: MoePermuteParams::gather",
    ][::core::mem::offset_of!(MoePermuteParams, gather) - 16usize];
    [
        "Offset of field: MoePermuteParams::places",
    ][::core::mem::offset_of!(MoePermuteParams, places) - 24usize];
    [
        "Offset of field: MoePermuteParams::count",
    ][::core::mem::offset_of!(MoePermuteParams, count) - 32usize];
    [
        "Offset of field: MoePermuteParams::top_k",
    ][::core::mem::offset_of!(MoePermuteParams, top_k) - 36usize];
    [
        "Offset of field: MoePermuteParams::experts",
    ][::core::mem::offset_of!(MoePermuteParams, experts) - 40usize];
    [
        "Offset of field: MoePermuteParams::reserved",
    ][::core::mem::offset_of!(MoePermuteParams, reserved) - 44usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct MoeCombineParams {
    pub y: u64_,
    pub places: u64_,
    pub shares: u64_,
    pub out: u64_,
    pub rows: u32_,
    pub width: u32_,
    pub top_k: u32_,
    pub y_stride: u32_,
    pub out_stride: u32_,
    pub reserved: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of MoeCombineParams"][::core::mem::size_of::<MoeCombineParams>() - 56usize];
    [
        "Alignment of MoeCombineParams",
    ][::core::mem::align_of::<MoeCombineParams>() - 8usize];
    [
        "Offset of field: MoeCombineParams::y",
    ][::core::mem::offset_of!(MoeCombineParams, y) - 0usize];
    [
        "Offset of field: MoeCombineParams::places",
    ][::core::mem::offset_of!(MoeCombineParams, places) - 8usize];
    [
        "Offset of field: MoeCombineParams::shares",
    ][::core::mem::offset_of!(MoeCombineParams, shares) - 16usize];
    [
        "Offset of field: MoeCombineParams::out",
    ][::core::mem::offset_of!(MoeCombineParams, out) - 24usize];
    [
        "Offset of field: MoeCombineParams::rows",
    ][::core::mem::offset_of!(MoeCombineParams, rows) - 32usize];
    [
        "Offset of field: MoeCombineParams::width",
    ][::core::mem::offset_of!(MoeCombineParams, width) - 36usize];
    [
        "Offset of field: MoeCombineParams::top_k",
    ][::core::mem::offset_of!(MoeCombineParams, top_k) - 40usize];
    [
        "Offset of field: MoeCombineParams::y_stride",
    ][::core::mem::offset_of!(MoeCombineParams, y_stride) - 44usize];
    [
        "Offset of field: MoeCombineParams::out_stride",
    ][::core::mem::offset_of!(MoeCombineParams, out_stride) - 48usize];
    [
        "Offset of field: MoeCombineParams::reserved",
    ][::core::mem::offset_of!(MoeCombineParams, reserved) - 52usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct LogitChange {
    pub token: u32_,
    pub bias: f32_,
    pub count: u32_,
    pub forbidden: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of LogitChange"][::core::mem::size_of::<LogitChange>() - 16usize];
    ["Alignment of LogitChange"][::core::mem::align_of::<LogitChange>() - 4usize];
    [
        "Offset of field: LogitChange::token",
    ][::core::mem::offset_of!(LogitChange, token) - 0usize];
    [
        "Offset of field: LogitChange::bias",
    ][::core::mem::offset_of!(LogitChange, bias) - 4usize];
    [
        "Offset of field: LogitChange::count",
    ][::core::mem::offset_of!(LogitChange, count) - 8usize];
    [
        "Offset of field: LogitChange::forbidden",
    ][::core::mem::offset_of!(LogitChange, forbidden) - 12usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct SampleRow {
    pub temperature: f32_,
    pub top_p: f32_,
    pub min_p: f32_,
    pub top_k: u32_,
    pub seed_low: u32_,
    pub seed_high: u32_,
    pub choice: u32_,
    pub position: u32_,
    pub repetition: f32_,
    pub frequency: f32_,
    pub presence: f32_,
    pub changes: u32_,
    pub kind: u32_,
    pub given: u32_,
    pub scores: u32_,
    pub reserved: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SampleRow"][::core::mem::size_of::<SampleRow>() - 64usize];
    ["Alignment of SampleRow"][::core::mem::align_of::<SampleRow>() - 4usize];
    [
        "Offset of field: SampleRow::temperature",
    ][::core::mem::offset_of!(SampleRow, temperature) - 0usize];
    [
        "Offset of field: SampleRow::top_p",
    ][::core::mem::offset_of!(SampleRow, top_p) - 4usize];
    [
        "Offset of field: SampleRow::min_p",
    ][::core::mem::offset_of!(SampleRow, min_p) - 8usize];
    [
        "Offset of field: SampleRow::top_k",
    ][::core::mem::offset_of!(SampleRow, top_k) - 12usize];
    [
        "Offset of field: SampleRow::seed_low",
    ][::core::mem::offset_of!(SampleRow, seed_low) - 16usize];
    [
        "Offset of field: SampleRow::seed_high",
    ][::core::mem::offset_of!(SampleRow, seed_high) - 20usize];
    [
        "Offset of field: SampleRow::choice",
    ][::core::mem::offset_of!(SampleRow, choice) - 24usize];
    [
        "Offset of field: SampleRow::position",
    ][::core::mem::offset_of!(SampleRow, position) - 28usize];
    [
        "Offset of field: SampleRow::repetition",
    ][::core::mem::offset_of!(SampleRow, repetition) - 32usize];
    [
        "Offset of field: SampleRow::frequency",
    ][::core::mem::offset_of!(SampleRow, frequency) - 36usize];
    [
        "Offset of field: SampleRow::presence",
    ][::core::mem::offset_of!(SampleRow, presence) - 40usize];
    [
        "Offset of field: SampleRow::changes",
    ][::core::mem::offset_of!(SampleRow, changes) - 44usize];
    [
        "Offset of field: SampleRow::kind",
    ][::core::mem::offset_of!(SampleRow, kind) - 48usize];
    [
        "Offset of field: SampleRow::given",
    ][::core::mem::offset_of!(SampleRow, given) - 52usize];
    [
        "Offset of field: SampleRow::scores",
    ][::core::mem::offset_of!(SampleRow, scores) - 56usize];
    [
        "Offset of field: SampleRow::reserved",
    ][::core::mem::offset_of!(SampleRow, reserved) - 60usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct SampleParams {
    pub logits: u64_,
    pub settings: u64_,
    pub changes: u64_,
    pub tokens: u64_,
    pub rows: u32_,
    pub vocab: u32_,
    pub stride: u32_,
    pub reserved: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SampleParams"][::core::mem::size_of::<SampleParams>() - 48usize];
    ["Alignment of SampleParams"][::core::mem::align_of::<SampleParams>() - 8usize];
    [
        "Offset of field: SampleParams::logits",
    ][::core::mem::offset_of!(SampleParams, logits) - 0usize];
    [
        "Offset of field: SampleParams::settings",
    ][::core::mem::offset_of!(SampleParams, settings) - 8usize];
    [
        "Offset of field: SampleParams::changes",
    ][::core::mem::offset_of!(SampleParams, changes) - 16usize];
    [
        "Offset of field: SampleParams::tokens",
    ][::core::mem::offset_of!(SampleParams, tokens) - 24usize];
    [
        "Offset of field: SampleParams::rows",
    ][::core::mem::offset_of!(SampleParams, rows) - 32usize];
    [
        "Offset of field: SampleParams::vocab",
    ][::core::mem::offset_of!(SampleParams, vocab) - 36usize];
    [
        "Offset of field: SampleParams::stride",
    ][::core::mem::offset_of!(SampleParams, stride) - 40usize];
    [
        "Offset of field: SampleParams::reserved",
    ][::core::mem::offset_of!(SampleParams, reserved) - 44usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct LogprobsParams {
    pub logits: u64_,
    pub targets: u64_,
    pub target_out: u64_,
    pub top_tokens: u64_,
    pub top_out: u64_,
    pub settings: u64_,
    pub rows: u32_,
    pub vocab: u32_,
    pub stride: u32_,
    pub top: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of LogprobsParams"][::core::mem::size_of::<LogprobsParams>() - 64usize];
    ["Alignment of LogprobsParams"][::core::mem::align_of::<LogprobsParams>() - 8usize];
    [
        "Offset of field: LogprobsParams::logits",
    ][::core::mem::offset_of!(LogprobsParams, logits) - 0usize];
    [
        "Offset of field: LogprobsParams::targets",
    ][::core::mem::offset_of!(LogprobsParams, targets) - 8usize];
    [
        "Offset of field: LogprobsParams::target_out",
    ][::core::mem::offset_of!(LogprobsParams, target_out) - 16usize];
    [
        "Offset of field: LogprobsParams::top_tokens",
    ][::core::mem::offset_of!(LogprobsParams, top_tokens) - 24usize];
    [
        "Offset of field: LogprobsParams::top_out",
    ][::core::mem::offset_of!(LogprobsParams, top_out) - 32usize];
    [
        "Offset of field: LogprobsParams::settings",
    ][::core::mem::offset_of!(LogprobsParams, settings) - 40usize];
    [
        "Offset of field: LogprobsParams::rows",
    ][::core::mem::offset_of!(LogprobsParams, rows) - 48usize];
    [
        "Offset of field: LogprobsParams::vocab",
    ][::core::mem::offset_of!(LogprobsParams, vocab) - 52usize];
    [
        "Offset of field: LogprobsParams::stride",
    ][::core::mem::offset_of!(LogprobsParams, stride) - 56usize];
    [
        "Offset of field: LogprobsParams::top",
    ][::core::mem::offset_of!(LogprobsParams, top) - 60usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct GemmParams {
    pub x: u64_,
    pub w: u64_,
    pub y: u64_,
    pub bias: u64_,
    pub residual: u64_,
    pub m: u32_,
    pub n: u32_,
    pub k: u32_,
    pub x_stride: u32_,
    pub y_stride: u32_,
    pub residual_stride: u32_,
    pub act: u32_,
    pub out_f32: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GemmParams"][::core::mem::size_of::<GemmParams>() - 72usize];
    ["Alignment of GemmParams"][::core::mem::align_of::<GemmParams>() - 8usize];
    ["Offset of field: GemmParams::x"][::core::mem::offset_of!(GemmParams, x) - 0usize];
    ["Offset of field: GemmParams::w"][::core::mem::offset_of!(GemmParams, w) - 8usize];
    ["Offset of field: GemmParams::y"][::core::mem::offset_of!(GemmParams, y) - 16usize];
    [
        "Offset of field: GemmParams::bias",
    ][::core::mem::offset_of!(GemmParams, bias) - 24usize];
    [
        "Offset of field: GemmParams::residual",
    ][::core::mem::offset_of!(GemmParams, residual) - 32usize];
    ["Offset of field: GemmParams::m"][::core::mem::offset_of!(GemmParams, m) - 40usize];
    ["Offset of field: GemmParams::n"][::core::mem::offset_of!(GemmParams, n) - 44usize];
    ["Offset of field: GemmParams::k"][::core::mem::offset_of!(GemmParams, k) - 48usize];
    [
        "Offset of field: GemmParams::x_stride",
    ][::core::mem::offset_of!(GemmParams, x_stride) - 52usize];
    [
        "Offset of field: GemmParams::y_stride",
    ][::core::mem::offset_of!(GemmParams, y_stride) - 56usize];
    [
        "Offset of field: GemmParams::residual_stride",
    ][::core::mem::offset_of!(GemmParams, residual_stride) - 60usize];
    [
        "Offset of field: GemmParams::act",
    ][::core::mem::offset_of!(GemmParams, act) - 64usize];
    [
        "Offset of field: GemmParams::out_f32",
    ][::core::mem::offset_of!(GemmParams, out_f32) - 68usize];
};
#[repr(C)]
#[repr(align(64))]
#[derive(Debug, Copy, Clone, PartialEq)]
pub struct TensorMap {
    pub words: [u64_; 16usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TensorMap"][::core::mem::size_of::<TensorMap>() - 128usize];
    ["Alignment of TensorMap"][::core::mem::align_of::<TensorMap>() - 64usize];
    [
        "Offset of field: TensorMap::words",
    ][::core::mem::offset_of!(TensorMap, words) - 0usize];
};
impl Default for TensorMap {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
#[repr(C)]
#[repr(align(64))]
#[derive(Debug, Copy, Clone, PartialEq)]
pub struct WgmmaGemmParams {
    pub x_map: TensorMap,
    pub w_map: TensorMap,
    pub gemm: GemmParams,
    pub reserved: [u32_; 14usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of WgmmaGemmParams"][::core::mem::size_of::<WgmmaGemmParams>() - 384usize];
    [
        "Alignment of WgmmaGemmParams",
    ][::core::mem::align_of::<WgmmaGemmParams>() - 64usize];
    [
        "Offset of field: WgmmaGemmParams::x_map",
    ][::core::mem::offset_of!(WgmmaGemmParams, x_map) - 0usize];
    [
        "Offset of field: WgmmaGemmParams::w_map",
    ][::core::mem::offset_of!(WgmmaGemmParams, w_map) - 128usize];
    [
        "Offset of field: WgmmaGemmParams::gemm",
    ][::core::mem::offset_of!(WgmmaGemmParams, gemm) - 256usize];
    [
        "Offset of field: WgmmaGemmParams::reserved",
    ][::core::mem::offset_of!(WgmmaGemmParams, reserved) - 328usize];
};
impl Default for WgmmaGemmParams {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct GroupedGemmParams {
    pub gemm: GemmParams,
    pub offsets: u64_,
    pub gather: u64_,
    pub experts: u32_,
    pub reserved: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GroupedGemmParams"][::core::mem::size_of::<GroupedGemmParams>() - 96usize];
    [
        "Alignment of GroupedGemmParams",
    ][::core::mem::align_of::<GroupedGemmParams>() - 8usize];
    [
        "Offset of field: GroupedGemmParams::gemm",
    ][::core::mem::offset_of!(GroupedGemmParams, gemm) - 0usize];
    [
        "Offset of field: GroupedGemmParams::offsets",
    ][::core::mem::offset_of!(GroupedGemmParams, offsets) - 72usize];
    [
        "Offset of field: GroupedGemmParams::gather",
    ][::core::mem::offset_of!(GroupedGemmParams, gather) - 80usize];
    [
        "Offset of field: GroupedGemmParams::experts",
    ][::core::mem::offset_of!(GroupedGemmParams, experts) - 88usize];
    [
        "Offset of field: GroupedGemmParams::reserved",
    ][::core::mem::offset_of!(GroupedGemmParams, reserved) - 92usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct AttentionSpan {
    pub start: u32_,
    pub len: u32_,
    pub past: u32_,
    pub pages_start: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of AttentionSpan"][::core::mem::size_of::<AttentionSpan>() - 16usize];
    ["Alignment of AttentionSpan"][::core::mem::align_of::<AttentionSpan>() - 4usize];
    [
        "Offset of field: AttentionSpan::start",
    ][::core::mem::offset_of!(AttentionSpan, start) - 0usize];
    [
        "Offset of field: AttentionSpan::len",
    ][::core::mem::offset_of!(AttentionSpan, len) - 4usize];
    [
        "Offset of field: AttentionSpan::past",
    ][::core::mem::offset_of!(AttentionSpan, past) - 8usize];
    [
        "Offset of field: AttentionSpan::pages_start",
    ][::core::mem::offset_of!(AttentionSpan, pages_start) - 12usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct AttentionTile {
    pub span: u32_,
    pub row: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of AttentionTile"][::core::mem::size_of::<AttentionTile>() - 8usize];
    ["Alignment of AttentionTile"][::core::mem::align_of::<AttentionTile>() - 4usize];
    [
        "Offset of field: AttentionTile::span",
    ][::core::mem::offset_of!(AttentionTile, span) - 0usize];
    [
        "Offset of field: AttentionTile::row",
    ][::core::mem::offset_of!(AttentionTile, row) - 4usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct AttentionParams {
    pub q: u64_,
    pub k: u64_,
    pub v: u64_,
    pub out: u64_,
    pub spans: u64_,
    pub pages: u64_,
    pub tiles: u64_,
    pub partial: u64_,
    pub counters: u64_,
    pub q_stride: u32_,
    pub out_stride: u32_,
    pub kv_heads: u32_,
    pub group: u32_,
    pub page_size: u32_,
    pub window: u32_,
    pub scale: f32_,
    pub softcap: f32_,
    pub span_tiles: u32_,
    pub max_splits: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of AttentionParams"][::core::mem::size_of::<AttentionParams>() - 112usize];
    [
        "Alignment of AttentionParams",
    ][::core::mem::align_of::<AttentionParams>() - 8usize];
    [
        "Offset of field: AttentionParams::q",
    ][::core::mem::offset_of!(AttentionParams, q) - 0usize];
    [
        "Offset of field: AttentionParams::k",
    ][::core::mem::offset_of!(AttentionParams, k) - 8usize];
    [
        "Offset of field: AttentionParams::v",
    ][::core::mem::offset_of!(AttentionParams, v) - 16usize];
    [
        "Offset of field: AttentionParams::out",
    ][::core::mem::offset_of!(AttentionParams, out) - 24usize];
    [
        "Offset of field: AttentionParams::spans",
    ][::core::mem::offset_of!(AttentionParams, spans) - 32usize];
    [
        "Offset of field: AttentionParams::pages",
    ][::core::mem::offset_of!(AttentionParams, pages) - 40usize];
    [
        "Offset of field: AttentionParams::tiles",
    ][::core::mem::offset_of!(AttentionParams, tiles) - 48usize];
    [
        "Offset of field: AttentionParams::partial",
    ][::core::mem::offset_of!(AttentionParams, partial) - 56usize];
    [
        "Offset of field: AttentionParams::counters",
    ][::core::mem::offset_of!(AttentionParams, counters) - 64usize];
    [
        "Offset of field: AttentionParams::q_stride",
    ][::core::mem::offset_of!(AttentionParams, q_stride) - 72usize];
    [
        "Offset of field: AttentionParams::out_stride",
    ][::core::mem::offset_of!(AttentionParams, out_stride) - 76usize];
    [
        "Offset of field: AttentionParams::kv_heads",
    ][::core::mem::offset_of!(AttentionParams, kv_heads) - 80usize];
    [
        "Offset of field: AttentionParams::group",
    ][::core::mem::offset_of!(AttentionParams, group) - 84usize];
    [
        "Offset of field: AttentionParams::page_size",
    ][::core::mem::offset_of!(AttentionParams, page_size) - 88usize];
    [
        "Offset of field: AttentionParams::window",
    ][::core::mem::offset_of!(AttentionParams, window) - 92usize];
    [
        "Offset of field: AttentionParams::scale",
    ][::core::mem::offset_of!(AttentionParams, scale) - 96usize];
    [
        "Offset of field: AttentionParams::softcap",
    ][::core::mem::offset_of!(AttentionParams, softcap) - 100usize];
    [
        "Offset of field: AttentionParams::span_tiles",
    ][::core::mem::offset_of!(AttentionParams, span_tiles) - 104usize];
    [
        "Offset of field: AttentionParams::max_splits",
    ][::core::mem::offset_of!(AttentionParams, max_splits) - 108usize];
};
#[repr(C)]
#[repr(align(64))]
#[derive(Debug, Copy, Clone, PartialEq)]
pub struct WgmmaAttentionParams {
    pub k_map: TensorMap,
    pub v_map: TensorMap,
    pub attention: AttentionParams,
    pub reserved: [u32_; 4usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of WgmmaAttentionParams",
    ][::core::mem::size_of::<WgmmaAttentionParams>() - 384usize];
    [
        "Alignment of WgmmaAttentionParams",
    ][::core::mem::align_of::<WgmmaAttentionParams>() - 64usize];
    [
        "Offset of field: WgmmaAttentionParams::k_map",
    ][::core::mem::offset_of!(WgmmaAttentionParams, k_map) - 0usize];
    [
        "Offset of field: WgmmaAttentionParams::v_map",
    ][::core::mem::offset_of!(WgmmaAttentionParams, v_map) - 128usize];
    [
        "Offset of field: WgmmaAttentionParams::attention",
    ][::core::mem::offset_of!(WgmmaAttentionParams, attention) - 256usize];
    [
        "Offset of field: WgmmaAttentionParams::reserved",
    ][::core::mem::offset_of!(WgmmaAttentionParams, reserved) - 368usize];
};
impl Default for WgmmaAttentionParams {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq)]
pub struct CeilingParams {
    pub x: u64_,
    pub out: u64_,
    pub pieces: u64_,
    pub rounds: u32_,
    pub reserved: u32_,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CeilingParams"][::core::mem::size_of::<CeilingParams>() - 32usize];
    ["Alignment of CeilingParams"][::core::mem::align_of::<CeilingParams>() - 8usize];
    [
        "Offset of field: CeilingParams::x",
    ][::core::mem::offset_of!(CeilingParams, x) - 0usize];
    [
        "Offset of field: CeilingParams::out",
    ][::core::mem::offset_of!(CeilingParams, out) - 8usize];
    [
        "Offset of field: CeilingParams::pieces",
    ][::core::mem::offset_of!(CeilingParams, pieces) - 16usize];
    [
        "Offset of field: CeilingParams::rounds",
    ][::core::mem::offset_of!(CeilingParams, rounds) - 24usize];
    [
        "Offset of field: CeilingParams::reserved",
    ][::core::mem::offset_of!(CeilingParams, reserved) - 28usize];
};
