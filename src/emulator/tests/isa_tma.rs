//! Tensor copies by construction: every element of the tile against its coordinates.

mod support;

use pacer_emulator::tensor::swizzle::Swizzle;
use pacer_emulator::tensor::tensormap::{MapType, TensorMap};
use pacer_emulator::{Fault, Rule};
use support::{Setup, program, run_text};

/// Words of the output buffer of these tests, and where the input then lies: allocations follow
/// each other with a gap of 4096 bytes, at multiples of 256.
const WORDS: usize = 8192;

/// Bytes of the input before the tensor's own: the map.
const MAP: u64 = 256;

fn input_address() -> u64 {
    let out = 0x7_0000_0000u64;
    (out + 4 * WORDS as u64 + 4096).next_multiple_of(256)
}

/// A dense tensor in global memory, innermost dimension first, and a map over it.
struct Tensor {
    map: TensorMap,
    data: Vec<u8>,
}

fn strides(element: MapType, dims: &[u64]) -> Vec<u64> {
    let mut bytes = u64::from(element.bytes());
    let mut strides = Vec::new();
    for dim in dims {
        strides.push(bytes);
        // Rows begin at multiples of 16 bytes, as the map needs.
        bytes = (bytes * dim).next_multiple_of(16);
    }
    strides
}

impl Tensor {
    /// Element `i`, counted densely, holds the number `i + 1`.
    fn new(element: MapType, dims: &[u64], tile: &[u32], swizzle: Swizzle) -> Self {
        let strides = strides(element, dims);
        let bytes = strides[dims.len() - 1] * dims[dims.len() - 1];
        let mut data = vec![0u8; bytes as usize + 16];
        let width = element.bytes() as usize;
        let count: u64 = dims.iter().product();
        for i in 0..count {
            let at = place(i, dims, &strides) as usize;
            data[at..at + width].copy_from_slice(&(i + 1).to_le_bytes()[..width]);
        }
        let at = input_address() + MAP;
        let map =
            TensorMap::tiled(element, at, dims, &strides[1..], tile, swizzle).expect("a valid map");
        Self { map, data }
    }

