//! Broken rules inside the executor, before block and kernel are filled in.

use crate::error::Rule;
use crate::memory::shadow::Conflict;
use crate::memory::shared::Refusal;

/// The other party: an actor of the cluster and its instruction.
#[derive(Debug, Clone, Copy)]
pub struct Other {
    pub actor: u32,
    pub pc: u32,
    /// The actor's cluster, if it is another one.
    pub cluster: Option<u32>,
}

impl Other {
    /// An actor of the same cluster.
    pub fn near(actor: u32, pc: u32) -> Self {
        Self { actor, pc, cluster: None }
    }
}

/// A broken rule.
#[derive(Debug, Clone)]
pub struct Stop {
    pub rule: Rule,
    pub message: String,
    /// The lane that broke it, if it was one.
    pub lane: Option<u32>,
    pub others: Vec<Other>,
}

pub type Run<T> = Result<T, Box<Stop>>;

/// An error of the current instruction as a whole.
pub fn stop<T>(rule: Rule, message: impl Into<String>) -> Run<T> {
    Err(Box::new(Stop { rule, message: message.into(), lane: None, others: Vec::new() }))
}

/// An error of one lane.
pub fn stop_lane<T>(rule: Rule, lane: u32, message: impl Into<String>) -> Run<T> {
    let message = message.into();
    Err(Box::new(Stop { rule, message, lane: Some(lane), others: Vec::new() }))
}

/// The error for an access to shared memory that was refused.
pub fn refused<T>(refusal: Refusal, lane: u32, what: &str, address: u32) -> Run<T> {
    let at = format!("{what} at shared address {address:#x}");
    match refusal {
        Refusal::OutOfBounds => {
            stop_lane(Rule::OutOfBounds, lane, format!("{at} is outside the block's shared memory"))
        }
        Refusal::Unwritten => {
            stop_lane(Rule::Uninitialised, lane, format!("{at}, which nothing has written"))
        }
        Refusal::Mbarrier => {
            stop_lane(Rule::BarrierMisuse, lane, format!("{at}, which is an mbarrier object"))
        }
        Refusal::Conflict(conflict) => conflicting(conflict, lane, &at),
    }
}

fn conflicting<T>(conflict: Conflict, lane: u32, at: &str) -> Run<T> {
    let (rule, text, other) = match conflict {
        Conflict::Race { actor, pc, wrote } => {
            let kind = if wrote { "write" } else { "read" };
            let text = format!("{at} is not ordered after another thread's {kind}");
            (Rule::Race, text, Other::near(actor, pc))
        }
        Conflict::Incoming { pc } => {
            let text = format!("{at}, where an asynchronous copy not waited for will write");
            (Rule::AsyncInFlight, text, Other::near(u32::MAX, pc))
        }
        Conflict::Outgoing { pc } => {
            let text = format!("{at}, which an asynchronous operation not waited for still reads");
            (Rule::AsyncInFlight, text, Other::near(u32::MAX, pc))
        }
        Conflict::NotProxied { actor, pc } => {
            let text =
                format!("{at} by an asynchronous operation: no fence.proxy.async since the write");
            (Rule::MissingProxyFence, text, Other::near(actor, pc))
        }
    };
    Err(Box::new(Stop { rule, message: text, lane: Some(lane), others: vec![other] }))
}
