//! `pacer compare`: two result files, or two commands that take turns.

use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use super::report::read_rows;
use super::values::{seed, whole};
use super::{Run, out};
use crate::bench::compare::interval;
use crate::bench::compare::order::{Side, abba};
use crate::bench::compare::samples::{self, Figure};
use crate::bench::compare::verdict::{self, Compared};
use crate::error::{Error, Kind, Result};
use crate::measure::interrupt::Interrupt;

/// Compares two result files, or two commands that take turns (A B B A, B A A B, …) so that a
/// machine that drifts does the same to both. Says by how much B differs from A, with an interval
/// that holds with 95 % for all figures together.
#[derive(argh::FromArgs, argh::ArgsInfo, Debug, Clone, PartialEq)]
#[argh(help_triggers("--help"))]
#[argh(
    note = "Files are JSON Lines of any bench command, SGLang's bench_serving included; rows of \
    the same case are samples of each other, raw samples inside rows are used where they are kept. \
    Commands: --a and --b with --rounds; `bench-… flags` is this program with --json, anything \
    else runs as it is, and its last line of JSON counts, or else its time. Exit codes: 0 done, 1 \
    failed, 2 usage, 3 a regression beyond --fail-over, 130 interrupted."
)]
pub struct Compare {
    /// result files, A and B
    #[argh(positional, arg_name = "file")]
    pub files: Vec<String>,

    /// command A, such as "bench-one-batch --threads 1" (default: none)
    #[argh(option, arg_name = "COMMAND")]
    pub a: Option<String>,

    /// command B (default: none)
    #[argh(option, arg_name = "COMMAND")]
    pub b: Option<String>,

    /// rounds of two runs of each command (default 5)
    #[argh(option, arg_name = "N", default = "5", from_str_fn(whole::<2, 10_000>))]
    pub rounds: usize,

    /// exit with 3 if a figure is worse by more than so many percent, and surely worse
    /// (default: never)
    #[argh(option, arg_name = "PCT")]
    pub fail_over: Option<f64>,

    /// compare this key of the rows, less is better; put + before it if more is; a list (default:
    /// the command's main figures)
    #[argh(option, arg_name = "KEY")]
    pub metric: Vec<String>,

    /// seed of the bootstrap (default 0)
    #[argh(option, arg_name = "N", default = "0", from_str_fn(seed))]
    pub seed: u64,

    /// print one JSON object instead of lines
    #[argh(switch)]
    pub json: bool,
}

impl Run for Compare {
    const NAME: &'static str = "compare";

    fn run(self) -> Result<()> {
        let limit = self.fail_over.map(|x| {
            let fine = x.is_finite() && x >= 0.0;
            let error = format!("--fail-over {x}: expected a number of at least 0");
            if fine { Ok(x) } else { Err(Error::usage(error)) }
        });
        let limit = limit.transpose()?;
        let (found, settings) = match (self.files.as_slice(), &self.a, &self.b) {
            ([a, b], None, None) => self.files(a, b)?,
            ([], Some(a), Some(b)) => self.commands(a, b)?,
            _ => return Err(Error::usage("give two result files, or --a and --b")),
        };
        self.print(&found, &settings)?;
        let bad: Vec<String> = found
            .iter()
            .filter(|c| limit.is_some_and(|l| c.regressed(l)))
            .map(|c| format!("{} ({})", c.figure.key, c.words()))
            .collect();
        match bad.is_empty() {
            true => Ok(()),
            false => Err(Error::new(Kind::Regression, format!("regression: {}", bad.join("; ")))),
        }
    }
}

type Found = (Vec<Compared>, Vec<String>);

impl Compare {
    /// The figures to compare in rows like `row`.
    fn figures(&self, row: &Value) -> Vec<Figure> {
        if self.metric.is_empty() {
            return samples::figures(row).to_vec();
        }
        let figure = |key: &String| Figure {
            // A command line's few words may live as long as the program.
            key: Box::leak(key.trim_start_matches('+').to_string().into_boxed_str()),
            more_is_better: key.starts_with('+'),
        };
        self.metric.iter().map(figure).collect()
    }

