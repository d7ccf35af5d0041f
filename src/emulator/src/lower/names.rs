//! Names inside a function: registers, variables, labels, in nested scopes.

use std::collections::HashMap;

use crate::isa::{Reg, RegKind, Ty};

/// What a variable's name stands for inside a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Offset in the parameter block of the kernel.
    Param(u32),
    /// Offset in the thread's local memory.
    Local(u32),
    /// Offset in the block's shared memory.
    Shared(u32),
    /// The dynamic shared memory.
    DynShared,
    /// Index of a module variable in global or constant memory.
    Module(u32),
}

/// One `{ }` scope.
#[derive(Debug, Default)]
struct Scope<'a> {
    regs: HashMap<&'a str, Reg>,
    ranges: HashMap<&'a str, (RegKind, u32)>,
    places: HashMap<&'a str, Place>,
    labels: HashMap<&'a str, u32>,
}

/// The stack of scopes of the function being lowered.
#[derive(Debug, Default)]
pub struct Names<'a> {
    scopes: Vec<Scope<'a>>,
}

impl<'a> Names<'a> {
    pub fn open(&mut self) {
        self.scopes.push(Scope::default());
    }

    pub fn close(&mut self) {
        self.scopes.pop();
    }

    pub fn add_range(&mut self, prefix: &'a str, kind: RegKind, count: u32) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.ranges.insert(prefix, (kind, count));
        }
    }

    pub fn add_reg(&mut self, name: &'a str, reg: Reg) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.regs.insert(name, reg);
        }
    }

    pub fn add_place(&mut self, name: &'a str, place: Place) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.places.insert(name, place);
        }
    }

    /// False if the scope has that label already.
    pub fn add_label(&mut self, name: &'a str, label: u32) -> bool {
        match self.scopes.last_mut() {
            Some(scope) => scope.labels.insert(name, label).is_none(),
            None => false,
        }
    }

    pub fn place(&self, name: &str) -> Option<Place> {
        self.scopes.iter().rev().find_map(|s| s.places.get(name).copied())
    }

    pub fn label(&self, name: &str) -> Option<u32> {
        self.scopes.iter().rev().find_map(|s| s.labels.get(name).copied())
    }

    /// A register's name. Members of ranges get their slot from `make` when first used, so that
    /// the register files hold only registers that the code names.
    pub fn reg(&mut self, name: &'a str, mut make: impl FnMut(RegKind) -> Reg) -> Option<Reg> {
        let (prefix, number) = split_number(name);
        for scope in self.scopes.iter_mut().rev() {
            if let Some(reg) = scope.regs.get(name) {
                return Some(*reg);
            }
            let Some(number) = number else { continue };
            if let Some((kind, count)) = scope.ranges.get(prefix).copied()
                && number < count
            {
                let reg = make(kind);
                scope.regs.insert(name, reg);
                return Some(reg);
            }
        }
        None
    }
}

/// `%r12` to (`%r`, 12). A leading zero is part of the prefix.
fn split_number(name: &str) -> (&str, Option<u32>) {
    let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &name[prefix.len()..];
    if digits.len() > 1 && digits.starts_with('0') {
        return (name, None);
    }
    (prefix, digits.parse().ok())
}

/// Width class of a declared type; `None` for 128-bit registers.
pub fn kind_of(ty: Ty) -> Option<RegKind> {
    Some(match ty.bits() {
        1 => RegKind::Pred,
        8 => RegKind::B8,
        16 => RegKind::B16,
        32 => RegKind::B32,
        64 => RegKind::B64,
        _ => return None,
    })
}
