//! When a capture begins and ends: a state machine over steps, without clock, thread or file.
//!
//! A window is inclusive: start 3, 10 steps, captures 3 … 12, and it is closed by the end of step
//! 12 itself, so it also closes when traffic stops there. Prefill and decode steps of a by-stage
//! capture are counted apart and never share a file; a step that does both counts as prefill.

use super::record::Stage;

/// Where a capture stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No capture.
    Idle,
    /// It waits for its first step.
    Armed,
    Recording,
    /// Asked to stop in the middle of a step, which is still captured.
    Stopping,
    /// All is recorded; files are being finished.
    Writing,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::Idle => "idle",
            Phase::Armed => "armed",
            Phase::Recording => "recording",
            Phase::Stopping => "stopping",
            Phase::Writing => "writing",
        }
    }
}

/// Which steps a capture wants. The default is every step until it is stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Absolute number of the first step; in the past means the next one.
    pub start_step: Option<u64>,
    /// Steps to let pass first; used without `start_step`.
    pub skip_steps: Option<u64>,
    /// Steps to capture, of each stage with `by_stage`.
    pub num_steps: Option<u64>,
    /// The stages to capture in files of their own: prefill, decode.
    pub by_stage: Option<[bool; 2]>,
}

/// Steps of a by-stage capture that does not say how many.
pub const STAGE_STEPS: u64 = 5;

/// Files of a capture: without stages the first, with stages prefill and decode.
pub const FILES: usize = 2;

/// A stretch of time that belongs to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub file: usize,
    pub from_ns: u64,
    /// Records of the stepping thread count from here: the first captured step. `u64::MAX` while
    /// there is none.
    pub steps_from_ns: u64,
    /// `u64::MAX` while open.
    pub to_ns: u64,
}

/// Steps that a file has got so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Captured {
    pub first: u64,
    pub last: u64,
    pub count: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct File {
    wanted: bool,
    full: bool,
    captured: Captured,
}

#[derive(Debug, Clone)]
struct Capture {
    token: u64,
    wanted: Wanted,
    phase: Phase,
    /// First step that may be captured.
    first: u64,
    files: [File; FILES],
    segments: Vec<Segment>,
    /// The file that the step in progress belongs to.
    current: Option<usize>,
}

/// What a capture looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub phase: Phase,
    /// Steps that have begun since the process started.
    pub steps: u64,
    /// Identifies the capture; 0 when idle.
    pub token: u64,
    /// First step that the capture takes, and the last where it is known.
    pub first: u64,
    pub last: Option<u64>,
    pub captured: [Captured; FILES],
}

/// What stopping led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It had not begun, so there is nothing to write.
    Disarmed(u64),
    /// The capture of that token is being closed and written.
    Closing(u64),
}

/// At most one capture at a time.
#[derive(Debug, Clone, Default)]
pub struct Control {
    steps: u64,
    in_step: bool,
    tokens: u64,
    capture: Option<Capture>,
}

impl Control {
    pub fn new() -> Control {
        Control::default()
    }

    /// Begins a capture.
    ///
    /// # Errors
    /// There is one already: its status.
    pub fn start(&mut self, wanted: Wanted, now_ns: u64) -> Result<Status, Status> {
        if self.capture.is_some() {
            return Err(self.status());
        }
        let next = self.steps + 1;
        let first = match (wanted.start_step.filter(|s| *s > 0), wanted.skip_steps) {
            (Some(start), _) => start.max(next),
            (None, skip) => next.saturating_add(skip.unwrap_or(0)),
        };
        let on = wanted.by_stage.unwrap_or([true, false]);
        let files = on.map(|wanted| File { wanted, ..File::default() });
        // Without a step to wait for, what happens before the first step is captured too: the
        // way of a request to it.
        let at_once = wanted.by_stage.is_none() && first == next;
        let open = Segment { file: 0, from_ns: now_ns, steps_from_ns: u64::MAX, to_ns: u64::MAX };
        self.tokens += 1;
        self.capture = Some(Capture {
            token: self.tokens,
            wanted,
            phase: if at_once { Phase::Recording } else { Phase::Armed },
            first,
            files,
            segments: if at_once { vec![open] } else { Vec::new() },
            current: None,
        });
        Ok(self.status())
    }

    /// A step of `stage` begins; true if it is captured.
    pub fn step_begins(&mut self, stage: Stage, now_ns: u64) -> bool {
        self.steps += 1;
        self.in_step = true;
        let steps = self.steps;
        self.capture.as_mut().is_some_and(|c| c.begin(stage, steps, now_ns))
    }

    /// The step has ended; true if that closed the capture.
    pub fn step_ends(&mut self, now_ns: u64) -> bool {
        self.in_step = false;
        let Some(capture) = &mut self.capture else { return false };
        capture.end(now_ns)
    }

