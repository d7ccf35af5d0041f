Module {
    name: "ceiling_sm80",
    target: Target::Sm80,
    packed: include_bytes!(concat!(env!("OUT_DIR"), "/ceiling_sm80.ptx.z")),
    kernels: &[
        Kernel {
            symbol: "sm80_ceiling_read",
            params: "CeilingParams",
            param_bytes: size_of::<abi::CeilingParams>(),
            block: 256,
            shared: 0,
            cluster: 1,
            uses: &[("sm_80", 32, 0), ("sm_89", 40, 0), ("sm_90", 32, 0)],
            about: "reads of memory",
        },
        Kernel {
            symbol: "sm80_bf16_ceiling_mma",
            params: "CeilingParams",
            param_bytes: size_of::<abi::CeilingParams>(),
            block: 256,
            shared: 0,
            cluster: 1,
            uses: &[("sm_80", 48, 0), ("sm_89", 48, 0), ("sm_90", 47, 0)],
            about: "mma.sync of registers: flops=32768 blocks=2",
        },
    ],
}
