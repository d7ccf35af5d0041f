//! What the time model knows of each card.
//!
//! Counts, sizes, clocks and peak rates are the makers' data sheets and white papers; tensor rates
//! are dense, with f32 accumulation, given as FLOPs per SM and cycle at the clock the data sheet's
//! peak implies. Latencies are measured values published by Luo et al., "Benchmarking and
//! Dissecting the Nvidia Hopper GPU Architecture" (2024), rounded; where a card is not in that
//! paper its sibling's are used. L2 bandwidth is not published for most cards and is an estimate.

/// Operand type of tensor work, as far as rates differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TensorType {
    /// TF32.
    Tf32,
    /// f16 and bf16.
    Half,
    /// e4m3 and e5m2; cards without them have rate 0.
    Fp8,
    /// s8 and u8.
    Int8,
}

impl TensorType {
    /// Every type, in the order of [`Card::tensor_flops`].
    pub const ALL: [Self; 4] = [Self::Tf32, Self::Half, Self::Fp8, Self::Int8];
}

/// One card model.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    /// Name as users write it.
    pub name: &'static str,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub sms: u32,
    /// Sustained clock in Hz.
    pub clock_hz: f64,
    /// Warp instructions issued per SM and cycle.
    pub issue_per_cycle: f64,
    /// f32 fused multiply-adds per SM and cycle.
    pub fp32_lanes: f64,
    /// 32-bit integer operations per SM and cycle.
    pub int_lanes: f64,
    /// Special functions per SM and cycle.
    pub special_lanes: f64,
    /// Dense tensor FLOPs per SM and cycle, in the order of [`TensorType::ALL`].
    pub tensor_flops: [f64; 4],
    /// 32-bit registers per SM.
    pub registers: u32,
    /// Shared memory per SM in bytes.
    pub shared_per_sm: u32,
    /// Most shared memory of one block in bytes.
    pub shared_per_block: u32,
    /// Most resident threads per SM.
    pub threads_per_sm: u32,
    /// Most resident blocks per SM.
    pub blocks_per_sm: u32,
    /// Shared-memory bytes per SM and cycle.
    pub shared_bytes_per_cycle: f64,
    /// L2 size in bytes.
    pub l2_bytes: u64,
    /// L2 bandwidth in bytes per second (estimate).
    pub l2_bandwidth: f64,
    /// Device memory in bytes.
    pub memory_bytes: u64,
    /// Peak memory bandwidth in bytes per second.
    pub memory_bandwidth: f64,
    /// Share of the peak that streaming kernels reach.
    pub memory_efficiency: f64,
    /// Latency of a dependent arithmetic instruction in cycles.
    pub arithmetic_latency: f64,
    /// Latency of a shared-memory load in cycles.
    pub shared_latency: f64,
    /// Latency of an L2 hit in cycles.
    pub l2_latency: f64,
    /// Latency of a DRAM access in cycles.
    pub memory_latency: f64,
}

const KIB: u32 = 1024;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// NVIDIA H100 SXM5 80 GB.
pub const H100_SXM: Card = Card {
    name: "H100 SXM",
    capability: (9, 0),
    sms: 132,
    clock_hz: 1.83e9,
    issue_per_cycle: 4.0,
    fp32_lanes: 128.0,
    int_lanes: 64.0,
    special_lanes: 16.0,
    tensor_flops: [2048.0, 4096.0, 8192.0, 8192.0],
    registers: 65536,
    shared_per_sm: 228 * KIB,
    shared_per_block: 227 * KIB,
    threads_per_sm: 2048,
    blocks_per_sm: 32,
    shared_bytes_per_cycle: 128.0,
    l2_bytes: 50 * MIB,
    l2_bandwidth: 5.5e12,
    memory_bytes: 80 * GIB,
    memory_bandwidth: 3.35e12,
    memory_efficiency: 0.92,
    arithmetic_latency: 4.0,
    shared_latency: 29.0,
    l2_latency: 263.0,
    memory_latency: 479.0,
};

/// NVIDIA H100 PCIe 80 GB.
pub const H100_PCIE: Card = Card {
    name: "H100 PCIe",
    sms: 114,
    clock_hz: 1.62e9,
    l2_bandwidth: 4.2e12,
    memory_bandwidth: 2.04e12,
    ..H100_SXM
};

