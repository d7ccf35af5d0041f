//! Builders of GGUF and safetensors files, able to lie about everything.

pub const U8: u32 = 0;
pub const U16: u32 = 2;
pub const U32: u32 = 4;
pub const I32: u32 = 5;
pub const F32: u32 = 6;
pub const BOOL: u32 = 7;
pub const STR: u32 = 8;
pub const ARRAY: u32 = 9;
pub const U64: u32 = 10;

/// A GGUF string: length and bytes.
pub fn string(s: impl AsRef<[u8]>) -> Vec<u8> {
    let s = s.as_ref();
    [&(s.len() as u64).to_le_bytes(), s].concat()
}

/// A GGUF array value: element type, a count (true or not), the elements' bytes.
pub fn array(kind: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes(), elements].concat()
}

pub fn strings(list: &[&str]) -> Vec<u8> {
    array(STR, list.len() as u64, &list.iter().flat_map(string).collect::<Vec<u8>>())
}

/// A GGUF file in the making.
#[derive(Clone)]
pub struct Gguf {
    pub magic: [u8; 4],
    pub version: u32,
    /// Counts to write instead of the true ones.
    pub tensor_count: Option<u64>,
    pub pair_count: Option<u64>,
    pub pairs: Vec<Vec<u8>>,
    pub tensors: Vec<Vec<u8>>,
    pub data: Vec<u8>,
    pub align: usize,
}

impl Gguf {
    pub fn empty() -> Gguf {
        Gguf {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            pair_count: None,
            pairs: Vec::new(),
            tensors: Vec::new(),
            data: Vec::new(),
            align: 32,
        }
    }

    /// A file of architecture `arch` with 2 heads and 1 key-value head.
    pub fn of(arch: &str) -> Gguf {
        Gguf::empty()
            .pair("general.architecture", STR, &string(arch))
            .pair(format!("{arch}.attention.head_count"), U32, &2u32.to_le_bytes())
            .pair(format!("{arch}.attention.head_count_kv"), U32, &1u32.to_le_bytes())
    }

    pub fn pair(self, key: impl AsRef<[u8]>, kind: u32, value: &[u8]) -> Gguf {
        self.raw_pair(&[&string(key)[..], &kind.to_le_bytes(), value].concat())
    }

    pub fn raw_pair(mut self, bytes: &[u8]) -> Gguf {
        self.pairs.push(bytes.to_vec());
        self
    }

    /// Lists a tensor; dimensions innermost first, as in the file.
    pub fn lists(self, name: impl AsRef<[u8]>, dims: &[u64], kind: u32, offset: u64) -> Gguf {
        let dims = [
            &(dims.len() as u32).to_le_bytes()[..],
            &dims.iter().flat_map(|d| d.to_le_bytes()).collect::<Vec<u8>>(),
        ]
        .concat();
        self.raw_tensor(
            &[&string(name)[..], &dims, &kind.to_le_bytes(), &offset.to_le_bytes()].concat(),
        )
    }

    pub fn raw_tensor(mut self, bytes: &[u8]) -> Gguf {
        self.tensors.push(bytes.to_vec());
        self
    }

    /// Lists a tensor and adds its bytes.
    pub fn tensor(mut self, name: &str, dims: &[u64], kind: u32, bytes: &[u8]) -> Gguf {
        let offset = self.data.len().next_multiple_of(self.align);
        self.data.resize(offset, 0);
        self.data.extend_from_slice(bytes);
        self.lists(name, dims, kind, offset as u64)
    }

    pub fn f32(self, name: &str, dims: &[u64], numbers: &[f32]) -> Gguf {
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensor(name, dims, 0, &bytes)
    }

    pub fn with_data(mut self, len: usize) -> Gguf {
        self.data.resize(len, 0);
        self
    }

    /// The bytes before the data, without padding.
    pub fn header(&self) -> Vec<u8> {
        let tensors = self.tensor_count.unwrap_or(self.tensors.len() as u64);
        let pairs = self.pair_count.unwrap_or(self.pairs.len() as u64);
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(tensors.to_le_bytes());
        out.extend(pairs.to_le_bytes());
        out.extend(self.pairs.concat());
        out.extend(self.tensors.concat());
        out
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        out.resize(out.len().next_multiple_of(self.align), 0);
        out.extend(&self.data);
        out
    }
}

/// A safetensors file with this header and `data` bytes of zeros.
pub fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.resize(out.len() + data, 0);
    out
}
