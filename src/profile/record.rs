//! What a timeline is made of: records of four words, so that writing one costs little.

/// What a record is about. The meaning of `id`, `arg` and `extra` stands with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Event {
    /// A device step; `id` is the step number, `arg` its tokens.
    Step = 1,
    /// One op of the plan; `id` is its index in the plan, `arg` the step number.
    Op = 2,
    /// Beginning of an engine step, an instant; `id` the step number, `arg` its tokens, with the
    /// number of sequences in the upper half, `extra` its [`Stage`].
    Batch = 3,
    /// One sequence of the batch before it, an instant; `id` the request, `arg` its new tokens,
    /// with those already cached in the upper half, `extra` its rows of logits.
    Sequence = 4,
    /// A whole engine step, from planning to the last update; as [`Event::Batch`].
    EngineStep = 5,
    /// The scheduler plans; `id` is the step number.
    Plan = 6,
    /// Pages are copied before the step; `id` is the step number, `arg` the copies.
    Copy = 7,
    /// Tokens are sampled; `id` is the step number, `arg` the tokens.
    Sample = 8,
    /// Results are committed and updates made; `id` is the step number.
    Commit = 9,
    /// A request waits for its first step; `id` is the request.
    Queue = 10,
    /// A request from its last byte to its answer's first token; `id` is the request.
    FirstToken = 11,
    /// A counter's new value, an instant; `id` is the [`Counter`], `arg` the value.
    Memory = 12,
    /// Something worth a mark, an instant; `id` is the [`Mark`], `arg` depends on it.
    Marker = 13,
    /// The engine waits because there is nothing to run.
    Idle = 14,
    /// Commands from the server are taken in; `arg` how many.
    Commands = 15,
    /// A connection is taken; `id` is the connection.
    Accept = 20,
    /// Bytes of a request are read; `id` is the connection, `arg` the bytes.
    Read = 21,
    /// A request from its last byte to the engine: read, checked, tokenised; `id` the request.
    Parse = 22,
    /// Text becomes tokens; `id` is the request, `arg` the tokens.
    Tokenise = 23,
    /// A request is handed to the engine; `id` is the request.
    Submit = 24,
    /// An update becomes an event of the answer; `id` is the request.
    Respond = 25,
    /// Bytes of an answer are written; `id` is the connection, `arg` the bytes.
    Write = 26,
    /// A whole request, from its first byte to the last byte of its answer; `id` the request.
    Request = 27,
    /// The stack from which an op is launched, an instant before the op's own record; `id` is the
    /// op, `arg` the stack's number.
    Stack = 28,
}

/// Numbers of events are below this.
const NUMBERS: usize = 32;

/// Events by number.
const BY_NUMBER: [Option<Event>; NUMBERS] = {
    let mut table = [None; NUMBERS];
    let mut i = 0;
    while i < Event::ALL.len() {
        table[Event::ALL[i] as usize] = Some(Event::ALL[i]);
        i += 1;
    }
    table
};

impl Event {
    pub const ALL: [Event; 24] = [
        Event::Step,
        Event::Op,
        Event::Batch,
        Event::Sequence,
        Event::EngineStep,
        Event::Plan,
        Event::Copy,
        Event::Sample,
        Event::Commit,
        Event::Queue,
        Event::FirstToken,
        Event::Memory,
        Event::Marker,
        Event::Idle,
        Event::Commands,
        Event::Accept,
        Event::Read,
        Event::Parse,
        Event::Tokenise,
        Event::Submit,
        Event::Respond,
        Event::Write,
        Event::Request,
        Event::Stack,
    ];

    /// The event with that number, if there is one.
    #[inline]
    pub fn of(number: u8) -> Option<Event> {
        BY_NUMBER.get(usize::from(number)).copied().flatten()
    }
}

/// What kind of work a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Stage {
    /// Every row computes a prompt.
    Extend = 0,
    /// Every row generates.
    Decode = 1,
    /// Chunks of prompts beside decoding sequences.
    Mixed = 2,
}

impl Stage {
    pub const ALL: [Stage; 3] = [Stage::Extend, Stage::Decode, Stage::Mixed];

    /// Of a step with `tokens` rows, `prefill` of which compute prompts.
    pub fn of_step(tokens: usize, prefill: usize) -> Stage {
        match prefill {
            0 => Stage::Decode,
            n if n >= tokens => Stage::Extend,
            _ => Stage::Mixed,
        }
    }

