//! `--profile`: every case once more, each with a capture on the server.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::sweep::Sweep;
use crate::bench::load::plain;
use crate::bench::served::row::Case;
use crate::error::{Error, Kind, Result};

/// How long the server may take to write its files.
const PATIENCE: Duration = Duration::from_secs(120);

impl Sweep<'_> {
    /// Profiles all cases that fit.
    ///
    /// # Errors
    /// What a case fails with, or a profile that the server refuses.
    pub fn profiles(&mut self) -> Result<()> {
        for case in self.cases() {
            if let Ok(prompts) = self.fitting(case)? {
                self.profile(case, &prompts)?;
            }
        }
        Ok(())
    }

    fn profile(&self, case: Case, prompts: &[Vec<u32>]) -> Result<()> {
        let flags = self.flags;
        let own = format!("bs-{}-il-{}", case.batch_size, case.input_len);
        let prefix = flags.profile_prefix.as_ref().map_or(own.clone(), |p| format!("{p}-{own}"));
        let activities = match flags.profile_activities.as_slice() {
            [] => vec!["CPU".to_owned(), "GPU".to_owned()],
            given => given.to_vec(),
        };
        let body = json!({
            "activities": activities,
            "num_steps": flags.profile_steps,
            "start_step": flags.profile_start_step,
            "profile_by_stage": flags.profile_by_stage,
            "profile_prefix": prefix,
            "output_dir": flags.profile_output_dir,
        });
        self.post("/start_profile", &body)?;
        let measured = self.measure(prompts, case.output_len);
        let answer = self.ended();
        measured?;
        let answer = answer?;
        for file in answer["files"].as_array().into_iter().flatten() {
            self.say(&format!("profile: {}", file.as_str().unwrap_or_default()))?;
        }
        answer["table"]
            .as_str()
            .unwrap_or_default()
            .trim_end()
            .lines()
            .try_for_each(|l| self.say(l))
    }

    /// What the capture led to: it has closed by itself, or has fewer steps than were asked for
    /// and is stopped.
    fn ended(&self) -> Result<Value> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let Some(status) = plain::get_json(&self.target, "/profile_status") else {
                // Another server: its answer to a stop says nothing of files.
                self.post("/stop_profile", &json!({}))?;
                return Ok(Value::Null);
            };
            match status["state"].as_str() {
                Some("idle") => return Ok(status["last"].clone()),
                Some("writing") => std::thread::sleep(Duration::from_millis(20)),
                _ => {
                    // It may close by itself meanwhile; then the status tells.
                    let _ = self.post("/stop_profile", &json!({}));
                }
            }
        }
        Err(Error::new(Kind::Io, "--profile: the server does not finish its files"))
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let bytes = body.to_string();
        let answer = plain::call(&self.target, "POST", path, bytes.as_bytes(), PATIENCE)?;
        if answer.status != 200 {
            let what = format!("--profile: {path}: {} {}", answer.status, answer.sample());
            return Err(Error::new(Kind::Io, what));
        }
        Ok(serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }
}
