//! Named cases, and every order of operations up to a depth.

use super::*;

/// A control with what has happened to it, to judge it from outside.
#[derive(Clone, Default)]
struct World {
    control: Control,
    now: u64,
    in_step: Option<Stage>,
    /// Step number and file of captured steps of the capture in progress.
    captured: Vec<(u64, usize, Stage)>,
    wanted: Wanted,
    active: bool,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Start(Wanted),
    Step(Stage),
    End,
    Stop,
    Force,
    Written,
}

impl World {
    fn tick(&mut self) -> u64 {
        self.now += 10;
        self.now
    }

    fn steps(&mut self, stage: Stage, n: usize) -> Vec<u64> {
        let mut captured = Vec::new();
        for _ in 0..n {
            let now = self.tick();
            if self.control.step_begins(stage, now) {
                captured.push(self.control.status().steps);
            }
            let now = self.tick();
            self.control.step_ends(now);
        }
        captured
    }

    fn act(&mut self, act: Act) {
        let now = self.tick();
        let before = self.control.status();
        match act {
            Act::Start(wanted) => match self.control.start(wanted, now) {
                Ok(status) => {
                    assert!(!self.active, "two captures at once");
                    assert!(status.first > before.steps);
                    (self.active, self.wanted) = (true, wanted);
                    self.captured.clear();
                }
                Err(status) => assert!(self.active && status.phase != Phase::Idle),
            },
            Act::Step(stage) => {
                let taken = self.control.step_begins(stage, now);
                let after = self.control.status();
                if taken {
                    let by_stage = self.wanted.by_stage.is_some();
                    let file = usize::from(by_stage && stage == Stage::Decode);
                    self.captured.push((after.steps, file, stage));
                    assert_eq!(after.phase, Phase::Recording);
                }
                self.in_step = Some(stage);
            }
            Act::End => {
                self.control.step_ends(now);
                self.in_step = None;
            }
            Act::Stop => match self.control.stop(now) {
                Ok(Stop::Disarmed(_)) => {
                    assert_eq!(before.phase, Phase::Armed);
                    self.active = false;
                }
                Ok(Stop::Closing(token)) => assert_eq!(token, before.token),
                Err(status) => assert!(!self.active && status.phase == Phase::Idle),
            },
            Act::Force => self.control.force(before.token, now),
            Act::Written => {
                if before.phase == Phase::Writing {
                    self.control.finished(before.token);
                    self.active = false;
                }
            }
        }
        self.judge(before);
    }

    /// What must hold after any act.
    fn judge(&self, before: Status) {
        let status = self.control.status();
        assert_eq!(status.phase == Phase::Idle, !self.active);
        if !self.active {
            return;
        }
        let stages = self.wanted.by_stage.is_some();
        let limit = self.wanted.num_steps.or(stages.then_some(STAGE_STEPS)).unwrap_or(u64::MAX);
        for file in 0..FILES {
            let steps: Vec<_> = self.captured.iter().filter(|c| c.1 == file).collect();
            assert!(steps.len() as u64 <= limit, "{steps:?}");
            assert_eq!(status.captured[file].count, steps.len() as u64);
            if stages {
                assert!(steps.iter().all(|s| (s.2 == Stage::Decode) == (file == 1)), "{steps:?}");
            } else if let Some(last) = status.last {
                assert!(steps.iter().all(|s| (status.first..=last).contains(&s.0)), "{steps:?}");
            }
        }
        let segments = &self.control.capture.as_ref().unwrap().segments;
        for (i, a) in segments.iter().enumerate() {
            assert!(a.from_ns <= a.to_ns && (a.steps_from_ns >= a.from_ns));
            assert!(segments[..i].iter().all(|b| b.to_ns <= a.from_ns), "{segments:?}");
        }
        let open = segments.iter().filter(|s| s.to_ns == u64::MAX).count();
        if status.phase == Phase::Writing {
            assert_eq!(open, 0);
            assert!(before.phase != Phase::Idle);
        }
        // Nothing waits for a step that never comes once it has all it wants.
        let full = !stages && self.captured.len() as u64 == limit;
        if full && self.in_step.is_none() {
            assert_eq!(status.phase, Phase::Writing);
        }
        if self.in_step.is_none() {
            assert_ne!(status.phase, Phase::Stopping);
        }
    }
}

