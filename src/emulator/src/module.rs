//! A loaded module: decoded kernels, and the variables that a machine has to place.

use crate::error::LoadError;
use crate::isa::Kernel;
use crate::lower::{self, Globals};
use crate::parse::ast::{Ast, InitValue, Var, VarSpace};
use crate::parse::{clip, parse};

/// A variable of a module in global or constant memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    pub size: u64,
    pub align: u32,
    /// Constant memory: kernels must not write it.
    pub constant: bool,
    /// Initial bytes; the rest of an initialised variable is zero.
    pub init: Vec<u8>,
    /// Addresses to fill in: byte offset, index of the variable named, offset added.
    pub links: Vec<(u64, u32, i64)>,
}

/// PTX, decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// `.version`, for example (9, 0).
    pub version: (u32, u32),
    /// `.target`, for example `sm_90a`.
    pub target: String,
    pub kernels: Vec<Kernel>,
    /// Every module-level variable, in order; those in shared memory have size 0 here.
    pub variables: Vec<Variable>,
    /// Source files by number.
    pub files: Vec<(u32, String)>,
}

impl Module {
    /// Reads and decodes PTX text.
    ///
    /// # Errors
    /// The first thing that this machine does not know, with its line and form.
    pub fn parse(text: &str) -> Result<Self, LoadError> {
        let ast = parse(text)?;
        let globals = Globals::new(&ast);
        let entries = ast.functions.iter().filter(|f| f.entry && f.body.is_some());
        let kernels = entries.map(|f| lower::kernel(&globals, f)).collect::<Result<_, _>>()?;
        Ok(Self {
            version: ast.version,
            target: ast.target.to_string(),
            kernels,
            variables: variables(&ast, &globals)?,
            files: ast.files.iter().map(|(n, f)| (*n, f.to_string())).collect(),
        })
    }

    /// The kernel of that name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|k| k.name == name)
    }

    /// The module variable of that name.
    pub fn variable(&self, name: &str) -> Option<usize> {
        self.variables.iter().position(|v| v.name == name)
    }
}

fn variables(ast: &Ast<'_>, globals: &Globals<'_, '_>) -> Result<Vec<Variable>, LoadError> {
    ast.vars.iter().map(|var| variable(var, globals)).collect()
}

fn variable(var: &Var<'_>, globals: &Globals<'_, '_>) -> Result<Variable, LoadError> {
    let shared = var.space == VarSpace::Shared;
    let mut out = Variable {
        name: var.name.to_string(),
        size: if shared { 0 } else { var.size },
        align: var.align,
        constant: var.space == VarSpace::Const,
        init: Vec::new(),
        links: Vec::new(),
    };
    for value in &var.init {
        let at = out.init.len() as u64;
        if at >= var.size {
            let message = format!("too many initial values for '{}'", clip(var.name));
            return Err(LoadError::new(var.line, message));
        }
        let bits = match value {
            InitValue::Int(bits) => *bits,
            InitValue::F32(bits) => u64::from(*bits),
            InitValue::F64(bits) if var.elem == 4 => {
                (f64::from_bits(*bits) as f32).to_bits().into()
            }
            InitValue::F64(bits) => *bits,
            InitValue::Symbol(name, offset) => {
                let Some((index, _)) = globals.vars.get(name) else {
                    let message = format!("initial value '{}' is not declared", clip(name));
                    return Err(LoadError::new(var.line, message));
                };
                out.links.push((at, *index, *offset));
                0
            }
        };
        out.init.extend_from_slice(&bits.to_le_bytes()[..(var.elem as usize).min(8)]);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = ".version 9.0\n.target sm_90a\n.address_size 64\n";

    #[test]
    fn variables_and_their_initial_bytes() {
        let text = format!("{HEAD}.global .align 4 .u32 a[3] = {{1, 2}};\n.const .u64 p = a+4;\n");
        let m = Module::parse(&text).unwrap();
        assert_eq!(m.variables[0].init, [1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(m.variables[1].links, [(0, 0, 4)]);
    }

    #[test]
    fn unknown_forms_are_named_with_their_line() {
        let text =
            format!("{HEAD}.entry k() {{\n.reg .b32 %r<2>;\nadd.u32.wobble %r1, %r0, 1;\n}}");
        let e = Module::parse(&text).unwrap_err();
        assert_eq!(e.line, 6);
        assert!(e.message.contains("add.u32.wobble"), "{e}");
    }

    #[test]
    fn every_cut_of_a_module_is_an_error_or_loads() {
        let text = format!(
            "{HEAD}.visible .entry k(.param .u64 a) .maxntid 32, 1, 1 {{ .reg .pred %p<2>; \
             .reg .b64 %rd<3>; ld.param.u64 %rd1, [a]; $L: @!%p1 bra $L; {{ .reg .b32 x; \
             mov.b64 {{x, _}}, %rd1; }} ret; }}"
        );
        for end in 0..text.len() {
            let _ = Module::parse(&text[..end]);
        }
        assert!(Module::parse(&text).is_ok());
    }
}
