//! PTX text to an [`Ast`]: lexer, declarations, bodies. Names are resolved later, in `lower`.

pub mod ast;
mod body;
mod cursor;
mod lexer;
mod vars;

use crate::error::LoadError;
use ast::{Ast, Function, VarSpace};
use cursor::Cursor;
use lexer::Tok;
pub(crate) use lexer::clip;

/// Longest text that is read, in bytes.
const MAX_TEXT: usize = 256 << 20;

/// Reads a module.
///
/// # Errors
/// The first thing that is not PTX as this machine knows it, with its line.
pub fn parse(text: &str) -> Result<Ast<'_>, LoadError> {
    if text.len() > MAX_TEXT {
        return Err(LoadError::new(0, format!("PTX is longer than {MAX_TEXT} bytes")));
    }
    let tokens = lexer::tokens(text.trim_end_matches('\0'))?;
    let mut c = Cursor::new(&tokens);
    let mut ast = Ast::default();
    while c.peek() != Tok::End {
        item(&mut c, &mut ast)?;
    }
    if ast.version == (0, 0) {
        return c.fail("no .version directive: this is not PTX");
    }
    Ok(ast)
}

fn item<'a>(c: &mut Cursor<'_, 'a>, ast: &mut Ast<'a>) -> Result<(), LoadError> {
    let line = c.line();
    if c.eat(';') {
        return Ok(());
    }
    match c.word("a directive")? {
        ".version" => ast.version = version(c)?,
        ".target" => target(c, ast)?,
        ".address_size" => match c.int("64")? {
            64 => {}
            other => return c.fail(format!(".address_size {other} is not supported, only 64")),
        },
        ".file" => {
            let number = c.small("a file number", u32::MAX)?;
            match c.next() {
                Tok::Str(path) => ast.files.push((number, path)),
                _ => return c.wanted("a file name"),
            }
            c.skip_line(line);
        }
        ".section" => {
            c.word("a section name")?;
            c.skip_braces()?;
        }
        ".pragma" => {
            c.next();
            c.expect(';')?;
        }
        word => linked(c, ast, word, line)?,
    }
    Ok(())
}

fn version(c: &mut Cursor<'_, '_>) -> Result<(u32, u32), LoadError> {
    match c.next() {
        Tok::F64(bits) => {
            let tenths = (f64::from_bits(bits) * 10.0).round();
            if !(10.0..=200.0).contains(&tenths) {
                return c.fail("unknown .version");
            }
            Ok((tenths as u32 / 10, tenths as u32 % 10))
        }
        _ => c.fail("expected a version such as 9.0"),
    }
}

fn target<'a>(c: &mut Cursor<'_, 'a>, ast: &mut Ast<'a>) -> Result<(), LoadError> {
    ast.target = c.word("a target such as sm_90a")?;
    while c.eat(',') {
        c.word("a target option")?;
    }
    Ok(())
}

fn linked<'a>(
    c: &mut Cursor<'_, 'a>,
    ast: &mut Ast<'a>,
    first: &'a str,
    line: u32,
) -> Result<(), LoadError> {
    let mut word = first;
    let mut external = false;
    while matches!(word, ".visible" | ".extern" | ".weak" | ".common") {
        external |= word == ".extern";
        word = c.word("a declaration")?;
    }
    match word {
        ".entry" => ast.functions.push(function(c, true, line)?),
        ".func" => ast.functions.push(function(c, false, line)?),
        _ => match vars::space_of(word) {
            Some(VarSpace::Param | VarSpace::Local) | None => {
                return Err(LoadError::new(line, format!("unknown directive '{}'", clip(word))));
            }
            Some(space) => loop {
                ast.vars.push(vars::variable(c, space, external)?);
                if !c.eat(',') {
                    c.expect(';')?;
                    break;
                }
            },
        },
    }
    Ok(())
}

fn function<'a>(c: &mut Cursor<'_, 'a>, entry: bool, line: u32) -> Result<Function<'a>, LoadError> {
    let returns = if c.peek() == Tok::Punct('(') { params(c)? } else { Vec::new() };
    let name = c.word("a function name")?;
    let params = if c.peek() == Tok::Punct('(') { params(c)? } else { Vec::new() };
    let mut f = Function {
        name,
        entry,
        params,
        returns,
        body: None,
        max_threads: None,
        max_registers: None,
        required_threads: None,
        cluster: None,
        min_blocks: None,
        line,
    };
    loop {
        match c.peek() {
            Tok::Punct('{') => {
                f.body = Some(body::body(c)?);
                return Ok(f);
            }
            Tok::Punct(';') => {
                c.next();
                return Ok(f);
            }
            _ => tuning(c, &mut f)?,
        }
    }
}

/// A performance-tuning directive between a function's head and its body.
fn tuning(c: &mut Cursor<'_, '_>, f: &mut Function<'_>) -> Result<(), LoadError> {
    let line = c.line();
    match c.word("a function body")? {
        ".maxntid" => f.max_threads = Some(c.dims(".maxntid")?),
        ".reqntid" => f.required_threads = Some(c.dims(".reqntid")?),
        ".minnctapersm" => f.min_blocks = Some(c.small(".minnctapersm", 1 << 16)?),
        ".maxnreg" => f.max_registers = Some(c.small(".maxnreg", 256)?),
        ".maxclusterrank" | ".maxnctapersm" => {
            c.int("a number")?;
        }
        ".reqnctapercluster" => f.cluster = Some(c.dims(".reqnctapercluster")?),
        ".explicitcluster" | ".blocksareclusters" | ".noreturn" => {}
        ".pragma" => {
            c.next();
            c.expect(';')?;
        }
        word => {
            let message = format!("unknown function directive '{}'", clip(word));
            return Err(LoadError::new(line, message));
        }
    }
    Ok(())
}

fn params<'a>(c: &mut Cursor<'_, 'a>) -> Result<Vec<ast::Var<'a>>, LoadError> {
    c.expect('(')?;
    let mut out = Vec::new();
    if c.eat(')') {
        return Ok(out);
    }
    loop {
        let line = c.line();
        match c.word("'.param'")? {
            ".param" => out.push(vars::variable(c, VarSpace::Param, false)?),
            ".reg" => return Err(LoadError::new(line, "register parameters are not supported")),
            word => return Err(LoadError::new(line, format!("unknown parameter '{word}'"))),
        }
        if !c.eat(',') {
            c.expect(')')?;
            return Ok(out);
        }
    }
}
