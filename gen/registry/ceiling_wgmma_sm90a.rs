Module {
    name: "ceiling_wgmma_sm90a",
    target: Target::Sm90a,
    packed: include_bytes!(concat!(env!("OUT_DIR"), "/ceiling_wgmma_sm90a.ptx.z")),
    kernels: &[
        Kernel {
            symbol: "sm90a_bf16_ceiling_wgmma",
            params: "CeilingParams",
            param_bytes: size_of::<abi::CeilingParams>(),
            block: 256,
            shared: 33792,
            cluster: 1,
            uses: &[("sm_90a", 154, 0)],
            about: "wgmma of shared memory: flops=524288 blocks=1",
        },
    ],
}
