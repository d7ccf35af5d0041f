//! What a capture has recorded and nobody has formatted yet: raw records of fixed size, in memory
//! up to a limit and beyond it in a file without a name, which is gone with the process.
//!
//! While a capture is on this is all that happens to a record: 32 bytes are copied. Text and
//! compression cost fifty times as much and come after the last step.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::profile::folder::{Draft, Folder};
use crate::profile::gpu::{GpuSpan, GpuWork};
use crate::profile::record::{Record, WORDS};

/// Bytes kept in memory; what is more goes to the file in one piece of this size.
const MEMORY: usize = if cfg!(test) { 64 << 10 } else { 8 << 20 };

/// A span of a GPU, in words: what it is, where it ran, when, and six words of its work.
const SPAN_WORDS: usize = 10;
/// The head's lowest byte, where a record has the number of its event.
const SPAN: u64 = 0xFF;

/// One entry, as it was put in.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    Record(Record),
    Gpu(GpuSpan),
}

/// Entries in the order in which they were put in.
pub struct Spool {
    folder: Arc<Folder>,
    name: String,
    memory: Vec<u8>,
    file: Option<Draft>,
    filed: u64,
    cap: u64,
    names: Names,
    /// Entries that did not fit below the cap.
    pub left_out: u64,
}

/// Names of kernels, each kept once.
#[derive(Debug, Default)]
struct Names {
    list: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
}

impl Names {
    fn number(&mut self, name: &Arc<str>) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.list.len() as u32;
        self.list.push(Arc::clone(name));
        self.numbers.insert(Arc::clone(name), number);
        number
    }
}

impl Spool {
    /// Nothing yet. It will take at most `cap` bytes, and a file in `folder` only if they do not
    /// fit in memory; `name` is the file's for the moment between its creation and its removal.
    pub fn new(folder: Arc<Folder>, name: String, cap: u64) -> Spool {
        let (memory, names) = (Vec::new(), Names::default());
        Spool { folder, name, memory, file: None, filed: 0, cap, names, left_out: 0 }
    }

    /// Bytes in it, and how many of them are in memory.
    #[cfg(test)]
    pub fn bytes(&self) -> (u64, usize) {
        (self.filed + self.memory.len() as u64, self.memory.capacity())
    }

    /// # Errors
    /// The file cannot be made or written.
    #[inline]
    pub fn record(&mut self, record: &Record) -> Result<()> {
        self.put(&record.pack())
    }

    /// # Errors
    /// The file cannot be made or written.
    pub fn gpu(&mut self, span: &GpuSpan) -> Result<()> {
        let words = pack(span, &mut self.names);
        self.put(&words)
    }

    #[inline]
    fn put(&mut self, words: &[u64]) -> Result<()> {
        let size = words.len() * 8;
        if self.filed + (self.memory.len() + size) as u64 > self.cap {
            self.left_out += 1;
            return Ok(());
        }
        if self.memory.len() + size > MEMORY {
            self.file_away()?;
        }
        words.iter().for_each(|word| self.memory.extend_from_slice(&word.to_le_bytes()));
        Ok(())
    }

    /// Moves what is in memory to the file.
    fn file_away(&mut self) -> Result<()> {
        if self.file.is_none() {
            self.file = Some(self.nameless()?);
        }
        if let Some(file) = &mut self.file {
            let path = self.folder.path_of(&self.name);
            file.write_all(&self.memory).map_err(|e| Error::io(path, &e))?;
        }
        self.filed += self.memory.len() as u64;
        self.memory.clear();
        Ok(())
    }

    /// A file that only this descriptor knows of.
    fn nameless(&self) -> Result<Draft> {
        self.folder.remove(&self.name);
        let file = self.folder.scratch(&self.name)?;
        self.folder.remove(&self.name);
        Ok(file)
    }

    /// Hands every entry to `each`, oldest first.
    ///
    /// # Errors
    /// The file cannot be read; whatever `each` says.
    pub fn replay(self, each: &mut dyn FnMut(&Entry) -> Result<()>) -> Result<()> {
        let path = self.folder.path_of(&self.name);
        let fault = |e: &io::Error| Error::io(&path, e);
        let (mut left, names) = (self.filed + self.memory.len() as u64, self.names.list);
        let mut input: Box<dyn Read> = Box::new(io::Cursor::new(self.memory));
        if let Some(file) = self.file {
            let mut file = file.into_file();
            file.seek(SeekFrom::Start(0)).map_err(|e| fault(&e))?;
            input = Box::new(BufReader::with_capacity(1 << 16, file).chain(input));
        }
        let mut words = [0; SPAN_WORDS];
        while left > 0 {
            let head = read(&mut input, &mut words[..WORDS]).map_err(|e| fault(&e))?;
            left = left.saturating_sub(WORDS as u64 * 8);
            if head & 0xFF == SPAN {
                read(&mut input, &mut words[WORDS..]).map_err(|e| fault(&e))?;
                left = left.saturating_sub((SPAN_WORDS - WORDS) as u64 * 8);
                each(&Entry::Gpu(unpack(&words, &names)))?;
            } else if let Some(record) = Record::unpack([words[0], words[1], words[2], words[3]]) {
                each(&Entry::Record(record))?;
            }
        }
        Ok(())
    }
}

/// Fills `words`; gives the first.
fn read(input: &mut dyn Read, words: &mut [u64]) -> io::Result<u64> {
    let mut bytes = [0; SPAN_WORDS * 8];
    let bytes = &mut bytes[..words.len() * 8];
    input.read_exact(bytes)?;
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    Ok(words[0])
}

