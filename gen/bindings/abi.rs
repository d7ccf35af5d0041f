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
