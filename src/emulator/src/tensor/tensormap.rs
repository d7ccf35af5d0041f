//! TMA tensor maps: the 128-byte object that describes a tensor in global memory and the box a
//! tensor copy moves, and the checks made when one is encoded.
//!
//! The real object's bits are not public; a kernel only passes its address on, so ours hold the
//! same fields in an order of our own behind a magic number and a checksum, and a map that was
//! overwritten or never written is found when it is used.

use std::fmt;

use super::swizzle::Swizzle;

/// Bytes of an encoded map.
pub const MAP_BYTES: usize = 128;
/// Required alignment of an encoded map.
pub const MAP_ALIGNMENT: u64 = 64;
/// Required alignment of a tile in shared memory.
pub const SHARED_ALIGNMENT: u32 = 128;
/// Most dimensions of a tensor.
pub const MAX_RANK: usize = 5;

const MAGIC: u32 = u32::from_le_bytes(*b"PTM1");

/// Element type, in the order of `CUtensorMapDataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum MapType {
    U8,
    U16,
    U32,
    S32,
    U64,
    S64,
    F16,
    F32,
    F64,
    Bf16,
    F32Ftz,
    Tf32,
    Tf32Ftz,
}

const TYPES: [MapType; 13] = [
    MapType::U8,
    MapType::U16,
    MapType::U32,
    MapType::S32,
    MapType::U64,
    MapType::S64,
    MapType::F16,
    MapType::F32,
    MapType::F64,
    MapType::Bf16,
    MapType::F32Ftz,
    MapType::Tf32,
    MapType::Tf32Ftz,
];

impl MapType {
    /// The type with this `CUtensorMapDataType` number, if it is one this machine knows.
    pub fn from_number(number: u32) -> Option<Self> {
        TYPES.get(number as usize).copied()
    }

    /// Bytes of one element.
    pub fn bytes(self) -> u32 {
        match self {
            MapType::U8 => 1,
            MapType::U16 | MapType::F16 | MapType::Bf16 => 2,
            MapType::U64 | MapType::S64 | MapType::F64 => 8,
            _ => 4,
        }
    }

    fn is_float(self) -> bool {
        !matches!(
            self,
            MapType::U8 | MapType::U16 | MapType::U32 | MapType::S32 | MapType::U64 | MapType::S64
        )
    }
}

/// A tiled tensor map. Dimension 0 is the contiguous one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Element type.
    pub element: MapType,
    /// Number of dimensions, 1 to 5.
    pub rank: usize,
    /// Address of element (0, …, 0) in global memory.
    pub address: u64,
    /// Elements in each dimension, 1 to 2^32.
    pub dims: [u64; MAX_RANK],
    /// Bytes between neighbours in each dimension; `strides[0]` is the element size.
    pub strides: [u64; MAX_RANK],
    /// Elements of the box in each dimension, 1 to 256, before element strides thin it.
    pub box_dims: [u32; MAX_RANK],
    /// Traversal stride in each dimension, 1 to 8; that of dimension 0 has no effect.
    pub element_strides: [u32; MAX_RANK],
    /// Swizzle of the tile in shared memory.
    pub swizzle: Swizzle,
    /// Out-of-bounds elements read as NaN instead of zero.
    pub fill_nan: bool,
}

/// Why a tensor map is refused. `cuTensorMapEncodeTiled` says only "invalid value" to all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapError {
    /// A parameter breaks a rule: its name, its value, the rule.
    Parameter(&'static str, u64, &'static str),
    /// The 128 bytes are not a map that [`TensorMap::encode`] wrote.
    NotAMap,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MapError::Parameter(name, value, rule) => {
                write!(f, "tensor map: {name} is {value}; it must be {rule}")
            }
            MapError::NotAMap => {
                write!(
                    f,
                    "these 128 bytes are not an encoded tensor map (never written, or \
                     since overwritten)"
                )
            }
        }
    }
}

impl std::error::Error for MapError {}

fn require(
    holds: bool,
    name: &'static str,
    value: u64,
    rule: &'static str,
) -> Result<(), MapError> {
    if holds { Ok(()) } else { Err(MapError::Parameter(name, value, rule)) }
}

