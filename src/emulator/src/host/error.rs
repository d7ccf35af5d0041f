//! Result codes of the host interface: CUDA's numbers, with a sentence each.

use std::fmt;

use crate::error::{Fault, Rule};
use crate::memory::MemoryError;

/// A CUDA result code (cuda.h, `CUresult`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Code {
    InvalidValue = 1,
    OutOfMemory = 2,
    InvalidDevice = 101,
    InvalidContext = 201,
    NoBinaryForGpu = 209,
    EccUncorrectable = 214,
    InvalidPtx = 218,
    InvalidHandle = 400,
    IllegalState = 401,
    NotFound = 500,
    NotReady = 600,
    IllegalAddress = 700,
    LaunchOutOfResources = 701,
    LaunchTimeout = 702,
    MisalignedAddress = 716,
    LaunchFailed = 719,
    CaptureUnsupported = 900,
    CaptureInvalidated = 901,
    Unknown = 999,
}

const CODES: [(Code, &str); 19] = [
    (Code::InvalidValue, "CUDA_ERROR_INVALID_VALUE"),
    (Code::OutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY"),
    (Code::InvalidDevice, "CUDA_ERROR_INVALID_DEVICE"),
    (Code::InvalidContext, "CUDA_ERROR_INVALID_CONTEXT"),
    (Code::NoBinaryForGpu, "CUDA_ERROR_NO_BINARY_FOR_GPU"),
    (Code::EccUncorrectable, "CUDA_ERROR_ECC_UNCORRECTABLE"),
    (Code::InvalidPtx, "CUDA_ERROR_INVALID_PTX"),
    (Code::InvalidHandle, "CUDA_ERROR_INVALID_HANDLE"),
    (Code::IllegalState, "CUDA_ERROR_ILLEGAL_STATE"),
    (Code::NotFound, "CUDA_ERROR_NOT_FOUND"),
    (Code::NotReady, "CUDA_ERROR_NOT_READY"),
    (Code::IllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS"),
    (Code::LaunchOutOfResources, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"),
    (Code::LaunchTimeout, "CUDA_ERROR_LAUNCH_TIMEOUT"),
    (Code::MisalignedAddress, "CUDA_ERROR_MISALIGNED_ADDRESS"),
    (Code::LaunchFailed, "CUDA_ERROR_LAUNCH_FAILED"),
    (Code::CaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
    (Code::CaptureInvalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"),
    (Code::Unknown, "CUDA_ERROR_UNKNOWN"),
];

impl Code {
    /// The code with this number, [`Code::Unknown`] for those not listed.
    pub fn from_number(number: u32) -> Code {
        let known = CODES.iter().find(|(code, _)| *code as u32 == number);
        known.map_or(Code::Unknown, |(code, _)| *code)
    }

    /// The header's name.
    pub fn name(self) -> &'static str {
        CODES.iter().find(|(code, _)| *code == self).map_or("CUDA_ERROR_UNKNOWN", |(_, n)| n)
    }

    /// After this, nothing more can be run.
    pub fn is_sticky(self) -> bool {
        use Code::{
            EccUncorrectable, IllegalAddress, LaunchFailed, LaunchTimeout, MisalignedAddress,
        };
        let sticky =
            [EccUncorrectable, IllegalAddress, LaunchTimeout, MisalignedAddress, LaunchFailed];
        sticky.contains(&self) || self == Code::Unknown
    }
}

/// A refused or failed host call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostError {
    pub code: Code,
    pub message: String,
}

/// Result of a host call.
pub type HostResult<T> = Result<T, HostError>;

impl HostError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidValue, message)
    }

    pub(crate) fn handle(what: &str, handle: u64) -> Self {
        Self::new(Code::InvalidHandle, format!("{handle:#x} is no {what}"))
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.code.name(), self.code as u32, self.message)
    }
}

impl std::error::Error for HostError {}

impl From<MemoryError> for HostError {
    fn from(e: MemoryError) -> Self {
        let code = match e {
            MemoryError::BadSize { bytes } if bytes > 0 => Code::OutOfMemory,
            _ => Code::InvalidValue,
        };
        Self::new(code, e.to_string())
    }
}

impl From<Box<Fault>> for HostError {
    /// What a card would say of the fault; rules that a card does not check are launch failures.
    fn from(fault: Box<Fault>) -> Self {
        let code = match fault.rule {
            Rule::OutOfBounds => Code::IllegalAddress,
            Rule::Misaligned => Code::MisalignedAddress,
            Rule::Deadlock | Rule::Livelock | Rule::Budget => Code::LaunchTimeout,
            Rule::BadLaunch => Code::InvalidValue,
            _ => Code::LaunchFailed,
        };
        Self::new(code, fault.to_string())
    }
}
