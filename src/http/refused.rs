//! A request that is not answered as asked: status, and one sentence for a person.

/// What to answer instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub status: u16,
    pub message: String,
    /// The field of the request that is wrong.
    pub param: Option<String>,
}

impl Refused {
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Refused { status, message: message.into(), param: None }
    }

    /// 400.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// 400 that names a field.
    pub fn field(name: impl Into<String>, message: impl Into<String>) -> Self {
        Refused { status: 400, message: message.into(), param: Some(name.into()) }
    }
}

/// The reason phrase of a status code.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

/// The class of an error, for its JSON body.
pub fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 => "timeout_error",
        409 => "conflict_error",
        429 => "rate_limit_error",
        500 => "internal_error",
        503 => "service_unavailable_error",
        _ => "invalid_request_error",
    }
}
