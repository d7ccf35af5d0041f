//! CUPTI's records, read out of their bytes. Fields stand where the headers of CUDA 13 put them;
//! a newer library may append fields, so a record's own size is never assumed.

use super::layout as at;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    Kernel(Kernel),
    /// `set` for a memset.
    Memory {
        set: bool,
        direction: u8,
        bytes: u64,
        span: Span,
    },
    /// The host waited.
    Sync {
        span: Span,
    },
    /// Work with this correlation id was launched under this number of ours.
    External {
        id: u64,
        correlation: u32,
    },
    /// A call of the driver.
    Call {
        span: Span,
    },
    /// A kind that is not read.
    Other(u32),
}

/// Times on the clock that was registered, and what they belong to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    pub start_ns: u64,
    pub end_ns: u64,
    pub device: u32,
    pub stream: u32,
    pub correlation: u32,
}

/// A kernel that has run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kernel {
    pub span: Span,
    /// Address of its name, which CUPTI keeps while the module is loaded; 0 if there is none.
    pub name: usize,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub registers: u16,
    pub shared: u32,
    /// 0 outside graphs.
    pub graph: u32,
    pub graph_node: u64,
}

/// The bytes of a record and what lies after it in its buffer.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let bytes = self.0.get(at..at + N).and_then(|b| b.try_into().ok());
        bytes.unwrap_or([0; N])
    }

    fn u8(&self, at: usize) -> u8 {
        self.bytes::<1>(at)[0]
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.bytes(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.bytes(at))
    }

    fn three(&self, at: usize) -> [u32; 3] {
        [self.u32(at), self.u32(at + 4), self.u32(at + 8)]
    }

    fn span(&self, start: usize, end: usize, device: usize, stream: usize, id: usize) -> Span {
        Span {
            start_ns: self.u64(start),
            end_ns: self.u64(end),
            device: self.u32(device),
            stream: self.u32(stream),
            correlation: self.u32(id),
        }
    }
}

/// The record that `bytes` begin with. Bytes that are missing read as 0, so a damaged buffer gives
/// odd numbers and never a fault.
pub fn read(bytes: &[u8]) -> Activity {
    let f = Fields(bytes);
    match f.u32(0) as usize {
        at::KIND_KERNEL => Activity::Kernel(kernel(&f)),
        at::KIND_MEMCPY => Activity::Memory {
            set: false,
            direction: f.u8(at::MEMCPY_DIRECTION),
            bytes: f.u64(at::MEMCPY_BYTES),
            span: f.span(
                at::MEMCPY_START,
                at::MEMCPY_END,
                at::MEMCPY_DEVICE,
                at::MEMCPY_STREAM,
                at::MEMCPY_CORRELATION,
            ),
        },
        at::KIND_MEMSET => Activity::Memory {
            set: true,
            direction: 0,
            bytes: f.u64(at::MEMSET_BYTES),
            span: f.span(
                at::MEMSET_START,
                at::MEMSET_END,
                at::MEMSET_DEVICE,
                at::MEMSET_STREAM,
                at::MEMSET_CORRELATION,
            ),
        },
        at::KIND_SYNCHRONIZATION => Activity::Sync {
            span: Span {
                start_ns: f.u64(at::SYNC_START),
                end_ns: f.u64(at::SYNC_END),
                device: 0,
                stream: f.u32(at::SYNC_STREAM),
                correlation: f.u32(at::SYNC_CORRELATION),
            },
        },
        at::KIND_EXTERNAL => Activity::External {
            id: f.u64(at::EXTERNAL_ID),
            correlation: f.u32(at::EXTERNAL_CORRELATION),
        },
        at::KIND_DRIVER => Activity::Call {
            span: Span {
                start_ns: f.u64(at::API_START),
                end_ns: f.u64(at::API_END),
                correlation: f.u32(at::API_CORRELATION),
                ..Span::default()
            },
        },
        other => Activity::Other(other as u32),
    }
}

fn kernel(f: &Fields) -> Kernel {
    Kernel {
        span: f.span(
            at::KERNEL_START,
            at::KERNEL_END,
            at::KERNEL_DEVICE,
            at::KERNEL_STREAM,
            at::KERNEL_CORRELATION,
        ),
        name: f.u64(at::KERNEL_NAME) as usize,
        grid: f.three(at::KERNEL_GRID),
        block: f.three(at::KERNEL_BLOCK),
        registers: f.u16(at::KERNEL_REGISTERS),
        shared: f.u32(at::KERNEL_STATIC_SHARED).wrapping_add(f.u32(at::KERNEL_DYNAMIC_SHARED)),
        graph: f.u32(at::KERNEL_GRAPH),
        graph_node: f.u64(at::KERNEL_GRAPH_NODE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_bytes_never_fault() {
        for kind in 0..64_u32 {
            for length in 0..220 {
                let mut bytes = vec![0xEE; length];
                let head = kind.to_ne_bytes();
                let n = length.min(4);
                bytes[..n].copy_from_slice(&head[..n]);
                read(&bytes);
            }
        }
        assert_eq!(read(&[]), Activity::Other(0));
    }
}
