//! The registry: what each module and entry point is, as Rust that the main crate includes.

use crate::compile::Built;
use crate::table::Module;

/// An expression of type `Module` (src/device/gpu/registry.rs) for one module.
pub fn module(module: &Module, built: &Built) -> String {
    let name = module.name();
    let mut text = format!(
        "Module {{\n    name: {name:?},\n    target: Target::{:?},\n    \
         packed: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.ptx.z\")),\n    \
         kernels: &[\n",
        module.target
    );
    for (i, v) in module.variants.iter().enumerate() {
        let uses = built.usage.iter().map(|(card, list)| {
            let u = list[i];
            format!("({card:?}, {}, {})", u.registers, u.shared)
        });
        let uses = uses.collect::<Vec<_>>().join(", ");
        text += &format!(
            "        Kernel {{\n            symbol: {:?},\n            params: {:?},\n            \
             param_bytes: size_of::<abi::{}>(),\n            block: {},\n            shared: {},\n\
             \x20           cluster: {},\n            uses: &[{uses}],\n            about: {:?},\n\
             \x20       }},\n",
            module.symbol(v),
            v.params,
            v.params,
            v.block,
            v.shared,
            v.cluster,
            v.about,
        );
    }
    text + "    ],\n}\n"
}

/// The list of all modules.
pub fn list(modules: &[Module]) -> String {
    let mut text = String::from("&[\n");
    for module in modules {
        text += &format!("    include!(\"{}.rs\"),\n", module.name());
    }
    text + "]\n"
}