/// NVIDIA H200 SXM 141 GB.
pub const H200: Card =
    Card { name: "H200", memory_bytes: 141 * GIB, memory_bandwidth: 4.8e12, ..H100_SXM };

/// NVIDIA A100 SXM4 80 GB.
pub const A100: Card = Card {
    name: "A100",
    capability: (8, 0),
    sms: 108,
    clock_hz: 1.41e9,
    fp32_lanes: 64.0,
    tensor_flops: [1024.0, 2048.0, 0.0, 4096.0],
    shared_per_sm: 164 * KIB,
    shared_per_block: 163 * KIB,
    l2_bytes: 40 * MIB,
    l2_bandwidth: 4.0e12,
    memory_bandwidth: 2.04e12,
    l2_latency: 262.0,
    memory_latency: 466.0,
    ..H100_SXM
};

/// NVIDIA L4 24 GB.
pub const L4: Card = Card {
    name: "L4",
    capability: (8, 9),
    sms: 58,
    clock_hz: 2.04e9,
    tensor_flops: [512.0, 1024.0, 2048.0, 2048.0],
    shared_per_sm: 100 * KIB,
    shared_per_block: 99 * KIB,
    threads_per_sm: 1536,
    blocks_per_sm: 24,
    l2_bytes: 48 * MIB,
    l2_bandwidth: 2.0e12,
    memory_bytes: 24 * GIB,
    memory_bandwidth: 0.3e12,
    shared_latency: 30.0,
    l2_latency: 273.0,
    memory_latency: 542.0,
    ..H100_SXM
};

/// NVIDIA GeForce RTX 4090. Its tensor rates with f32 accumulation are half those with f16.
pub const RTX_4090: Card = Card {
    name: "RTX 4090",
    sms: 128,
    clock_hz: 2.52e9,
    tensor_flops: [256.0, 512.0, 1024.0, 2048.0],
    l2_bytes: 72 * MIB,
    l2_bandwidth: 5.0e12,
    memory_bandwidth: 1.008e12,
    ..L4
};

/// Every card known.
pub const CARDS: [&Card; 6] = [&H100_SXM, &H100_PCIE, &H200, &A100, &L4, &RTX_4090];

impl Card {
    /// The card whose name matches, ignoring case and anything but letters and digits.
    pub fn named(name: &str) -> Option<&'static Card> {
        let plain = |s: &str| -> String {
            s.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
        };
        CARDS.into_iter().find(|c| plain(c.name) == plain(name))
    }

    /// Dense tensor FLOPs per SM and cycle for a type; 0 where the card has none.
    pub fn tensor_rate(&self, ty: TensorType) -> f64 {
        self.tensor_flops[ty as usize]
    }

    /// Dense peak of the whole card in FLOP/s.
    pub fn tensor_peak(&self, ty: TensorType) -> f64 {
        self.tensor_rate(ty) * f64::from(self.sms) * self.clock_hz
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The peaks that the data sheets print, in TFLOP/s (dense).
    #[test]
    fn tensor_peaks_are_those_of_the_data_sheets() {
        let sheets = [
            (&H100_SXM, TensorType::Half, 989.4),
            (&H100_SXM, TensorType::Fp8, 1978.9),
            (&H100_PCIE, TensorType::Half, 756.0),
            (&H200, TensorType::Tf32, 494.7),
            (&A100, TensorType::Half, 312.0),
            (&A100, TensorType::Int8, 624.0),
            (&L4, TensorType::Half, 121.0),
            (&RTX_4090, TensorType::Half, 165.2),
            (&RTX_4090, TensorType::Fp8, 330.3),
        ];
        for (card, ty, teraflops) in sheets {
            let got = card.tensor_peak(ty) / 1e12;
            assert!((got / teraflops - 1.0).abs() < 0.005, "{} {ty:?}: {got}", card.name);
        }
    }

    #[test]
    fn cards_are_found_by_name_as_written() {
        assert_eq!(Card::named("h100-sxm").map(|c| c.name), Some("H100 SXM"));
        assert_eq!(Card::named("rtx4090").map(|c| c.name), Some("RTX 4090"));
        assert_eq!(Card::named("H100"), None);
    }

    #[test]
    fn tensor_types_index_the_rate_table() {
        for (i, ty) in TensorType::ALL.into_iter().enumerate() {
            assert_eq!(ty as usize, i);
        }
    }
}
