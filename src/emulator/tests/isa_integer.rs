//! Integer and logic instructions, against values worked out from the ISA's text.

mod support;

use support::{eval, eval64};

#[test]
fn add_sub_mul_wrap() {
    assert_eq!(eval("add.u32 %r0, %r1, %r2;", [u32::MAX, 2, 0]), 1);
    assert_eq!(eval("sub.s32 %r0, %r1, %r2;", [1, 2, 0]), u32::MAX);
    assert_eq!(eval("add.sat.s32 %r0, %r1, %r2;", [i32::MAX as u32, 1, 0]), i32::MAX as u32);
    assert_eq!(eval("sub.sat.s32 %r0, %r1, %r2;", [i32::MIN as u32, 1, 0]), i32::MIN as u32);
    assert_eq!(eval("mul.lo.u32 %r0, %r1, %r2;", [0x1_0001, 0x1_0001, 0]), 0x2_0001);
    assert_eq!(eval("mul.hi.u32 %r0, %r1, %r2;", [u32::MAX, u32::MAX, 0]), 0xffff_fffe);
    assert_eq!(eval("mul.hi.s32 %r0, %r1, %r2;", [u32::MAX, 2, 0]), u32::MAX);
    assert_eq!(eval("mad.lo.s32 %r0, %r1, %r2, %r3;", [3, u32::MAX, 10]), 7);
    assert_eq!(eval64("mul.wide.s32 %rd0, -3, 5;", [0; 3]), -15i64 as u64);
    assert_eq!(
        eval64("mad.wide.u32 %rd0, 4294967295, 4294967295, 1;", [0; 3]),
        0xffff_fffe_0000_0002
    );
    assert_eq!(eval64("mul.hi.u64 %rd0, %rd1, %rd2;", [u64::MAX, u64::MAX, 0]), u64::MAX - 1);
}

#[test]
fn sixteen_bit_forms_cut_and_extend() {
    let code = "cvt.u16.u32 %h1, %r1; cvt.u16.u32 %h2, %r2; add.u16 %h0, %h1, %h2;\n\
                cvt.u32.u16 %r0, %h0;";
    assert_eq!(eval(code, [0xffff, 3, 0]), 2);
    let code = "cvt.u16.u32 %h1, %r1; shr.s16 %h0, %h1, 4; cvt.s32.s16 %r0, %h0;";
    assert_eq!(eval(code, [0x8000, 0, 0]), -2048i32 as u32);
    assert_eq!(
        eval("cvt.u16.u32 %h1, %r1; mul.wide.s16 %r0, %h1, 2;", [0xffff, 0, 0]),
        -2i32 as u32
    );
    assert_eq!(
        eval("cvt.u16.u32 %h1, %r1; shl.b16 %h0, %h1, 16; cvt.u32.u16 %r0, %h0;", [1, 0, 0]),
        0
    );
}

#[test]
fn division_and_remainder() {
    assert_eq!(eval("div.s32 %r0, %r1, %r2;", [-7i32 as u32, 2, 0]), -3i32 as u32);
    assert_eq!(eval("rem.s32 %r0, %r1, %r2;", [-7i32 as u32, 2, 0]), -1i32 as u32);
    assert_eq!(eval("div.u32 %r0, %r1, %r2;", [7, 2, 0]), 3);
    assert_eq!(eval64("rem.u64 %rd0, %rd1, %rd2;", [1 << 40, 1000, 0]), (1 << 40) % 1000);
}

#[test]
fn shifts_clamp_their_count() {
    assert_eq!(eval("shl.b32 %r0, %r1, %r2;", [1, 32, 0]), 0);
    assert_eq!(eval("shr.u32 %r0, %r1, %r2;", [u32::MAX, 40, 0]), 0);
    assert_eq!(eval("shr.s32 %r0, %r1, %r2;", [0x8000_0000, 40, 0]), u32::MAX);
    assert_eq!(eval64("shl.b64 %rd0, %rd1, 63;", [1, 0, 0]), 1 << 63);
    assert_eq!(eval64("shr.s64 %rd0, %rd1, 99;", [1 << 63, 0, 0]), u64::MAX);
    assert_eq!(
        eval("shf.l.wrap.b32 %r0, %r1, %r2, %r3;", [0xdead_beef, 0x1234_5678, 8]),
        0x3456_78de
    );
    assert_eq!(
        eval("shf.r.clamp.b32 %r0, %r1, %r2, %r3;", [0xdead_beef, 0x1234_5678, 40]),
        0x1234_5678
    );
    assert_eq!(
        eval("shf.r.wrap.b32 %r0, %r1, %r2, %r3;", [0xdead_beef, 0x1234_5678, 40]),
        0x78de_adbe
    );
}