impl TensorMap {
    /// A map over a dense row-major tensor: `dims` and `box_dims` innermost first, `strides` the
    /// byte strides of dimensions 1 and up. Runs every check of [`TensorMap::check`].
    pub fn tiled(
        element: MapType,
        address: u64,
        dims: &[u64],
        strides: &[u64],
        box_dims: &[u32],
        swizzle: Swizzle,
    ) -> Result<Self, MapError> {
        let rank = dims.len();
        require((1..=MAX_RANK).contains(&rank), "rank", rank as u64, "1 to 5")?;
        let given = strides.len() as u64;
        require(strides.len() + 1 == rank, "number of strides", given, "one less than the rank")?;
        let boxes = box_dims.len() as u64;
        require(box_dims.len() == rank, "number of box dimensions", boxes, "the rank")?;
        let mut map = Self {
            element,
            rank,
            address,
            dims: [1; MAX_RANK],
            strides: [0; MAX_RANK],
            box_dims: [1; MAX_RANK],
            element_strides: [1; MAX_RANK],
            swizzle,
            fill_nan: false,
        };
        map.dims[..rank].copy_from_slice(dims);
        map.strides[0] = u64::from(element.bytes());
        map.strides[1..rank].copy_from_slice(strides);
        map.box_dims[..rank].copy_from_slice(box_dims);
        map.check()?;
        Ok(map)
    }

    /// The rules `cuTensorMapEncodeTiled` documents, for interleave none.
    pub fn check(&self) -> Result<(), MapError> {
        require((1..=MAX_RANK).contains(&self.rank), "rank", self.rank as u64, "1 to 5")?;
        let aligned = self.address.is_multiple_of(16);
        require(aligned, "global address", self.address, "a multiple of 16")?;
        for i in 0..self.rank {
            let dim = self.dims[i];
            require((1..=1 << 32).contains(&dim), "global dimension", dim, "1 to 2^32")?;
            let edge = u64::from(self.box_dims[i]);
            require((1..=256).contains(&edge), "box dimension", edge, "1 to 256")?;
            let step = u64::from(self.element_strides[i]);
            require((1..=8).contains(&step), "element stride", step, "1 to 8")?;
            if i > 0 {
                let stride = self.strides[i];
                let valid = stride.is_multiple_of(16) && stride < 1 << 40;
                require(valid, "global stride", stride, "a multiple of 16 below 2^40")?;
            }
        }
        let inner = u64::from(self.box_dims[0] * self.element.bytes());
        require(inner.is_multiple_of(16), "inner box bytes", inner, "a multiple of 16")?;
        let span = u64::from(self.swizzle.span());
        let fits = self.swizzle == Swizzle::None || inner <= span;
        require(fits, "inner box bytes", inner, "at most the swizzle's span")?;
        let fill = self.element.is_float() || !self.fill_nan;
        require(fill, "out-of-bounds fill", 1, "zeros for an integer type")
    }

    /// Elements the box moves in dimension `i`: box dimension over element stride, rounded up.
    pub fn box_elements(&self, i: usize) -> u32 {
        let step = if i == 0 { 1 } else { self.element_strides[i] };
        self.box_dims[i].div_ceil(step)
    }

    /// Bytes a tile takes in shared memory: what a load adds to its barrier, in bounds or not.
    /// A box too large for 32 bits saturates; it fits no shared memory either way.
    pub fn tile_bytes(&self) -> u32 {
        let edges = (0..self.rank).map(|i| self.box_elements(i));
        edges.fold(self.element.bytes(), u32::saturating_mul)
    }