    /// Stops the capture; a step in progress is still captured whole.
    ///
    /// # Errors
    /// There is none: the status.
    pub fn stop(&mut self, now_ns: u64) -> Result<Stop, Status> {
        let (status, in_step) = (self.status(), self.in_step);
        let Some(capture) = &mut self.capture else { return Err(status) };
        let token = capture.token;
        match capture.phase {
            Phase::Armed => {
                self.capture = None;
                return Ok(Stop::Disarmed(token));
            }
            Phase::Recording if in_step && capture.current.is_some() => {
                capture.phase = Phase::Stopping;
            }
            Phase::Recording => capture.close(now_ns),
            Phase::Idle | Phase::Stopping | Phase::Writing => {}
        }
        Ok(Stop::Closing(token))
    }

    /// Closes capture `token` in the middle of a step, if the step does not end by itself.
    pub fn force(&mut self, token: u64, now_ns: u64) {
        if let Some(c) = self.capture.as_mut().filter(|c| c.token == token)
            && matches!(c.phase, Phase::Recording | Phase::Stopping)
        {
            c.close(now_ns);
        }
    }

    /// The files of capture `token` are finished, or given up.
    pub fn finished(&mut self, token: u64) {
        self.capture = self.capture.take().filter(|c| c.token != token);
    }

    pub fn status(&self) -> Status {
        let Some(c) = &self.capture else {
            let (phase, steps) = (Phase::Idle, self.steps);
            return Status {
                phase,
                steps,
                token: 0,
                first: 0,
                last: None,
                captured: [Captured::default(); FILES],
            };
        };
        let whole = c.wanted.by_stage.is_none();
        let last = c.limit().filter(|_| whole).map(|n| c.first.saturating_add(n - 1));
        Status {
            phase: c.phase,
            steps: self.steps,
            token: c.token,
            first: c.first,
            last,
            captured: c.files.map(|f| f.captured),
        }
    }

    /// The segments of capture `token` so far, and which of its files are full. Closed segments
    /// are handed out once.
    pub fn segments(&mut self, token: u64) -> (Vec<Segment>, [bool; FILES]) {
        let Some(c) = self.capture.as_mut().filter(|c| c.token == token) else {
            return (Vec::new(), [true; FILES]);
        };
        let all = c.segments.clone();
        c.segments.retain(|s| s.to_ns == u64::MAX);
        let closed = c.phase == Phase::Writing;
        (all, c.files.map(|f| closed || f.full || !f.wanted))
    }
}

impl Capture {
    fn limit(&self) -> Option<u64> {
        let stage_steps = self.wanted.by_stage.map(|_| STAGE_STEPS);
        self.wanted.num_steps.or(stage_steps).map(|n| n.max(1))
    }

    fn begin(&mut self, stage: Stage, step: u64, now_ns: u64) -> bool {
        if !matches!(self.phase, Phase::Armed | Phase::Recording) || step < self.first {
            return false;
        }
        let by_stage = self.wanted.by_stage.is_some();
        let index = usize::from(by_stage && stage == Stage::Decode);
        let file = &mut self.files[index];
        if !file.wanted || file.full {
            return false;
        }
        if file.captured.count == 0 {
            file.captured.first = step;
        }
        file.captured.last = step;
        file.captured.count += 1;
        self.phase = Phase::Recording;
        self.current = Some(index);
        match self.segments.iter_mut().find(|s| s.file == index && s.to_ns == u64::MAX) {
            Some(open) => open.steps_from_ns = open.steps_from_ns.min(now_ns),
            None => self.segments.push(Segment {
                file: index,
                from_ns: now_ns,
                steps_from_ns: now_ns,
                to_ns: u64::MAX,
            }),
        }
        true
    }

    fn end(&mut self, now_ns: u64) -> bool {
        let limit = self.limit();
        if let Some(index) = self.current.take() {
            let file = &mut self.files[index];
            file.full = limit.is_some_and(|n| file.captured.count >= n);
            if file.full || self.wanted.by_stage.is_some() {
                self.shut(index, now_ns);
            }
        }
        let all_full = self.files.iter().all(|f| f.full || !f.wanted);
        let open = matches!(self.phase, Phase::Recording | Phase::Stopping);
        if open && (all_full || self.phase == Phase::Stopping) {
            self.close(now_ns);
            return true;
        }
        false
    }

    fn shut(&mut self, file: usize, now_ns: u64) {
        let open = |s: &&mut Segment| s.file == file && s.to_ns == u64::MAX;
        self.segments.iter_mut().filter(open).for_each(|s| s.to_ns = now_ns);
    }

    fn close(&mut self, now_ns: u64) {
        (0..FILES).for_each(|file| self.shut(file, now_ns));
        self.current = None;
        self.phase = Phase::Writing;
    }
}

#[cfg(test)]
mod tests;
