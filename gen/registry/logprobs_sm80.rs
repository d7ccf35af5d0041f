Module {
    name: "logprobs_sm80",
    target: Target::Sm80,
    packed: include_bytes!(concat!(env!("OUT_DIR"), "/logprobs_sm80.ptx.z")),
    kernels: &[
        Kernel {
            symbol: "sm80_f32_logprobs",
            params: "LogprobsParams",
            param_bytes: size_of::<abi::LogprobsParams>(),
            block: 1024,
            shared: 0,
            cluster: 1,
            uses: &[("sm_80", 18, 256), ("sm_89", 19, 256), ("sm_90", 19, 256)],
            about: "dtype=f32 top=any",
        },
    ],
}
