//! What can go wrong: text that does not load, and kernels that break the machine's rules.

use std::fmt;

/// PTX that cannot be loaded: the line and what was found there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// Line of the PTX text, from 1; 0 when the fault has no line.
    pub line: u32,
    /// What was found, and what was expected.
    pub message: String,
}

impl LoadError {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for LoadError {}

/// The rule that a kernel broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// An address outside every allocation, or outside the space that the instruction names.
    OutOfBounds,
    /// An address that is not a multiple of the access size.
    Misaligned,
    /// A register or memory read before anything wrote it.
    Uninitialised,
    /// Two accesses, at least one a write, that nothing orders.
    Race,
    /// An access to memory or registers that an asynchronous operation still owns.
    AsyncInFlight,
    /// Generic writes that the async proxy reads without a proxy fence between.
    MissingProxyFence,
    /// wgmma registers used without `wgmma.fence`.
    MissingWgmmaFence,
    /// A barrier used against its rules: counts, masks, uniformity, initialisation.
    BarrierMisuse,
    /// Threads wait for something that nothing can bring about any more.
    Deadlock,
    /// Threads run without changing anything that others could see.
    Livelock,
    /// The instruction budget of the launch is spent.
    Budget,
    /// Asynchronous work that nobody waited for when the thread or block ended.
    Leak,
    /// `trap`, or a failed device assertion.
    Trap,
    /// Operands that the instruction does not allow.
    BadOperand,
    /// A launch that the kernel cannot be given: geometry, parameters, shared memory.
    BadLaunch,
    /// Something the instruction set leaves undefined, done by the kernel.
    Undefined,
}

impl Rule {
    /// A short name that does not change between versions.
    pub fn name(self) -> &'static str {
        match self {
            Self::OutOfBounds => "out-of-bounds",
            Self::Misaligned => "misaligned",
            Self::Uninitialised => "uninitialised",
            Self::Race => "race",
            Self::AsyncInFlight => "async-in-flight",
            Self::MissingProxyFence => "missing-proxy-fence",
            Self::MissingWgmmaFence => "missing-wgmma-fence",
            Self::BarrierMisuse => "barrier-misuse",
            Self::Deadlock => "deadlock",
            Self::Livelock => "livelock",
            Self::Budget => "budget",
            Self::Leak => "leak",
            Self::Trap => "trap",
            Self::BadOperand => "bad-operand",
            Self::BadLaunch => "bad-launch",
            Self::Undefined => "undefined",
        }
    }
}

/// A place in a kernel's text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Line of the PTX text.
    pub line: u32,
    /// `file:line` of the CUDA source, where the PTX has `.loc`.
    pub source: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}", self.line)?;
        match &self.source {
            Some(source) => write!(f, " ({source})"),
            None => Ok(()),
        }
    }
}

/// Who did something: a thread of a block, or the asynchronous engine for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actor {
    /// Block index in the grid.
    pub block: [u32; 3],
    /// Thread index in the block, or `None` for an asynchronous operation of the block.
    pub thread: Option<[u32; 3]>,
    /// Where in the kernel.
    pub place: Place,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.block;
        write!(f, "block ({x},{y},{z}) ")?;
        match self.thread {
            Some([x, y, z]) => write!(f, "thread ({x},{y},{z}) ")?,
            None => write!(f, "async operation ")?,
        }
        write!(f, "{}", self.place)
    }
}

/// A broken rule: which, by whom, where, and the other party if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub rule: Rule,
    /// What happened, with addresses and values.
    pub message: String,
    pub kernel: String,
    /// Who broke it; `None` for faults of a whole launch.
    pub actor: Option<Actor>,
    /// The other party of a race, or the threads that a deadlock holds.
    pub others: Vec<Actor>,
}

impl Fault {
    pub(crate) fn launch(kernel: &str, rule: Rule, message: impl Into<String>) -> Box<Self> {
        let (kernel, message) = (kernel.to_string(), message.into());
        Box::new(Self { rule, message, kernel, actor: None, others: Vec::new() })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in kernel {}", self.rule.name(), self.kernel)?;
        if let Some(actor) = &self.actor {
            write!(f, ", {actor}")?;
        }
        write!(f, ": {}", self.message)?;
        for other in &self.others {
            write!(f, "\n  other party: {other}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}
