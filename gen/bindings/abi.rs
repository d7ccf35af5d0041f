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
