&[
    include!("rmsnorm_sm80.rs"),
]
