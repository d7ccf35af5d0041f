//! Bodies of functions: labels, declarations, instructions and their operands.

use super::ast::{RawInstr, RawOperand, Stmt};
use super::cursor::Cursor;
use super::lexer::Tok;
use super::vars::{registers, space_of, variable};
use crate::error::LoadError;

/// Deepest nesting of `{ }` scopes.
const MAX_SCOPES: u32 = 64;
/// Longest operand list; wgmma with 128 registers of output has the longest vector.
const MAX_LIST: usize = 1024;

/// The statements between a function's braces.
pub fn body<'a>(c: &mut Cursor<'_, 'a>) -> Result<Vec<Stmt<'a>>, LoadError> {
    c.expect('{')?;
    let mut out = Vec::new();
    let mut depth = 1;
    loop {
        match c.peek() {
            Tok::Punct('{') => {
                c.next();
                depth += 1;
                if depth > MAX_SCOPES {
                    return c.fail("scopes are nested too deep");
                }
                out.push(Stmt::Open);
            }
            Tok::Punct('}') => {
                c.next();
                depth -= 1;
                if depth == 0 {
                    return Ok(out);
                }
                out.push(Stmt::Close);
            }
            Tok::Punct(';') => {
                c.next();
            }
            Tok::End => return c.fail("function body is never closed"),
            _ => statement(c, &mut out)?,
        }
    }
}

fn statement<'a>(c: &mut Cursor<'_, 'a>, out: &mut Vec<Stmt<'a>>) -> Result<(), LoadError> {
    if let (Tok::Word(name), Tok::Punct(':')) = (c.peek(), c.peek_at(1)) {
        return label(c, name, out);
    }
    match c.peek() {
        Tok::Word(word) if word.starts_with('.') => directive(c, word, out),
        Tok::Word(_) | Tok::Punct('@') => {
            out.push(Stmt::Instr(instruction(c)?));
            Ok(())
        }
        _ => c.wanted("a statement"),
    }
}

fn label<'a>(
    c: &mut Cursor<'_, 'a>,
    name: &'a str,
    out: &mut Vec<Stmt<'a>>,
) -> Result<(), LoadError> {
    let line = c.line();
    c.next();
    c.next();
    if c.eat_word(".branchtargets") {
        let mut targets = Vec::new();
        loop {
            targets.push(c.word("a label")?);
            if !c.eat(',') {
                break;
            }
        }
        c.expect(';')?;
        out.push(Stmt::Targets(name, targets));
        return Ok(());
    }
    if let Tok::Word(word @ (".callprototype" | ".calltargets")) = c.peek() {
        return c.fail(format!("indirect calls ({word}) are not supported"));
    }
    out.push(Stmt::Label(name, line));
    Ok(())
}

fn directive<'a>(
    c: &mut Cursor<'_, 'a>,
    word: &'a str,
    out: &mut Vec<Stmt<'a>>,
) -> Result<(), LoadError> {
    let line = c.line();
    c.next();
    if let Some(space) = space_of(word) {
        loop {
            out.push(Stmt::Var(variable(c, space, false)?));
            if !c.eat(',') {
                return c.expect(';');
            }
        }
    }
    match word {
        ".reg" => {
            out.extend(registers(c)?.into_iter().map(|decl| Stmt::Reg(decl, line)));
            Ok(())
        }
        ".loc" => {
            let file = c.small("a file number", u32::MAX)?;
            let at = c.small("a line number", u32::MAX)?;
            c.skip_line(line);
            out.push(Stmt::Loc { file, line: at });
            Ok(())
        }
        ".pragma" => {
            while !c.eat(';') {
                if c.next() == Tok::End {
                    return c.fail(".pragma is never closed");
                }
            }
            Ok(())
        }
        _ => Err(LoadError::new(line, format!("unknown directive '{word}' in a body"))),
    }
}

fn instruction<'a>(c: &mut Cursor<'_, 'a>) -> Result<RawInstr<'a>, LoadError> {
    let line = c.line();
    let guard = if c.eat('@') {
        let negated = c.eat('!');
        Some((c.word("a predicate")?, negated))
    } else {
        None
    };
    let opcode = c.word("an opcode")?;
    let mut operands = Vec::new();
    if !c.eat(';') {
        loop {
            operands.push(operand(c, 0)?);
            if operands.len() > MAX_LIST {
                return c.fail("too many operands");
            }
            if !c.eat(',') {
                c.expect(';')?;
                break;
            }
        }
    }
    Ok(RawInstr { guard, opcode, operands, line })
}

fn list<'a>(
    c: &mut Cursor<'_, 'a>,
    close: char,
    depth: u32,
) -> Result<Vec<RawOperand<'a>>, LoadError> {
    let mut items = Vec::new();
    if c.eat(close) {
        return Ok(items);
    }
    loop {
        items.push(operand(c, depth + 1)?);
        if items.len() > MAX_LIST {
            return c.fail("too many operands");
        }
        if !c.eat(',') {
            c.expect(close)?;
            return Ok(items);
        }
    }
}

fn operand<'a>(c: &mut Cursor<'_, 'a>, depth: u32) -> Result<RawOperand<'a>, LoadError> {
    if depth > 3 {
        return c.fail("operand is nested too deep");
    }
    match c.peek() {
        Tok::Punct('{') => {
            c.next();
            Ok(RawOperand::List(list(c, '}', depth)?))
        }
        Tok::Punct('(') => {
            c.next();
            Ok(RawOperand::Group(list(c, ')', depth)?))
        }
        Tok::Punct('[') => {
            c.next();
            address(c, depth)
        }
        Tok::Punct('!') => {
            c.next();
            Ok(RawOperand::Not(c.word("a predicate")?))
        }
        Tok::F32(bits) => {
            c.next();
            Ok(RawOperand::F32(bits))
        }
        Tok::F64(bits) => {
            c.next();
            Ok(RawOperand::F64(bits))
        }
        Tok::Word(name) => named(c, name),
        Tok::Punct('-') if matches!(c.peek_at(1), Tok::F32(_) | Tok::F64(_)) => {
            c.next();
            Ok(match c.next() {
                Tok::F32(bits) => RawOperand::F32(bits ^ 1 << 31),
                Tok::F64(bits) => RawOperand::F64(bits ^ 1 << 63),
                _ => RawOperand::Int(0),
            })
        }
        _ => Ok(RawOperand::Int(c.signed("an operand")? as u64)),
    }
}

fn named<'a>(c: &mut Cursor<'_, 'a>, name: &'a str) -> Result<RawOperand<'a>, LoadError> {
    c.next();
    if c.eat('|') {
        return Ok(RawOperand::Pair(name, c.word("a predicate")?));
    }
    let signed = matches!(c.peek(), Tok::Punct('+' | '-'));
    let offset = if signed { c.signed("an offset")? } else { 0 };
    Ok(RawOperand::Name(name, offset))
}

/// After `[`: a base with an offset, then perhaps coordinates.
fn address<'a>(c: &mut Cursor<'_, 'a>, depth: u32) -> Result<RawOperand<'a>, LoadError> {
    let (base, offset) = match operand(c, depth + 1)? {
        RawOperand::Name(name, offset) => (RawOperand::Name(name, 0), offset),
        RawOperand::Int(at) => (RawOperand::Int(at), 0),
        _ => return c.fail("an address needs a register, a symbol or a number"),
    };
    let mut rest = Vec::new();
    while c.eat(',') {
        rest.push(operand(c, depth + 1)?);
    }
    c.expect(']')?;
    Ok(RawOperand::Address { base: Box::new(base), offset, rest })
}