#[test]
fn bit_fields() {
    assert_eq!(eval("bfe.u32 %r0, %r1, 4, 8;", [0xabcd_ef12, 0, 0]), 0xf1);
    assert_eq!(eval("bfe.s32 %r0, %r1, 4, 8;", [0xabcd_ef12, 0, 0]), 0xffff_fff1);
    assert_eq!(eval("bfe.s32 %r0, %r1, 28, 8;", [0x8000_0000, 0, 0]), 0xffff_fff8);
    assert_eq!(eval("bfe.u32 %r0, %r1, 4, 0;", [0xabcd_ef12, 0, 0]), 0);
    assert_eq!(eval("bfi.b32 %r0, %r1, %r2, 8, 4;", [0xf5, 0x1111_1111, 0]), 0x1111_1511);
    assert_eq!(eval("bfi.b32 %r0, %r1, %r2, 32, 4;", [0xf5, 0x1111_1111, 0]), 0x1111_1111);
    assert_eq!(eval("popc.b32 %r0, %r1;", [0xf0f0_0001, 0, 0]), 9);
    assert_eq!(eval("clz.b32 %r0, %r1;", [0x0001_0000, 0, 0]), 15);
    assert_eq!(eval("clz.b32 %r0, %r1;", [0, 0, 0]), 32);
    assert_eq!(eval("brev.b32 %r0, %r1;", [1, 0, 0]), 0x8000_0000);
    assert_eq!(eval("bfind.u32 %r0, %r1;", [0x0001_0000, 0, 0]), 16);
    assert_eq!(eval("bfind.s32 %r0, %r1;", [u32::MAX, 0, 0]), u32::MAX);
    assert_eq!(eval("bfind.shiftamt.u32 %r0, %r1;", [0x0001_0000, 0, 0]), 15);
    assert_eq!(eval("fns.b32 %r0, %r1, 0, 3;", [0b101_0010_1000, 0, 0]), 8);
}

#[test]
fn prmt_picks_bytes() {
    let (a, b) = (0x3322_1100, 0x7766_5544);
    assert_eq!(eval("prmt.b32 %r0, %r1, %r2, 0x5140;", [a, b, 0]), 0x5511_4400);
    assert_eq!(eval("prmt.b32 %r0, %r1, %r2, 0xbaba;", [0x80ff_0000, b, 0]), 0xffff_ffff);
    assert_eq!(eval("prmt.b32.f4e %r0, %r1, %r2, %r3;", [a, b, 1]), 0x4433_2211);
    assert_eq!(eval("prmt.b32.b4e %r0, %r1, %r2, %r3;", [a, b, 0]), 0x5566_7700);
    assert_eq!(eval("prmt.b32.rc8 %r0, %r1, %r2, %r3;", [a, b, 2]), 0x2222_2222);
    assert_eq!(eval("prmt.b32.ecl %r0, %r1, %r2, %r3;", [a, b, 2]), 0x3322_2222);
    assert_eq!(eval("prmt.b32.ecr %r0, %r1, %r2, %r3;", [a, b, 1]), 0x1111_1100);
    assert_eq!(eval("prmt.b32.rc16 %r0, %r1, %r2, %r3;", [a, b, 1]), 0x3322_3322);
}

#[test]
fn lop3_for_every_table() {
    let (a, b, c) = (0xf0f0_1234, 0xcccc_5678, 0xaaaa_9abc);
    for lut in 0..256u32 {
        let mut want = 0;
        for bit in 0..32 {
            let row = (a >> bit & 1) << 2 | (b >> bit & 1) << 1 | (c >> bit & 1);
            want |= (lut >> row & 1) << bit;
        }
        let code = format!("lop3.b32 %r0, %r1, %r2, %r3, {lut};");
        assert_eq!(eval(&code, [a, b, c]), want, "table {lut:#x}");
    }
}

#[test]
fn carries_chain() {
    let code = "add.cc.u32 %r0, %r1, %r2; addc.u32 %r0, 0, 0;";
    assert_eq!(eval(code, [u32::MAX, 1, 0]), 1);
    assert_eq!(eval(code, [u32::MAX, 0, 0]), 0);
    assert_eq!(eval("sub.cc.u32 %r0, %r1, %r2; subc.u32 %r0, 5, 0;", [0, 1, 0]), 4);
}

#[test]
fn dot_products() {
    assert_eq!(
        eval("dp4a.s32.s32 %r0, %r1, %r2, %r3;", [0xff02_03fe, 0x0102_0304, 10]),
        10 - 1 + 4 + 9 - 8
    );
    assert_eq!(eval("dp4a.u32.u32 %r0, %r1, %r2, %r3;", [0xff00_0000, 0x0200_0000, 1]), 511);
    assert_eq!(eval("dp2a.lo.s32.s32 %r0, %r1, %r2, %r3;", [0xffff_0003, 0x0908_0705, 0]), 15 - 7);
}

#[test]
fn minmax_abs_neg_sad() {
    assert_eq!(eval("min.s32 %r0, %r1, %r2;", [u32::MAX, 1, 0]), u32::MAX);
    assert_eq!(eval("min.u32 %r0, %r1, %r2;", [u32::MAX, 1, 0]), 1);
    assert_eq!(eval("abs.s32 %r0, %r1;", [-5i32 as u32, 0, 0]), 5);
    assert_eq!(eval("neg.s32 %r0, %r1;", [5, 0, 0]), -5i32 as u32);
    assert_eq!(eval("sad.s32 %r0, %r1, %r2, %r3;", [-5i32 as u32, 5, 1]), 11);
    assert_eq!(eval("cnot.b32 %r0, %r1;", [0, 0, 0]), 1);
    assert_eq!(eval("not.b32 %r0, %r1;", [0, 0, 0]), u32::MAX);
}
