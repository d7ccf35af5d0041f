//! Read-only file maps whose loss is an error, not a death by signal (reliability R19).
//!
//! Reading a mapped page that the file no longer has raises SIGBUS. [`sigbus`](super::sigbus)
//! puts zeros under such a map and marks it; [`Mapped::check`] turns the mark, or a length or
//! time of change that differs from the one at opening, into an error.

use std::fs::{File, Metadata, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapOptions};

use super::sigbus;
use crate::error::{Error, Result};

/// A regular file, mapped read-only for as long as this lives.
pub struct Mapped {
    path: PathBuf,
    file: File,
    map: Mmap,
    watch: sigbus::Watch,
    opened: Stamp,
}

/// What changes when a file is cut or written in place.
#[derive(PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Stamp { len: meta.len(), modified: (meta.mtime(), meta.mtime_nsec()) }
    }
}

impl Mapped {
    /// Maps the whole of `path`.
    ///
    /// # Errors
    /// The file is missing, not a regular file, or empty.
    pub fn open(path: impl AsRef<Path>) -> Result<Mapped> {
        let path = path.as_ref();
        // Not to wait for a writer if `path` is a pipe.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|e| Error::io(path, &e))?;
        let meta = file.metadata().map_err(|e| Error::io(path, &e))?;
        if !meta.is_file() {
            return Err(Error::file(path, "not a regular file"));
        }
        if meta.len() == 0 {
            return Err(Error::file(path, "the file is empty: download it again"));
        }
        let len = usize::try_from(meta.len())
            .map_err(|_| Error::file(path, "too large for this machine's address space"))?;
        // SAFETY: the map is private to this struct and read-only. Another process may change the
        // file below it: no byte of it is trusted before `check`, every parser takes the bytes as
        // hostile, and a page that vanishes is handled by `sigbus`.
        let map = unsafe { MmapOptions::new().len(len).map(&file) }
            .map_err(|e| Error::io(path, &e).context("mapping the file"))?;
        let watch = sigbus::watch(map.as_ptr() as usize, len)
            .map_err(|e| Error::io(path, &e).context("installing the SIGBUS handler"))?;
        Ok(Mapped { path: path.to_path_buf(), file, map, watch, opened: Stamp::of(&meta) })
    }

    /// The file's bytes: zeros from where it was cut, if it was.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives back the memory of `range`'s whole pages; they come from the file again when read.
    ///
    /// # Panics
    /// If the range is not inside the file.
    pub fn release(&self, range: Range<usize>) {
        let part = &self.map[range];
        // SAFETY: a plain query.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let start = part.as_ptr().align_offset(page);
        let len = part.len().saturating_sub(start) / page * page;
        if len > 0 {
            // SAFETY: whole pages inside this read-only map of a file: dropping them changes no
            // byte that can be read. A refusal changes nothing.
            unsafe { libc::madvise(part.as_ptr().add(start) as *mut _, len, libc::MADV_DONTNEED) };
        }
    }

    /// Says whether the bytes read so far are those of the file as it was opened.
    ///
    /// # Errors
    /// The file was cut, or written in place, since it was opened.
    pub fn check(&self) -> Result<()> {
        let now = self.file.metadata().map_err(|e| Error::io(&self.path, &e))?;
        if self.watch.lost() || now.len() < self.opened.len {
            return Err(self.changed("was cut", now.len()));
        }
        if Stamp::of(&now) != self.opened {
            return Err(self.changed("was changed", now.len()));
        }
        Ok(())
    }

    fn changed(&self, how: &str, len: u64) -> Error {
        let was = self.opened.len;
        Error::file(
            &self.path,
            format!("the file {how} while in use ({was} bytes when opened, {len} now): load again"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str, bytes: &[u8]) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pacer-mapped-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).expect("the temporary directory is writable");
        path
    }

    fn sum(bytes: &[u8]) -> u64 {
        bytes.iter().map(|&b| u64::from(b)).sum()
    }

    #[test]
    fn a_whole_file_checks() {
        let path = scratch("whole", &[1; 10_000]);
        let mapped = Mapped::open(&path).unwrap();
        assert_eq!(sum(mapped.bytes()), 10_000);
        mapped.check().unwrap();
        std::fs::remove_file(&path).unwrap();
        mapped.check().expect("an unlinked file is still whole");
    }

    #[test]
    fn a_cut_file_reads_as_zeros_and_is_an_error() {
        let path = scratch("cut", &[1; 1 << 20]);
        let mapped = Mapped::open(&path).unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(8192).unwrap();
        assert_eq!(sum(mapped.bytes()), 8192);
        let message = mapped.check().unwrap_err().message;
        assert!(message.contains("pacer-mapped") && message.contains("cut while in use"));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_cut_and_grown_again_is_still_an_error() {
        let path = scratch("regrown", &[1; 1 << 16]);
        let mapped = Mapped::open(&path).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(0).unwrap();
        assert_eq!(sum(mapped.bytes()), 0);
        file.set_len(1 << 16).unwrap();
        assert!(mapped.check().is_err());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_written_in_place_is_an_error() {
        let path = scratch("written", &[1; 4096]);
        let mapped = Mapped::open(&path).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(&path, [2; 4096]).unwrap();
        let message = mapped.check().unwrap_err().message;
        assert!(message.contains("changed while in use"), "{message}");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn released_pages_can_be_read_again() {
        let path = scratch("released", &[3; 100_000]);
        let mapped = Mapped::open(&path).unwrap();
        assert_eq!(sum(mapped.bytes()), 300_000);
        mapped.release(10..90_000);
        mapped.release(5..6);
        assert_eq!(sum(mapped.bytes()), 300_000);
        mapped.check().unwrap();
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = std::env::temp_dir();
        assert!(Mapped::open(&folder).err().unwrap().message.contains("not a regular file"));
        assert!(Mapped::open("/dev/zero").err().unwrap().message.contains("not a regular file"));
        assert!(Mapped::open("/nonexistent").is_err());
        let path = scratch("empty", &[]);
        assert!(Mapped::open(&path).err().unwrap().message.contains("empty"));
        std::fs::remove_file(&path).unwrap();
    }
}