    fn input(&self) -> Vec<u32> {
        let mut bytes = self.map.encode().to_vec();
        bytes.resize(MAP as usize, 0);
        bytes.extend(&self.data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.chunks(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
    }
}

/// Byte offset of the `i`-th element in dense order.
fn place(mut i: u64, dims: &[u64], strides: &[u64]) -> u64 {
    let mut at = 0;
    for (dim, stride) in dims.iter().zip(strides) {
        at += i % dim * stride;
        i /= dim;
    }
    at
}

/// The swizzles as bit operations on a byte offset (CUDA programming guide, tensor swizzles):
/// 16-byte chunks of a line are permuted by the number of the 128-byte line.
fn swizzled(offset: usize, swizzle: Swizzle) -> usize {
    let line = offset / 128;
    let keep = match swizzle {
        Swizzle::None => 0,
        Swizzle::B32 => line % 2,
        Swizzle::B64 => line % 4,
        Swizzle::B128 => line % 8,
    };
    offset ^ keep << 4
}

/// The tile as it must lie in shared memory: element values, zero outside of the tensor.
fn expected(t: &Tensor, coords: &[i32]) -> Vec<u8> {
    let rank = t.map.rank;
    let width = t.map.element.bytes() as usize;
    let tile: Vec<u64> = (0..rank).map(|i| u64::from(t.map.box_dims[i])).collect();
    let count: u64 = tile.iter().product();
    let mut out = vec![0u8; count as usize * width];
    for n in 0..count {
        let (mut rest, mut index, mut scale, mut inside) = (n, 0u64, 1u64, true);
        for i in 0..rank {
            let c = i64::from(coords[i]) + (rest % tile[i]) as i64;
            rest /= tile[i];
            inside &= c >= 0 && (c as u64) < t.map.dims[i];
            index = index.wrapping_add((c as u64).wrapping_mul(scale));
            scale *= t.map.dims[i];
        }
        let value = if inside { index + 1 } else { 0 };
        let at = swizzled(n as usize * width, t.map.swizzle);
        out[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }
    out
}

fn list(coords: &[i32]) -> String {
    coords.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")
}

/// Loads a tile and copies shared memory out.
fn load_body(rank: usize, coords: &[i32], bytes: u32, expect: u32) -> String {
    format!(
        ".shared .align 1024 .b8 s[{bytes}]; .shared .align 8 .b8 bar[8]; \
         setp.ne.u32 %p1, %tid, 0; @%p1 bra W; mbarrier.init.shared.b64 [bar], 1; \
         fence.mbarrier_init.release.cluster; mbarrier.arrive.expect_tx.shared.b64 _, [bar], {expect}; \
         cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes \
         [s], [%in, {{{}}}], [bar]; W: bar.sync 0; \
         T: mbarrier.try_wait.parity.shared.b64 %p2, [bar], 0; @!%p2 bra T; \
         shl.b32 %r1, %tid, 2; mov.u32 %r4, s; L: setp.ge.u32 %p3, %r1, {bytes}; @%p3 bra E; \
         add.u32 %r2, %r4, %r1; ld.shared.u32 %r3, [%r2]; cvt.u64.u32 %rd1, %r1; \
         add.u64 %rd1, %rd1, %out; st.global.u32 [%rd1], %r3; add.u32 %r1, %r1, 256; bra L; E:",
        list(coords)
    )
}

fn load(t: &Tensor, coords: &[i32], seed: u64) -> Result<Vec<u8>, Box<Fault>> {
    let bytes = t.map.tile_bytes();
    let body = load_body(t.map.rank, coords, bytes, bytes);
    let input = t.input();
    let setup = Setup { threads: 64, words: WORDS, input: &input, seed, ..Setup::default() };
    let ran = run_text(&program(&body), setup)?;
    Ok(ran.words.iter().flat_map(|w| w.to_le_bytes()).take(bytes as usize).collect())
}

#[track_caller]
fn check_load(t: &Tensor, coords: &[i32]) {
    for seed in [0, 3] {
        let got = load(t, coords, seed).unwrap_or_else(|f| panic!("{f}"));
        let want = expected(t, coords);
        if let Some(at) = (0..want.len()).find(|i| got[*i] != want[*i]) {
            panic!("{coords:?} of {:?}: byte {at} is {}, not {}", t.map.dims, got[at], want[at]);
        }
    }
}

#[test]
fn every_rank_inside_and_across_every_edge() {
    let none = Swizzle::None;
    let one = Tensor::new(MapType::U32, &[100], &[32], none);
    for c in [0, 5, 68, 80, 99, 100, 200, -1, -31, -32, i32::MIN] {
        check_load(&one, &[c]);
    }
    let two = Tensor::new(MapType::U16, &[40, 12], &[16, 8], none);
    for c in [[0, 0], [24, 4], [30, 4], [8, 9], [-3, -2], [39, 11], [40, 0], [0, 12], [-16, 0]] {
        check_load(&two, &c);
    }
    let three = Tensor::new(MapType::U32, &[12, 5, 4], &[8, 4, 3], none);
    for c in [[0, 0, 0], [4, 1, 1], [6, 3, 2], [-2, -1, -1], [11, 4, 3]] {
        check_load(&three, &c);
    }
    let four = Tensor::new(MapType::U8, &[32, 3, 4, 2], &[16, 2, 2, 2], none);
    for c in [[0, 0, 0, 0], [16, 1, 2, 0], [20, 2, 3, 1], [-5, -1, -1, -1]] {
        check_load(&four, &c);
    }
    let five = Tensor::new(MapType::U16, &[16, 3, 2, 3, 2], &[8, 2, 2, 2, 2], none);
    for c in [[0, 0, 0, 0, 0], [8, 1, 0, 1, 0], [12, 2, 1, 2, 1], [-4, -1, -1, -1, -1]] {
        check_load(&five, &c);
    }
}

#[test]
fn every_element_size_and_swizzle() {
    for (swizzle, span) in [(Swizzle::B32, 32), (Swizzle::B64, 64), (Swizzle::B128, 128)] {
        for element in [MapType::U8, MapType::Bf16, MapType::F32, MapType::U64] {
            let inner = span / element.bytes();
            let t = Tensor::new(element, &[u64::from(inner) + 16, 40], &[inner, 16], swizzle);
            check_load(&t, &[0, 0]);
            check_load(&t, &[16, 30]);
            check_load(&t, &[-2, -3]);
        }
    }
}

/// What lies outside a tensor of floats may be asked to read as NaN.
#[test]
fn not_a_number_outside() {
    let mut t = Tensor::new(MapType::Bf16, &[16, 4], &[16, 4], Swizzle::None);
    t.map.fill_nan = true;
    let got = load(&t, &[8, 0], 0).unwrap_or_else(|f| panic!("{f}"));
    for row in 0..4 {
        for column in 0..16 {
            let at = 2 * (16 * row + column);
            let v = u16::from_le_bytes([got[at], got[at + 1]]);
            let inside = 8 + column < 16;
            let want = 16 * row + 8 + column + 1;
            assert_eq!(inside, usize::from(v) == want, "{row} {column} {v:#x}");
            assert_eq!(inside, v & 0x7f80 != 0x7f80 || v & 0x7f == 0, "{row} {column} {v:#x}");
        }
    }
}

/// A load counts all bytes of its box, in bounds or not; other numbers hang or show.
#[test]
fn transaction_bytes() {
    let t = Tensor::new(MapType::U32, &[40], &[32], Swizzle::None);
    let input = t.input();
    let setup = Setup { threads: 64, words: WORDS, input: &input, ..Setup::default() };
    let with = |expect| run_text(&program(&load_body(1, &[20], 128, expect)), setup).map(|_| ());
    assert!(with(128).is_ok());
    // Fewer: the phase ends too early or, as here, its count never comes to zero.
    assert_eq!(with(80).unwrap_err().rule, Rule::Deadlock);
    assert_eq!(with(160).unwrap_err().rule, Rule::Deadlock);
}

#[test]
fn maps_and_tiles_are_checked() {
    let t = Tensor::new(MapType::U32, &[40, 4], &[32, 2], Swizzle::None);
    let input = t.input();
    let setup = Setup { threads: 64, words: WORDS, input: &input, ..Setup::default() };
    let good = load_body(2, &[0, 0], 256, 256);
    let go = |body: &str| run_text(&program(body), setup).map(|_| ()).map_err(|f| f.rule);
    assert_eq!(go(&good), Ok(()));
    assert_eq!(go(&load_body(1, &[0], 256, 256)), Err(Rule::BadOperand), "rank");
    assert_eq!(go(&good.replace("[%in, {", "[%in+128, {")), Err(Rule::BadOperand), "no map there");
    assert_eq!(go(&good.replace("[%in, {", "[%in+32, {")), Err(Rule::Misaligned), "the map");
    assert_eq!(go(&good.replace(" [s], [%in", " [s+64], [%in")), Err(Rule::Misaligned), "the tile");
    assert_eq!(
        go(&good.replace("b8 s[256]", "b8 s[128]")),
        Err(Rule::OutOfBounds),
        "the tile's end"
    );
    let no_barrier = good.replace("mbarrier.init.shared.b64 [bar], 1;", "");
    assert_eq!(go(&no_barrier), Err(Rule::BarrierMisuse), "the barrier");
    // Reading before the wait, and leaving without it.
    let early =
        good.replace("T: mbarrier.try_wait.parity.shared.b64 %p2, [bar], 0; @!%p2 bra T;", "");
    assert_eq!(go(&early), Err(Rule::AsyncInFlight));
    let leave = good.replace("W: bar.sync 0;", "W: exit;");
    assert_eq!(go(&leave), Err(Rule::Leak));
}

/// Stores write what is inside the tensor and nothing else.
fn store_body(op: &str, t: &Tensor, coords: &[i32]) -> String {
    let bytes = t.map.tile_bytes();
    format!(
        ".shared .align 1024 .b8 s[{bytes}]; mov.u32 %r4, s; shl.b32 %r1, %tid, 2; \
         L: setp.ge.u32 %p3, %r1, {bytes}; @%p3 bra E; add.u32 %r2, %r4, %r1; \
         add.u32 %r3, %r1, 1000; st.shared.u32 [%r2], %r3; add.u32 %r1, %r1, 256; bra L; \
         E: fence.proxy.async.shared::cta; bar.sync 0; setp.ne.u32 %p1, %tid, 0; @%p1 exit; \
         {op} [%in, {{{}}}], [s]; cp.async.bulk.commit_group; cp.async.bulk.wait_group 0; \
         mov.u32 %r5, 0; C: mul.wide.u32 %rd1, %r5, 4; add.u64 %rd2, %rd1, %in; \
         ld.global.u32 %r6, [%rd2+{MAP}]; add.u64 %rd3, %rd1, %out; st.global.u32 [%rd3], %r6; \
         add.u32 %r5, %r5, 1; setp.lt.u32 %p4, %r5, {}; @%p4 bra C;",
        list(coords),
        t.data.len() / 4
    )
}

fn store(op: &str, t: &Tensor, coords: &[i32]) -> Vec<u32> {
    let input = t.input();
    let setup = Setup { threads: 64, words: WORDS, input: &input, ..Setup::default() };
    let ran =
        run_text(&program(&store_body(op, t, coords)), setup).unwrap_or_else(|f| panic!("{f}"));
    ran.words
}

/// New value of each element of the tensor; `join` of the old one and the tile's.
fn stored(t: &Tensor, coords: &[i32], join: impl Fn(u32, u32) -> u32) -> Vec<u32> {
    let dims = &t.map.dims[..t.map.rank];
    let steps = strides(t.map.element, dims);
    let mut words = vec![0; t.data.len() / 4];
    for i in 0..dims.iter().product() {
        let (mut rest, mut n, mut scale, mut inside) = (i, 0, 1, true);
        for (d, dim) in dims.iter().enumerate() {
            let at = (rest % dim) as i64 - i64::from(coords[d]);
            rest /= dim;
            inside &= (0..i64::from(t.map.box_dims[d])).contains(&at);
            n += at * scale;
            scale *= i64::from(t.map.box_dims[d]);
        }
        let old = i as u32 + 1;
        let at = place(i, dims, &steps) as usize / 4;
        words[at] = if inside {
            // The tile was written by byte offset: the element lies at its swizzled place.
            join(old, swizzled(4 * n as usize, t.map.swizzle) as u32 + 1000)
        } else {
            old
        };
    }
    words
}

#[test]
fn stores_and_reductions_of_every_kind() {
    type Join = fn(u32, u32) -> u32;
    let ops: [(&str, Join); 9] = [
        ("", |_, new| new),
        ("add", u32::wrapping_add),
        ("min", u32::min),
        ("max", u32::max),
        ("inc", |old, new| if old >= new { 0 } else { old + 1 }),
        ("dec", |old, new| if old == 0 || old > new { new } else { old - 1 }),
        ("and", |old, new| old & new),
        ("or", |old, new| old | new),
        ("xor", |old, new| old ^ new),
    ];
    for (name, join) in ops {
        for swizzle in [Swizzle::None, Swizzle::B128] {
            let t = Tensor::new(MapType::U32, &[44, 6], &[32, 4], swizzle);
            let op = match name {
                "" => "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group".to_string(),
                name => format!(
                    "cp.reduce.async.bulk.tensor.2d.global.shared::cta.{name}.tile.bulk_group"
                ),
            };
            for coords in [[0, 0], [8, 2], [20, 4], [-5, -1]] {
                let got = store(&op, &t, &coords);
                let want = stored(&t, &coords, join);
                assert_eq!(got[..want.len()], want[..], "{name} at {coords:?}");
            }
        }
    }
}

/// A multicast load gives each block of the mask the tile, at the same place, and its barrier the
/// bytes.
#[test]
fn multicast_reaches_the_named_blocks() {
    let t = Tensor::new(MapType::U32, &[64], &[32], Swizzle::None);
    let input = t.input();
    let body = |mask: u32| {
        format!(
            ".shared .align 128 .b8 s[128]; .shared .align 8 .b8 bar[8]; mov.u32 %r1, %cluster_ctarank; \
             setp.ne.u32 %p1, %tid, 0; @%p1 bra W; mbarrier.init.shared.b64 [bar], 1; \
             fence.mbarrier_init.release.cluster; W: barrier.cluster.arrive.aligned; \
             barrier.cluster.wait.aligned; mov.u32 %r2, {mask}; shr.u32 %r3, %r2, %r1; \
             and.b32 %r3, %r3, 1; setp.eq.u32 %p2, %r3, 0; @%p2 bra E; @%p1 bra T; \
             mbarrier.arrive.expect_tx.shared.b64 _, [bar], 128; setp.ne.u32 %p3, %r1, {first}; \
             @%p3 bra T; mov.u16 %h1, {mask}; \
             cp.async.bulk.tensor.1d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster \
             [s], [%in, {{16}}], [bar], %h1; \
             T: mbarrier.try_wait.parity.shared.b64 %p4, [bar], 0; @!%p4 bra T; shl.b32 %r4, %tid, 2; \
             mov.u32 %r5, s; add.u32 %r5, %r5, %r4; ld.shared.u32 %r6, [%r5]; shl.b32 %r7, %r1, 7; \
             add.u32 %r7, %r7, %r4; cvt.u64.u32 %rd1, %r7; add.u64 %rd1, %rd1, %out; \
             st.global.u32 [%rd1], %r6; E: barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;",
            first = mask.trailing_zeros()
        )
    };
    for mask in [0b0001u32, 0b1111, 0b0110, 0b1010] {
        for seed in 0..8 {
            let setup = Setup {
                blocks: 4,
                cluster: 4,
                words: WORDS,
                input: &input,
                seed,
                ..Setup::default()
            };
            let got =
                run_text(&program(&body(mask)), setup).unwrap_or_else(|f| panic!("{f}")).words;
            for rank in 0..4usize {
                for i in 0..32usize {
                    let want = if mask >> rank & 1 == 1 { 17 + i as u32 } else { 0 };
                    assert_eq!(got[32 * rank + i], want, "mask {mask:#x}, block {rank}, word {i}");
                }
            }
        }
    }
    // A block that is not there, and nobody.
    for mask in [0b1_0000u32, 0] {
        let wrong = body(1).replace("mov.u16 %h1, 1;", &format!("mov.u16 %h1, {mask};"));
        let setup =
            Setup { blocks: 4, cluster: 4, words: WORDS, input: &input, ..Setup::default() };
        let got = run_text(&program(&wrong), setup).map(|_| ()).map_err(|f| f.rule);
        assert_eq!(got, Err(Rule::BadOperand));
    }
}

/// Prefetches of tensors and of their maps change nothing.
#[test]
fn prefetches_are_hints() {
    let t = Tensor::new(MapType::U32, &[64, 4], &[32, 2], Swizzle::None);
    let input = t.input();
    let setup = Setup { input: &input, words: WORDS, ..Setup::default() };
    let body = "cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%in, {0, 0}]; \
                prefetch.tensormap [%in]; cp.async.bulk.prefetch.L2.global [%in], 64;";
    assert!(run_text(&program(body), setup).is_ok());
}
