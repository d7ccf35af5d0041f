//! Declarations of variables, parameters and registers, with their initialisers.

use super::ast::{InitValue, RegDecl, Ty, Var, VarSpace};
use super::cursor::Cursor;
use super::lexer::Tok;
use crate::error::LoadError;

/// Largest variable that a module may declare, in bytes.
const MAX_VAR: u64 = 1 << 30;
/// Deepest nesting of braces in an initialiser.
const MAX_INIT_DEPTH: u32 = 8;

/// The state space that a declaration word names.
pub fn space_of(word: &str) -> Option<VarSpace> {
    Some(match word {
        ".global" => VarSpace::Global,
        ".const" => VarSpace::Const,
        ".shared" | ".shared::cta" => VarSpace::Shared,
        ".local" => VarSpace::Local,
        ".param" => VarSpace::Param,
        _ => return None,
    })
}

fn type_of(word: &str) -> Option<Ty> {
    word.strip_prefix('.').and_then(Ty::parse)
}

/// One declarator after its space word: attributes, type, name, dimensions, initialiser. A
/// parameter of a function type list may lack a name.
pub fn variable<'a>(
    c: &mut Cursor<'_, 'a>,
    space: VarSpace,
    external: bool,
) -> Result<Var<'a>, LoadError> {
    let line = c.line();
    let mut align = None;
    let mut lanes = 1;
    let ty = loop {
        let word = c.word("a type")?;
        if let Some(ty) = type_of(word) {
            break ty;
        }
        match word {
            ".align" => align = Some(alignment(c)?),
            ".v2" => lanes = 2,
            ".v4" => lanes = 4,
            ".attribute" => skip_attribute(c)?,
            _ => return Err(LoadError::new(line, format!("unknown declaration word '{word}'"))),
        }
    };
    pointer_hint(c)?;
    let name = match c.peek() {
        Tok::Word(name) => {
            c.next();
            name
        }
        _ => "_",
    };
    let elem = ty.bytes() * lanes;
    let size = dimensions(c, u64::from(elem))?;
    let init = if c.eat('=') { initialiser(c)? } else { Vec::new() };
    let align = align.unwrap_or(elem.next_power_of_two());
    Ok(Var { name, space, external, align, elem: ty.bytes(), size, init, line })
}

fn alignment(c: &mut Cursor<'_, '_>) -> Result<u32, LoadError> {
    let align = c.small(".align", 1 << 16)?;
    if align.is_power_of_two() { Ok(align) } else { c.fail(".align is not a power of two") }
}

fn skip_attribute(c: &mut Cursor<'_, '_>) -> Result<(), LoadError> {
    c.expect('(')?;
    while !c.eat(')') {
        if c.next() == Tok::End {
            return c.fail(".attribute is never closed");
        }
    }
    Ok(())
}

/// `.ptr .global .align 16` after a kernel parameter's type.
fn pointer_hint(c: &mut Cursor<'_, '_>) -> Result<(), LoadError> {
    if !c.eat_word(".ptr") {
        return Ok(());
    }
    if let Tok::Word(".global" | ".const" | ".shared" | ".local") = c.peek() {
        c.next();
    }
    if c.eat_word(".align") {
        alignment(c)?;
    }
    Ok(())
}

fn dimensions(c: &mut Cursor<'_, '_>, elem: u64) -> Result<u64, LoadError> {
    let mut size = elem;
    while c.eat('[') {
        let count = if c.peek() == Tok::Punct(']') { 0 } else { c.int("an array size")? };
        c.expect(']')?;
        size = match size.checked_mul(count) {
            Some(size) if size <= MAX_VAR => size,
            _ => return c.fail(format!("variable is larger than {MAX_VAR} bytes")),
        };
    }
    Ok(size)
}

fn initialiser<'a>(c: &mut Cursor<'_, 'a>) -> Result<Vec<InitValue<'a>>, LoadError> {
    let mut values = Vec::new();
    let mut depth = 0;
    loop {
        if c.eat('{') {
            depth += 1;
            if depth > MAX_INIT_DEPTH {
                return c.fail("initialiser is nested too deep");
            }
            continue;
        }
        if !c.eat('}') {
            values.push(init_value(c)?);
        } else {
            depth -= 1;
        }
        while depth > 0 && c.eat('}') {
            depth -= 1;
        }
        if depth <= 0 {
            return Ok(values);
        }
        c.expect(',')?;
    }
}

fn init_value<'a>(c: &mut Cursor<'_, 'a>) -> Result<InitValue<'a>, LoadError> {
    match c.peek() {
        Tok::F32(bits) => {
            c.next();
            Ok(InitValue::F32(bits))
        }
        Tok::F64(bits) => {
            c.next();
            Ok(InitValue::F64(bits))
        }
        Tok::Word("generic") => {
            c.next();
            c.expect('(')?;
            let value = symbol(c)?;
            c.expect(')')?;
            Ok(value)
        }
        Tok::Word(_) => symbol(c),
        _ => Ok(InitValue::Int(c.signed("an initial value")? as u64)),
    }
}

fn symbol<'a>(c: &mut Cursor<'_, 'a>) -> Result<InitValue<'a>, LoadError> {
    let name = c.word("a variable's name")?;
    let signed = matches!(c.peek(), Tok::Punct('+' | '-'));
    let offset = if signed { c.signed("an offset")? } else { 0 };
    Ok(InitValue::Symbol(name, offset))
}

/// Registers after `.reg`: a type, then names or ranges separated by commas.
pub fn registers<'a>(c: &mut Cursor<'_, 'a>) -> Result<Vec<RegDecl<'a>>, LoadError> {
    let word = c.word("a register type")?;
    let Some(ty) = type_of(word) else {
        return c.fail(format!("unknown register type '{word}'"));
    };
    let mut decls = Vec::new();
    loop {
        let name = c.word("a register name")?;
        let count = if c.eat('<') {
            let count = c.small("a register count", 1 << 20)?;
            c.expect('>')?;
            Some(count)
        } else {
            None
        };
        decls.push(RegDecl { ty, name, count });
        if !c.eat(',') {
            c.expect(';')?;
            return Ok(decls);
        }
    }
}
