//! The date that a chat template may ask for.

use std::ffi::CString;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::{Error, ErrorKind};

const MAX_BYTES: usize = 256;

/// The local time by C's `strftime` rules, which Python's are too.
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    strftime(format, now.as_secs() as libc::time_t)
}

fn strftime(format: &str, seconds: libc::time_t) -> Result<String, Error> {
    if format.is_empty() {
        return Ok(String::new());
    }
    let bad = || {
        let message = format!("strftime_now: {format:?} is no usable format");
        Error::new(ErrorKind::InvalidOperation, message)
    };
    let c_format = CString::new(format).map_err(|_| bad())?;
    let mut buffer = [0u8; MAX_BYTES];
    // SAFETY: both pointers are to values on this stack; `tm` is plain data, and zero is valid.
    let length = unsafe {
        let mut time: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&seconds, &mut time).is_null() {
            return Err(bad());
        }
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), c_format.as_ptr(), &time)
    };
    if length == 0 {
        return Err(bad());
    }
    Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_a_day() {
        // Noon in UTC of 2026-07-04: the same day from UTC-12 to UTC+11.
        let noon = 1_783_166_400;
        assert_eq!(strftime("%d %b %Y", noon).unwrap(), "04 Jul 2026");
        assert_eq!(strftime("", noon).unwrap(), "");
        assert!(strftime("%500d", noon).is_err());
        assert!(strftime("a\0b", noon).is_err());
    }
}
