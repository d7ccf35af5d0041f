//! Which paths a client may name: plain names under folders that the operator chose.

use std::path::{Path, PathBuf};

use super::folder::Folder;
use crate::error::{Error, Result};

/// Longest name of a file or folder that a client may choose, bytes; file names get parts added.
const LONGEST_NAME: usize = 128;
/// Most folders below a root.
const DEEPEST: usize = 16;

/// The folders under which traces may be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// As the operator wrote it, and where it really is.
    roots: Vec<(PathBuf, PathBuf)>,
}

/// Where traces go: `PACER_PROFILER_DIR`, else `SGLANG_TORCH_PROFILER_DIR`, else the system's
/// folder for temporary files.
pub fn default_root() -> PathBuf {
    let named = ["PACER_PROFILER_DIR", "SGLANG_TORCH_PROFILER_DIR"];
    let set = |name: &&str| std::env::var_os(name).filter(|v| !v.is_empty());
    named.iter().find_map(set).map_or_else(std::env::temp_dir, PathBuf::from)
}

impl Roots {
    /// `roots` in the order of their use; they are created where they are missing.
    ///
    /// # Errors
    /// A root that cannot be created or is not a folder.
    pub fn new(roots: &[PathBuf]) -> Result<Roots> {
        let real = |root: &PathBuf| {
            std::fs::create_dir_all(root).map_err(|e| Error::io(root, &e))?;
            let real = root.canonicalize().map_err(|e| Error::io(root, &e))?;
            let written = std::path::absolute(root).map_err(|e| Error::io(root, &e))?;
            Ok((written, real))
        };
        let roots: Vec<_> = roots.iter().map(real).collect::<Result<_>>()?;
        match roots.is_empty() {
            true => Err(Error::usage("profiling needs a folder to write to")),
            false => Ok(Roots { roots }),
        }
    }

    /// The folder for output, created beneath a root where it is missing. `None` is the first
    /// root itself; a relative path counts from there.
    ///
    /// # Errors
    /// `Usage` for a path outside all roots or one that could lead there; else what the system
    /// says.
    pub fn open(&self, output_dir: Option<&str>) -> Result<Folder> {
        let Some(text) = output_dir else { return Folder::open(&self.roots[0].1) };
        let wrong = |why: String| Error::usage(format!("output_dir {}: {why}", shown(text)));
        let (root, below) = self.place(text).map_err(wrong)?;
        let mut folder = Folder::open(root)?;
        for name in below {
            folder = folder.enter(name).map_err(|e| match e.kind {
                crate::error::Kind::Usage => wrong(e.message),
                _ => e,
            })?;
        }
        Ok(folder)
    }

    /// The root that `text` lies in, and the names below it.
    fn place<'a>(&self, text: &'a str) -> std::result::Result<(&Path, Vec<&'a str>), String> {
        if text.is_empty() {
            return Err("it is empty".into());
        }
        let (root, rest) = match text.starts_with('/') {
            false => (&self.roots[0].1, text),
            true => self.roots.iter().find_map(|r| Some((&r.1, beneath(r, text)?))).ok_or_else(
                || {
                    let roots: Vec<_> =
                        self.roots.iter().map(|r| r.0.display().to_string()).collect();
                    format!("it is outside the folders for profiles ({})", roots.join(", "))
                },
            )?,
        };
        let names: Vec<&str> = rest.split('/').collect();
        // One slash at the end is common and harmless; an empty name elsewhere is not a name.
        let names = match names.split_last() {
            Some((&"", before)) => before.to_vec(),
            _ => names,
        };
        if names.len() > DEEPEST {
            return Err(format!("more than {DEEPEST} folders deep"));
        }
        names.iter().try_for_each(|n| plain(n))?;
        Ok((root, names))
    }
}

/// The part of the absolute path `text` below a root.
fn beneath<'a>((written, real): &(PathBuf, PathBuf), text: &'a str) -> Option<&'a str> {
    [written, real].into_iter().find_map(|root| {
        let root = root.to_str()?.trim_end_matches('/');
        let rest = text.strip_prefix(root)?;
        if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
    })
}