fn two(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

fn pack(span: &GpuSpan, names: &mut Names) -> [u64; SPAN_WORDS] {
    let (kind, work) = match &span.work {
        GpuWork::Kernel { name, grid, block, registers, shared } => {
            let name = names.number(name);
            let words = [
                two(name, grid[0]),
                two(grid[1], grid[2]),
                two(block[0], block[1]),
                two(block[2], *registers),
                u64::from(*shared),
            ];
            (0, words)
        }
        GpuWork::Copy { bytes, to_host } => (1, [*bytes, u64::from(*to_host), 0, 0, 0]),
        GpuWork::Set { bytes } => (2, [*bytes, 0, 0, 0, 0]),
        GpuWork::Launch => (3, [0; 5]),
        GpuWork::Wait => (4, [0; 5]),
    };
    let head = SPAN | kind << 8 | u64::from(span.step) << 32;
    let (owner, place) = (two(span.owner, span.stream), u64::from(span.correlation));
    let [a, b, c, d, e] = work;
    [head, owner, place, span.start_ns, span.end_ns, a, b, c, d, e]
}

fn unpack(words: &[u64; SPAN_WORDS], names: &[Arc<str>]) -> GpuSpan {
    let [head, owner, place, start_ns, end_ns, a, b, c, d, e] = *words;
    let work = match head >> 8 & 0xFF {
        0 => {
            let ((name, x), (y, z)) = (halves(a), halves(b));
            let ((i, j), (k, registers)) = (halves(c), halves(d));
            let name = names.get(name as usize).cloned().unwrap_or_default();
            let (grid, block) = ([x, y, z], [i, j, k]);
            GpuWork::Kernel { name, grid, block, registers, shared: e as u32 }
        }
        1 => GpuWork::Copy { bytes: a, to_host: b != 0 },
        2 => GpuWork::Set { bytes: a },
        3 => GpuWork::Launch,
        _ => GpuWork::Wait,
    };
    let ((owner, stream), step) = (halves(owner), (head >> 32) as u32);
    GpuSpan { work, step, owner, stream, correlation: place as u32, start_ns, end_ns }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::record::Event;

    fn folder(name: &str) -> Arc<Folder> {
        let path = std::env::temp_dir().join(format!("pacer-spool-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Arc::new(Folder::open(&path).unwrap())
    }

    fn record(n: u64) -> Record {
        Record { event: Event::Op, extra: 7, id: n as u32, arg: n, start_ns: n, end_ns: n + 1 }
    }

    fn spans() -> Vec<GpuSpan> {
        let span = |work, n: u32| GpuSpan {
            work,
            step: u32::MAX - n,
            owner: 0x8000_0000 + n,
            stream: 7,
            correlation: 0xFFFF_FFF0 + n,
            start_ns: u64::MAX - 9,
            end_ns: u64::MAX,
        };
        let name = |name: &str| Arc::<str>::from(name);
        let kernel = |text: &str| GpuWork::Kernel {
            name: name(text),
            grid: [1, 2, u32::MAX],
            block: [32, 4, 1],
            registers: 255,
            shared: 232_448,
        };
        vec![
            span(kernel("gemm"), 0),
            span(kernel("norm"), 1),
            span(kernel("gemm"), 2),
            span(GpuWork::Copy { bytes: u64::MAX, to_host: true }, 3),
            span(GpuWork::Copy { bytes: 1, to_host: false }, 4),
            span(GpuWork::Set { bytes: 5 }, 5),
            span(GpuWork::Launch, 6),
            span(GpuWork::Wait, 7),
        ]
    }

    fn entries(spool: Spool) -> Vec<Entry> {
        let mut all = Vec::new();
        spool
            .replay(&mut |e| {
                all.push(e.clone());
                Ok(())
            })
            .unwrap();
        all
    }

    #[test]
    fn entries_come_back_as_they_were() {
        let folder = folder("back");
        let mut spool = Spool::new(Arc::clone(&folder), "s".into(), 1 << 20);
        let mut wanted = Vec::new();
        for (i, span) in spans().into_iter().enumerate() {
            spool.gpu(&span).unwrap();
            spool.record(&record(i as u64)).unwrap();
            wanted.extend([Entry::Gpu(span), Entry::Record(record(i as u64))]);
        }
        assert_eq!(spool.names.list.len(), 2);
        assert_eq!(entries(spool), wanted);
        assert!(folder.names().unwrap().is_empty(), "nothing that fits in memory needs a file");
        std::fs::remove_dir_all(folder.path()).unwrap();
    }

    /// Reliability R23, counted: however much is recorded, memory stays at its limit, the file at
    /// the cap, and nothing has a name.
    #[test]
    fn r23_memory_and_file_stay_within_their_limits() {
        let folder = folder("limits");
        let cap = 3 * MEMORY as u64 + 1000;
        let mut spool = Spool::new(Arc::clone(&folder), "s".into(), cap);
        const RECORDS: u64 = 20_000;
        for n in 0..RECORDS {
            spool.record(&record(n)).unwrap();
        }
        let (bytes, memory) = spool.bytes();
        assert!(bytes <= cap && bytes > cap - 32, "{bytes}");
        assert!(memory <= 2 * MEMORY, "{memory}");
        assert_eq!(bytes / 32 + spool.left_out, RECORDS);
        assert!(folder.names().unwrap().is_empty());
        // The oldest are kept, in order, across the seam of file and memory.
        let mut next = 0;
        spool
            .replay(&mut |e| {
                assert_eq!(*e, Entry::Record(record(next)));
                next += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!(next, bytes / 32);
        std::fs::remove_dir_all(folder.path()).unwrap();
    }
}
