//! From what the text says to what the machine runs: names become slots, opcodes become
//! [`Op`]s, device functions are expanded where they are called.

mod arith;
mod atomics;
mod calls;
mod control;
mod copies;
mod data;
mod form;
mod legal;
mod matrix;
mod memory;
mod names;
mod operand;
mod sync;

use std::collections::HashMap;

use crate::error::LoadError;
use crate::isa::{FenceKind, Instr, Kernel, Op, PSrc, Param, Reg, RegKind};
use crate::parse::ast::{Ast, Function, RawInstr, Stmt, Var, VarSpace};
use form::Form;
use names::{Names, Place, kind_of};

/// Most instructions of one kernel after device functions are expanded.
const MAX_CODE: usize = 4 << 20;
/// Largest local memory of a thread, and largest static shared memory, in bytes.
const MAX_FRAME: u64 = 512 << 10;

/// Names of a module that every kernel sees.
pub struct Globals<'m, 'a> {
    pub vars: HashMap<&'a str, (u32, &'m Var<'a>)>,
    pub functions: HashMap<&'a str, &'m Function<'a>>,
}

impl<'m, 'a> Globals<'m, 'a> {
    pub fn new(ast: &'m Ast<'a>) -> Self {
        let vars = ast.vars.iter().enumerate().map(|(i, v)| (v.name, (i as u32, v))).collect();
        // A definition wins over a declaration of the same name.
        let mut functions: HashMap<&str, &Function> = HashMap::new();
        for f in &ast.functions {
            if f.body.is_some() || !functions.contains_key(f.name) {
                functions.insert(f.name, f);
            }
        }
        Self { vars, functions }
    }
}

/// The kernel being built.
pub struct Lower<'m, 'a> {
    globals: &'m Globals<'m, 'a>,
    names: Names<'a>,
    kernel: Kernel,
    /// Code position of each label, `u32::MAX` until it is met.
    labels: Vec<u32>,
    form_index: HashMap<&'a str, u32>,
    /// Module-level shared variables that this kernel names.
    shared: HashMap<&'a str, u32>,
    targets: HashMap<&'a str, Vec<&'a str>>,
    shared_at: u64,
    local_at: u64,
    dyn_align: u32,
    loc: u32,
    /// Functions being expanded, outermost first.
    calls: Vec<&'a str>,
    /// Where `ret` goes inside an expanded function.
    returns_to: Option<u32>,
}

/// Decodes one entry.
///
/// # Errors
/// Names that nothing declares, unknown forms, frames that are too large.
pub fn kernel<'m, 'a>(
    globals: &'m Globals<'m, 'a>,
    f: &'m Function<'a>,
) -> Result<Kernel, LoadError> {
    let mut lower = Lower::new(globals, f);
    lower.names.open();
    lower.params(f)?;
    lower.body(f.body.as_deref().unwrap_or(&[]))?;
    lower.names.close();
    lower.finish(f)
}

impl<'m, 'a> Lower<'m, 'a> {
    fn new(globals: &'m Globals<'m, 'a>, f: &Function<'a>) -> Self {
        let kernel = Kernel {
            name: f.name.to_string(),
            code: Vec::new(),
            regs32: 0,
            regs64: 0,
            preds: 0,
            names: Default::default(),
            forms: Vec::new(),
            params: Vec::new(),
            param_bytes: 0,
            shared_bytes: 0,
            dyn_base: 0,
            uses_dyn_shared: false,
            local_bytes: 0,
            max_threads: f.max_threads,
            max_registers: f.max_registers,
            required_threads: f.required_threads,
            cluster: f.cluster,
            min_blocks: f.min_blocks,
            locs: Vec::new(),
            uses_async_proxy: false,
            orders_memory: false,
            uses_wgmma: false,
        };
        Self {
            globals,
            names: Names::default(),
            kernel,
            labels: Vec::new(),
            form_index: HashMap::new(),
            shared: HashMap::new(),
            targets: HashMap::new(),
            shared_at: 0,
            local_at: 0,
            dyn_align: 16,
            loc: 0,
            calls: Vec::new(),
            returns_to: None,
        }
    }

    fn params(&mut self, f: &Function<'a>) -> Result<(), LoadError> {
        let mut at = 0u64;
        for var in &f.params {
            at = at.next_multiple_of(u64::from(var.align));
            let fits = at + var.size <= 32 << 10;
            if !fits {
                return Err(LoadError::new(var.line, "kernel parameters exceed 32 KiB"));
            }
            self.names.add_place(var.name, Place::Param(at as u32));
            self.kernel.params.push(Param {
                name: var.name.to_string(),
                offset: at as u32,
                size: var.size as u32,
                align: var.align,
            });
            at += var.size;
        }
        self.kernel.param_bytes = at as u32;
        Ok(())
    }