/// Refuses `name`, the value of `field`, unless it is a plain part of a file name.
pub fn check_name(field: &str, name: &str) -> Result<()> {
    let simple = |c: char| c.is_ascii_alphanumeric() || "._-+=@".contains(c);
    let why = match name {
        "" => "it is empty".to_owned(),
        n if n.len() > LONGEST_NAME => format!("longer than {LONGEST_NAME} bytes"),
        n if n.starts_with('.') => "it begins with a dot".into(),
        n if !n.chars().all(simple) => "only letters, digits and . _ - + = @ are allowed".into(),
        _ => return Ok(()),
    };
    Err(Error::usage(format!("{field} {}: {why}", shown(name))))
}

/// Whether `name` may be a folder's name.
fn plain(name: &str) -> std::result::Result<(), String> {
    let simple = |c: char| c.is_alphanumeric() || "._-+=@, ()[]:".contains(c);
    match name {
        "" => Err("a folder without a name".into()),
        "." | ".." => Err(format!("{name} is not allowed in it")),
        n if n.starts_with(['.', ' ']) || n.ends_with(' ') => {
            Err("a name with a dot or blank at its beginning or a blank at its end".into())
        }
        n if n.len() > LONGEST_NAME => Err(format!("a name longer than {LONGEST_NAME} bytes")),
        n if !n.chars().all(simple) => {
            Err("only letters, digits, blanks and . _ - + = @ , ( ) [ ] : are allowed".into())
        }
        _ => Ok(()),
    }
}

/// What a client wrote, short and without control characters.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{dots}")
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Reliability R21: a folder and a link that leads out change places all the time; of ten
    /// thousand openings none is led outside, whichever of the two stands there at that moment.
    #[test]
    fn r21_a_link_that_is_swapped_in_ten_thousand_times_leads_nowhere() {
        let base = std::env::temp_dir().join(format!("pacer-swap-{}", std::process::id()));
        let (root, outside) = (base.join("root"), base.join("outside"));
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        let roots = Roots::new(std::slice::from_ref(&root)).unwrap();
        let over = AtomicBool::new(false);
        let swap = || {
            let name = |n| CString::new(root.join(n).to_str().unwrap()).unwrap();
            let (a, b) = (name("sub"), name("link"));
            let mut swaps = 0_u64;
            while !over.load(Ordering::Relaxed) {
                // SAFETY: both names end with NUL; the system call exchanges them.
                let done = unsafe {
                    let (here, exchange) = (libc::AT_FDCWD, 2_u32);
                    libc::syscall(libc::SYS_renameat2, here, a.as_ptr(), here, b.as_ptr(), exchange)
                };
                assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
                swaps += 1;
            }
            swaps
        };
        let (opened, refused, swaps) = std::thread::scope(|scope| {
            let swapping = scope.spawn(swap);
            let (mut opened, mut refused) = (0, 0);
            for i in 0..10_000 {
                match roots.open(Some(if i % 2 == 0 { "sub" } else { "sub/deep" })) {
                    Ok(folder) => {
                        opened += 1;
                        let name = format!("f{i}");
                        drop(folder.create(&name));
                        folder.remove(&name);
                    }
                    Err(error) => {
                        assert_eq!(error.exit_code(), 2, "{error}");
                        refused += 1;
                    }
                }
                assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "led out at {i}");
            }
            over.store(true, Ordering::Relaxed);
            (opened, refused, swapping.join().unwrap())
        });
        assert_eq!(opened + refused, 10_000);
        println!("{opened} opened, {refused} refused, {swaps} swaps");
        assert!(swaps > 0);
        // And while the link stands still.
        let link = if root.join("sub").is_symlink() { "sub" } else { "link" };
        assert_eq!(roots.open(Some(link)).unwrap_err().exit_code(), 2);
        std::fs::remove_dir_all(base).unwrap();
    }
}