    /// SGLang's names.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Extend => "EXTEND",
            Stage::Decode => "DECODE",
            Stage::Mixed => "MIXED",
        }
    }

    pub fn of(number: u16) -> Stage {
        Self::ALL.into_iter().find(|s| *s as u16 == number).unwrap_or(Stage::Mixed)
    }
}

/// What a [`Event::Memory`] record counts: bytes, or pages and requests where the name says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Counter {
    WeightBytes = 0,
    KvBytes = 1,
    ScratchBytes = 2,
    GraphBytes = 3,
    KvUsedPages = 4,
    KvCachedPages = 5,
    RunningRequests = 6,
    WaitingRequests = 7,
}

impl Counter {
    pub const ALL: [Counter; 8] = [
        Counter::WeightBytes,
        Counter::KvBytes,
        Counter::ScratchBytes,
        Counter::GraphBytes,
        Counter::KvUsedPages,
        Counter::KvCachedPages,
        Counter::RunningRequests,
        Counter::WaitingRequests,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Counter::WeightBytes => "weight bytes",
            Counter::KvBytes => "KV pool bytes",
            Counter::ScratchBytes => "scratch bytes",
            Counter::GraphBytes => "graph bytes",
            Counter::KvUsedPages => "KV pages in use",
            Counter::KvCachedPages => "KV pages cached",
            Counter::RunningRequests => "running requests",
            Counter::WaitingRequests => "waiting requests",
        }
    }

    pub fn of(number: u32) -> Option<Counter> {
        Self::ALL.into_iter().find(|c| *c as u32 == number)
    }
}

/// What a [`Event::Marker`] record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Mark {
    /// A request was preempted; `arg` is the request.
    Preempted = 0,
    /// A request was cancelled; `arg` is the request.
    Cancelled = 1,
    /// A device reported that it lost `arg` records.
    RecordsLost = 2,
    /// A step failed; `arg` is the step.
    StepFailed = 3,
}

impl Mark {
    pub fn name(number: u32) -> &'static str {
        match number {
            0 => "request preempted",
            1 => "request cancelled",
            2 => "device records lost",
            3 => "step failed",
            _ => "mark",
        }
    }
}

/// One span (or instant, with equal times) on `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub event: Event,
    pub extra: u16,
    pub id: u32,
    pub arg: u64,
    pub start_ns: u64,
    pub end_ns: u64,
}

/// Words of a record in a ring.
pub const WORDS: usize = 4;

impl Record {
    /// A record of `event` at one instant.
    pub fn instant(event: Event, id: u32, arg: u64, at_ns: u64) -> Record {
        Record { event, extra: 0, id, arg, start_ns: at_ns, end_ns: at_ns }
    }

    #[inline]
    pub fn pack(&self) -> [u64; WORDS] {
        let head = self.event as u64 | (self.extra as u64) << 16 | (self.id as u64) << 32;
        [head, self.arg, self.start_ns, self.end_ns]
    }

    /// `None` if the words are no record.
    pub fn unpack(words: [u64; WORDS]) -> Option<Record> {
        Some(Record {
            event: Event::of(words[0] as u8)?,
            extra: (words[0] >> 16) as u16,
            id: (words[0] >> 32) as u32,
            arg: words[1],
            start_ns: words[2],
            end_ns: words[3],
        })
    }

    /// The halves of `arg`: upper, lower.
    pub fn halves(&self) -> (u32, u32) {
        ((self.arg >> 32) as u32, self.arg as u32)
    }
}

/// Two numbers as the `arg` of a record: upper and lower half.
pub fn two(upper: usize, lower: usize) -> u64 {
    (upper as u64) << 32 | (lower as u64 & 0xFFFF_FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_survives_packing() {
        for (i, event) in Event::ALL.into_iter().enumerate() {
            let id = u32::MAX - i as u32;
            let record =
                Record { event, extra: 0xABCD, id, arg: u64::MAX - 1, start_ns: 5, end_ns: 9 };
            assert_eq!(Record::unpack(record.pack()), Some(record));
        }
        assert_eq!(Record::unpack([0; WORDS]), None);
    }

    #[test]
    fn a_step_with_both_kinds_of_rows_is_mixed() {
        assert_eq!(Stage::of_step(8, 0), Stage::Decode);
        assert_eq!(Stage::of_step(8, 8), Stage::Extend);
        assert_eq!(Stage::of_step(8, 3), Stage::Mixed);
    }
}