    /// Lowers the statements of a body; the caller opened the scope of the parameters.
    fn body(&mut self, stmts: &'m [Stmt<'a>]) -> Result<(), LoadError> {
        self.names.open();
        self.declare_labels(stmts)?;
        let mut at = 0;
        while at < stmts.len() {
            match &stmts[at] {
                Stmt::Open => {
                    self.names.open();
                    self.declare_labels(&stmts[at + 1..])?;
                }
                Stmt::Close => self.names.close(),
                Stmt::Label(name, line) => self.place_label(name, *line)?,
                Stmt::Reg(decl, line) => {
                    let Some(kind) = kind_of(decl.ty) else {
                        return Err(LoadError::new(*line, ".b128 registers are not supported"));
                    };
                    match decl.count {
                        Some(count) => self.names.add_range(decl.name, kind, count),
                        None => {
                            let reg = self.new_reg(kind, decl.name);
                            self.names.add_reg(decl.name, reg);
                        }
                    }
                }
                Stmt::Var(var) => self.declare(var)?,
                Stmt::Loc { file, line } => {
                    self.kernel.locs.push((*file, *line));
                    self.loc = self.kernel.locs.len() as u32;
                }
                Stmt::Targets(name, labels) => {
                    self.targets.insert(name, labels.clone());
                }
                Stmt::Instr(raw) => self.instr(raw)?,
            }
            at += 1;
        }
        self.names.close();
        Ok(())
    }

    /// Labels may be used before they are placed, so a scope learns all of its own at its start.
    fn declare_labels(&mut self, stmts: &[Stmt<'a>]) -> Result<(), LoadError> {
        let mut depth = 0u32;
        for stmt in stmts {
            match stmt {
                Stmt::Open => depth += 1,
                Stmt::Close if depth == 0 => return Ok(()),
                Stmt::Close => depth -= 1,
                Stmt::Label(name, line) if depth == 0 => {
                    let label = self.new_label();
                    if !self.names.add_label(name, label) {
                        let message = format!("label '{name}' is placed twice");
                        return Err(LoadError::new(*line, message));
                    }
                }
                Stmt::Targets(name, labels) if depth == 0 => {
                    self.targets.insert(name, labels.clone());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn new_label(&mut self) -> u32 {
        self.labels.push(u32::MAX);
        self.labels.len() as u32 - 1
    }

    fn place_label(&mut self, name: &str, line: u32) -> Result<(), LoadError> {
        let here = self.kernel.code.len() as u32;
        match self.names.label(name).and_then(|l| self.labels.get_mut(l as usize)) {
            Some(at) => *at = here,
            None => return Err(LoadError::new(line, format!("label '{name}' is lost"))),
        }
        Ok(())
    }

    fn new_reg(&mut self, kind: RegKind, name: &str) -> Reg {
        new_slot(&mut self.kernel, kind, name)
    }

    /// Reserves bytes of local memory.
    fn reserve_local(&mut self, size: u64, align: u32, line: u32) -> Result<u32, LoadError> {
        reserve(&mut self.local_at, size, align, line)
    }

    fn declare(&mut self, var: &Var<'a>) -> Result<(), LoadError> {
        let place = match var.space {
            VarSpace::Local | VarSpace::Param => {
                Place::Local(self.reserve_local(var.size, var.align, var.line)?)
            }
            VarSpace::Shared => self.shared_place(var)?,
            VarSpace::Global | VarSpace::Const => {
                let message = "global and const variables belong outside of functions";
                return Err(LoadError::new(var.line, message));
            }
        };
        self.names.add_place(var.name, place);
        Ok(())
    }

    fn shared_place(&mut self, var: &Var<'a>) -> Result<Place, LoadError> {
        if var.external || var.size == 0 {
            self.dyn_align = self.dyn_align.max(var.align);
            self.kernel.uses_dyn_shared = true;
            return Ok(Place::DynShared);
        }
        Ok(Place::Shared(reserve(&mut self.shared_at, var.size, var.align, var.line)?))
    }

    /// What a variable's name stands for, looking in the function and then in the module.
    fn find_place(&mut self, name: &'a str) -> Result<Option<Place>, LoadError> {
        if let Some(place) = self.names.place(name) {
            return Ok(Some(place));
        }
        let Some((index, var)) = self.globals.vars.get(name).copied() else { return Ok(None) };
        if var.space != VarSpace::Shared {
            return Ok(Some(Place::Module(index)));
        }
        if let Some(at) = self.shared.get(name) {
            return Ok(Some(Place::Shared(*at)));
        }
        let place = self.shared_place(var)?;
        if let Place::Shared(at) = place {
            self.shared.insert(name, at);
        }
        Ok(Some(place))
    }

    fn instr(&mut self, raw: &'m RawInstr<'a>) -> Result<(), LoadError> {
        if self.kernel.code.len() >= MAX_CODE {
            return Err(LoadError::new(raw.line, format!("more than {MAX_CODE} instructions")));
        }
        let guard = match raw.guard {
            Some((name, negated)) => Some(self.guard(name, negated, raw.line)?),
            None => None,
        };
        let mut form = Form::new(raw.opcode, raw.line);
        if form.base == "call" {
            return self.call(&mut form, raw, guard);
        }
        let op = self.decode(&mut form, raw)?;
        form.finish()?;
        legal::check(&form, &op)?;
        self.emit(raw, guard, op);
        Ok(())
    }

    fn guard(&mut self, name: &'a str, negated: bool, line: u32) -> Result<PSrc, LoadError> {
        let reg = self.reg_named(name, line)?;
        if reg.kind != RegKind::Pred {
            return Err(LoadError::new(line, format!("'{name}' is not a predicate")));
        }
        Ok(PSrc::Reg { slot: reg.slot, negated })
    }

    fn emit(&mut self, raw: &RawInstr<'a>, guard: Option<PSrc>, op: Op) {
        let next = self.kernel.forms.len() as u32;
        let form = *self.form_index.entry(raw.opcode).or_insert(next);
        if form == next {
            self.kernel.forms.push(raw.opcode.to_string());
        }
        self.kernel.orders_memory |= match &op {
            Op::Fence { kind } => matches!(kind, FenceKind::Memory(_)),
            Op::Ld { order, .. } | Op::St { order, .. } | Op::Atom { order, .. } => {
                order.acquires() || order.releases()
            }
            _ => false,
        };
        self.kernel.code.push(Instr { op, guard, line: raw.line, loc: self.loc, form });
    }

    fn decode(&mut self, form: &mut Form<'a>, raw: &'m RawInstr<'a>) -> Result<Op, LoadError> {
        let ops = &raw.operands;
        let found = match form.base {
            "mov" | "cvta" | "isspacep" | "mapa" | "getctarank" | "selp" | "slct" | "cvt"
            | "prmt" | "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" | "setp"
            | "set" | "testp" => self.data(form, ops)?,
            "ld" | "ldu" | "st" | "prefetch" | "prefetchu" | "discard" | "applypriority" => {
                self.memory(form, ops)?
            }
            "atom" | "red" => self.atomic(form, ops)?,
            "bra" | "brx" | "ret" | "exit" | "trap" | "brkpt" | "nanosleep" => {
                self.control(form, ops)?
            }
            "bar" | "barrier" | "membar" | "fence" | "mbarrier" | "griddepcontrol"
            | "setmaxnreg" | "createpolicy" | "pmevent" => self.sync(form, ops)?,
            "cp" => self.copies(form, ops)?,
            "ldmatrix" | "stmatrix" | "movmatrix" | "mma" | "wgmma" => self.matrix(form, ops)?,
            _ => self.arith(form, ops)?,
        };
        found.ok_or_else(|| form.unknown("the opcode is not known"))
    }

    fn finish(mut self, f: &Function<'a>) -> Result<Kernel, LoadError> {
        let end = self.kernel.code.len() as u32;
        self.kernel.code.push(Instr { op: Op::Exit, guard: None, line: f.line, loc: 0, form: 0 });
        if self.kernel.forms.is_empty() {
            self.kernel.forms.push("exit".into());
        }
        for instr in &mut self.kernel.code {
            match &mut instr.op {
                Op::Bra { target } => *target = self.labels[*target as usize].min(end),
                Op::Brx { table, .. } => {
                    for target in table.iter_mut() {
                        *target = self.labels[*target as usize].min(end);
                    }
                }
                _ => {}
            }
        }
        self.kernel.shared_bytes = self.shared_at as u32;
        let align = u64::from(self.dyn_align);
        self.kernel.dyn_base = self.shared_at.next_multiple_of(align) as u32;
        self.kernel.local_bytes = self.local_at as u32;
        Ok(self.kernel)
    }
}

fn new_slot(kernel: &mut Kernel, kind: RegKind, name: &str) -> Reg {
    let (file, count) = match kind {
        RegKind::B64 => (1, &mut kernel.regs64),
        RegKind::Pred => (2, &mut kernel.preds),
        _ => (0, &mut kernel.regs32),
    };
    kernel.names[file].push(name.to_string());
    *count += 1;
    Reg { kind, slot: *count - 1 }
}

fn reserve(at: &mut u64, size: u64, align: u32, line: u32) -> Result<u32, LoadError> {
    let start = at.next_multiple_of(u64::from(align));
    if start + size > MAX_FRAME {
        return Err(LoadError::new(line, format!("more than {MAX_FRAME} bytes of variables")));
    }
    *at = start + size;
    Ok(start as u32)
}
