//! What a driver call can fail with, in the classes that decide what may be done afterwards.

use std::fmt;

use crate::error::{Error, Kind};

/// What a failure means for whoever made the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// There is no driver, no device, or it cannot run Pacer's kernels. Nothing was started.
    Unavailable,
    /// The driver is older than what Pacer needs; the message says how much.
    OldDriver,
    /// Memory ran out; nothing else is wrong (reliability R30).
    OutOfMemory,
    /// This call was refused and had no effect; the context is sound (R30).
    Recoverable,
    /// The context is lost: every further call fails, only a new process helps (R31).
    Sticky,
}

/// A failed driver call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverError {
    pub class: Class,
    /// The driver function, e.g. `cuMemAlloc`.
    pub call: &'static str,
    /// The CUDA result code, 0 where the failure is Pacer's own finding.
    pub code: u32,
    /// What was wanted, what was found, what to do.
    pub message: String,
}

pub type Result<T> = std::result::Result<T, DriverError>;

impl DriverError {
    pub fn new(class: Class, call: &'static str, message: impl Into<String>) -> Self {
        DriverError { class, call, code: 0, message: message.into() }
    }

    pub fn with_code(mut self, code: u32) -> Self {
        self.code = code;
        self
    }

    /// Says what the call was for: `module gemm: …`.
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// An allocation that did not fit: how much was wanted, how much was free.
    pub fn out_of_memory(call: &'static str, wanted: u64, free: u64, total: u64) -> Self {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let message = format!(
            "out of device memory: {:.1} MiB wanted, {:.1} MiB of {:.1} MiB free; lower \
             --mem-fraction-static, --max-total-tokens or --chunked-prefill-size, or free the card",
            mib(wanted),
            mib(free),
            mib(total)
        );
        DriverError::new(Class::OutOfMemory, call, message).with_code(2)
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.message)?;
        if self.class == Class::Sticky {
            write!(f, " (the device context is lost; restart the process)")?;
        }
        Ok(())
    }
}

impl std::error::Error for DriverError {}

impl From<DriverError> for Error {
    fn from(e: DriverError) -> Error {
        let kind = match e.class {
            Class::Unavailable | Class::OldDriver => Kind::Unsupported,
            Class::OutOfMemory => Kind::Limit,
            Class::Recoverable => Kind::Device,
            Class::Sticky => Kind::DeviceLost,
        };
        Error::new(kind, e.to_string())
    }
}

/// The class of a CUDA result code (cuda.h, `CUresult`). Codes that the header describes as
/// leaving "the process in an inconsistent state" are sticky, and so is everything unknown: to go
/// on after an unknown failure would be to answer from a device that may be lost.
pub fn class_of(code: u32) -> Class {
    match code {
        2 => Class::OutOfMemory,
        // Stub library, no device, invalid device, no licence, not supported on this device.
        34 | 100..=102 | 801 | 803 | 804 => Class::Unavailable,
        // PTX newer than the driver's compiler.
        222 | 36 => Class::OldDriver,
        // Refused before anything ran: values, states, handles, images, launch resources,
        // capture rules, graph updates, not ready.
        1 | 3 | 4 | 46 | 201 | 202 | 205..=213 | 216..=218 | 221 | 223..=225 => Class::Recoverable,
        300..=304 | 400..=402 | 500 | 600 | 701 | 703..=706 | 708 | 711..=713 => Class::Recoverable,
        720 | 800 | 802 | 812 | 900..=911 | 913..=915 => Class::Recoverable,
        _ => Class::Sticky,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_the_codes_that_matter() {
        for sticky in [214, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999, 4711] {
            assert_eq!(class_of(sticky), Class::Sticky, "{sticky}");
        }
        for recoverable in [1, 218, 400, 600, 701, 901] {
            assert_eq!(class_of(recoverable), Class::Recoverable, "{recoverable}");
        }
        assert_eq!(class_of(2), Class::OutOfMemory);
        assert_eq!(class_of(100), Class::Unavailable);
        assert_eq!(class_of(222), Class::OldDriver);
    }

    #[test]
    fn kinds_and_messages() {
        let oom: Error = DriverError::out_of_memory("cuMemAlloc", 3 << 20, 1 << 20, 8 << 20).into();
        assert_eq!(oom.kind, Kind::Limit);
        assert!(oom.message.contains("3.0 MiB wanted, 1.0 MiB of 8.0 MiB free"), "{oom}");
        let lost: Error = DriverError::new(Class::Sticky, "cuLaunchKernelEx", "x").into();
        assert_eq!(lost.kind, Kind::DeviceLost);
        assert!(lost.message.contains("restart"), "{lost}");
    }
}
