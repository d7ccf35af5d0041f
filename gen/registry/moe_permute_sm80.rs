Module {
    name: "moe_permute_sm80",
    target: Target::Sm80,
    packed: include_bytes!(concat!(env!("OUT_DIR"), "/moe_permute_sm80.ptx.z")),
    kernels: &[
        Kernel {
            symbol: "sm80_moe_permute",
            params: "MoePermuteParams",
            param_bytes: size_of::<abi::MoePermuteParams>(),
            block: 256,
            shared: 0,
            cluster: 1,
            uses: &[("sm_80", 24, 32), ("sm_89", 24, 32), ("sm_90", 27, 32)],
            about: "experts=any",
        },
    ],
}