#[test]
fn every_order_of_acts_up_to_eight() {
    let plain = Wanted::default();
    let starts = [
        plain,
        Wanted { num_steps: Some(2), ..plain },
        Wanted { start_step: Some(2), num_steps: Some(1), ..plain },
        Wanted { num_steps: Some(1), by_stage: Some([true, true]), ..plain },
        Wanted { skip_steps: Some(1), by_stage: Some([false, true]), ..plain },
    ];
    let mut visited = 0;
    fn walk(world: &World, depth: usize, starts: &[Wanted], visited: &mut u64) {
        *visited += 1;
        if depth == 0 {
            return;
        }
        let mut acts = vec![Act::Stop, Act::Force, Act::Written];
        match world.in_step {
            Some(_) => acts.push(Act::End),
            None => acts.extend([Act::Step(Stage::Extend), Act::Step(Stage::Decode)]),
        }
        // A start is refused whatever it asks for, so one kind will do then.
        let kinds = if world.active { 1 } else { starts.len() };
        acts.extend(starts[..kinds].iter().map(|w| Act::Start(*w)));
        for act in acts {
            let mut next = world.clone();
            next.act(act);
            walk(&next, depth - 1, starts, visited);
        }
    }
    walk(&World::default(), 7, &starts, &mut visited);
    assert!(visited > 500_000, "{visited}");
}

#[test]
fn start_3_and_10_steps_captures_3_to_12() {
    let mut world = World::default();
    let wanted = Wanted { start_step: Some(3), num_steps: Some(10), ..Wanted::default() };
    let status = world.control.start(wanted, 0).unwrap();
    assert_eq!((status.phase, status.first, status.last), (Phase::Armed, 3, Some(12)));
    assert_eq!(world.steps(Stage::Decode, 12), (3..=12).collect::<Vec<_>>());
    // It closed with step 12 itself, though no other step came.
    assert_eq!(world.control.status().phase, Phase::Writing);
    assert!(world.steps(Stage::Decode, 3).is_empty());
}

#[test]
fn a_first_step_in_the_past_is_the_next_one() {
    let mut world = World::default();
    world.steps(Stage::Decode, 9);
    let wanted = Wanted { start_step: Some(3), num_steps: Some(10), ..Wanted::default() };
    let status = world.control.start(wanted, 1000).unwrap();
    assert_eq!((status.first, status.last), (10, Some(19)));
    assert_eq!(world.steps(Stage::Decode, 30), (10..=19).collect::<Vec<_>>());
}

#[test]
fn skipping_is_relative_and_start_step_0_is_absent() {
    let mut world = World::default();
    world.steps(Stage::Decode, 9);
    let wanted =
        Wanted { start_step: Some(0), skip_steps: Some(3), num_steps: Some(2), by_stage: None };
    assert_eq!(world.control.start(wanted, 1000).unwrap().first, 13);
    assert_eq!(world.steps(Stage::Decode, 9), [13, 14]);
}

#[test]
fn stages_are_counted_apart() {
    let mut world = World::default();
    let wanted = Wanted { by_stage: Some([true, true]), ..Wanted::default() };
    world.control.start(wanted, 0).unwrap();
    assert_eq!(world.steps(Stage::Extend, 2), [1, 2]);
    assert_eq!(world.steps(Stage::Decode, 3), [3, 4, 5]);
    assert_eq!(world.steps(Stage::Mixed, 2), [6, 7]);
    assert_eq!(world.steps(Stage::Decode, 4), [8, 9]);
    assert_eq!(world.control.status().phase, Phase::Recording);
    let (segments, full) = world.control.segments(1);
    assert_eq!(full, [false, true]);
    assert!(segments.iter().all(|s| s.to_ns != u64::MAX) && segments.len() == 9);
    assert_eq!(world.steps(Stage::Extend, 4), [12]);
    assert_eq!(world.control.status().phase, Phase::Writing);
}

#[test]
fn a_stop_within_a_step_takes_the_step_whole() {
    let mut world = World::default();
    world.control.start(Wanted::default(), 5).unwrap();
    world.control.step_begins(Stage::Extend, 10);
    assert_eq!(world.control.stop(15), Ok(Stop::Closing(1)));
    assert_eq!(world.control.status().phase, Phase::Stopping);
    assert!(world.control.step_ends(20));
    let (segments, _) = world.control.segments(1);
    assert_eq!(segments, [Segment { file: 0, from_ns: 5, steps_from_ns: 10, to_ns: 20 }]);
    world.control.finished(1);
    assert!(world.control.stop(30).is_err());
}

#[test]
fn a_start_within_a_step_leaves_that_step_out() {
    let mut world = World::default();
    world.control.step_begins(Stage::Decode, 10);
    world.control.start(Wanted { num_steps: Some(1), ..Wanted::default() }, 15).unwrap();
    assert!(!world.control.step_ends(20));
    assert!(world.control.step_begins(Stage::Decode, 30));
    assert!(world.control.step_ends(40));
    let (segments, _) = world.control.segments(1);
    assert_eq!(segments[0].steps_from_ns, 30);
}