    fn files(&self, a: &str, b: &str) -> Result<Found> {
        let (rows_a, rows_b) = (read_rows(a)?, read_rows(b)?);
        let cases_b = samples::by_case(&rows_b);
        let mut pairs = Vec::new();
        let mut settings = Vec::new();
        for (case, rows) in samples::by_case(&rows_a) {
            let Some((_, others)) = cases_b.iter().find(|(c, _)| *c == case) else {
                settings.push(format!("only in {a}: {case}"));
                continue;
            };
            for line in samples::settings(rows[0], others[0]) {
                if !settings.contains(&line) {
                    settings.push(line);
                }
            }
            for figure in self.figures(rows[0]) {
                let all = |rows: &[&Value]| -> Vec<f64> {
                    rows.iter().flat_map(|r| samples::samples(r, figure)).collect()
                };
                pairs.push((case.clone(), figure, all(&rows), all(others)));
            }
        }
        if pairs.is_empty() {
            return Err(Error::usage(format!("{a} and {b} have no case in common")));
        }
        let confidence = verdict::confidence(pairs.len());
        let compared = pairs.into_iter().map(|(case, figure, a, b)| {
            let change = interval::independent(&a, &b, confidence, self.seed);
            Compared { case, figure, a, b, change }
        });
        Ok((compared.collect(), settings))
    }

    fn commands(&self, a: &str, b: &str) -> Result<Found> {
        let interrupt = Interrupt::on_signals()?;
        let (mut rows_a, mut rows_b) = (Vec::new(), Vec::new());
        let order = abba(self.rounds);
        for (i, side) in order.iter().enumerate() {
            let (command, rows) = match side {
                Side::A => (a, &mut rows_a),
                Side::B => (b, &mut rows_b),
            };
            rows.push(run(command)?);
            if !self.json {
                let (n, of) = (i + 1, order.len());
                out::note(format_args!("run {n} of {of}: {side:?} done"));
            }
            if interrupt.asked() {
                break;
            }
        }
        // Only whole rounds are balanced.
        let rounds = rows_a.len().min(rows_b.len()) / 2;
        let Some(first) = rows_a.first().filter(|_| rounds > 0) else {
            return Err(interrupt.error("no round was complete"));
        };
        let figures = self.figures(first);
        let confidence = verdict::confidence(figures.len());
        let mut found = Vec::new();
        for figure in figures {
            let one = |row: &Value| {
                crate::measure::stats::median(&samples::samples(row, figure)).unwrap_or(f64::NAN)
            };
            let (a, b): (Vec<f64>, Vec<f64>) =
                (rows_a.iter().map(one).collect(), rows_b.iter().map(one).collect());
            let blocks: Vec<(Vec<f64>, Vec<f64>)> = (0..rounds)
                .map(|r| (a[2 * r..2 * r + 2].to_vec(), b[2 * r..2 * r + 2].to_vec()))
                .collect();
            let change = interval::paired(&blocks, confidence, self.seed);
            found.push(Compared { case: samples::case(first), figure, a, b, change });
        }
        let settings = rows_b.first().map_or(Vec::new(), |b| samples::settings(first, b));
        if found.is_empty() {
            return Err(Error::usage("the commands print no figures that can be compared"));
        }
        if interrupt.asked() {
            self.print(&found, &settings)?;
            return Err(interrupt.error(&format!("{rounds} whole rounds are reported")));
        }
        Ok((found, settings))
    }

    fn print(&self, found: &[Compared], settings: &[String]) -> Result<()> {
        if self.json {
            let all: Vec<Value> = found.iter().map(Compared::to_json).collect();
            return out::line(json!({ "compared": all, "settings_that_differ": settings }));
        }
        let mut case = None;
        for compared in found {
            if case != Some(&compared.case) {
                out::line(&compared.case)?;
                case = Some(&compared.case);
            }
            let median = |v: &[f64]| crate::measure::stats::median(v).unwrap_or(f64::NAN);
            let (a, b) = (median(&compared.a), median(&compared.b));
            let words = compared.words();
            out::line(format_args!("  {:<38} {a:>12.5} {b:>12.5}  {words}", compared.figure.key))?;
        }
        if !settings.is_empty() {
            out::line("beside the figures:")?;
            settings.iter().try_for_each(|s| out::line(format_args!("  {s}")))?;
        }
        Ok(())
    }
}

/// Runs a command and gives its last row, or its time.
fn run(command: &str) -> Result<Value> {
    let failed = |what: String| Error::new(Kind::Io, format!("`{command}`: {what}"));
    let own = super::COMMANDS.iter().any(|c| command.split_whitespace().next() == Some(c.name));
    let mut process = if own {
        let program = std::env::current_exe().map_err(|e| failed(e.to_string()))?;
        let mut process = Command::new(program);
        process.args(command.split_whitespace());
        if command.starts_with("bench-") {
            process.arg("--json");
        }
        process
    } else {
        let mut process = Command::new("sh");
        process.args(["-c", command]);
        process
    };
    let begun = Instant::now();
    let output = process.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let seconds = begun.elapsed().as_secs_f64();
    let output = output.map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let row = text.lines().rev().find_map(|l| serde_json::from_str::<Value>(l).ok());
    Ok(match row.filter(Value::is_object) {
        Some(row) => row,
        None => json!({ "kind": "timed", "wall_s": seconds }),
    })
}