    /// The map as 128 bytes.
    pub fn encode(&self) -> [u8; MAP_BYTES] {
        let mut out = [0; MAP_BYTES];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4] = self.element as u8;
        out[5] = self.rank as u8;
        out[6] = self.swizzle as u8;
        out[7] = u8::from(self.fill_nan);
        out[8..16].copy_from_slice(&self.address.to_le_bytes());
        for i in 0..MAX_RANK {
            let dim = self.dims[i].wrapping_sub(1) as u32;
            out[16 + 4 * i..20 + 4 * i].copy_from_slice(&dim.to_le_bytes());
            out[40 + 8 * i..48 + 8 * i].copy_from_slice(&self.strides[i].to_le_bytes());
            let edge = self.box_dims[i] as u16;
            out[80 + 2 * i..82 + 2 * i].copy_from_slice(&edge.to_le_bytes());
            out[92 + i] = self.element_strides[i] as u8;
        }
        let sum = checksum(&out);
        out[120..128].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads a map back and checks it again.
    pub fn decode(bytes: &[u8; MAP_BYTES]) -> Result<Self, MapError> {
        let word = |at: usize| u32::from_le_bytes(part(bytes, at));
        let long = |at: usize| u64::from_le_bytes(part(bytes, at));
        if word(0) != MAGIC || long(120) != checksum(bytes) {
            return Err(MapError::NotAMap);
        }
        let element = MapType::from_number(u32::from(bytes[4])).ok_or(MapError::NotAMap)?;
        let swizzle = match bytes[6] {
            0 => Swizzle::None,
            1 => Swizzle::B32,
            2 => Swizzle::B64,
            _ => Swizzle::B128,
        };
        let map = Self {
            element,
            rank: usize::from(bytes[5]),
            address: long(8),
            dims: std::array::from_fn(|i| u64::from(word(16 + 4 * i)) + 1),
            strides: std::array::from_fn(|i| long(40 + 8 * i)),
            box_dims: std::array::from_fn(|i| {
                u32::from(u16::from_le_bytes(part(bytes, 80 + 2 * i)))
            }),
            element_strides: std::array::from_fn(|i| u32::from(bytes[92 + i])),
            swizzle,
            fill_nan: bytes[7] != 0,
        };
        map.check()?;
        Ok(map)
    }
}

/// `N` bytes at `at`; the offsets above are all inside the map.
fn part<const N: usize>(bytes: &[u8; MAP_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

/// FNV-1a over all but the checksum itself.
fn checksum(bytes: &[u8; MAP_BYTES]) -> u64 {
    bytes[..120]
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> TensorMap {
        let dims = [200, 64];
        TensorMap::tiled(MapType::Bf16, 0x1000, &dims, &[512], &[64, 32], Swizzle::B128)
            .expect("a valid map")
    }

    #[test]
    fn encoding_round_trips() {
        let mut m = map();
        m.dims[1] = 1 << 32;
        m.element_strides[1] = 2;
        m.fill_nan = true;
        assert_eq!(TensorMap::decode(&m.encode()), Ok(m));
    }

    #[test]
    fn a_map_with_any_byte_changed_is_refused() {
        let good = map().encode();
        for i in 0..MAP_BYTES {
            let mut bad = good;
            bad[i] ^= 0x10;
            assert!(TensorMap::decode(&bad).is_err(), "byte {i}");
        }
        assert_eq!(TensorMap::decode(&[0; MAP_BYTES]), Err(MapError::NotAMap));
    }

    #[test]
    fn each_rule_is_enforced() {
        type Change = fn(&mut TensorMap);
        let broken: [(&str, Change); 12] = [
            ("global address", |m| m.address += 8),
            ("global dimension", |m| m.dims[1] = 0),
            ("global dimension", |m| m.dims[0] = (1 << 32) + 1),
            ("global stride", |m| m.strides[1] = 408),
            ("global stride", |m| m.strides[1] = 1 << 40),
            ("box dimension", |m| m.box_dims[1] = 257),
            ("box dimension", |m| m.box_dims[1] = 0),
            ("inner box bytes", |m| m.box_dims[0] = 4),
            ("inner box bytes", |m| m.swizzle = Swizzle::B64),
            ("element stride", |m| m.element_strides[1] = 9),
            ("rank", |m| m.rank = 6),
            ("out-of-bounds fill", |m| {
                m.element = MapType::U16;
                m.fill_nan = true;
            }),
        ];
        for (name, change) in broken {
            let mut m = map();
            change(&mut m);
            match m.check() {
                Err(MapError::Parameter(got, _, _)) => assert_eq!(got, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn data_types_have_the_drivers_numbers() {
        assert_eq!(MapType::from_number(6), Some(MapType::F16));
        assert_eq!(MapType::from_number(9), Some(MapType::Bf16));
        assert_eq!(MapType::from_number(12), Some(MapType::Tf32Ftz));
        assert_eq!(MapType::from_number(13), None);
        assert_eq!(MapType::Tf32 as u8, 11);
    }
}
