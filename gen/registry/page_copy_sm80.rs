Module {
    name: "page_copy_sm80",
    target: Target::Sm80,
    packed: include_bytes!(concat!(env!("OUT_DIR"), "/page_copy_sm80.ptx.z")),
    kernels: &[
        Kernel {
            symbol: "sm80_b16_page_copy_vec",
            params: "PageCopyParams",
            param_bytes: size_of::<abi::PageCopyParams>(),
            block: 128,
            shared: 0,
            cluster: 1,
            uses: &[("sm_80", 16, 0), ("sm_89", 16, 0), ("sm_90", 14, 0)],
            about: "dtype=b16 width=%16B",
        },
        Kernel {
            symbol: "sm80_b16_page_copy_any",
            params: "PageCopyParams",
            param_bytes: size_of::<abi::PageCopyParams>(),
            block: 128,
            shared: 0,
            cluster: 1,
            uses: &[("sm_80", 11, 0), ("sm_89", 11, 0), ("sm_90", 11, 0)],
            about: "dtype=b16 width=any",
        },
    ],
}
