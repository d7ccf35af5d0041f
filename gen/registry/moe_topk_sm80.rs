Module {
    name: "moe_topk_sm80",
    target: Target::Sm80,
    packed: include_bytes!(concat!(env!("OUT_DIR"), "/moe_topk_sm80.ptx.z")),
    kernels: &[
        Kernel {
            symbol: "sm80_f32_moe_topk",
            params: "MoeTopkParams",
            param_bytes: size_of::<abi::MoeTopkParams>(),
            block: 128,
            shared: 0,
            cluster: 1,
            uses: &[("sm_80", 48, 0), ("sm_89", 48, 0), ("sm_90", 48, 0)],
            about: "experts<=512 top_k<=32",
        },
    ],
}
