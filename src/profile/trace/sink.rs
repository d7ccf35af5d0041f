//! A compressed file that grows to a cap and appears under its name whole or not at all: it is
//! written beside it, synchronised and renamed.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::error::{Error, Result};
use crate::profile::folder::{Draft, Folder};

/// Counts what reaches the file.
struct Counted {
    file: BufWriter<Draft>,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.file.write(data)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file in the making. Dropping it leaves nothing behind.
pub struct Sink {
    folder: Arc<Folder>,
    name: String,
    partial: String,
    gzip: Option<GzEncoder<Counted>>,
    cap: u64,
    /// Text left out because the file had reached its cap, bytes.
    left_out: u64,
}

/// Kept free below the cap for the end of the file.
const RESERVE: u64 = 64 << 10;

impl Sink {
    /// Begins `name` in `folder`; it will have at most `cap` bytes.
    ///
    /// # Errors
    /// Something of that name or of its partial name is there, unless `replace`.
    pub fn create(folder: Arc<Folder>, name: &str, cap: u64, replace: bool) -> Result<Sink> {
        if folder.has(name) && !replace {
            return Err(Error::usage(format!(
                "{} is there already; choose another profile_id",
                folder.path_of(name).display()
            )));
        }
        let partial = format!("{name}.{}.tmp", std::process::id());
        folder.remove(&partial);
        let file = BufWriter::with_capacity(1 << 16, folder.create(&partial)?);
        let counted = Counted { file, bytes: 0 };
        let gzip = Some(GzEncoder::new(counted, Compression::fast()));
        Ok(Sink { folder, name: name.to_owned(), partial, gzip, cap, left_out: 0 })
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path_of(&self.name)
    }

    /// Whether the cap is reached.
    pub fn full(&self) -> bool {
        let bytes = self.gzip.as_ref().map_or(0, |g| g.get_ref().bytes);
        bytes + RESERVE >= self.cap.max(RESERVE + 1)
    }

    /// Text that was left out, bytes.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Appends whole events; false if the file is full and they were left out.
    pub fn push(&mut self, text: &str) -> Result<bool> {
        if self.full() {
            self.left_out += text.len() as u64;
            return Ok(false);
        }
        self.end(text).map(|()| true)
    }

    /// Appends the end of the file, which the cap has room for.
    pub fn end(&mut self, text: &str) -> Result<()> {
        let path = self.path();
        let Some(gzip) = &mut self.gzip else { return Ok(()) };
        gzip.write_all(text.as_bytes()).map_err(|e| Error::io(path, &e))
    }

    /// Gives the file its name. Returns its path and size.
    pub fn finish(mut self) -> Result<(PathBuf, u64)> {
        let path = self.path();
        let Some(gzip) = self.gzip.take() else { return Ok((path, 0)) };
        let done = || -> io::Result<u64> {
            let counted = gzip.finish()?;
            let bytes = counted.bytes;
            let file = counted.file.into_inner().map_err(|e| e.into_error())?;
            file.sync()?;
            Ok(bytes)
        };
        let bytes = done().map_err(|e| Error::io(&path, &e))?;
        self.folder.rename(&self.partial, &self.name)?;
        self.folder.sync();
        Ok((path, bytes))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // After a rename there is nothing of this name.
        self.folder.remove(&self.partial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;

    fn folder(name: &str) -> Arc<Folder> {
        let path = std::env::temp_dir().join(format!("pacer-sink-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Arc::new(Folder::open(&path).unwrap())
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = folder("whole");
        let mut sink = Sink::create(Arc::clone(&folder), "a.gz", 1 << 20, false).unwrap();
        assert!(sink.push("hello").unwrap());
        assert_eq!(folder.names().unwrap().len(), 1);
        assert!(!folder.has("a.gz"));
        let (path, bytes) = sink.finish().unwrap();
        assert_eq!(folder.names().unwrap(), ["a.gz"]);
        assert_eq!(path.metadata().unwrap().len(), bytes);
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(&path).unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        let again = Sink::create(Arc::clone(&folder), "a.gz", 1 << 20, false).err().unwrap();
        assert!(again.message.contains("profile_id"), "{again}");
        drop(Sink::create(Arc::clone(&folder), "a.gz", 1 << 20, true).unwrap());
        assert_eq!(folder.names().unwrap(), ["a.gz"]);
        std::fs::remove_dir_all(folder.path()).unwrap();
    }

    #[test]
    fn the_cap_holds_for_text_that_does_not_compress() {
        let folder = folder("cap");
        let cap = 300_000;
        let mut sink = Sink::create(Arc::clone(&folder), "b.gz", cap, false).unwrap();
        let mut state = 1_u64;
        for _ in 0..100 {
            let noise: String = (0..10_000)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    char::from(33 + (state >> 40) as u8 % 90)
                })
                .collect();
            sink.push(&noise).unwrap();
        }
        assert!(sink.left_out() > 0);
        sink.end("the end").unwrap();
        let (_, bytes) = sink.finish().unwrap();
        assert!(bytes <= cap && bytes > cap / 2, "{bytes}");
        std::fs::remove_dir_all(folder.path()).unwrap();
    }
}
