//! A loaded module, memory and a seed: the least that running a kernel takes.

use pacer_emulator::tensor::tensormap::MAP_BYTES;
use pacer_emulator::{Checks, LaunchSpec, Memory, Module, Report, launch};

use super::Failure;

/// Warp instructions a cluster may take; the largest case needs a tenth of it.
const BUDGET: u64 = 5_000_000;

/// A kernel argument.
pub enum Arg {
    /// A pointer, or any 64-bit number.
    Ptr(u64),
    I32(i32),
    F32(f32),
    /// A tensor map by value.
    Map([u8; MAP_BYTES]),
}

impl Arg {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Arg::Ptr(x) => x.to_le_bytes().to_vec(),
            Arg::I32(x) => x.to_le_bytes().to_vec(),
            Arg::F32(x) => x.to_le_bytes().to_vec(),
            Arg::Map(m) => m.to_vec(),
        }
    }
}

/// Launch geometry.
#[derive(Clone, Copy)]
pub struct Grid {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub cluster: Option<[u32; 3]>,
    pub shared: u32,
}

impl Grid {
    pub fn new(blocks: usize, threads: u32) -> Self {
        Self { grid: [blocks as u32, 1, 1], block: [threads, 1, 1], cluster: None, shared: 0 }
    }

    pub fn y(mut self, y: usize) -> Self {
        self.grid[1] = y as u32;
        self
    }

    pub fn z(mut self, z: usize) -> Self {
        self.grid[2] = z as u32;
        self
    }

    pub fn cluster(mut self, x: u32) -> Self {
        self.cluster = Some([x, 1, 1]);
        self
    }

    pub fn shared(mut self, bytes: u32) -> Self {
        self.shared = bytes;
        self
    }
}

pub struct Bench {
    module: Module,
    memory: Memory,
    seed: u64,
}

impl Bench {
    pub fn new(ptx: &str, seed: u64) -> Result<Self, Failure> {
        let module = Module::parse(ptx).map_err(Failure::Load)?;
        Ok(Self { module, memory: Memory::new(), seed })
    }

    /// Memory that nothing has written.
    pub fn alloc(&mut self, bytes: usize) -> u64 {
        self.memory.alloc(bytes as u64).expect("host memory for a small buffer")
    }

    pub fn upload(&mut self, bytes: &[u8]) -> u64 {
        let address = self.alloc(bytes.len());
        self.memory.write(address, bytes).expect("an allocation of this size");
        address
    }

    /// The bytes of a result, all of which the kernel must have written.
    pub fn download(&self, address: u64, bytes: usize) -> Result<Vec<u8>, Failure> {
        if !self.memory.written(address, bytes as u64).expect("an allocation") {
            return Err(Failure::Wrong("part of the result was never written".into()));
        }
        let mut out = vec![0; bytes];
        self.memory.read(address, &mut out).expect("an allocation");
        Ok(out)
    }

    pub fn launch(
        &mut self,
        kernel: &str,
        geometry: Grid,
        args: &[Arg],
    ) -> Result<Report, Failure> {
        let Grid { grid, block, cluster, shared } = geometry;
        let spec = LaunchSpec {
            kernel,
            grid,
            block,
            cluster: cluster.unwrap_or([1; 3]),
            shared_bytes: shared,
            params: &self.pack(kernel, args),
            symbols: &[],
            seed: self.seed,
            budget: BUDGET,
            checks: Checks::ALL,
            threads: 1,
        };
        launch(&self.module, &self.memory, &spec).map_err(Failure::Fault)
    }

    fn pack(&self, kernel: &str, args: &[Arg]) -> Vec<u8> {
        let kernel = self.module.kernel(kernel).expect("a kernel of the module");
        assert_eq!(kernel.params.len(), args.len(), "arguments of {}", kernel.name);
        let mut block = vec![0; kernel.param_bytes as usize];
        for (param, arg) in kernel.params.iter().zip(args) {
            let bytes = arg.bytes();
            assert_eq!(param.size as usize, bytes.len(), "size of {}", param.name);
            block[param.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        block
    }
}
