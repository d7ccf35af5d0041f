Module {
    name: "sample_sm80",
    target: Target::Sm80,
    packed: include_bytes!(concat!(env!("OUT_DIR"), "/sample_sm80.ptx.z")),
    kernels: &[
        Kernel {
            symbol: "sm80_f32_sample",
            params: "SampleParams",
            param_bytes: size_of::<abi::SampleParams>(),
            block: 1024,
            shared: 0,
            cluster: 1,
            uses: &[("sm_80", 32, 33592), ("sm_89", 42, 33592), ("sm_90", 44, 33592)],
            about: "dtype=f32 vocab<=2097152",
        },
    ],
}
